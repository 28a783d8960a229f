"""Answers that are kept for whoever asks the same again: the same promises of all stores."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rag.stores.postgres.answers import PostgresAnswers
from rag.stores.postgres.link import Database
from rag.stores.protocols import Answers, Look
from rag.stores.redis.answers import RedisAnswers
from rag.stores.sqlite.answers import SqliteAnswers
from rag.stores.sqlite.file import Clocks
from tests.support.redis_server import RedisServer

Story = Callable[[Answers], Awaitable[None]]


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    """Runs a story on each kind of store."""

    @asynccontextmanager
    async def opened(bounds: dict[str, Any]) -> AsyncIterator[Answers]:
        if request.param == "sqlite":
            store: Answers = SqliteAnswers(path=tmp_path / "answers.sqlite3", clocks=Clocks.system(), **bounds)
            yield store
            await store.close()
        elif request.param == "postgres":
            database = Database(url=request.getfixturevalue("emptied_database_url"), pool_size=5)
            yield PostgresAnswers(database=database, **bounds)
            await database.close()
        else:
            with RedisServer(tmp_path) as redis:
                store = RedisAnswers(url=redis.url, **bounds)
                yield store
                await store.close()

    def run(story: Story, **bounds: Any) -> None:
        async def whole() -> None:
            async with opened({"ttl_s": 3600, "max_bytes": 1024**2, **bounds}) as store:
                await story(store)

        asyncio.run(whole())

    return run


async def look(store: Answers, key: str = "key", lease_s: float = 60) -> Look:
    return await store.look(key, lease_s=lease_s)


async def keep(store: Answers, key: str, value: bytes) -> None:
    await look(store, key)
    assert (await look(store, key)).may_keep
    await store.keep(key, value)


def test_of_all_who_ask_a_second_time_one_may_keep_and_the_others_wait_for_it(told: Callable[..., None]) -> None:
    async def story(store: Answers) -> None:
        assert await look(store) == Look()
        looks = await asyncio.gather(*(look(store) for _ in range(10)))
        assert [one for one in looks if one.may_keep] == [Look(may_keep=True)]
        assert [one for one in looks if not one.may_keep] == [Look(is_asked=True)] * 9
        await store.keep("key", b"\x00answer\xff")
        assert await look(store) == Look(value=b"\x00answer\xff")
        assert await look(store, "other") == Look()

    told(story)


def test_who_has_no_answer_or_is_gone_lets_the_next_one_ask(told: Callable[..., None]) -> None:
    async def story(store: Answers) -> None:
        await look(store)
        assert (await look(store)).may_keep
        await store.free("key")
        assert (await look(store, lease_s=0.05)).may_keep
        await asyncio.sleep(0.06)
        assert (await look(store)).may_keep

    told(story)


def test_what_was_disliked_is_forgotten_and_not_kept_again(told: Callable[..., None]) -> None:
    async def story(store: Answers) -> None:
        await keep(store, "key", b"wrong")
        await store.evict("key")
        assert await look(store) == Look()
        await store.keep("key", b"on its way")
        assert await look(store) == Look()
        await store.evict("unknown")
        assert [await look(store, "unknown") for _ in range(3)] == [Look()] * 3

    told(story)


def test_answers_end_and_those_unused_for_the_longest_time_make_room(told: Callable[..., None]) -> None:
    async def full(store: Answers) -> None:
        for key in ("one", "two", "three", "four"):
            await keep(store, key, bytes(40))
        found = [key for key in ("one", "two", "three", "four") if (await look(store, key)).value]
        # Redis counts whole seconds: there those of the same second are as old as each other.
        assert (len(found), "four" in found or isinstance(store, RedisAnswers)) == (2, True)

    async def ending(store: Answers) -> None:
        await keep(store, "key", b"old")
        for _ in range(300):
            if (await look(store)).value is None:
                break
            await asyncio.sleep(0.01)
        assert (await look(store)).value is None

    told(full, max_bytes=100)
    told(ending, ttl_s=1)

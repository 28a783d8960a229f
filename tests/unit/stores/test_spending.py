"""What was spent and what is put aside: the same promises of all stores."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rag.errors import StateUnavailable
from rag.stores.postgres.link import Database
from rag.stores.postgres.spending import PostgresSpending
from rag.stores.protocols import Claim, Settlement, Spending
from rag.stores.redis.spending import RedisSpending
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.spending import SqliteSpending
from tests.support.redis_server import RedisServer

Story = Callable[[Spending], Awaitable[None]]


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story on each kind of store."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Spending]:
        if request.param == "sqlite":
            store: Spending = SqliteSpending(path=tmp_path / "spending.sqlite3", clocks=Clocks.system())
            yield store
            await store.close()
            return
        if request.param == "postgres":
            database = Database(url=request.getfixturevalue("emptied_database_url"), pool_size=5)
            yield PostgresSpending(database=database)
            await database.close()
            return
        with RedisServer(tmp_path) as redis:
            store = RedisSpending(url=redis.url)
            yield store
            await store.close()

    def run(story: Story) -> None:
        async def whole() -> None:
            async with opened() as store:
                await story(store)

        asyncio.run(whole())

    return run


def claim(amount: int, subject: str = "site", cap: int = 100) -> Claim:
    return Claim(subject, amount, cap)


def test_no_more_is_put_aside_than_is_left(told: Callable[[Story], None]) -> None:
    async def story(store: Spending) -> None:
        outcomes = await asyncio.gather(
            *(store.reserve(f"call-{n}", [claim(30)], hold_s=60, settled=[]) for n in range(10))
        )
        assert sorted(map(str, outcomes)) == ["None"] * 3 + ["site"] * 7
        assert await store.spent("site") == 90

    told(story)


def test_all_claims_of_a_call_are_put_aside_or_none(told: Callable[[Story], None]) -> None:
    async def story(store: Spending) -> None:
        claims = [claim(30), claim(30, "visitor:a", cap=20)]
        assert await store.reserve("one", claims, hold_s=60, settled=[]) == "visitor:a"
        assert await store.spent("site") == 0

    told(story)


def test_a_settlement_takes_the_place_of_what_was_held_once(told: Callable[[Story], None]) -> None:
    async def story(store: Spending) -> None:
        await store.reserve("one", [claim(90)], hold_s=60, settled=[])
        settlement = Settlement("one", {"site": 40})
        assert await store.reserve("two", [claim(60)], hold_s=60, settled=[settlement]) is None
        await store.settle([settlement, Settlement("two", {"site": 0}), Settlement("unknown", {"site": 50})])
        assert await store.spent("site") == 40
        [today] = await store.days(30)
        assert (today.day, today.amount) == (time.strftime("%Y-%m-%d", time.gmtime()), 40)

    told(story)


def test_what_is_held_for_too_long_counts_as_spent(told: Callable[[Story], None]) -> None:
    async def story(store: Spending) -> None:
        await store.reserve("killed", [claim(90)], hold_s=0, settled=[])
        assert await store.reserve("next", [claim(20)], hold_s=60, settled=[]) == "site"
        await store.settle([Settlement("killed", {"site": 1})])
        assert await store.spent("site") == 90

    told(story)


def test_a_thing_is_announced_by_one_alone(told: Callable[[Story], None]) -> None:
    async def story(store: Spending) -> None:
        assert sorted(await asyncio.gather(*(store.first_to_announce("near") for _ in range(5)))) == [False] * 4 + [
            True
        ]
        assert await store.first_to_announce("spent")

    told(story)


def test_a_store_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    async def story() -> None:
        with RedisServer(tmp_path) as redis:
            store = RedisSpending(url=redis.url)
        with pytest.raises(StateUnavailable):
            await store.reserve("one", [claim(1)], hold_s=60, settled=[])
        await store.close()

    asyncio.run(story())

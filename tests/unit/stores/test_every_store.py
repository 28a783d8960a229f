"""What holds for conversations and limits wherever they are kept: SQLite, Redis, PostgreSQL, also through PgBouncer."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.access.limits import LimitExceeded
from rag.errors import StateUnavailable
from rag.stores.protocols import Conversations
from rag.types import Message
from tests.support.postgres_server import PgBouncer
from tests.support.redis_server import RedisServer
from tests.unit.stores.stories import all_pairs, limited, opened, passes, run_workers, told, turn

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["redis", "postgres", "pgbouncer"])
def shared(request: pytest.FixtureRequest, redis_server: RedisServer, database_url: str, bouncer: PgBouncer) -> str:
    """An empty place that several servers share."""
    redis_server.client.flushall()
    return {"redis": redis_server.url, "postgres": database_url, "pgbouncer": bouncer.url(database_url)}[request.param]


@pytest.fixture(params=["sqlite", "redis", "postgres", "pgbouncer"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer, database_url: str, bouncer: PgBouncer
) -> str:
    redis_server.client.flushall()
    places = {"sqlite": str(tmp_path / "conversations.sqlite3"), "redis": redis_server.url, "postgres": database_url}
    return places.get(request.param) or bouncer.url(database_url)


def test_what_was_said_comes_back_in_order_and_exactly_as_it_was(place: str) -> None:
    odd = [Message("user", "lone \ud800, a pair \ud83d\ude00 of them, a NUL \0, 你好, \r\n"), Message("assistant", "")]

    async def story(conversations: Conversations) -> None:
        assert await conversations.history("unknown") == []
        await conversations.append("one", turn("1"))
        await conversations.append("one", odd)
        await conversations.append("other", turn("x"))
        assert await conversations.history("one") == [*turn("1"), *odd]
        assert await conversations.history("other") == turn("x")

    told(story, place)


def test_only_the_newest_messages_of_a_conversation_stay(place: str) -> None:
    async def story(conversations: Conversations) -> None:
        for number in range(5):
            await conversations.append("one", turn(str(number)))
        await conversations.append("long", [message for number in range(9) for message in turn(str(number))])
        assert await conversations.history("one") == [*turn("3"), *turn("4")]
        assert await conversations.history("long") == [*turn("7"), *turn("8")]
        assert (await conversations.stats())["messages"] == 8

    told(story, place, max_messages=4)


def test_the_idlest_conversations_go_first_when_there_are_too_many(place: str) -> None:
    async def story(conversations: Conversations) -> None:
        for name in ("first", "second", "first", "third"):
            await conversations.append(name, turn(name))
        assert await conversations.history("second") == []
        assert await conversations.history("first") == [*turn("first"), *turn("first")]
        assert await conversations.history("third") == turn("third")
        counts = await conversations.stats()
        assert (counts["sessions"], counts["messages"]) == (2, 6)
        await asyncio.gather(*(conversations.append(f"many {number}", turn("x")) for number in range(40)))
        await conversations.append("last", turn("x"))
        assert (await conversations.stats())["sessions"] == 2

    told(story, place, max_sessions=2)


def test_restoring_is_for_the_unknown_and_what_the_server_remembers_wins(place: str) -> None:
    async def story(conversations: Conversations) -> None:
        claimed = [*turn("1"), *turn("2"), *turn("3")]
        assert await conversations.restore("one", []) == []
        assert (await conversations.stats())["sessions"] == 0
        assert await conversations.restore("one", claimed) == [*turn("2"), *turn("3")]
        assert await conversations.restore("one", turn("a lie")) == [*turn("2"), *turn("3")]
        assert await conversations.restore("one", []) == [*turn("2"), *turn("3")]
        assert await conversations.history("one") == [*turn("2"), *turn("3")]

    told(story, place, max_messages=4)


def test_servers_that_restore_one_conversation_at_once_store_it_once(shared: str) -> None:
    async def restored(text: str) -> list[Message]:
        async with opened(shared, pool_size=1) as conversations:
            return await conversations.restore("one", turn(text))

    async def story(conversations: Conversations) -> None:
        found = await asyncio.gather(*(restored(str(number)) for number in range(8)))
        assert found == [await conversations.history("one")] * 8
        assert len(found[0]) == 2

    told(story, shared)


def test_deleting_forgets_and_does_not_mind_the_unknown(place: str) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        await conversations.append("two", turn("2"))
        await conversations.delete("one")
        await conversations.delete("one")
        assert await conversations.history("one") == []
        assert await conversations.history("two") == turn("2")
        assert (await conversations.stats())["messages"] == 2

    told(story, place)


def test_a_closed_store_says_so(shared: str) -> None:
    async def story() -> None:
        async with opened(shared) as conversations:
            await conversations.append("one", turn("1"))
        with pytest.raises(StateUnavailable, match="closed"):
            await conversations.append("one", turn("2"))

    asyncio.run(story())


@pytest.mark.parametrize(
    ("shared", "max_messages"), [("redis", 20), ("redis", 1_000), ("postgres", 20), ("pgbouncer", 1_000)],
    indirect=["shared"],
)  # fmt: skip
def test_four_processes_that_append_to_one_conversation_lose_and_mix_up_nothing(shared: str, max_messages: int) -> None:
    assert run_workers("append_many", shared, max_messages, 60) == [["done"]] * 4

    async def story(conversations: Conversations) -> None:
        said = [message.content for message in await conversations.history("shared")]
        assert len(said) == min(max_messages, 480)
        assert all_pairs(said)
        for worker in range(4):
            own = [int(text.split()[-1]) for text in said if text.startswith(f"answer {worker} ")]
            assert own == list(range(60 - len(own), 60))

    told(story, shared, max_messages=max_messages)


def test_two_hundred_hits_at_once_over_four_processes_pass_exactly_twenty(shared: str) -> None:
    answers = [answer for answers in run_workers("hit_fifty_times", shared) for answer in answers]
    assert len(answers) == 200
    assert sum(answers) == 20


def test_servers_whose_clocks_disagree_by_days_count_alike_and_a_jump_gains_nothing(shared: str) -> None:
    async def story() -> None:
        walls = [1_800_000_000.0, 1_800_000_000.0 + 3 * DAY_S, 1_600_000_000.0]
        servers = [limited(shared, lambda n=n: walls[n]) for n in range(3)]
        passed = [await passes(servers[n % 3]) for n in range(30)]
        assert passed == [True] * 20 + [False] * 10
        for jump_s in (DAY_S, -2 * DAY_S):
            walls[0] += jump_s
            with pytest.raises(LimitExceeded) as refusal:
                await servers[0].check("chat", "192.0.2.1")
            assert 50 <= refusal.value.retry_after_s <= 60
            assert walls[0] + 45 < float(refusal.value.headers["X-RateLimit-Reset"]) <= walls[0] + 61
        for server in servers:
            await server.close()

    asyncio.run(story())

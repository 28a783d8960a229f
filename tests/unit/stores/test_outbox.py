"""Messages that have to reach somebody: the same promises of all outboxes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rag.stores.outbox import MOST_MESSAGES, Outbox
from rag.stores.postgres.link import Database
from rag.stores.postgres.outbox import PostgresOutbox
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.outbox import SqliteOutbox

Story = Callable[[Outbox, Outbox], Awaitable[None]]


@pytest.fixture(params=["sqlite", "postgres"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story on two processes' outboxes of each kind of store."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Outbox]:
        if request.param == "sqlite":
            store: Outbox = SqliteOutbox(path=tmp_path / "outbox.sqlite3", clocks=Clocks.system())
            yield store
            await store.close()
            return
        database = Database(url=request.getfixturevalue("emptied_database_url"), pool_size=5)
        yield PostgresOutbox(database=database)
        await database.close()

    def run(story: Story) -> None:
        async def whole() -> None:
            async with opened() as one, opened() as other:
                await story(one, other)

        asyncio.run(whole())

    return run


def test_what_is_put_once_is_put_once_by_whichever_process_and_later_if_there_was_no_room(
    told: Callable[[Story], None],
) -> None:
    async def story(one: Outbox, other: Outbox) -> None:
        assert not await one.was_put("week 1")
        put = await asyncio.gather(
            *(box.put([(f"id{n}", "mail", b"")], once="week 1") for n, box in enumerate([one, other]))
        )
        assert sorted(put) == [False, True]
        assert await other.was_put("week 1")
        assert await one.count() == 1
        await one.put([(f"m{number}", "mail", b"") for number in range(MOST_MESSAGES - 1)])
        assert not await one.put([("late", "mail", b"")], once="week 2")
        assert not await one.was_put("week 2")

    told(story)


def test_a_message_is_one_processs_for_its_lease_and_comes_again_until_it_is_removed(
    told: Callable[[Story], None],
) -> None:
    async def story(one: Outbox, other: Outbox) -> None:
        messages = [(f"m{number}", "mail", bytes([number, 0, 255])) for number in range(20)]
        assert await one.put(messages)
        taken = await asyncio.gather(*(box.next_due(lease_s=600) for box in [one, other] * 15))
        ids = [waiting.id for waiting in taken if waiting is not None]
        assert sorted(ids) == sorted(identity for identity, *_ in messages), "each by one alone"
        await one.later("m3", after_s=0)
        again = await other.next_due(lease_s=0)
        assert again is not None
        assert (again.id, again.channel, again.payload, again.tries) == ("m3", "mail", b"\x03\x00\xff", 1)
        assert 0 <= again.age_s < 60
        killed = await one.next_due(lease_s=600)  # its lease is over, and nobody removed it
        assert killed is not None
        assert (killed.id, killed.tries) == ("m3", 2)
        await other.remove("m3")
        assert (await one.next_due(lease_s=0), await one.count()) == (None, 19)

    told(story)

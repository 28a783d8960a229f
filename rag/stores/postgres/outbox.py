"""Messages that have to reach somebody, for all servers that share one PostgreSQL: any of them delivers a message.

Who takes one has it alone for the time of a lease; when its process is killed, another takes it after that.
"""

from typing import Final

from rag.stores.outbox import KEPT_ONCE_S, MOST_MESSAGES, Waiting
from rag.stores.postgres.link import Database

PUT: Final = "SELECT rag.put_messages(%s::text[], %s::text[], %s::bytea[], %s, %s, %s)"
_NEXT_DUE: Final = """
UPDATE rag.outbox SET due_at = clock_timestamp() + make_interval(secs => %s), tries = tries + 1 WHERE id = (
    SELECT id FROM rag.outbox WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id, channel, payload, extract(epoch FROM clock_timestamp() - put_at)::float8, tries
"""


class PostgresOutbox:
    """`Database` is the caller's to close."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def put(self, messages: list[tuple[str, str, bytes]], *, once: str = "") -> bool:
        columns = [[message[place] for message in messages] for place in range(3)]
        [(is_put,)] = await self._database.rows(PUT, (*columns, once, MOST_MESSAGES, KEPT_ONCE_S))
        return bool(is_put)

    async def was_put(self, once: str) -> bool:
        return bool(await self._database.rows("SELECT 1 FROM rag.put_once WHERE what = %s", (once,)))

    async def next_due(self, *, lease_s: float) -> Waiting | None:
        for identity, channel, payload, age_s, tries in await self._database.rows(_NEXT_DUE, (lease_s,)):
            return Waiting(identity, channel, payload, age_s, tries - 1)
        return None

    async def remove(self, identity: str) -> None:
        await self._database.rows("DELETE FROM rag.outbox WHERE id = %s", (identity,))

    async def later(self, identity: str, *, after_s: float) -> None:
        due = "UPDATE rag.outbox SET due_at = clock_timestamp() + make_interval(secs => %s) WHERE id = %s"
        await self._database.rows(due, (after_s, identity))

    async def count(self) -> int:
        [(count,)] = await self._database.rows("SELECT count(*) FROM rag.outbox")
        return int(count)

    async def close(self) -> None:
        """Nothing to do: the database is shared."""

"""Answers that are kept for whoever asks the same again, for all servers that share one PostgreSQL.

What counts and keeps is a function of the schema, `migrations/0002_owner.sql`, and so one statement.
"""

from rag.stores.postgres.link import Database
from rag.stores.protocols import KEPT_FROM, Look

_EVICT = """
INSERT INTO rag.answers (key, asked, ends_at, barred)
VALUES (%s, 0, clock_timestamp() + make_interval(secs => %s), true)
ON CONFLICT (key) DO UPDATE SET value = NULL, size = 0, barred = true, ends_at = excluded.ends_at
"""


class PostgresAnswers:
    """Rows live for `ttl_s`; of more than `max_bytes` of answers those unused for the longest time go.

    `Database` is the caller's to close.
    """

    def __init__(self, *, database: Database, ttl_s: float, max_bytes: int) -> None:
        self._database = database
        self._ttl_s = float(ttl_s)
        self._max_bytes = max_bytes

    async def look(self, key: str, *, lease_s: float) -> Look:
        [(value, may_keep, is_asked)] = await self._database.rows(
            "SELECT * FROM rag.look_for_answer(%s, %s, %s, %s)", (key, float(lease_s), self._ttl_s, KEPT_FROM)
        )
        return Look(value=value, may_keep=may_keep, is_asked=is_asked)

    async def keep(self, key: str, value: bytes) -> None:
        await self._database.rows("SELECT rag.keep_answer(%s, %s, %s, %s)", (key, value, self._ttl_s, self._max_bytes))

    async def free(self, key: str) -> None:
        await self._database.rows("UPDATE rag.answers SET asking_until = '-infinity' WHERE key = %s", (key,))

    async def evict(self, key: str) -> None:
        await self._database.rows(_EVICT, (key, self._ttl_s))

    async def close(self) -> None:
        """Nothing to do: the database is shared."""

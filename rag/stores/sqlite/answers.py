"""Answers that are kept for whoever asks the same again, for all worker processes, in one SQLite file."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from rag.stores.protocols import KEPT_FROM, Look
from rag.stores.sqlite.file import Clocks, StateFile

_Result = TypeVar("_Result")

_MIGRATIONS = (
    """
    CREATE TABLE answers (
        key TEXT PRIMARY KEY,
        asked INTEGER NOT NULL,           -- how often, while the row lives
        ends_at REAL NOT NULL,            -- of the row, and of the answer in it
        asking_until REAL NOT NULL DEFAULT 0,
        barred INTEGER NOT NULL DEFAULT 0,
        used_at REAL NOT NULL DEFAULT 0,
        size INTEGER NOT NULL DEFAULT 0,  -- of value; 0 where there is none
        value BLOB
    );
    CREATE INDEX answers_by_end ON answers (ends_at);
    CREATE INDEX answers_by_use ON answers (used_at, size);
    """,
)
_SWEPT_AT_ONCE = 5
_USE_NOTED_EVERY_S = 60.0


class SqliteAnswers:
    """Rows live for `ttl_s`; of more than `max_bytes` of answers those unused for the longest time go."""

    def __init__(self, *, path: Path, clocks: Clocks, ttl_s: float, max_bytes: int) -> None:
        self._file = StateFile(
            path=path, migrations=_MIGRATIONS, newest_sql="SELECT max(used_at) FROM answers",
            synchronous="OFF", busy_timeout_ms=500, clocks=clocks, overwrites_deleted=True,
        )  # fmt: skip
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")

    async def look(self, key: str, *, lease_s: float) -> Look:
        return await self._in_thread(lambda: self._look(key, lease_s))

    async def keep(self, key: str, value: bytes) -> None:
        await self._in_thread(lambda: self._keep(key, value))

    async def free(self, key: str) -> None:
        await self._in_thread(lambda: self._change("UPDATE answers SET asking_until = 0 WHERE key = ?", key))

    async def evict(self, key: str) -> None:
        await self._in_thread(lambda: self._evict(key))

    async def close(self) -> None:
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _look(self, key: str, lease_s: float) -> Look:
        now = self._file.now_s()
        # A hit waits for no writer.
        rows = self._file.read(
            "SELECT value, used_at FROM answers WHERE key = ? AND size > 0 AND ends_at > ?", (key, now)
        )
        if rows:
            [(value, used_at)] = rows
            if used_at < now - _USE_NOTED_EVERY_S:
                self._change("UPDATE answers SET used_at = ? WHERE key = ?", now, key)
            return Look(value=value)
        with self._file.transaction() as connection:
            now = self._file.now_s()
            connection.execute(
                "DELETE FROM answers WHERE key IN "
                "(SELECT key FROM answers WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)",
                (now, _SWEPT_AT_ONCE),
            )
            connection.execute("DELETE FROM answers WHERE key = ? AND ends_at <= ?", (key, now))
            connection.execute(
                "INSERT INTO answers (key, asked, ends_at) VALUES (?, 1, ?) "
                "ON CONFLICT (key) DO UPDATE SET asked = asked + 1",
                (key, now + self._ttl_s),
            )
            asked, asking_until, barred = connection.execute(
                "SELECT asked, asking_until, barred FROM answers WHERE key = ?", (key,)
            ).get
            if barred or asked < KEPT_FROM:
                return Look()
            if asking_until > now:
                return Look(is_asked=True)
            connection.execute("UPDATE answers SET asking_until = ? WHERE key = ?", (now + lease_s, key))
            return Look(may_keep=True)

    def _keep(self, key: str, value: bytes) -> None:
        with self._file.transaction() as connection:
            now = self._file.now_s()
            connection.execute(
                "UPDATE answers SET value = ?, size = ?, used_at = ?, ends_at = ?, asking_until = 0 "
                "WHERE key = ? AND NOT barred",
                (value, len(value), now, now + self._ttl_s, key),
            )
            total: int = connection.execute("SELECT coalesce(sum(size), 0) FROM answers").get
            if total <= self._max_bytes:
                return
            idlest_first: Any = connection.execute("SELECT key, size FROM answers WHERE size > 0 ORDER BY used_at")
            for idlest, size in idlest_first.fetchall():
                if total <= self._max_bytes:
                    break
                connection.execute("DELETE FROM answers WHERE key = ?", (idlest,))
                total -= size

    def _evict(self, key: str) -> None:
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO answers (key, asked, ends_at, barred) VALUES (?, 0, ?, 1) ON CONFLICT (key) DO UPDATE SET "
                "value = NULL, size = 0, barred = 1, ends_at = excluded.ends_at",
                (key, self._file.now_s() + self._ttl_s),
            )

    def _change(self, statement: str, *values: str | float) -> None:
        with self._file.transaction() as connection:
            connection.execute(statement, values)

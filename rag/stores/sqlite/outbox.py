"""Messages that have to reach somebody, kept until they did, for all worker processes, in one SQLite file.

What is delivered is removed at once, and what was deleted is overwritten in the file.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rag.stores.outbox import KEPT_ONCE_S, MOST_MESSAGES, Waiting
from rag.stores.sqlite.file import Clocks, StateFile

_Result = TypeVar("_Result")

NEWEST_SQL = "SELECT max(put_at) FROM outbox"
MIGRATIONS = (
    """
    CREATE TABLE outbox (
        id TEXT PRIMARY KEY,
        channel TEXT NOT NULL,
        payload BLOB NOT NULL,
        put_at REAL NOT NULL,
        due_at REAL NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX outbox_by_due ON outbox (due_at);
    """,
    """
    CREATE TABLE put_once (what TEXT PRIMARY KEY, put_at REAL NOT NULL) WITHOUT ROWID;
    """,
)


class SqliteOutbox:
    """One thread of each process owns the connection; a call is one hop to it and one transaction."""

    def __init__(self, *, path: Path, clocks: Clocks) -> None:
        self._file = StateFile(
            path=path, migrations=MIGRATIONS, newest_sql=NEWEST_SQL,
            synchronous="NORMAL", busy_timeout_ms=2_000, clocks=clocks, overwrites_deleted=True,
        )  # fmt: skip
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")

    async def put(self, messages: list[tuple[str, str, bytes]], *, once: str = "") -> bool:
        return await self._in_thread(lambda: self._put(messages, once))

    async def was_put(self, once: str) -> bool:
        return await self._in_thread(lambda: bool(self._file.read("SELECT 1 FROM put_once WHERE what = ?", (once,))))

    async def next_due(self, *, lease_s: float) -> Waiting | None:
        return await self._in_thread(lambda: self._next_due(lease_s))

    async def remove(self, identity: str) -> None:
        await self._in_thread(lambda: self._remove(identity))

    async def later(self, identity: str, *, after_s: float) -> None:
        await self._in_thread(lambda: self._later(identity, after_s))

    async def count(self) -> int:
        return await self._in_thread(lambda: int(self._file.read("SELECT count(*) FROM outbox")[0][0]))

    async def close(self) -> None:
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _put(self, messages: list[tuple[str, str, bytes]], once: str) -> bool:
        with self._file.transaction() as connection:
            waiting: int = connection.execute("SELECT count(*) FROM outbox").get
            if waiting + len(messages) > MOST_MESSAGES:
                return False
            now = self._file.now_s()
            if once:
                connection.execute("INSERT INTO put_once VALUES (?, ?) ON CONFLICT DO NOTHING", (once, now))
                if not connection.changes():
                    return False
                connection.execute("DELETE FROM put_once WHERE put_at < ?", (now - KEPT_ONCE_S,))
            connection.executemany(
                "INSERT INTO outbox (id, channel, payload, put_at, due_at) VALUES (?, ?, ?, ?, ?)",
                [(identity, channel, payload, now, now) for identity, channel, payload in messages],
            )
            return True

    def _next_due(self, lease_s: float) -> Waiting | None:
        now = self._file.now_s()
        if not self._file.read("SELECT 1 FROM outbox WHERE due_at <= ? LIMIT 1", (now,)):
            return None  # most often; it takes no lock
        with self._file.transaction() as connection:
            row = connection.execute(
                "UPDATE outbox SET due_at = ?, tries = tries + 1 WHERE id = "
                "(SELECT id FROM outbox WHERE due_at <= ? ORDER BY due_at LIMIT 1) "
                "RETURNING id, channel, payload, put_at, tries",
                (now + lease_s, now),
            ).get
            return None if row is None else Waiting(row[0], row[1], row[2], now - row[3], row[4] - 1)

    def _remove(self, identity: str) -> None:
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (identity,))
        self._file.empty_log()

    def _later(self, identity: str, after_s: float) -> None:
        with self._file.transaction() as connection:
            connection.execute("UPDATE outbox SET due_at = ? WHERE id = ?", (self._file.now_s() + after_s, identity))

"""What was spent today, and what is put aside for calls that run, for all worker processes, in one SQLite file."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import apsw

from rag.stores.protocols import DAY_S, SITE, Claim, Settlement, Spent
from rag.stores.sqlite.file import Clocks, StateFile

_Result = TypeVar("_Result")

NEWEST_SQL = "SELECT max(day) * 86400.0 FROM spending"
MIGRATIONS = (
    """
    CREATE TABLE spending (
        day INTEGER NOT NULL,        -- days since 1970 in UTC
        subject TEXT NOT NULL,
        spent INTEGER NOT NULL,
        PRIMARY KEY (day, subject)
    ) WITHOUT ROWID;
    CREATE TABLE held (
        id TEXT NOT NULL,
        subject TEXT NOT NULL,
        day INTEGER NOT NULL,
        amount INTEGER NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (id, subject)
    ) WITHOUT ROWID;
    CREATE INDEX held_by_subject ON held (subject, day);
    CREATE INDEX held_by_end ON held (until);
    CREATE TABLE announced (day INTEGER NOT NULL, what TEXT NOT NULL, PRIMARY KEY (day, what)) WITHOUT ROWID;
    """,
)
_SPEND = """
INSERT INTO spending VALUES (?, ?, ?) ON CONFLICT (day, subject) DO UPDATE SET spent = spent + excluded.spent
"""
_USED = """
SELECT coalesce((SELECT spent FROM spending WHERE day = ? AND subject = ?), 0)
     + coalesce((SELECT sum(amount) FROM held WHERE day = ? AND subject = ?), 0)
"""


class SqliteSpending:
    """One thread of each process owns the connection; a call is one hop to it and one transaction."""

    def __init__(self, *, path: Path, clocks: Clocks) -> None:
        self._file = StateFile(
            path=path, migrations=MIGRATIONS, newest_sql=NEWEST_SQL,
            synchronous="NORMAL", busy_timeout_ms=2_000, clocks=clocks,
        )  # fmt: skip
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spending")

    async def reserve(
        self, identity: str, claims: Sequence[Claim], *, hold_s: float, settled: Sequence[Settlement]
    ) -> str | None:
        return await self._in_thread(lambda: self._reserve(identity, claims, hold_s, settled))

    async def settle(self, settled: Sequence[Settlement]) -> None:
        await self._in_thread(lambda: self._settle(settled))

    async def spent(self, subject: str) -> int:
        return await self._in_thread(lambda: self._spent(subject))

    async def first_to_announce(self, what: str) -> bool:
        return await self._in_thread(lambda: self._announce(what))

    async def days(self, count: int) -> list[Spent]:
        return await self._in_thread(lambda: self._days(count))

    async def close(self) -> None:
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _today(self) -> int:
        return int(self._file.now_s() // DAY_S)

    def _reserve(
        self, identity: str, claims: Sequence[Claim], hold_s: float, settled: Sequence[Settlement]
    ) -> str | None:
        with self._file.transaction() as connection:
            _write(connection, settled)
            now, day = self._file.now_s(), self._today()
            # Who held these is gone, and may have spent them: the worst case is what has become of them.
            connection.execute(
                "INSERT INTO spending SELECT day, subject, sum(amount) FROM held WHERE until <= ? "
                "GROUP BY day, subject ON CONFLICT (day, subject) DO UPDATE SET spent = spent + excluded.spent",
                (now,),
            )
            connection.execute("DELETE FROM held WHERE until <= ?", (now,))
            for claim in claims:
                used: int = connection.execute(_USED, (day, claim.subject, day, claim.subject)).get
                if used + claim.amount > claim.cap:
                    return claim.subject
            connection.executemany(
                "INSERT INTO held VALUES (?, ?, ?, ?, ?)",
                [(identity, claim.subject, day, claim.amount, now + hold_s) for claim in claims],
            )
        return None

    def _settle(self, settled: Sequence[Settlement]) -> None:
        with self._file.transaction() as connection:
            _write(connection, settled)

    def _spent(self, subject: str) -> int:
        day = self._today()
        ((used,),) = self._file.read(_USED, (day, subject, day, subject))
        return int(used)

    def _announce(self, what: str) -> bool:
        with self._file.transaction() as connection:
            today = self._today()
            connection.execute("DELETE FROM announced WHERE day < ?", (today,))
            connection.execute("DELETE FROM spending WHERE day < ? AND subject <> ?", (today - 1, SITE))
            connection.execute("INSERT INTO announced VALUES (?, ?) ON CONFLICT DO NOTHING", (today, what))
            return connection.changes() > 0

    def _days(self, count: int) -> list[Spent]:
        rows = self._file.read(
            "SELECT day, spent FROM spending WHERE subject = ? AND day > ? ORDER BY day", (SITE, self._today() - count)
        )
        return [Spent(datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat(), spent) for day, spent in rows]


def _write(connection: apsw.Connection, settled: Sequence[Settlement]) -> None:
    for one in settled:
        for subject, amount in one.amounts.items():
            # One that is held no more has run out, and was charged with all of it.
            day: int | None = connection.execute(
                "DELETE FROM held WHERE id = ? AND subject = ? RETURNING day", (one.id, subject)
            ).get
            if day is not None and amount:
                connection.execute(_SPEND, (day, subject, amount))

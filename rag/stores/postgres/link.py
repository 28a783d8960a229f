"""How PostgreSQL is reached: a pool for each worker, short time-outs, nothing sent twice, no password shown.

Works through PgBouncer in transaction mode: each call is one statement that is a transaction by itself, nothing is
prepared, nothing is set for a session, no lock outlives its transaction. It must not know what is stored.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from rag.errors import StateUnavailable
from rag.setting_parsers import shown_address

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
Values = Sequence[Any] | Mapping[str, Any]

ANSWER_TIMEOUT_S = 2.0
"""How long a statement may take, and how long one waits for a free connection."""

OWNERS_TIMEOUT_S = 30.0
"""How long one may take that the owner asks for, which reads much. That it is late says nothing of the database."""

PROBE_INTERVAL_S = 1.0
"""How often a database that fell silent is asked whether it is back, by each worker and by nobody else."""

CONNECTION: Final[dict[str, Any]] = {
    "autocommit": True, "prepare_threshold": None, "connect_timeout": 2, "application_name": "rag-server",
}  # fmt: skip
"""Of every connection. A prepared statement is one connection's own, and PgBouncer gives each statement another."""

FAILURES: Final = (psycopg.Error, OSError, TimeoutError)
"""Everything that a call to PostgreSQL may raise."""

_NOT_SERVING: Final = ("08", "25006", "53300", "57P", "F0000", "58")
"""Beginnings of the states that say that this server, for now, serves nobody: no connection, a replica, too many
connections, shutting down or starting up, no files."""


def to_bytes(words: str) -> bytes:
    """What visitors write is stored as bytes: lone surrogates and NULs have to come back as they were."""
    return words.encode("utf-8", "surrogatepass")


def from_bytes(words: bytes) -> str:
    return words.decode("utf-8", "surrogatepass")


def unavailable(url: str, error: BaseException) -> StateUnavailable:
    """The house's error for one of `FAILURES`."""
    reason = str(error).strip().replace("\n", " ")
    return StateUnavailable(
        f"{shown_address(url)}: {type(error).__name__}: {reason}; check DATABASE_URL and that PostgreSQL runs"
    )


def is_silence(error: BaseException) -> bool:
    """Whether the next call would fare no better, and wait for nothing."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is not None:
        return state.startswith(_NOT_SERVING)
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError))


def has_hung_up(connection: "psycopg.AsyncConnection[Any] | psycopg.Connection[Any]") -> bool:
    """Whether the other side of an idle connection is gone, as far as this machine knows; asks nobody."""
    try:
        # The first reads why, the second that nothing comes after.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return False


@contextlib.contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own for a command, without a bound on how long a statement takes. Raises StateUnavailable."""
    try:
        with contextlib.closing(psycopg.connect(url, **CONNECTION)) as connection:
            yield connection
    except FAILURES as error:
        raise unavailable(url, error) from error


class _Bounded(psycopg.AsyncConnection[Any]):
    """Waits `ANSWER_TIMEOUT_S` for an answer, also of a server that is frozen. What has arrived is never late."""

    own_timeout_s: float | None = None
    """Another one, for the statement that runs."""

    async def wait(
        self,
        gen: PQGen[_Result],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109  as the base does
    ) -> _Result:
        try:
            return await super().wait(gen, interval, timeout or self.own_timeout_s or ANSWER_TIMEOUT_S)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                await self.close()  # its answer may still come, and is not that of the next question
            raise


class Database:
    """One worker's connections, opened when first used, for all its stores.

    When the database falls silent, whoever is waiting waits `ANSWER_TIMEOUT_S` at most. From then on every call fails
    at once, while one task asks every `PROBE_INTERVAL_S` whether it is back; it then begins with one new connection,
    so that those from before are not found dead by visitors, and a thousand who waited do not arrive together.
    """

    def __init__(self, *, url: str, pool_size: int) -> None:
        self._url = url
        self._pool_size = pool_size
        self._pool: AsyncConnectionPool[_Bounded] | None = None
        self._opening = asyncio.Lock()
        self._busy = self._busiest = 0
        self._running: set[asyncio.Future[Any]] = set()
        self._silent = False
        self._probe: asyncio.Task[None] | None = None
        self._closed = False

    async def rows(
        self, statement: LiteralString, values: Values = (), *, timeout_s: float | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement, which has happened as a whole or not at all, also where the caller is cancelled.

        One with a `timeout_s` of its own says nothing of the others when it is late. Raises StateUnavailable.
        """
        if self._closed:  # a stream that outlives the shutdown still wants to remember its answer
            raise StateUnavailable("the database is closed, because the server is stopping")
        # Not the caller's to cancel: psycopg would open another connection to have the statement stopped.
        call = asyncio.ensure_future(self._rows(statement, values, timeout_s))
        self._running.add(call)
        call.add_done_callback(self._ended)
        return await asyncio.shield(call)

    async def check(self) -> None:
        """Raises StateUnavailable where nothing can be written now."""
        [(is_replica,)] = await self.rows("SELECT current_setting('transaction_read_only')::boolean")
        if is_replica:
            raise StateUnavailable(f"{shown_address(self._url)} is read-only; name the primary in DATABASE_URL")

    def connections(self) -> dict[str, int]:
        """How many are open, how many may be, and how many were at work at once since this was asked last."""
        found: dict[str, int] = self._pool.get_stats() if self._pool is not None else {}
        busiest, self._busiest = self._busiest, self._busy
        return {"busy": busiest, "open": found.get("pool_size", 0), "allowed": self._pool_size}

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)  # each has its time-outs
        if self._probe is not None:
            self._probe.cancel()
        await self._let_go()

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._running.discard(call)
        if not call.cancelled():
            call.exception()  # seen, even where the caller is gone

    async def _rows(self, statement: LiteralString, values: Values, timeout_s: float | None) -> list[tuple[Any, ...]]:
        try:
            async with self._connection() as connection:
                self._busy += 1
                self._busiest = max(self._busiest, self._busy)
                connection.own_timeout_s = timeout_s
                try:
                    cursor = await connection.execute(statement, values or None)
                    return await cursor.fetchall() if cursor.description else []
                finally:
                    self._busy -= 1
                    connection.own_timeout_s = None
        except FAILURES as error:
            # A pool whose connections are all at work is overloaded, and no sign that the database is gone.
            is_overload = isinstance(error, PoolTimeout) and self._busy >= self._pool_size
            if is_silence(error) and not is_overload and timeout_s is None:
                self._fall_silent()
            raise unavailable(self._url, error) from error

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Bounded]:
        while True:
            pool = await self._opened()
            try:
                connection = await pool.getconn()
            except PoolClosed:
                self._refuse_while_silent()
                continue
            try:
                self._refuse_while_silent()  # who stood in line meanwhile goes home, or the line would ask one by one
                if not has_hung_up(connection):
                    yield connection
                    return
            finally:
                await pool.putconn(connection)
            # The database was restarted, and no visitor shall find that out from the other connections.
            if self._pool is pool:
                await self._let_go()

    def _refuse_while_silent(self) -> None:
        if self._silent:
            raise StateUnavailable(f"{shown_address(self._url)}: silent; nobody waits for it until it answers again")

    async def _opened(self) -> AsyncConnectionPool[_Bounded]:
        self._refuse_while_silent()
        async with self._opening:
            self._refuse_while_silent()
            if self._pool is None:
                await self._prove()
                self._pool = AsyncConnectionPool(
                    self._url, connection_class=_Bounded, kwargs=CONNECTION, open=False,
                    min_size=1, max_size=self._pool_size, timeout=ANSWER_TIMEOUT_S, max_lifetime=1800, max_idle=300,
                )  # fmt: skip
                await self._pool.open()
            return self._pool

    async def _prove(self) -> None:
        """Asks on a connection of its own whether the database serves, and holds what this release knows."""
        from rag.stores.postgres import schema

        connection = await _Bounded.connect(self._url, **CONNECTION)
        try:
            cursor = await connection.execute("SELECT current_setting('transaction_read_only')::boolean")
            [(is_replica,)] = await cursor.fetchall()
            try:
                applied = [schema.Applied(*row) for row in await (await connection.execute(schema.APPLIED)).fetchall()]
            except schema.NO_SCHEMA:
                applied = []
        finally:
            await connection.close()
        fault = "is read-only; name the primary in DATABASE_URL" if is_replica else schema.fault(applied)
        if fault:
            self._fall_silent()
            raise StateUnavailable(f"{shown_address(self._url)}: {fault}")

    def _fall_silent(self) -> None:
        self._silent = True
        if not self._closed and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        log.warning("PostgreSQL is silent", extra={"address": shown_address(self._url)})
        await self._let_go()
        told = ""
        while self._silent:
            try:
                await self._prove()
                self._silent = False
            except StateUnavailable as error:
                if str(error) != told:
                    log.warning("PostgreSQL cannot be used", extra={"reason": (told := str(error))})
            except FAILURES:
                pass
            if self._silent:
                await asyncio.sleep(PROBE_INTERVAL_S)
        log.info("PostgreSQL answers again", extra={"address": shown_address(self._url)})

    async def _let_go(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(timeout=0.5)

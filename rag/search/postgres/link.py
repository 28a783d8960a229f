"""How the database that keeps builds is reached: a few connections, bounded waiting, one more try, no password shown.

Works through PgBouncer in transaction mode: each call is one statement by itself, nothing is prepared or set for a
session. May be used by threads. It must not know what is stored.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.abc import PQGen
from psycopg.adapt import Dumper
from psycopg.pq import Format

from rag.errors import BuildMissing, BuildUnreachable
from rag.setting_parsers import shown_address

_Result = TypeVar("_Result")

ANSWER_TIMEOUT_S: Final = 5.0
"""How long an answer may take that a visitor waits for."""
AT_ONCE: Final = 4
"""Connections of a process, at most: the threads that search, and one for the look at what is live."""
REFUSED_S: Final = 1.0
"""Once the database does not answer, how long nobody else asks."""
CONNECTION: Final[dict[str, Any]] = {
    "autocommit": True, "prepare_threshold": None, "connect_timeout": 2, "application_name": "rag-server index",
}  # fmt: skip
_GONE: Final = (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName, errors.UndefinedObject)
REMEDY: Final = "check VECTOR_DB_URL and that PostgreSQL runs"

Statement = sql.Composed | sql.SQL


class Halves:
    """A vector as pgvector's halfvec is sent: its dimensions, two bytes of nothing, and float16, big-endian."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent


class _HalvesDumper(Dumper):
    format = Format.BINARY  # of no type that PostgreSQL has by itself: where it stands says that it is one

    def dump(self, obj: Halves) -> bytes:
        return obj.sent


class _Bounded(psycopg.Connection[Any]):
    """Waits `timeout_s` for an answer, also of a server that is frozen; None waits for ever."""

    timeout_s: float | None = ANSWER_TIMEOUT_S

    def wait(self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = None) -> _Result:
        try:
            return super().wait(gen, interval, timeout or self.timeout_s)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # its answer may still come, and is not that of the next question
            raise


def connected(url: str) -> _Bounded:
    """A new connection. Raises what psycopg does."""
    connection = _Bounded.connect(url, **CONNECTION)
    connection.adapters.register_dumper(Halves, _HalvesDumper)
    return connection


def unreachable(url: str, error: BaseException) -> BuildUnreachable:
    """The house's error for whatever PostgreSQL says."""
    reason = str(error).strip().replace("\n", " ")
    return BuildUnreachable(f"{shown_address(url)}: {type(error).__name__}: {reason}; {REMEDY}")


class Link:
    """One process's connections, opened when they are needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.where = shown_address(url)
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._idle: list[_Bounded] = []
        self._refused_until_s = 0.0
        self._closed = False

    def rows(
        self, statement: Statement, values: Sequence[Any] = (), *, timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement, which may be sent twice where a connection broke; bytes for unknown types.

        Raises `BuildUnreachable`, and `BuildMissing` for what is not there.
        """
        if time.monotonic() < self._refused_until_s:
            raise BuildUnreachable(f"{self.where}: does not answer, and was asked a moment ago; {REMEDY}")
        with self._places:
            try:
                return self._asked(statement, values, timeout_s)
            except _GONE as error:
                raise BuildMissing(f"{self.where}: no such build ({error}); run: python -m indexer info") from None
            except psycopg.Error as error:
                if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
                    self._refused_until_s = time.monotonic() + REFUSED_S
                raise unreachable(self._url, error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_Bounded]:
        """A connection of its own with a transaction around it, for a command; waits for ever. Raises as `rows`."""
        try:
            with contextlib.closing(connected(self._url)) as connection, connection.transaction():
                connection.timeout_s = None
                yield connection
        except psycopg.Error as error:
            raise unreachable(self._url, error) from error

    @contextlib.contextmanager
    def holding(self, lock: Statement) -> Iterator[bool]:
        """Whether `lock`, of a transaction, could be had; it is held meanwhile, or until its connection breaks.

        One of the session would be another's behind PgBouncer. An open transaction that has changed nothing and runs no
        statement keeps no row from being cleared away.
        """
        try:
            connection = connected(self._url)
            connection.autocommit = False
            [(held,)] = connection.execute(lock).fetchall()
        except psycopg.Error as error:
            raise unreachable(self._url, error) from error
        with contextlib.closing(connection):
            yield bool(held)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _asked(self, statement: Statement, values: Sequence[Any], timeout_s: float | None) -> list[tuple[Any, ...]]:
        while self._idle:
            with contextlib.suppress(IndexError):
                connection = self._idle.pop()
                began_s = time.monotonic()
                try:
                    return self._answer(connection, statement, values, timeout_s)
                except psycopg.OperationalError:
                    # One that died while idle says so at once; who waited for an answer does not wait once more.
                    if not connection.closed or time.monotonic() - began_s > 1.0:
                        raise
        return self._answer(connected(self._url), statement, values, timeout_s)

    def _answer(
        self, connection: _Bounded, statement: Statement, values: Sequence[Any], timeout_s: float | None
    ) -> list[tuple[Any, ...]]:
        connection.timeout_s = timeout_s
        try:
            with connection.cursor(binary=True) as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            if self._closed:
                connection.close()
            elif not connection.closed:
                self._idle.append(connection)

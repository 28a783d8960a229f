"""slowapi's store of hits in one PostgreSQL that several servers share.

Counted in the database's own time, so that servers whose clocks disagree count alike; told in the wall clock's seconds
of this machine. It must not know who is counted: keys are made, and hashed, by the caller.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from limits.storage import MovingWindowSupport, Storage
from psycopg.abc import PQGen

from rag.stores.postgres.link import CONNECTION, FAILURES, has_hung_up, unavailable
from rag.stores.sqlite.file import Clocks

_Result = TypeVar("_Result")

_MARK: Final = "rag-"

ANSWER_TIMEOUT_S = 0.25
"""After that the worker counts for itself. All visitors who count on this worker wait for it together, once."""

_HIT: Final = "SELECT * FROM rag.hit(%s, %s, %s, %s)"
_WINDOW: Final = """
SELECT coalesce(sum(amount), 0), coalesce(extract(epoch FROM now() - min(at)), 0)
FROM rag.hits WHERE key = %s AND at > now() - make_interval(secs => %s)
"""
_INCREASE: Final = """
WITH more AS (UPDATE rag.hits SET amount = amount + %s WHERE key = %s AND expires_at > now() RETURNING amount),
first AS (
    INSERT INTO rag.hits (key, at, expires_at, amount)
    SELECT %s, now(), now() + make_interval(secs => %s), %s WHERE NOT EXISTS (SELECT FROM more) RETURNING amount
)
SELECT amount FROM more UNION ALL SELECT amount FROM first
"""
_FIXED_WINDOW: Final = """
SELECT coalesce(sum(amount), 0), coalesce(extract(epoch FROM max(expires_at) - now()), 0)
FROM rag.hits WHERE key = %s AND expires_at > now()
"""
_PRUNE: Final = """
WITH old AS (
    DELETE FROM rag.hits WHERE (key, at) IN (
        SELECT key, at FROM rag.hits WHERE expires_at <= now() LIMIT 1000 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM old
"""


def postgres_storage_uri(url: str) -> str:
    """The storage URI of this module's store in the database at `url` (postgresql:// or postgres://)."""
    return f"{_MARK}{url}"


class _Bounded(psycopg.Connection[Any]):
    def wait(self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = None) -> _Result:
        try:
            return super().wait(gen, interval, timeout or ANSWER_TIMEOUT_S)
        except psycopg.OperationalError:
            self.close()  # its answer may still come, and is not that of the next question
            raise


class PostgresStorage(Storage, MovingWindowSupport):
    """Exact moving windows, on one connection of the worker. Its methods raise what `FAILURES` holds."""

    STORAGE_SCHEME = [f"{_MARK}{scheme}" for scheme in ("postgresql", "postgres")]  # noqa: RUF012  as the base does
    over_network = True

    def __init__(self, uri: str, wrap_exceptions: bool = False, *, clocks: Clocks) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._url = uri.removeprefix(_MARK)
        self._clocks = clocks
        self._turn = threading.Lock()
        self._connection: _Bounded | None = None
        self._windows: dict[str, tuple[int, float]] = {}
        """What was told with a hit: slowapi asks for it next, in the same thread."""

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return FAILURES

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts `amount` hits where the last `expiry` seconds leave room for all of them; else counts none."""
        [(is_counted, used, age_s)] = self._rows(_HIT, (key, limit, float(expiry), amount))
        self._windows[key] = used, age_s
        return bool(is_counted)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest hit still counted was made (now, where there is none), and how many are counted."""
        used, age_s = self._windows.pop(key, None) or self._rows(_WINDOW, (key, float(expiry)))[0]
        return self._clocks.wall_s() - float(age_s), int(used)

    def check(self) -> bool:
        """False: slowapi would ask while a visitor waits. Whether the database is back, `prove` finds out aside."""
        return False

    def prove(self) -> None:
        """Raises StateUnavailable where nothing can be counted now."""
        try:
            self._rows(_HIT, ("check", 10**9, 1.0, 1))
        except FAILURES as error:
            raise unavailable(self._url, error) from error

    def prune(self) -> int:
        """Removes what no longer counts; returns the number of rows."""
        removed = 0
        try:
            while batch := self._rows(_PRUNE)[0][0]:
                removed += batch
        except FAILURES as error:
            raise unavailable(self._url, error) from error
        return removed

    def clear(self, key: str) -> None:
        self._rows("DELETE FROM rag.hits WHERE key = %s", (key,))

    def reset(self) -> int | None:
        self._rows("TRUNCATE rag.hits")
        return None

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts in a fixed window, which begins with its first hit; returns the count. slowapi's limits use none."""
        return int(self._rows(_INCREASE, (amount, key, key, float(expiry), amount))[0][0])

    def get(self, key: str) -> int:
        return int(self._rows(_FIXED_WINDOW, (key,))[0][0])

    def get_expiry(self, key: str) -> float:
        """When the fixed window ends; now, where there is none."""
        return self._clocks.wall_s() + float(self._rows(_FIXED_WINDOW, (key,))[0][1])

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()

    def _rows(self, statement: LiteralString, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._turn:
            try:
                if self._connection is None or self._connection.closed or has_hung_up(self._connection):
                    self._connection = None
                    self._connection = _Bounded.connect(self._url, **CONNECTION)
                cursor = self._connection.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
            except FAILURES:
                self._windows.clear()  # another store is asked now, and later they would be old
                raise

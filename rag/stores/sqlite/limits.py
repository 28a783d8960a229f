"""slowapi's store of hits in one SQLite file that the worker processes of one machine share.

It must not know who is counted: keys are made, and hashed, by the caller.
"""

from pathlib import Path

from limits.storage import MovingWindowSupport, Storage

from rag.errors import StateUnavailable
from rag.stores.sqlite.file import Clocks, StateFile

_SCHEME = "rag-sqlite"

_MIGRATIONS = (
    """
    CREATE TABLE hits (
        key TEXT NOT NULL, at REAL NOT NULL, expires_at REAL NOT NULL, amount INTEGER NOT NULL,
        PRIMARY KEY (key, at)
    ) WITHOUT ROWID;
    CREATE INDEX hits_by_expiry ON hits (expires_at);
    """,
)

_SWEPT_PER_HIT = 4
"""Expired rows, of anyone, that a hit removes: more than the one it adds, so the file stays as small as the traffic."""

_BUSY_TIMEOUT_MS = 250  # slowapi calls the store on the event loop; after that the worker counts for itself


def sqlite_storage_uri(path: Path) -> str:
    """The storage URI of a file of this module's own store."""
    return f"{_SCHEME}://{path.absolute()}"


class SqliteStorage(Storage, MovingWindowSupport):
    """slowapi's store in one SQLite file, counted in steady time; its answers are in the wall clock's seconds.

    Nothing is synced to the disk: after a power cut at most some hits are forgotten.
    Every method raises StateUnavailable when the file does not answer, except `check`.
    """

    STORAGE_SCHEME = [_SCHEME]  # noqa: RUF012  the base class declares it without ClassVar
    over_network = False

    def __init__(self, uri: str, wrap_exceptions: bool = False, *, clocks: Clocks) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._file = StateFile(
            path=Path(uri.removeprefix(f"{_SCHEME}://")),
            migrations=_MIGRATIONS,
            newest_sql="SELECT max(at) FROM hits",
            synchronous="OFF",
            busy_timeout_ms=_BUSY_TIMEOUT_MS,
            clocks=clocks,
        )

    @property
    def base_exceptions(self) -> type[Exception]:
        return StateUnavailable

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts `amount` hits where the last `expiry` seconds leave room for all of them; else counts none."""
        with self._file.transaction() as connection:
            now = self._file.now_s()  # asked under the lock, or a slower process would count into the past
            connection.execute(
                "DELETE FROM hits WHERE (key, at) IN "
                "(SELECT key, at FROM hits WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
                (now, _SWEPT_PER_HIT),
            )
            used: int = connection.execute(
                "SELECT coalesce(sum(amount), 0) FROM hits WHERE key = ? AND at > ?", (key, now - expiry)
            ).get
            if used + amount > limit:
                return False
            connection.execute(
                "INSERT INTO hits VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                (key, now, now + expiry, amount),
            )
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest hit still counted was made (now, where there is none), and how many are counted."""
        now = self._file.now_s()
        ((used, oldest),) = self._file.read(
            "SELECT coalesce(sum(amount), 0), min(at) FROM hits WHERE key = ? AND at > ?", (key, now - expiry)
        )
        return self._file.to_wall_s(now if oldest is None else oldest), used

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts in a fixed window, which begins with its first hit; returns the count."""
        with self._file.transaction() as connection:
            now = self._file.now_s()
            update = "UPDATE hits SET amount = amount + ? WHERE key = ? AND expires_at > ? RETURNING amount"
            total: int | None = connection.execute(update, (amount, key, now)).get
            if total is None:
                connection.execute("INSERT INTO hits VALUES (?, ?, ?, ?)", (key, now, now + expiry, amount))
            return amount if total is None else total

    def get(self, key: str) -> int:
        return self._fixed_window(key)[0]

    def get_expiry(self, key: str) -> float:
        """When the fixed window ends; now, where there is none."""
        return self._file.to_wall_s(self._fixed_window(key)[1])

    def _fixed_window(self, key: str) -> tuple[int, float]:
        now = self._file.now_s()
        rows = self._file.read("SELECT amount, expires_at FROM hits WHERE key = ? AND expires_at > ?", (key, now))
        return rows[0] if rows else (0, now)

    def check(self) -> bool:
        """Whether the file can be written now."""
        try:
            self._file.check()
        except StateUnavailable:
            return False
        return True

    def prove(self) -> None:
        """Raises StateUnavailable where nothing can be counted now."""
        self._file.check()

    def clear(self, key: str) -> None:
        self._remove("DELETE FROM hits WHERE key = ?", key)

    def reset(self) -> int:
        """Forgets everything; returns the number of rows that were removed."""
        return self._remove("DELETE FROM hits")

    def prune(self) -> int:
        """Removes what no longer counts; returns the number of rows that were removed."""
        self._file.checkpoint()
        return self._remove("DELETE FROM hits WHERE expires_at <= ?", self._file.now_s())

    def close(self) -> None:
        self._file.close()

    def _remove(self, statement: str, *values: str | float) -> int:
        with self._file.transaction() as connection:
            connection.execute(statement, values)
            return connection.changes()

"""Opens one SQLite file that several worker processes share, and tells them one steady time.

A file carries the version of its schema: an older one is brought up to date, a newer one is refused, none is guessed.
It must not know what is stored: the tables, and what they mean, are the caller's.

Steady time. What is stored is dated by a clock that neither an operator nor a time server can move: the seconds since
boot, added to an anchor that the file keeps, so that all processes of one boot read the very same time. After a reboot
the first process anchors anew: the time that was saved last, plus what the wall clock says has passed since, if it says
that any has. A file's steady time starts as the wall clock at its creation and so reads like seconds since 1970.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw

from rag.errors import StateUnavailable

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

_LOG_BUSY_TIMEOUT_MS = 20  # it is tried again; nobody who waits for the connection should wait for it

_SAVED_TIME = """
CREATE TABLE steady_time (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id TEXT NOT NULL,          -- the boot that the anchor holds for
    anchor_steady REAL NOT NULL,    -- steady time at the anchor: fixed for the boot, or processes would disagree
    anchor_monotonic REAL NOT NULL, -- the boot's clock at the anchor
    saved_steady REAL NOT NULL,     -- steady time when it was saved last
    saved_wall REAL NOT NULL        -- the wall clock when it was saved last
)
"""

_REMEDIES: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.FullError, "free space on its disk"),
    (apsw.BusyError, "another process holds it locked; see which one with fuser"),
    (apsw.ReadOnlyError, "let the server's user write to it and to its folder"),
    (apsw.CantOpenError, "let the server's user write to it and to its folder"),
    (apsw.CorruptError, "stop the server and move the file aside; a new one is made"),
    (apsw.NotADBError, "stop the server and move the file aside; a new one is made"),
)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time comes from."""

    wall_s: Callable[[], float]
    """Seconds since 1970, as the machine believes; may jump."""
    monotonic_s: Callable[[], float]
    """Seconds since some moment of this boot, the same for all processes; never jumps, and counts suspended time."""
    boot_id: str
    """Names this boot: another value, another `monotonic_s`."""

    @classmethod
    def system(cls) -> "Clocks":
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        try:
            boot_id = _BOOT_ID_FILE.read_text(encoding="ascii").strip()
        except OSError:
            # Without Linux's id the moment of the boot has to do, rounded because the two clocks drift apart.
            boot_id = f"booted-{round((time.time() - time.clock_gettime(clock)) / 60)}"
        return cls(wall_s=time.time, monotonic_s=lambda: time.clock_gettime(clock), boot_id=boot_id)


class StateFile:
    """One SQLite file in WAL mode. Opened when first used, and again after a failure that may have broken it.

    `migrations[n]` is the script that leads from schema version n to n + 1. `newest_sql` selects the latest steady time
    among the stored rows: after a reboot time goes on from there at least, even where nobody had saved it since.
    With `overwrites_deleted` what is deleted is overwritten in the file; out of the log beside it, see `empty_log`.
    Threads may share an instance; they take turns.
    """

    def __init__(
        self,
        *,
        path: Path,
        migrations: Sequence[str],
        newest_sql: str,
        synchronous: Literal["NORMAL", "OFF"],
        busy_timeout_ms: int,
        clocks: Clocks,
        overwrites_deleted: bool = False,
    ) -> None:
        self._path = path
        self._migrations = tuple(migrations)
        self._newest_sql = newest_sql
        self._synchronous = synchronous
        self._busy_timeout_ms = busy_timeout_ms
        self._clocks = clocks
        self._overwrites_deleted = overwrites_deleted
        self._turn = threading.RLock()
        self._connection: apsw.Connection | None = None
        self._inode = 0
        self._steady_ahead_s = 0.0

    def now_s(self) -> float:
        """Steady time, in seconds that read like those since 1970. Raises StateUnavailable."""
        with self._guarded():
            self._opened()
            return self._clocks.monotonic_s() + self._steady_ahead_s

    def to_wall_s(self, steady_s: float) -> float:
        """The wall clock's reading at a steady time, as the wall clock counts now."""
        return self._clocks.wall_s() - (self.now_s() - steady_s)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """Holds the file's one write lock; commits when the block ends, undoes everything when it raises.

        Raises StateUnavailable for whatever the file, its disk or its lock refuse.
        """
        with self._guarded():
            connection = self._opened()
            with _immediate(connection):
                yield connection

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one SELECT, from one snapshot, without waiting for writers. Raises StateUnavailable."""
        with self._guarded():
            return self._opened().execute(sql, values).fetchall()

    def checkpoint(self) -> None:
        """Saves the steady time, so that a reboot loses none of it. Raises StateUnavailable."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE steady_time SET saved_steady = ?, saved_wall = ?", (self.now_s(), self._clocks.wall_s())
            )

    def empty_log(self) -> bool:
        """Moves the log into the file and empties it; False while somebody reads from it. Raises StateUnavailable."""
        with self._guarded():
            connection = self._opened()
            connection.set_busy_timeout(_LOG_BUSY_TIMEOUT_MS)
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
            finally:
                connection.set_busy_timeout(self._busy_timeout_ms)
            return True

    def check(self) -> None:
        """Proves that the file can be written now, and is still the one that its path names.

        A file that was moved away or deleted is let go, so that all processes come together on the new one.
        Raises StateUnavailable.
        """
        with self._turn:
            if self._connection is not None and self._inode_at_path() != self._inode:
                self._let_go()
            self.checkpoint()

    def close(self) -> None:
        """Saves the steady time as far as the disk allows, and lets the file go."""
        with self._turn:
            if self._connection is not None:
                with contextlib.suppress(StateUnavailable):
                    self.checkpoint()
            self._let_go()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except apsw.Error as error:
                if not _may_stay_open_after(error):
                    self._let_go()
                raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StateUnavailable:
        remedy = next((text for kind, text in _REMEDIES if isinstance(error, kind)), "check the file and its disk")
        return StateUnavailable(f"{self._path}: {type(error).__name__}: {error}; {remedy}")

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close(True)

    def _opened(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> apsw.Connection:
        try:
            _create_private(self._path)
        except OSError as error:
            raise self._unavailable(error) from error
        self._inode = self._inode_at_path()
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(self._busy_timeout_ms)
            self._known_version(connection)  # a newer file is left exactly as it is
            self._enter_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA secure_delete = {'ON' if self._overwrites_deleted else 'OFF'}")
            if self._known_version(connection) < len(self._migrations) or not self._anchored(connection):
                with _immediate(connection):
                    self._prepare(connection)
                self._anchored(connection)
        except BaseException:
            connection.close(True)
            raise
        return connection

    def _inode_at_path(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return 0

    def _known_version(self, connection: apsw.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").get
        if version > len(self._migrations):
            raise StateUnavailable(
                f"{self._path}: schema version {version}, this release knows {len(self._migrations)}; "
                "run the newer release again, or move the file aside"
            )
        return version

    def _enter_wal(self, connection: apsw.Connection) -> None:
        # The busy timeout does not cover the change of mode: two processes that create the file may collide in it.
        give_up_at = time.monotonic() + self._busy_timeout_ms / 1000
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except apsw.BusyError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.005)

    def _prepare(self, connection: apsw.Connection) -> None:
        # Holding the lock everything is asked again: another process may have been first.
        version = self._known_version(connection)
        if version == 0:
            connection.execute(_SAVED_TIME)
        for script in self._migrations[version:]:
            connection.execute(script)
        connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
        if not self._anchored(connection):
            steady, wall = self._steady_after_reboot(connection), self._clocks.wall_s()
            connection.execute(
                "INSERT OR REPLACE INTO steady_time VALUES (1, ?, ?, ?, ?, ?)",
                (self._clocks.boot_id, steady, self._clocks.monotonic_s(), steady, wall),
            )

    def _anchored(self, connection: apsw.Connection) -> bool:
        ahead: float | None = connection.execute(
            "SELECT anchor_steady - anchor_monotonic FROM steady_time WHERE boot_id = ?", (self._clocks.boot_id,)
        ).get
        if ahead is not None:
            self._steady_ahead_s = ahead
        return ahead is not None

    def _steady_after_reboot(self, connection: apsw.Connection) -> float:
        wall = self._clocks.wall_s()
        saved: tuple[float, float] | None = connection.execute("SELECT saved_steady, saved_wall FROM steady_time").get
        if saved is None:
            return wall
        newest: float | None = connection.execute(self._newest_sql).get
        return max(saved[0] + max(0.0, wall - saved[1]), newest or 0.0)


def _may_stay_open_after(error: apsw.Error) -> bool:
    # While a disk is full an open connection still reads; a new one could not even make its shared memory file.
    write_failed = getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE
    return write_failed or isinstance(error, (apsw.BusyError, apsw.FullError))


@contextlib.contextmanager
def _immediate(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(apsw.Error):  # after some errors SQLite has undone it already
            connection.execute("ROLLBACK")
        raise


def _create_private(path: Path) -> None:
    # `mkdir(parents=True)` would give the parents the umask's mode, not ours.
    for folder in reversed([folder for folder in path.parents if not folder.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))

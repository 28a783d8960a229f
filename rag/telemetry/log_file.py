"""One log file that several processes write and that one of them turns over when it is full.

Who writes a line holds a lock for as long as that takes, and turns the file over meanwhile if it is full; so lines of
several processes neither mix nor get lost. A file that was moved away, by logrotate or by hand, is let go, and a new
one begun. Knows nothing of what is said.
"""

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


def lock_of(path: Path) -> Path:
    """The file beside a log file that whoever writes holds the lock of."""
    return path.with_name(f"{path.name}.lock")


class SharedFile(logging.Handler):
    """Writes to `path`; when it would outgrow `max_bytes` it becomes `path.1`, that one `path.2`, up to `backups`.

    It is opened with the first line. Where it cannot be written, one line on the other handlers says so: a log file
    must not keep a server from serving.
    """

    def __init__(self, *, path: Path, max_bytes: int, backups: int) -> None:
        super().__init__()
        self._path = path.absolute()
        self._max_bytes = max_bytes
        self._backups = backups
        self._file = self._lock_file = -1
        self._failing = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == __name__:
            return
        try:
            self._write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                log.error("log file cannot be written", extra={"file": str(self._path), "reason": str(error)})

    def close(self) -> None:
        self.acquire()
        try:
            self._let_go(self._file)
            self._let_go(self._lock_file)
            self._file = self._lock_file = -1
        finally:
            self.release()
        super().close()

    def _write(self, line: bytes) -> None:
        if self._lock_file < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = self._opened(lock_of(self._path))
        # A lock of the process, not of a descriptor: that would be shared with every worker that is forked off.
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            if not self._has_room(len(line)):
                self._turn_over()
                self._has_room(len(line))
            while line:
                # Less is written at once only where the disk is full.
                line = line[os.write(self._file, line) :]
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)

    def _has_room(self, count: int) -> bool:
        """Whether `count` more bytes fit into the file that bears the name now, which is opened if need be."""
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            named = None
        if self._file < 0 or named is None or named.st_ino != os.fstat(self._file).st_ino:
            self._let_go(self._file)
            self._file = -1
            self._file = self._opened(self._path)
            named = os.fstat(self._file)
        return not named.st_size or named.st_size + count <= self._max_bytes

    def _turn_over(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._backups + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with suppress(FileNotFoundError):
                newer.replace(older)

    @staticmethod
    def _opened(path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)

    @staticmethod
    def _let_go(file: int) -> None:
        if file >= 0:
            os.close(file)

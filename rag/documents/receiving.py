"""Uploads on their way to disk: counted and hashed as they come, in a folder of their own until they are whole."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rag.errors import BodyTooLarge, StorageFull
from rag.setting_parsers import shown_size

SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk, whatever comes: conversations and the index need it more."""

LOOK_EVERY_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Received:
    """A whole file, not yet anybody's document."""

    name: str
    path: Path
    bytes: int
    sha256: str


class Receiving:
    """One file that is being received. Every method may raise `StorageFull`."""

    def __init__(self, name: str, path: Path, *, limit_bytes: int) -> None:
        self.name = name
        self._path = path
        self._limit = limit_bytes
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._file: IO[bytes] = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        """Raises `BodyTooLarge` at the byte that passes the limit."""
        self._bytes += len(data)
        if self._bytes > self._limit:
            raise BodyTooLarge(detail=f"{self.name} is larger than {shown_size(self._limit)}.")
        self._digest.update(data)
        try:
            if self._bytes // LOOK_EVERY_BYTES > (self._bytes - len(data)) // LOOK_EVERY_BYTES:
                # Others may be receiving, too.
                require_room(self._path.parent, 0)
            self._file.write(data)
        except OSError as error:
            raise StorageFull(f"{self._path}: {error.strerror}") from None

    def whole(self) -> Received:
        """The file, closed."""
        try:
            self._file.close()
        except OSError as error:
            raise StorageFull(f"{self._path}: {error.strerror}") from None
        return Received(self.name, self._path, self._bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        with suppress(OSError):  # what could not be written is removed with its folder
            self._file.close()


class Places:
    """Where the files of one request go, one after the other."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._begun: list[Receiving] = []

    def begin(self, name: str) -> Receiving:
        """Raises `StorageFull` where the disk has no room for a file of the largest size."""
        try:
            require_room(self._folder, self._limit)
            self._begun.append(Receiving(name, self._folder / str(len(self._begun)), limit_bytes=self._limit))
        except OSError as error:
            raise StorageFull(f"{self._folder}: {error.strerror}") from None
        return self._begun[-1]

    def abandon(self) -> None:
        for one in self._begun:
            one.abandon()


def require_room(folder: Path, count: int) -> None:
    """Raises `StorageFull` unless the disk has so many bytes beside those to spare. Raises OSError."""
    if shutil.disk_usage(folder).free < SPARE_BYTES + count:
        raise StorageFull(f"{folder}: less than {shown_size(SPARE_BYTES + count)} are free")


@contextmanager
def receiving(documents: Path, *, limit_bytes: int) -> Iterator[Places]:
    """Room for the files of one request; what nobody took over by the end is removed. Raises `StorageFull`."""
    try:
        documents.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=".receiving-", dir=documents))
    except OSError as error:
        raise StorageFull(f"{documents}: {error.strerror}") from None
    places = Places(folder, limit_bytes=limit_bytes)
    try:
        yield places
    finally:
        places.abandon()
        shutil.rmtree(folder, ignore_errors=True)

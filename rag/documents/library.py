"""The documents that were uploaded: originals, and what became of each. Shared by all processes of one machine.

    documents/<id>/about.json            name, hash, status; replaced by one rename
    documents/<id>/<version>.<type>      the original, readable to the server's user alone
    documents/queue/<id>                 an empty file while there is something to do for that document
    documents/.receiving-*/              what is being received
    documents/.requests/                 what was answered to an Idempotency-Key

A document's name is its identity: another file of that name is its next version, and keeps its id. A name is for
people; files lie under ids. Whoever dies anywhere leaves a document as it was, or queued.
"""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import orjson

from rag import durable
from rag.documents import requests
from rag.documents.receiving import Received
from rag.documents.records import ID, Record, Status
from rag.errors import InvalidRequest, StorageFull

MOST_DOCUMENTS = 10_000
STALE_S = 3600.0
"""After this what is being received was left by a process that died."""
MOST_TRIES = 10
"""Processes that may die over a document before it counts as failed."""
PURGE = "removed"
"""In the queue: the text of removed documents still stands in the index."""
NO_IDS: Mapping[str, str] = MappingProxyType({})


class Library:
    """The documents in one folder. Every method may block for a moment; OSError where the disk does not do its part."""

    def __init__(self, folder: Path, *, keeps_originals: bool = True) -> None:
        self.folder = folder
        self._keeps = keeps_originals
        self._seen: dict[str, tuple[tuple[int, int, int], Record]] = {}

    def put(
        self, files: Sequence[Received], *, request: str | None = None, ids: Mapping[str, str] = NO_IDS
    ) -> list[Record]:
        """Take these files over as documents, to be worked on; what has not changed is left alone.

        `ids` are of documents that are known elsewhere, by their names.
        `request` tells a request from others: the same one is answered as before, for a day. Raises `InvalidRequest`
        where it came with other files then, and `StorageFull`.
        """
        print_of = [[one.name, one.sha256] for one in files]
        if len({one.name for one in files}) < len(files):
            raise InvalidRequest(detail="Two files have one name, and a name is one document.")
        with self._changing():
            if request and (answered := requests.answered(self.folder, request, print_of)) is not None:
                return [self.get(one.id) or one for one in answered]
            known, count = self._known({one.name for one in files})
            if count + sum(one.name not in known for one in files) > MOST_DOCUMENTS:
                raise StorageFull(f"{MOST_DOCUMENTS} documents", detail="There are too many documents already.")
            begun, staged = list[Record](), list[tuple[Path, Path]]()
            try:
                records = [self._taken(one, known.get(one.name), ids.get(one.name), begun, staged) for one in files]
                if request:
                    staged.append(requests.staged(self.folder, request, print_of, records))
                # All of them or none: whatever needs room on the disk is done by now.
                for aside, path in staged:
                    durable.settle(aside, path)
            except OSError as error:
                self._take_back(begun, staged)
                raise StorageFull(f"{self.folder}: {error.strerror}") from None
        return records

    def records(self) -> list[Record]:
        """All documents that were not removed, by name."""
        found = [record for record in map(self._read, self._ids()) if record and record.status != "removed"]
        return sorted(found, key=lambda record: record.name)

    def get(self, identity: str) -> Record | None:
        record = self._read(identity)
        return None if record is None or record.status == "removed" else record

    def find(self, wanted: str) -> Record | None:
        """The document of this id, else of this name."""
        return self.get(wanted) or next((one for one in self.records() if one.name == wanted), None)

    def original(self, record: Record) -> Path:
        return self.folder / record.id / f"{record.version}{record.extension}"

    def mark(
        self, record: Record, status: Status, *, reason: str | None = None, passages: int | None = None,
        failure: str = "",
    ) -> None:  # fmt: skip
        """Say what became of this version; nothing if there is another one by now, or it was removed."""
        with self._changing():
            present = self._read(record.id)
            if present is None or present.version != record.version or present.status == "removed":
                return
            # What was begun and ended in order, however it ended, was no death.
            tries = present.tries + (status == "reading") if status in ("reading", "embedding") else 0
            passages = present.passages if passages is None else passages
            self._write(replace(present, status=status, reason=reason, passages=passages, tries=tries, failure=failure))
            if status in ("live", "failed"):
                (self.folder / "queue" / record.id).unlink(missing_ok=True)
                for path in (self.folder / record.id).iterdir():
                    keeps = self._keeps and path == self.original(record)
                    if path.name != "about.json" and not keeps:
                        path.unlink()

    def discard(self, identity: str) -> None:
        """From here on it is nobody's document: no process puts it into the index any more."""
        with self._changing():
            record = self._read(identity)
            if record is not None:
                self._queue(record.id)
                self._write(replace(record, status="removed"))
            self._queue(PURGE)

    def purge_later(self) -> None:
        """Something in the index is of no document any more."""
        with self._changing():
            self._queue(PURGE)

    def discarded(self) -> list[Record]:
        """Documents whose removal began, and may have to be finished."""
        return [record for record in map(self._read, self._queued()) if record and record.status == "removed"]

    def forget(self, identity: str) -> None:
        """Remove all that is kept of a document that was discarded."""
        with self._changing():
            record = self._read(identity)
            if record is not None and record.status == "removed":
                shutil.rmtree(self.folder / identity)
                (self.folder / "queue" / identity).unlink(missing_ok=True)

    def give_up(self, identity: str) -> None:
        """Remove all that is kept of a document that goes on without: the machine's owner added another one by hand."""
        with self._changing():
            if self._read(identity) is not None:
                shutil.rmtree(self.folder / identity)
                (self.folder / "queue" / identity).unlink(missing_ok=True)

    def waiting(self) -> list[Record]:
        """What is to be worked on, the oldest first: by the one process that works."""
        found = []
        for name in self._queued():
            record = self._read(name)
            if record is not None and record.status in ("queued", "reading", "embedding"):
                found.append(record)
            elif name != PURGE and (record is None or record.status != "removed"):
                self._leave_the_queue(name)
        return sorted(found, key=lambda record: record.arrived_at_s)

    def is_wanted(self, identity: str, sha256: str) -> bool:
        """Whether the document of this id is still to be the one with this hash."""
        record = self.get(identity)
        return record is not None and record.sha256 == sha256

    def has_work(self, *, purge_after_s: float) -> bool:
        """Whether there is anything to do; removed text may wait."""
        return any(name != PURGE for name in self._queued()) or self.must_purge(after_s=purge_after_s)

    def must_purge(self, *, after_s: float) -> bool:
        try:
            return time.time() - (self.folder / "queue" / PURGE).stat().st_mtime >= after_s
        except OSError:
            return False

    def purged(self) -> None:
        (self.folder / "queue" / PURGE).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what processes that died left half done, and requests that need no second answer any more."""
        unfinished = [path for path in map(self.folder.joinpath, self._ids()) if not (path / "about.json").exists()]
        stale = [(path, STALE_S) for path in (*self.folder.glob(".receiving-*"), *unfinished)]
        with self._changing():
            for path, age_s in (*stale, *((path, requests.REMEMBERED_S) for path in self.folder.glob(".requests/*"))):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > age_s:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _known(self, names: Collection[str]) -> tuple[dict[str, Record], int]:
        """The documents of these names, and how many there are in all.

        A document keeps its name: what was read once needs no further look at the disk to be passed over.
        """
        found, ids = dict[str, Record](), self._ids()
        for identity in ids:
            seen = self._seen.get(identity)
            record = seen[1] if seen else self._read(identity)
            if record and record.name in names and (present := self.get(identity)):
                found[present.name] = present
        return found, len(ids)

    def _taken(
        self, one: Received, known: Record | None, identity: str | None, begun: list[Record],
        staged: list[tuple[Path, Path]],
    ) -> Record:  # fmt: skip
        """What it becomes, told in `begun`, once all of `staged` is settled."""
        if known and known.sha256 == one.sha256 and known.status != "failed":
            return known
        record = Record(
            id=known.id if known else identity or secrets.token_hex(8), name=one.name,
            version=known.version + 1 if known else 1, bytes=one.bytes, sha256=one.sha256, status="queued", reason=None,
            passages=known.passages if known else None, updated_at=_now(), arrived_at_s=time.time(),
        )  # fmt: skip
        begun.append(record)
        folder = self.folder / record.id
        folder.mkdir(mode=0o700, exist_ok=True)
        one.path.chmod(0o600)
        durable.sync(one.path)
        one.path.rename(self.original(record))
        durable.sync(folder)
        # First the queue: a document that says it is queued is there. What stands there for nothing is removed.
        self._queue(record.id)
        about = folder / "about.json"
        staged.append((durable.stage(about, orjson.dumps(record)), about))
        self._seen.pop(record.id, None)
        return record

    def _take_back(self, begun: Sequence[Record], staged: Sequence[tuple[Path, Path]]) -> None:
        for aside, _ in staged:
            aside.unlink(missing_ok=True)
        for record in begun:
            self.original(record).unlink(missing_ok=True)
            if record.version == 1:
                shutil.rmtree(self.folder / record.id, ignore_errors=True)
                (self.folder / "queue" / record.id).unlink(missing_ok=True)

    def _queue(self, name: str) -> None:
        (self.folder / "queue").mkdir(exist_ok=True, mode=0o700)
        path = self.folder / "queue" / name
        if name != PURGE or not path.exists():
            path.touch(mode=0o600)

    def _leave_the_queue(self, name: str) -> None:
        with self._changing():
            # Looked at again: it may have been queued before it was said to be.
            record = self._read(name)
            if record is None or record.status in ("live", "failed"):
                (self.folder / "queue" / name).unlink(missing_ok=True)

    def _queued(self) -> list[str]:
        try:
            return os.listdir(self.folder / "queue")
        except OSError:
            return []

    def _ids(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _read(self, identity: str) -> Record | None:
        if not ID.fullmatch(identity):
            return None
        # Not a Path: for ten thousand documents making them takes longer than all the rest.
        path = f"{self.folder}/{identity}/about.json"
        try:
            found = os.stat(path)
            changed = found.st_ino, found.st_mtime_ns, found.st_size
            if (seen := self._seen.get(identity)) and seen[0] == changed:
                return seen[1]
            record = Record(**orjson.loads(Path(path).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        self._seen[identity] = changed, record
        return record

    def _write(self, record: Record) -> None:
        durable.replace(self.folder / record.id / "about.json", orjson.dumps(replace(record, updated_at=_now())))
        self._seen.pop(record.id, None)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

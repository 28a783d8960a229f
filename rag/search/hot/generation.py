"""Which documents were added beside the builds, and where: one file, replaced by one rename.

    vector_db/GENERATION                every added document, with its segment and rows; absent where there are none
    vector_db/segments/<id>/            a small build of added documents, written once: see `builds`
    vector_db/segments/.staging-<id>/   one that is being written, or that was interrupted

A segment never changes. A document is removed by leaving it out of the next generation: rows of a segment that no
document names are not searched, and leave the disk when the segment is written anew. A segment that no document names
is garbage. Builds come and go beside them, so that a new build of the site and a rollback keep what was added.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from rag import durable
from rag.errors import BuildDamaged, BuildMismatch
from rag.search import builds

FORMAT = 1
"""Rises when the file changes its meaning; another one is refused."""
NAME = "GENERATION"
SEGMENTS = "segments"
DOCUMENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Added:
    """A document that was added, and the rows of its segment that are its passages."""

    id: str
    name: str
    """What its owner calls it; one document has it."""
    sha256: str
    """Of the file's bytes, in hex."""
    added_at: str
    """ISO 8601, in UTC."""
    segment: str
    first: int
    passages: int


@dataclass(frozen=True, slots=True)
class Generation:
    """What is in force beside the build."""

    id: str
    """Tells this one from every other; empty where nothing was added."""
    documents: tuple[Added, ...]

    @property
    def segments(self) -> list[str]:
        """Ids of the segments that it names, oldest first."""
        return sorted({document.segment for document in self.documents})

    def find(self, wanted: str) -> Added | None:
        """The document of this id, else of this name."""
        by_id = (document for document in self.documents if document.id == wanted)
        return next(by_id, next((document for document in self.documents if document.name == wanted), None))


NOTHING = Generation("", ())


def folder_of(root: Path, segment: str) -> Path:
    return root / SEGMENTS / segment


def read(root: Path) -> Generation:
    """The generation in force. Raises `BuildDamaged` or `BuildMismatch` for a file that is none of ours."""
    try:
        content = (root / NAME).read_bytes()
    except FileNotFoundError:
        return NOTHING
    except OSError as error:
        raise BuildDamaged(f"{root / NAME} cannot be read: {error.strerror}") from None
    try:
        return _parsed(content)
    except _OtherFormat as error:
        raise BuildMismatch(f"{root / NAME}: format {error}, this version reads {FORMAT}; upgrade first") from None
    except (ValueError, KeyError, TypeError) as error:
        remedy = "put it back from a backup, or remove the file and add the documents again"
        raise BuildDamaged(f"{root / NAME} is damaged ({type(error).__name__}); {remedy}") from None


class _OtherFormat(Exception):
    """Says which one."""


@lru_cache(maxsize=1)
def _parsed(content: bytes) -> Generation:
    """Kept for whoever reads the same again: some thousand documents take a worker milliseconds."""
    about = orjson.loads(content)
    if about["format"] != FORMAT:
        raise _OtherFormat(about["format"])
    documents = tuple(Added(**one) for one in about["documents"])
    segments = {one.segment for one in documents}
    if not (all(map(builds.ID.fullmatch, segments)) and all(DOCUMENT_ID.fullmatch(one.id) for one in documents)):
        raise ValueError("a name that is none")
    return Generation(hashlib.sha256(content).hexdigest()[:12], documents)


def change(root: Path, to: Callable[[Generation], Sequence[Added]]) -> Generation:
    """Put another generation in force, made from the present one, by one process at a time; return it.

    Every byte is on disk before the name is.
    """
    with _lock(root, ".generation.lock"):
        documents = to(read(root))
        content = orjson.dumps({"format": FORMAT, "documents": documents}, option=orjson.OPT_INDENT_2)
        durable.replace(root / NAME, content)
        return Generation(hashlib.sha256(content).hexdigest()[:12], tuple(documents))


def take_out(root: Path, wanted: Sequence[str]) -> list[Added]:
    """Take the documents of these ids or names out of force; return those that there were."""
    gone: list[Added] = []
    if not any(map(read(root).find, wanted)):
        return gone

    def without_these(present: Generation) -> list[Added]:
        gone[:] = [found for one in dict.fromkeys(wanted) if (found := present.find(one))]
        return [one for one in present.documents if one not in gone]

    change(root, without_these)
    return gone


@contextmanager
def adding(root: Path, *, wait: bool = True) -> Iterator[Path]:
    """A staging folder for a segment, by one process at a time; what is left of it afterwards is removed.

    Segments that no document names are removed before and after. Unless it may `wait`, raises `BlockingIOError` while
    another process is adding.
    """
    (root / SEGMENTS).mkdir(parents=True, exist_ok=True)
    with _lock(root, ".adding.lock", wait=wait):
        _sweep(root)
        staging = root / SEGMENTS / f".staging-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            _sweep(root)


def seal(root: Path, staging: Path, manifest: dict[str, Any]) -> str:
    """Complete the segment in `staging`; return its id. It is not searched before a generation names it."""
    builds.seal(staging, manifest)
    segment = staging.name.removeprefix(".staging-")
    staging.rename(folder_of(root, segment))
    durable.sync(root / SEGMENTS)
    return segment


def _sweep(root: Path) -> None:
    # Only whoever holds the lock writes segments, so that what nobody names here is nobody's.
    named = set(read(root).segments)
    for path in (root / SEGMENTS).iterdir():
        if path.name not in named:
            aside = path if path.name.startswith(".") else path.with_name(f".gone-{path.name}")
            # Under another name first: half a segment must never look like a whole one.
            path.rename(aside)
            shutil.rmtree(aside)


@contextmanager
def _lock(root: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    with (root / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield

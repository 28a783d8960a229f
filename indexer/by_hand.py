"""`add`, `remove` and what `info` and `verify` say of added documents: the live index, changed by hand."""

import hashlib
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from indexer import adding
from indexer.adding import Incoming, Merge
from indexer.build import Embedder, Progress
from indexer.documents import Skipped
from indexer.formats import FORMATS
from indexer.reading.files import read_all
from rag.documents.library import Library
from rag.errors import ConfigError, IndexUnavailable, SourceUnreadable
from rag.search import builds, hybrid
from rag.search.backends.protocol import Backend
from rag.search.hot import generation
from rag.search.hot.following import open_segment


@dataclass(slots=True)
class Done:
    """What became of the files, a line each."""

    lines: list[str] = field(default_factory=list)
    faults: int = 0
    """Files that could not be added."""


async def add_files(
    files: Sequence[Path], *, root: Path, embedder: Embedder, progress: Progress, library: Library
) -> Done:
    """Put the files into the live index, each by its name, in the place of the one that has it, uploaded or not.

    Raises `ConfigError` for what is no file of a type that can be read, and as `adding.add` does.
    """
    _require_files(files)
    hybrid.open_build(root, model=embedder.name)  # before a file is read
    present, done, incoming = generation.read(root), Done(), list[Incoming]()
    reading = read_all([(path, path.name) for path in files], site_url="", with_unpublished=True)
    for path, document in zip(files, reading, strict=True):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        before = present.find(path.name)
        if isinstance(document, Skipped):
            done.lines.append(f"not added  {path.name}: {document.reason}")
            done.faults += 1
        elif before is not None and before.sha256 == sha256:
            done.lines.append(f"unchanged  {before.id}  {path.name}")
        else:
            uploaded = library.find(path.name)
            identity = before.id if before else uploaded.id if uploaded else new_id()
            try:
                incoming.append(Incoming.of(document, id=identity, name=path.name, sha256=sha256))
            except SourceUnreadable as error:
                done.lines.append(f"not added  {path.name}: {error}")
                done.faults += 1
    if incoming:
        summary = await adding.add(incoming, root=root, embedder=embedder, progress=progress)
        for one in incoming:
            if library.get(one.id) is not None:
                library.give_up(one.id)
        done.lines += [f"added      {one.id}  {one.name}, {len(one.passages):,} passages" for one in incoming]
        done.lines.append(f"embedded   {summary.embedded:,} passages in {summary.calls:,} calls")
        if chosen := adding.due(root, hybrid.open_build(root)):
            await adding.merge(root, chosen, embedder=embedder, progress=progress)
    return done


def folder_of(backend: Backend) -> Path:
    """Where documents are added beside the builds. Raises `ConfigError` where that cannot be done."""
    if backend.added_in is None:
        remedy = "put it into a folder that build reads, and run: python -m indexer build"
        raise ConfigError([f"{backend.where}: no document can be added beside the builds; {remedy}"])
    return backend.added_in


def new_id() -> str:
    return secrets.token_hex(8)


async def remove(wanted: Sequence[str], *, root: Path, library: Library) -> int:
    """Take documents out of the live index, and all of them off the disk; 1 where one was not there."""
    uploaded = [record for one in wanted if (record := library.find(one))]
    for record in uploaded:
        library.discard(record.id)
    gone = generation.take_out(root, [*wanted, *(record.id for record in uploaded)])
    for record in uploaded:
        library.forget(record.id)
        if not any(one.id == record.id for one in gone):
            print(f"removed    {record.id}  {record.name}")
    for one in gone:
        print(f"removed    {one.id}  {one.name}")
    known = {name for one in gone for name in (one.id, one.name)} | {
        name for one in uploaded for name in (one.id, one.name)
    }
    missing = [name for name in wanted if name not in known]
    for name in missing:
        print(f"{name}: no document of this id or name was added; see: python -m indexer info", file=sys.stderr)
    if not gone:
        return 1
    try:
        chosen = adding.with_removed(root, hybrid.open_build(root))
    except IndexUnavailable:
        chosen = []  # without a build nothing can stand beside it
    await adding.merge(root, chosen, embedder=None, progress=lambda *_: None)
    return 1 if missing else 0


@contextmanager
def merging(root: Path | None) -> Iterator[Merge | None]:
    """For a build that takes the segments beside it along; None where there are none, or others are being added."""
    if root is None or not generation.read(root).documents:
        yield None
        return
    with ExitStack() as stack:
        try:
            staging = stack.enter_context(generation.adding(root, wait=False))
        except BlockingIOError:
            yield None
            return
        yield Merge(root, staging)


def added_lines(root: Path | None) -> list[str]:
    """What was added, as `info` shows it: a line a document, and a word on its segment where that is not sound."""
    if root is None or not (present := generation.read(root)).documents:
        return []
    faults = {}
    for name in present.segments:
        try:
            builds.read_manifest(generation.folder_of(root, name))
        except IndexUnavailable as error:
            faults[name] = str(error).partition("; ")[0]
    passages = sum(one.passages for one in present.documents)
    held = f"{len(present.documents):,} documents, {passages:,} passages in {len(present.segments)} segments"
    lines = [f"added  {held}"]
    for one in present.documents:
        fault = f"  damaged: {faults[one.segment]}" if one.segment in faults else ""
        lines.append(f"       {one.id}  {one.name}, {one.passages:,} passages, {one.added_at}{fault}")
    return lines


def verify_added(root: Path | None) -> None:
    """Compute every checksum of the segments again. Raises `BuildDamaged` or `BuildMismatch`."""
    if root is None:
        return
    present = generation.read(root)
    for name in present.segments:
        open_segment(root, name)
    if present.documents:
        print(f"{len(present.documents)} added documents in {len(present.segments)} segments: every checksum is right")


def _require_files(files: Sequence[Path]) -> None:
    faults = [f"{path}: add takes files; for a folder: python -m indexer build" for path in files if path.is_dir()]
    faults += [f"{path}: there is no such file" for path in files if not path.exists()]
    known = " ".join(FORMATS)
    faults += [
        f"{path}: not a type that can be read ({known})"
        for path in files
        if path.is_file() and path.suffix.lower() not in FORMATS
    ]
    names = [path.name for path in files]
    faults += [
        f"{name}: named twice, and a name is one document" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    if faults:
        raise ConfigError(faults)

"""Files -> documents: which files there are, each one read in a process that may fail. Knows no passage."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from indexer.documents import Document
from indexer.formats import FORMATS
from indexer.formats.processes import Limits, ReadingProcess
from rag.errors import ConfigError

WORKERS = 2
AHEAD = 8
"""Files that are read before their turn: enough to keep the processes busy, few enough to hold in memory."""


class File(NamedTuple):
    path: Path
    source: str
    """The path relative to the folder that was named, with forward slashes."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not read, and why, in words for a person."""

    source: str
    reason: str


def find(sources: Sequence[Path]) -> list[File]:
    """Every readable file in the folders and files named, sorted, each once, hidden ones left out.

    Links are followed within a folder, never out of it: a file from elsewhere must be named to be published.
    Raises ConfigError that names every source that does not exist or cannot be read.
    """
    faults: list[str] = []
    files: dict[str, File] = {}
    taken: set[str] = set()
    for given in sources:
        root = given.resolve()
        if root.is_file() and root.suffix.lower() in FORMATS:
            found = [(root, given.name, root.parent)]
        elif root.is_dir():
            found = [(path, path.relative_to(root).as_posix(), root) for path in _walk(root, faults)]
        else:
            found = []
            known = f"not a type that can be read ({' '.join(FORMATS)})"
            faults.append(f"{given}: {known if root.exists() else 'there is no such file or folder'}")
        for path, relative, folder in found:
            real = os.path.realpath(path)
            if real not in files:
                files[real] = File(path, _unique(relative, folder, path, taken))
    if faults:
        raise ConfigError(faults)
    return sorted(files.values(), key=lambda file: file.source)


def read_all(
    files: Iterable[tuple[Path, str]],
    *,
    site_url: str,
    workers: int = WORKERS,
    limits: Limits | None = None,
    command: Sequence[str] | None = None,
) -> Iterator[Document | Skipped]:
    """Read every file in child processes, in the order given: a document, or why there is none.

    A file that takes too long or too much memory, or kills its process, is skipped; the next one gets a new process.
    `command` replaces the reading process by another that speaks the same lines.
    """
    limits = limits or Limits()
    children = [
        ReadingProcess(command=command or limits.command(), seconds=limits.seconds) for _ in range(max(1, workers))
    ]
    idle: SimpleQueue[ReadingProcess] = SimpleQueue()
    for child in children:
        idle.put(child)

    def outcome(path: Path, source: str) -> Document | Skipped:
        child = idle.get()
        try:
            answer = child.ask({"path": str(path.absolute()), "source": source, "site_url": site_url})
            if "document" in answer:
                return Document.from_json(answer["document"])
            return Skipped(source, str(answer["skipped"]))
        finally:
            idle.put(child)

    waiting: deque[Future[Document | Skipped]] = deque()
    threads = ThreadPoolExecutor(len(children), thread_name_prefix="reading")
    try:
        for path, source in files:
            waiting.append(threads.submit(outcome, path, source))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.interrupt()
        threads.shutdown()
        for child in children:
            child.close()


def _walk(root: Path, faults: list[str]) -> Iterator[Path]:
    """Readable files below `root`; every folder is entered once, so that links cannot go round in circles."""
    entered = {os.path.realpath(root)}

    def refuse(error: OSError) -> None:
        faults.append(f"{error.filename}: {(error.strerror or 'cannot be opened').lower()}")

    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith(".") and real not in entered and _is_within(real, root):
                entered.add(real)
                kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in FORMATS or not path.is_file():
                continue
            if _is_within(os.path.realpath(path), root):
                yield path


def _is_within(real: str, root: Path) -> bool:
    return Path(real).is_relative_to(root)


def _unique(relative: str, folder: Path, path: Path, taken: set[str]) -> str:
    """The relative name, or one with its folder in front where another source has the same."""
    for name in (relative, f"{folder.name}/{relative}", path.as_posix().lstrip("/")):
        if name not in taken:
            break
    taken.add(name)
    return name

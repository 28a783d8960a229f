"""Documents from files: each one read in a process that may fail. Knows no folder and no passage."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from indexer.documents import Document, Skipped
from indexer.reading.processes import Limits, ReadingProcess

WORKERS = 2
AHEAD = 8
"""Files that are read before their turn: enough to keep the processes busy, few enough to hold in memory."""


def read_all(
    files: Iterable[tuple[Path, str]],
    *,
    site_url: str,
    with_unpublished: bool = False,
    workers: int = WORKERS,
    limits: Limits | None = None,
    command: Sequence[str] | None = None,
) -> Iterator[Document | Skipped]:
    """Read every file in child processes, in the order given: a document, or why there is none.

    A file that takes too long or too much memory, or kills its process, is skipped; the next one gets a new process.
    A page that its site withholds is skipped too, unless `with_unpublished`. `command` replaces the reading process by
    another that speaks the same lines.
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
            request = {"path": str(path.absolute()), "source": source, "site_url": site_url}
            answer = child.ask({**request, "with_unpublished": with_unpublished})
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

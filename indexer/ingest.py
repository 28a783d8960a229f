"""Works on what was uploaded until nothing is left: reads, embeds, and puts it into the live index.

The server starts one such process for all its workers. It may be killed anywhere: what it began is found again in the
queue, and done once. Knows no HTTP.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from indexer import adding
from indexer.adding import Incoming
from indexer.build import Embedder
from indexer.documents import Skipped
from indexer.reading.files import read_all
from rag.documents.library import MOST_TRIES, Library
from rag.documents.records import Record
from rag.errors import BudgetSpent, IndexUnavailable, SourceUnreadable, UpstreamError
from rag.search import hybrid
from rag.search.hot import generation

if TYPE_CHECKING:
    from rag.access.budgets import Budgets

log = logging.getLogger(__name__)

MOST_DOCUMENTS = 100
MOST_BYTES = 20_000_000
"""Of what becomes one segment: the first of many should not wait for the last."""
ALONE_AFTER_TRIES = 3
"""Deaths after which a document is worked on by itself: those that were beside it may be sound."""
PAUSE_S = 5.0
"""After an attempt that failed for a reason that will pass."""
SPENT_PAUSE_S = 300.0
"""The same where today's budget does not suffice: documents are read again each time."""
SPENT = "today's budget does not leave enough for it; it is tried again"
GATHERS_S = 2.0
"""From one generation to the next, unless there is a whole batch: every worker has to open each."""
LINGERS_S = 10.0
"""After the last document, for the next one: to start a process takes longer than to add a document."""
LOOKS_EVERY_S = 0.2
NICE = 10
"""A tenth of a processor that visitors keep busy. At 19 it is a seventieth, and documents wait for hours."""


def end_with_parent() -> None:
    """End this process when the one that started it is gone: another worker starts another one."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def step_back() -> None:
    """The machine is the visitors' first."""
    with suppress(OSError):  # a service may be forbidden even that
        os.nice(NICE)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def work(library: Library, *, root: Path, embedder: Embedder, budgets: "Budgets | None" = None) -> None:
    """Until nothing is left to do. `budgets` are those that the `embedder` draws on. Raises OSError."""
    library.sweep()
    rests_until = gathers_until = lingers_until = 0.0
    while True:
        for record in library.discarded():
            generation.take_out(root, [record.id])
            library.forget(record.id)
        waiting, now = library.waiting(), time.monotonic()
        if waiting and now >= (rests_until if len(waiting) >= MOST_DOCUMENTS else max(rests_until, gathers_until)):
            batch = _batch(waiting)
            try:
                await _one_batch(library, batch, root=root, embedder=embedder, budgets=budgets)
            except (UpstreamError, IndexUnavailable, OSError) as error:
                reason = _why_it_waits(error)
                log.warning("uploads wait", extra={"reason": str(error), "documents": len(batch)})
                with suppress(OSError):  # on a disk that is full nobody can be told
                    # Not those that failed by themselves, or were live before it happened.
                    for record in library.waiting():
                        if record.id in {one.id for one in batch}:
                            library.mark(record, "queued", reason=reason)
                rests_until = time.monotonic() + (SPENT_PAUSE_S if isinstance(error, BudgetSpent) else PAUSE_S)
            gathers_until, lingers_until = time.monotonic() + GATHERS_S, time.monotonic() + LINGERS_S
        elif waiting or now < lingers_until:
            await asyncio.sleep(LOOKS_EVERY_S)
        elif library.must_purge(after_s=0):
            library.purged()
            base = hybrid.open_build(root)
            await adding.merge(root, adding.with_removed(root, base), embedder=None, progress=_silent)
        else:
            return


async def _one_batch(
    library: Library, batch: Sequence[Record], *, root: Path, embedder: Embedder, budgets: "Budgets | None"
) -> None:
    fresh = [record for record in batch if not _is_live_already(library, record, root)]
    by_id = {record.id: record for record in fresh}
    incoming = _read(library, fresh)
    if budgets is not None:
        incoming = await _affordable(library, [(by_id[one.id], one) for one in incoming], budgets)
    if not incoming:
        return
    for one in incoming:
        library.mark(by_id[one.id], "embedding")
    await adding.add(
        incoming, root=root, embedder=embedder, progress=_silent,
        is_wanted=lambda added: library.is_wanted(added.id, added.sha256),
    )  # fmt: skip
    for one in incoming:
        library.mark(by_id[one.id], "live", passages=len(one.passages))
        log.info("document is live", extra={"document": one.id, "passages": len(one.passages)})
    if any(record.version > 1 for record in fresh):
        library.purge_later()
    if chosen := adding.due(root, hybrid.open_build(root)):
        await adding.merge(root, chosen, embedder=embedder, progress=_silent)


def _is_live_already(library: Library, record: Record, root: Path) -> bool:
    """Whether a process that died had put it into force, and could not say so any more."""
    present = generation.read(root).find(record.id)
    if present is None or present.sha256 != record.sha256 or present.id != record.id:
        return False
    library.mark(record, "live", passages=present.passages)
    return True


def _read(library: Library, records: Sequence[Record]) -> list[Incoming]:
    """The documents that could be read; of the others it is noted why not."""
    sound = []
    for record in records:
        if record.tries >= MOST_TRIES:
            _failed(library, record, "its processing broke off again and again", failure="broke_off")
        else:
            library.mark(record, "reading")
            sound.append(record)
    files = [(library.original(record), record.name) for record in sound]
    incoming = []
    # One child for all of them: starting it takes longer than most files do.
    for record, document in zip(sound, read_all(files, site_url="", with_unpublished=True, workers=1), strict=True):
        try:
            if isinstance(document, Skipped):
                raise SourceUnreadable(document.reason)
            incoming.append(Incoming.of(document, id=record.id, name=record.name, sha256=record.sha256))
        except SourceUnreadable as error:
            _failed(library, record, str(error))
    return incoming


async def _affordable(library: Library, read: Sequence[tuple[Record, Incoming]], budgets: "Budgets") -> list[Incoming]:
    """Those that today's budget suffices for, together; of the others it is noted what they wait for.

    Asked before anything is spent: half of a document would be paid for each day, and be in the index on none.
    Raises `BudgetSpent` where it suffices for none.
    """
    taken, size, waits = list[Incoming](), 0, False
    for record, one in read:
        own = sum(len(passage.indexed_text.encode("utf-8", "surrogatepass")) for passage in one.passages)
        if await budgets.embeds(own) == "never":
            reason = "it holds more text than BUDGET_SITE allows a day; on the machine: python -m indexer add"
            _failed(library, record, reason, failure="budget")
        elif await budgets.embeds(size + own) == "now":
            taken.append(one)
            size += own
        else:
            library.mark(record, "queued", reason=SPENT)
            waits = True
    if waits and not taken:
        raise BudgetSpent("BUDGET_SITE leaves too little for uploads", retry_after_s=SPENT_PAUSE_S, refuse=False)
    return taken


def _failed(library: Library, record: Record, reason: str, *, failure: str = "unreadable") -> None:
    library.mark(record, "failed", reason=reason, failure=failure)
    log.info("document cannot be indexed", extra={"document": record.id, "reason": reason})


def _why_it_waits(error: UpstreamError | IndexUnavailable | OSError) -> str:
    if isinstance(error, OSError):
        return "the disk of the index does not take it at the moment; it is tried again"
    if isinstance(error, BudgetSpent):
        return SPENT
    if isinstance(error, UpstreamError):
        return "the embedding model cannot be reached at the moment; it is tried again"
    return "there is no index that it could stand beside; it is tried again"


def _batch(waiting: Sequence[Record]) -> list[Record]:
    """What is done together: as much as one segment should hold, and alone what processes died over."""
    if suspect := [record for record in waiting if record.tries >= ALONE_AFTER_TRIES]:
        return suspect[:1]
    batch: list[Record] = []
    for record in waiting[:MOST_DOCUMENTS]:
        if batch and sum(one.bytes for one in batch) + record.bytes > MOST_BYTES:
            break
        batch.append(record)
    return batch


def _silent(*_: object) -> None:
    return None

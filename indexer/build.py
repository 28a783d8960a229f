"""Documents to a published build: embeds what changed, reuses what did not, and touches the live build last.

Knows no file formats and no HTTP: documents come from `sources`, vectors from the embedder it is given.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.chunking import passages as cut
from indexer.documents import Document
from indexer.fragments import with_fragments
from indexer.sources import Skipped
from rag import builds, floor, vector_db
from rag.errors import IndexUnavailable, SourceUnreadable, UpstreamError, UpstreamRejected
from rag.models import Passage
from rag.resilience import Deadline

BATCH_TEXTS = 64
BATCH_CHARS = 100_000
"""About 30,000 tokens: what services take in one call, with room to spare."""
CONCURRENT_BATCHES = 4
BATCH_TIMEOUT_S = 60.0
PATIENCE_S = (2.0, 5.0)
"""Pauses after a batch whose every attempt failed: nobody waits for a build, so it can sit out a short outage."""

Progress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""
Accept = Callable[[vector_db.Build], Awaitable[None]]
"""Looks at a build that is about to be published, and raises where it must not be."""


class Embedder(Protocol):
    """What turns passages into vectors."""

    name: str
    dense_weight: float

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray: ...


@dataclass(slots=True)
class Summary:
    """What a build did."""

    documents: int = 0
    passages: int = 0
    embedded: int = 0
    reused: int = 0
    calls: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    build_id: str = ""
    unchanged: bool = False
    seconds: float = 0.0


async def build(
    documents: Iterable[Document | Skipped], *, root: Path, embedder: Embedder, clean: bool, progress: Progress,
    accept: Accept | None = None,
) -> Summary:  # fmt: skip
    """Publish a build of `documents` under `root`, and say what was done.

    `accept` sees the complete build before it is published; what it raises stops it. Raises `SourceUnreadable` where
    nothing can be indexed, `UpstreamError` where embeddings fail for good, and `BlockingIOError` while another process
    builds; the live build is untouched then.
    """
    began = time.monotonic()
    summary = Summary()
    with builds.writing(root) as staging:
        passages = _read(documents, summary)
        if not passages:
            reasons = [f"{skipped.source}: {skipped.reason}" for skipped in summary.skipped]
            raise SourceUnreadable("\n  ".join(["nothing readable was found in the sources", *reasons]))
        vectors = await _vectors(
            passages, root=root, embedder=embedder, clean=clean, progress=progress, summary=summary
        )
        written = vector_db.write(staging, passages, vectors)
        manifest = {
            **written,
            "documents": summary.documents,
            "embedding": {
                "model": embedder.name, "dimensions": int(vectors.shape[1]), "dense_weight": embedder.dense_weight,
                "unrelated_similarity": _unrelated_similarity(passages, vectors, embedder.dense_weight),
            },
            "content": _content(passages, vectors),
        }  # fmt: skip
        if accept is not None:
            await accept(vector_db.Build(folder=staging, manifest={**manifest, "id": "not published"}))
        live = _live_manifest(root)
        if live is not None and {name: live.get(name) for name in manifest} == manifest:
            # Publishing the same again would push out the builds that a rollback could return to.
            summary.build_id, summary.unchanged = str(live["id"]), True
        else:
            summary.build_id = builds.publish(root, staging, manifest)
    summary.seconds = time.monotonic() - began
    return summary


def _read(documents: Iterable[Document | Skipped], summary: Summary) -> list[Passage]:
    passages: list[Passage] = []
    for document in documents:
        if isinstance(document, Skipped):
            summary.skipped.append(document)
        elif found := with_fragments(document, [_storable(passage) for passage in cut(document)]):
            summary.documents += 1
            passages += found
        else:
            summary.skipped.append(Skipped(document.source, "no text"))
    summary.passages = len(passages)
    return passages


def _storable(passage: Passage) -> Passage:
    """The passage without lone surrogates, which undecodable names and broken PDFs bring: no JSON can hold them."""

    def clean(text: str) -> str:
        return text.encode("utf-8", "replace").decode("utf-8")

    return replace(
        passage,
        text=clean(passage.text),
        title=clean(passage.title),
        headings=tuple(map(clean, passage.headings)),
        url=clean(passage.url),
        anchor=clean(passage.anchor),
        source=clean(passage.source),
    )


async def _vectors(
    passages: Sequence[Passage], *, root: Path, embedder: Embedder, clean: bool, progress: Progress, summary: Summary
) -> np.ndarray:
    """Unit vectors, float32 [passages, dimensions]: the live build's where text and model are the same, else new."""
    texts = {passage.content_hash: passage.indexed_text for passage in passages}
    known = {} if clean else dict(vector_db.known_vectors(root, model=embedder.name))
    wanted = [content for content in texts if content not in known]
    new = await _embed([texts[content] for content in wanted], embedder, progress, summary)
    if len(new) and len(next(iter(known.values()), new[0])) != new.shape[1]:
        # The same name answers in another dimension now: nothing of the old build can stand beside it.
        known, wanted = {}, list(texts)
        new = await _embed(list(texts.values()), embedder, progress, summary)
    known |= dict(zip(wanted, new, strict=True))
    summary.embedded, summary.reused = len(wanted), len(texts) - len(wanted)
    return np.stack([known[passage.content_hash] for passage in passages])


async def _embed(texts: Sequence[str], embedder: Embedder, progress: Progress, summary: Summary) -> np.ndarray:
    """Unit vectors of `texts`, in order, asked for in batches, several at once."""
    batches = list(_batches(texts))
    results: list[np.ndarray] = [np.empty((0, 0), np.float32)] * len(batches)
    places = iter(range(len(batches)))
    done = 0

    async def work() -> None:
        nonlocal done
        for place in places:
            results[place] = await _embed_batch(batches[place], embedder, summary)
            done += len(batches[place])
            progress("embedding", done, len(texts))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONCURRENT_BATCHES, len(batches))):
                group.create_task(work())
    except* UpstreamError as failures:
        raise failures.exceptions[0] from None
    return np.concatenate(results) if results else np.empty((0, 0), np.float32)


async def _embed_batch(texts: Sequence[str], embedder: Embedder, summary: Summary) -> np.ndarray:
    for pause_s in (*PATIENCE_S, None):
        summary.calls += 1
        try:
            return await embedder.embed(texts, deadline=Deadline(BATCH_TIMEOUT_S))
        except UpstreamRejected:
            raise
        except UpstreamError as error:
            if pause_s is None:
                raise
            await asyncio.sleep(max(pause_s, error.retry_after_s or 0.0))
    raise AssertionError("the last pause is None")


def _batches(texts: Sequence[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    room = BATCH_CHARS
    for text in texts:
        if batch and (len(batch) == BATCH_TEXTS or len(text) > room):
            yield batch
            batch, room = [], BATCH_CHARS
        batch.append(text)
        room -= len(text)
    if batch:
        yield batch


def _unrelated_similarity(passages: Sequence[Passage], vectors: np.ndarray, dense_weight: float) -> float | None:
    """What the floor below search results is measured from; None for a model whose cosines tell nothing of topics."""
    if dense_weight < floor.MEANING_FROM_WEIGHT:
        return None
    return floor.unrelated_similarity(vectors, [passage.source for passage in passages])


def _content(passages: Sequence[Passage], vectors: np.ndarray) -> str:
    """SHA-256 over all that a build serves: two builds with equal digests answer alike."""
    digest = hashlib.sha256(vectors.tobytes())
    for passage in passages:
        digest.update(repr(passage).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _live_manifest(root: Path) -> dict[str, object] | None:
    try:
        return vector_db.open_build(root).manifest
    except IndexUnavailable:
        return None

"""Documents to a published build: embeds what changed, reuses what did not, and touches the live build last.

Knows no file formats and no HTTP: documents come from `reading` and `sites`, vectors from the embedder it is
given. Of many passages and vectors only some are in memory at a time: both are written to the build as they come.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.documents import Document, Skipped
from indexer.own_words import OwnWords
from indexer.passages.storable import passages_of
from rag.deadline import Deadline
from rag.errors import BudgetSpent, IndexUnavailable, SourceUnreadable, UpstreamError, UpstreamRejected
from rag.search import relevance
from rag.search.backends.protocol import Backend
from rag.search.hybrid import Build
from rag.search.passages import Passages, PassageWriter

BATCH_TEXTS = 64
BATCH_CHARS = 100_000
"""About 30,000 tokens: what services take in one call, with room to spare."""
CONCURRENT_BATCHES = 4
BATCH_TIMEOUT_S = 60.0
SAMPLED_PASSAGES = 10_000
"""Of more than these the floor is taken from a sample; 60 MB at 1,536 dimensions."""
PATIENCE_S = (2.0, 5.0)
"""Pauses after a batch whose every attempt failed: nobody waits for a build, so it can sit out a short outage."""

Progress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""
Accept = Callable[[Build], Awaitable[None]]
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
    own: tuple[int, int] = (0, 0)
    """The owner's answers, and groups of synonyms."""
    build_id: str = ""
    unchanged: bool = False
    seconds: float = 0.0


async def build(
    documents: Iterable[Document | Skipped], *, backend: Backend, embedder: Embedder, clean: bool, progress: Progress,
    accept: Accept | None = None, made_with: Mapping[str, object] | None = None, own: OwnWords | None = None,
) -> Summary:  # fmt: skip
    """Publish a build of `documents` in `backend`, and say what was done.

    `accept` sees the complete build before it is published; what it raises stops it. `made_with` is kept in the
    manifest: the command that makes the same again; `own` is what the owner adds. Raises `SourceUnreadable` where
    nothing can be indexed, `UpstreamError` where embeddings fail for good, `IndexUnavailable` where the backend does
    not work, and `BlockingIOError` while another process builds; the live build is untouched then.
    """
    began = time.monotonic()
    summary = Summary()
    with backend.writing() as draft:
        contents = _read(documents, draft.folder, summary)
        if not contents:
            reasons = [f"{skipped.source}: {skipped.reason}" for skipped in summary.skipped]
            raise SourceUnreadable("\n  ".join(["nothing readable was found in the sources", *reasons]))
        passages = Passages(draft.folder)
        known: Mapping[str, np.ndarray] = {} if clean else backend.known_vectors(model=embedder.name)
        vectors = await Vectors(
            passages, contents, room=draft.room, embedder=embedder, progress=progress, summary=summary
        ).made(known)
        written = draft.complete(vectors)
        manifest = {
            **written,
            "documents": summary.documents,
            "embedding": {
                "model": embedder.name, "dimensions": int(vectors.shape[1]), "dense_weight": embedder.dense_weight,
                "unrelated_similarity": _unrelated_similarity(passages, vectors, embedder.dense_weight),
            },
            "content": _content(passages, vectors),
        }  # fmt: skip
        live = _live_manifest(backend)
        if own is not None:
            embed = partial(_embed_batch, embedder=embedder, summary=summary)
            parts, astray = await own.parts(passages, embed=embed, live=live, model=embedder.name)
            manifest |= parts
            summary.skipped += astray
            summary.own = len(own.answers), len(own.groups)
        if made_with is not None:
            manifest["made_with"] = made_with
        if accept is not None:
            await accept(draft.opened(manifest))
        if live is not None and _is_the_same(live, manifest):
            # Publishing the same again would push out the builds that a rollback could return to.
            summary.build_id, summary.unchanged = str(live["id"]), True
        else:
            summary.build_id = draft.publish(manifest)
    summary.seconds = time.monotonic() - began
    return summary


def _read(documents: Iterable[Document | Skipped], staging: Path, summary: Summary) -> list[bytes]:
    """Write the passages of `documents` into `staging`; return the content hash of each."""
    contents: list[bytes] = []
    with PassageWriter(staging) as writer:
        for document in documents:
            if isinstance(document, Skipped):
                summary.skipped.append(document)
            elif found := passages_of(document):
                summary.documents += 1
                for passage in found:
                    writer.add(passage)
                    contents.append(bytes.fromhex(passage.content_hash))
            else:
                summary.skipped.append(Skipped(document.source, "no text"))
    summary.passages = len(contents)
    return contents


class Vectors:
    """Makes the vectors of the passages of one build."""

    def __init__(
        self, passages: Passages, contents: Sequence[bytes], *, room: Callable[[int, int], np.ndarray],
        embedder: Embedder, progress: Progress, summary: Summary,
    ) -> None:  # fmt: skip
        """`room` gives a place for so many vectors of so many dimensions."""
        self._passages = passages
        self._contents = contents
        self._room = room
        self._embedder = embedder
        self._progress = progress
        self._summary = summary
        self._first_row = {content: row for row, content in reversed(list(enumerate(contents)))}
        self._vectors: np.ndarray | None = None

    async def made(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unit vectors [passages, dimensions]: those `known` where text and model are the same, the others embedded."""
        wanted = self._unknown(known)
        await self._embed(wanted)
        if self._vectors is not None and known and len(next(iter(known.values()))) != self._vectors.shape[1]:
            # The same name answers in another dimension now: nothing of the old build can stand beside it.
            known = {}
            wanted = self._unknown(known)
            await self._embed(wanted)
        self._summary.embedded, self._summary.reused = len(wanted), len(self._first_row) - len(wanted)
        return self._filled(known, set(wanted))

    def _unknown(self, known: Mapping[str, np.ndarray]) -> list[int]:
        return sorted(row for content, row in self._first_row.items() if content.hex() not in known)

    def _filled(self, known: Mapping[str, np.ndarray], embedded: set[int]) -> np.ndarray:
        vectors = self._vectors
        for row, content in enumerate(self._contents):
            if row in embedded:
                continue
            first = self._first_row[content]
            if row != first and vectors is not None:
                vectors[row] = vectors[first]
                continue
            vector = known[content.hex()]
            if vectors is None:
                vectors = self._room(len(self._contents), len(vector))
            vectors[row] = vector
        if vectors is None:
            raise AssertionError("every passage is embedded or known")
        return vectors

    async def _embed(self, rows: Sequence[int]) -> None:
        """Put the unit vectors of these passages into their rows, asked for in batches, several at once."""
        batches = _batches((row, self._passages[row].indexed_text) for row in rows)
        done = 0

        async def work() -> None:
            nonlocal done
            for batch in batches:
                vectors = await _embed_batch([text for _, text in batch], self._embedder, self._summary)
                if self._vectors is None:
                    self._vectors = self._room(len(self._contents), vectors.shape[1])
                if vectors.shape != (len(batch), self._vectors.shape[1]):
                    raise UpstreamRejected(
                        f"{self._embedder.name} answered {len(batch)} texts with vectors of the shape {vectors.shape}, "
                        f"after others of {self._vectors.shape[1]} dimensions; do all endpoints serve the same model?"
                    )
                self._vectors[[row for row, _ in batch]] = vectors
                done += len(batch)
                self._progress("embedding", done, len(rows))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENT_BATCHES):
                    group.create_task(work())
        except* UpstreamError as failures:
            raise failures.exceptions[0] from None


async def _embed_batch(texts: Sequence[str], embedder: Embedder, summary: Summary) -> np.ndarray:
    for pause_s in (*PATIENCE_S, None):
        summary.calls += 1
        try:
            return await embedder.embed(texts, deadline=Deadline(BATCH_TIMEOUT_S))
        except (UpstreamRejected, BudgetSpent):
            raise
        except UpstreamError as error:
            if pause_s is None:
                raise
            await asyncio.sleep(max(pause_s, error.retry_after_s or 0.0))
    raise AssertionError("the last pause is None")


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """The texts with their rows, as many at a time as one call takes."""
    batch: list[tuple[int, str]] = []
    room = BATCH_CHARS
    for row, text in texts:
        if batch and (len(batch) == BATCH_TEXTS or len(text) > room):
            yield batch
            batch, room = [], BATCH_CHARS
        batch.append((row, text))
        room -= len(text)
    if batch:
        yield batch


def _unrelated_similarity(passages: Passages, vectors: np.ndarray, dense_weight: float) -> float | None:
    """What the floor below search results is measured from; None for a model whose cosines tell nothing of topics."""
    if dense_weight < relevance.MEANING_FROM_WEIGHT:
        return None
    rows = np.arange(len(vectors))
    if len(rows) > SAMPLED_PASSAGES:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLED_PASSAGES, replace=False))
    sampled = np.ascontiguousarray(vectors[rows], dtype=np.float32)
    return relevance.unrelated_similarity(sampled, [passages[row].source for row in rows.tolist()])


def _content(passages: Passages, vectors: np.ndarray) -> str:
    """SHA-256 over all that a build serves: two builds with equal digests answer alike."""
    digest = hashlib.sha256(str(vectors.dtype).encode())
    for start in range(0, len(vectors), SAMPLED_PASSAGES):
        digest.update(vectors[start : start + SAMPLED_PASSAGES].tobytes())
    for passage in passages:
        digest.update(repr(passage).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _is_the_same(live: Mapping[str, object], made: Mapping[str, object]) -> bool:
    """Whether the live build answers as the new one would. How an index was tuned may differ: content decides."""
    names = {*made, "answers", "synonyms"} - {"index", "made_with"}
    return all(live.get(name) == made.get(name) for name in names)


def _live_manifest(backend: Backend) -> dict[str, object] | None:
    try:
        return backend.verify()
    except IndexUnavailable:
        return None

"""Documents into the live index without building it anew: a small segment of their own beside it, and its merging.

Knows no HTTP and no file formats. What a segment is, and what names it, is `rag.search.hot.generation`'s business. Each
step is complete or absent: a process that is killed anywhere leaves the index as it was, or with all that it added.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexer.build import Embedder, Progress, Summary, Vectors
from indexer.documents import Document
from indexer.passages.storable import passages_of
from rag.errors import BuildDamaged, BuildMismatch, SourceUnreadable
from rag.search import builds, hybrid, vector_files, vectors
from rag.search.hot import generation
from rag.search.hot.generation import Added, Generation
from rag.search.passages import Passages, PassageWriter
from rag.text.terms import ANALYSIS_VERSION
from rag.types import Passage

MOST_SEGMENTS = 8
MOST_BESIDE = 0.1
"""Passages in all segments but the largest, as a part of all passages; and removed ones, of those in segments. Beyond
either, or with `MOST_SEGMENTS`, segments are merged: searching several costs more than searching one."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A document that was read, and who it is."""

    id: str
    name: str
    sha256: str
    """Of the file's bytes, in hex."""
    passages: tuple[Passage, ...]

    @classmethod
    def of(cls, document: Document, *, id: str, name: str, sha256: str) -> "Incoming":
        """Raises `SourceUnreadable` where there is no text in it."""
        passages = tuple(map(_without_page, passages_of(document)))
        if not passages:
            raise SourceUnreadable("no text")
        return cls(id, name, sha256, passages)


def _without_page(passage: Passage) -> Passage:
    """No page shows it, so that nothing leads to single words there, and a path in it leads nowhere."""
    sections = tuple(replace(section, phrases=()) for section in passage.sections)
    links = tuple(link for link in passage.links if link.url.startswith(("https://", "http://")))
    return replace(passage, fragment="", sections=sections, links=links)


async def add(
    incoming: Sequence[Incoming], *, root: Path, embedder: Embedder, progress: Progress,
    is_wanted: Callable[[Added], bool] = lambda _: True,
) -> Summary:  # fmt: skip
    """Put these documents in force, each in the place of the one with its id or name; say what was done.

    `is_wanted` is asked at the last moment, when nobody else can change what is in force: what it refuses is left out.
    Raises `IndexUnavailable` where there is no build of this embedding model to stand beside, and `UpstreamError`.
    """
    base = hybrid.open_build(root, model=embedder.name)
    summary = Summary(documents=len(incoming), passages=sum(len(one.passages) for one in incoming))
    with generation.adding(root) as staging:
        places = _written(staging, ((one, one.passages) for one in incoming))
        segment = await _sealed(root, staging, base, {}, embedder=embedder, progress=progress, summary=summary)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        added = [Added(one.id, one.name, one.sha256, now, segment, first, len(one.passages)) for one, first in places]

        def with_these(present: Generation) -> list[Added]:
            taken = [one for one in added if is_wanted(one)]
            ids, names = {one.id for one in taken}, {one.name for one in taken}
            return [*(one for one in present.documents if one.id not in ids and one.name not in names), *taken]

        generation.change(root, with_these)
    return summary


class Merge:
    """Several segments written as one, in two steps, so that a build can be published between them."""

    def __init__(self, root: Path, staging: Path) -> None:
        """`staging` is `generation.adding`'s, which has to stay open until all is done."""
        self.root = root
        self._staging = staging
        self._moved: dict[Added, Added] = {}

    async def prepare(
        self, base: hybrid.Build, chosen: Sequence[str], *, embedder: Embedder | None, progress: Progress
    ) -> None:
        """Write what is in force of the `chosen` segments into one that fits `base`. Nobody searches it yet.

        Without an `embedder` all of them have to fit.
        """
        documents = [one for one in generation.read(self.root).documents if one.segment in chosen]
        if not documents:
            return
        held = {name: _Held(self.root, name) for name in chosen}
        known = _Known(one for one in held.values() if one.fits(base))
        places = _written(self._staging, ((one, held[one.segment].passages_of(one)) for one in documents))
        segment = await _sealed(
            self.root, self._staging, base, known, embedder=embedder, progress=progress, summary=Summary()
        )
        self._moved = {one: replace(one, segment=segment, first=first) for one, first in places}

    def finish(self) -> None:
        """Name the new segment in place of the old ones. What was removed meanwhile stays removed."""
        if self._moved:
            generation.change(self.root, lambda present: [self._moved.get(one, one) for one in present.documents])


async def merge(root: Path, chosen: Sequence[str], *, embedder: Embedder | None, progress: Progress) -> None:
    """Write the `chosen` segments as one; their removed passages leave the disk. Raises as `add` does."""
    with generation.adding(root) as staging:
        merging = Merge(root, staging)
        still = [name for name in chosen if name in generation.read(root).segments]
        await merging.prepare(hybrid.open_build(root), still, embedder=embedder, progress=progress)
        merging.finish()


def due(root: Path, base: hybrid.Build, *, everything: bool = False) -> list[str]:
    """The segments that should be merged now; all that are not one whole segment which fits, if `everything` should be.

    Those that cannot be read are never among them.
    """
    held = _readable(root)
    present = generation.read(root)
    living = {name: sum(one.passages for one in present.documents if one.segment == name) for name in held}
    holed = [name for name, one in held.items() if living[name] < one.count]
    if everything:
        fit = all(one.fits(base) for one in held.values())
        return [] if len(held) < 2 and not holed and fit else list(held)
    fitting = sorted((name for name, one in held.items() if one.fits(base)), key=lambda name: living[name])
    beside, of_all = sum(living[name] for name in fitting[:-1]), sum(living.values())
    if beside > MOST_BESIDE * (base.count + of_all):
        return fitting
    if len(fitting) >= MOST_SEGMENTS:
        return fitting[:-1]
    removed = sum(held[name].count - living[name] for name in fitting)
    return [name for name in holed if name in fitting] if removed > MOST_BESIDE * of_all else []


def with_removed(root: Path, base: hybrid.Build) -> list[str]:
    """The segments that still hold passages of removed documents, and can be written anew without embedding."""
    present = generation.read(root)
    living = {name: sum(one.passages for one in present.documents if one.segment == name) for name in present.segments}
    return [name for name, one in _readable(root).items() if living[name] < one.count and one.fits(base)]


def _readable(root: Path) -> "dict[str, _Held]":
    held = {}
    for name in generation.read(root).segments:
        try:
            held[name] = _Held(root, name)
        except (BuildDamaged, BuildMismatch):
            continue
    return held


class _Held:
    """What a segment holds: passages and vectors, whether or not it can be searched."""

    def __init__(self, root: Path, name: str) -> None:
        folder = generation.folder_of(root, name)
        about = builds.verify(folder)
        self._model, self._terms = about["embedding"]["model"], about["lexical"]["analysis_version"]
        self.passages = Passages(folder)
        self.vectors = vectors.opened(folder, about["index"])
        self.count = len(self.passages)

    def fits(self, base: hybrid.Build) -> bool:
        """Whether it can stand beside `base`."""
        same_model = self._model == base.model and self.vectors.dimensions == base.dimensions
        return same_model and self._terms == ANALYSIS_VERSION

    def passages_of(self, document: Added) -> Iterator[Passage]:
        return (self.passages[row] for row in range(document.first, document.first + document.passages))


class _Known(Mapping[str, np.ndarray]):
    """Vectors of segments by the hash of what was embedded."""

    def __init__(self, held: Iterable[_Held]) -> None:
        self._places = {
            bytes.fromhex(passage.content_hash): (one, row) for one in held for row, passage in enumerate(one.passages)
        }

    def __getitem__(self, content_hash: str) -> np.ndarray:
        held, row = self._places[bytes.fromhex(content_hash)]
        return held.vectors.vector(row)

    def __iter__(self) -> Iterator[str]:
        return (content.hex() for content in self._places)

    def __len__(self) -> int:
        return len(self._places)


def _written(staging: Path, documents: Iterable[tuple[Any, Iterable[Passage]]]) -> list[tuple[Any, int]]:
    """Write the passages of each document; return it with the row of its first."""
    places = []
    with PassageWriter(staging) as writer:
        for document, passages in documents:
            places.append((document, len(writer)))
            for passage in passages:
                writer.add(passage)
    return places


async def _sealed(
    root: Path, staging: Path, base: hybrid.Build, known: Mapping[str, np.ndarray], *, embedder: Embedder | None,
    progress: Progress, summary: Summary,
) -> str:  # fmt: skip
    """Complete the segment whose passages are in `staging`, so that it can stand beside `base`; return its id."""
    passages = Passages(staging)
    contents = [bytes.fromhex(passage.content_hash) for passage in passages]
    made = await Vectors(
        passages, contents, room=partial(vector_files.room, staging), embedder=embedder or _Nobody(),
        progress=progress, summary=summary,
    ).made(known)  # fmt: skip
    if made.shape[1] != base.dimensions:
        raise BuildMismatch(
            f"{base.model} gives {made.shape[1]} dimensions now, the live build has {base.dimensions}; "
            "run: python -m indexer build SOURCE --clean"
        )
    beside_length = float(base.manifest["lexical"]["mean_length"])
    about = {"model": base.model, "dimensions": base.dimensions, "dense_weight": base.dense_weight}
    return generation.seal(
        root, staging, {**hybrid.complete(staging, made, beside_length=beside_length), "embedding": about}
    )


class _Nobody:
    """Stands where nothing needs to be embedded."""

    name, dense_weight = "", 0.0

    async def embed(self, texts: Sequence[str], **_: object) -> np.ndarray:
        raise AssertionError(f"{len(texts)} passages of segments that fit have no vector")

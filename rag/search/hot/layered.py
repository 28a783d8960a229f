"""The live build with what was added to it: searched as one, each passage weighed by all of them."""

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rag.search.hot.generation import Added, Generation
from rag.search.hot.meaning import LayeredVectors
from rag.search.hot.parts import Part
from rag.search.hot.words import LayeredWords
from rag.search.hybrid import Build
from rag.types import Passage


class LayeredBuild(Build):
    """A build with segments. Everything that a build can be asked, of all of them together."""

    def __init__(self, base: Build, segments: Mapping[str, Build], generation: Generation) -> None:
        """`segments` are open, by their ids; documents of `generation` in others are left out."""
        # Not the base class's: every file is open already.
        self.folder, self.manifest = base.folder, base.manifest
        self.model, self.dimensions, self.dense_weight = base.model, base.dimensions, base.dense_weight
        self._has_floor, self._unrelated = base._has_floor, base._unrelated
        self.base = base
        self.added = tuple(document for document in generation.documents if document.segment in segments)
        # The answers that a cache keeps belong to one state of the index, with these rows.
        left_out = set(generation.segments) - set(segments)
        self.id = f"{base.id}+{generation.id}" + (f"-{zlib.crc32(repr(sorted(left_out)).encode())}" if left_out else "")
        self.parts = [Part(base, 0), *_parts(segments, self.added, base.count)]
        self._firsts = [part.first for part in self.parts]
        self.count = sum(part.count for part in self.parts)
        self._vectors = LayeredVectors(self.parts, [part.build._vectors for part in self.parts])
        self.lexical = LayeredWords(self.parts)
        # Words that only added documents have are known, and correct none.
        self._vocabulary = base._vocabulary

    def passage(self, row: int) -> Passage:
        part = self.parts[bisect_right(self._firsts, row) - 1]
        own = row - part.first
        return part.build.passage(own if part.live is None else int(part.live[own]))

    def passages(self) -> Iterator[Passage]:
        return (self.passage(row) for row in range(self.count))


def _parts(segments: Mapping[str, Build], added: Sequence[Added], first: int) -> Iterator[Part]:
    held: dict[str, list[NDArray[np.int64]]] = {identity: [] for identity in segments}
    for one in added:
        held[one.segment].append(np.arange(one.first, one.first + one.passages))
    for identity, build in segments.items():
        live = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *held[identity]]))
        if len(live):
            part = Part(build, first, None if len(live) == build.count else live)
            first += part.count
            yield part

"""The vectors of several indexes, asked as if they were one's. Knows no words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.search.fusion import Nearest
from rag.search.hot.parts import Part, shared
from rag.search.vectors import Floats, Vectors


class LayeredVectors:
    """Behaves as the vectors of one build: see `rag.search.vectors.Vectors`."""

    def __init__(self, parts: Sequence[Part], each: Sequence[Vectors]) -> None:
        """`each` has the vectors of each of `parts`; all are of one dimension."""
        self._parts = parts
        self._of = {id(part): vectors for part, vectors in zip(parts, each, strict=True)}
        self.is_exact = all(vectors.is_exact for vectors in each)
        self.count = sum(part.count for part in parts)
        self.dimensions = each[0].dimensions

    def vector(self, row: int) -> Floats:
        return np.asarray(self.vectors([row])[0])

    def vectors(self, rows: Sequence[int]) -> Floats:
        wanted = np.asarray(rows, dtype=np.int64)
        found = np.empty((len(wanted), self.dimensions), dtype=np.float32)
        for part, places in shared(self._parts, wanted):
            found[places] = self._of[id(part)].vectors(part.own(wanted[places]).tolist())
        return found

    def similarities(self, question: Floats) -> Floats:
        found = [(part, self._of[id(part)].similarities(question)) for part in self._parts]
        return np.concatenate([all_ if part.live is None else all_[part.live] for part, all_ in found])

    def nearest(self, question: Floats, *, also: NDArray[np.int64]) -> Nearest:
        """Of each part its nearest; mean and deviation are those of all passages together."""
        rows, similarities = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
        mean = square = 0.0
        for part in self._parts:
            own = part.own(also[(also >= part.first) & (also < part.first + part.count)])
            near = self._of[id(part)].nearest(question, also=own)
            numbers, counts = part.among_all(near.rows.astype(np.int64))
            rows.append(numbers)
            similarities.append(near.similarities[counts])
            share = part.count / self.count
            mean += share * near.mean
            square += share * (near.deviation**2 + near.mean**2)
        deviation = max(square - mean * mean, 0.0) ** 0.5
        return Nearest(np.concatenate(rows), np.concatenate(similarities), mean, deviation)

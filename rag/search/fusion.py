"""Two opinions on every passage, lexical and dense, made one ranking. Pure arithmetic on scores.

It must not know what was asked, what a passage says, or where the scores come from.

Each leg is standardised over all passages of the index, (score - mean) / standard deviation, and the two are summed
with weights. So a leg speaks as loudly as its best passages stand out from the rest: a question of one rare name is
decided by words, one without a known word by vectors. Ranks (reciprocal rank fusion) and min-max scaling throw exactly
that away; docs/decisions has the figures.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.protocols import DENSE_WEIGHT

DEPTH = 50
SAMPLE_PASSAGES = 1024
"""Enough to know a standard deviation within 3 %."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """What an approximate index tells of the dense leg: the best passages, and how all of them are spread."""

    rows: NDArray[np.integer[Any]]
    """Rows, each once, ascending."""
    similarities: NDArray[np.floating[Any]]
    mean: float
    """Mean similarity of the question to all passages, or to those of `sample_rows`."""
    deviation: float
    """Standard deviation of the same similarities."""


def sample_rows(passages: int) -> NDArray[np.int64]:
    """Rows whose similarities stand for those of the whole index: evenly spread, the same for every question."""
    count = min(passages, SAMPLE_PASSAGES)
    return np.linspace(0, max(passages - 1, 0), num=count).astype(np.int64)


def fuse(
    *,
    lexical: NDArray[np.floating[Any]] | None,
    dense: NDArray[np.floating[Any]] | None,
    dense_weight: float = DENSE_WEIGHT,
    depth: int = DEPTH,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best `depth` passages: their rows, best first, and their scores, from 1 for the best down to 0 at least.

    `lexical`: a score of every passage, 0 where no word was met; `dense`: a cosine similarity of every passage. Both
    shapes are [passages]. None, or lexical scores of 0 alone, is a leg without an opinion: the other one decides, and
    with neither nothing is found. Equal passages keep the order of rows. A score of 0 is the average passage of the
    index, or the last one returned where that is below average; scores compare within one search only.
    """
    heard = lexical is not None and bool(lexical.any())
    if dense is None:
        if lexical is None or not heard:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return best(_standard(lexical), depth, among=np.flatnonzero(lexical > 0))
    if lexical is None or not heard:
        return best(_standard(dense), depth)
    return best((1 - dense_weight) * _standard(lexical) + dense_weight * _standard(dense), depth)


def _standard(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    values = scores.astype(np.float64)
    if not len(values):
        return values
    # By hand: over the passages of a small site numpy's own `mean` and `std` take several times as long.
    values -= float(np.add.reduce(values)) / len(values)
    deviation = math.sqrt(float(values @ values) / len(values))
    return values / deviation if deviation > 0 else values


def best(
    scores: NDArray[np.floating[Any]], depth: int, *, among: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `depth` highest scores, of all rows or of those `among` them: rows and scores as `fuse` gives them."""
    eligible = scores if among is None else scores[among]
    least = -np.inf
    if len(eligible) > depth:
        # Only what reaches the last place is sorted: sorting 50,000 passages costs more than finding them did.
        least = np.partition(eligible, -depth)[-depth]
    places = (eligible >= least).nonzero()[0]
    places = places[(-eligible[places]).argsort(kind="stable")[:depth]]
    rows, highest = places if among is None else among[places], eligible[places]
    if not len(rows):
        return rows, np.empty(0, dtype=np.float32)
    top, floor = float(highest[0]), min(0.0, float(highest[-1]))
    if top <= floor:
        return rows, np.ones(len(rows), dtype=np.float32)
    return rows, ((highest - floor) / (top - floor)).astype(np.float32)

"""Fusion for an index that is too large for an array a leg: a shortlist of each leg, scored by both. Pure arithmetic.

The score is `fusion`'s: each leg standardised over all passages, and a weighted sum. Only passages that neither leg
puts among its own best are not considered; over a million passages `fusion.fuse` takes 20 ms, this takes one. It must
not know what was asked, what a passage says, or where the scores come from.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.search import fusion
from rag.search.fusion import Nearest

BLOCK = 1_000


@dataclass(frozen=True, slots=True)
class Words:
    """What the lexical leg says."""

    scores: NDArray[np.floating[Any]]
    """Of every passage, 0 where no word was met."""
    best: NDArray[np.int64]
    """Rows of the highest scores above 0, ascending."""
    mean: float
    deviation: float
    """Of all scores; 0 is a leg without an opinion."""


def of_words(scores: NDArray[np.floating[Any]], *, length: int) -> Words:
    """The `length` best rows of `scores` [passages]; more where passages are equal to the last, fewer where 0 is."""
    count = len(scores)
    mean = float(scores.mean()) if count else 0.0
    variance = float(np.dot(scores, scores)) / count - mean * mean if count else 0.0
    return Words(scores, _highest(scores, length), mean, math.sqrt(max(variance, 0.0)))


def _highest(scores: NDArray[np.floating[Any]], length: int) -> NDArray[np.int64]:
    # Where `length` blocks each have a score of at least x, at least `length` scores are. So the blocks' maxima tell
    # a bound below which nothing needs sorting, in one pass that costs a tenth of np.partition's.
    whole = scores[: len(scores) // BLOCK * BLOCK]
    maxima = whole.reshape(-1, BLOCK).max(axis=1) if len(whole) else whole
    bound = float(np.partition(maxima, -length)[-length]) if len(maxima) >= length else 0.0
    rows = np.flatnonzero(scores >= bound) if bound > 0 else np.flatnonzero(scores > 0)
    if len(rows) > length:
        rows = rows[scores[rows] >= np.partition(scores[rows], -length)[-length]]
        rows = rows[np.argsort(-scores[rows], kind="stable")][:length]
        rows.sort()
    return rows


def fuse(
    words: Words, nearest: Nearest | None, *, dense_weight: float, depth: int = fusion.DEPTH
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best `depth` passages: rows, best first, and scores from 1 down to 0 at least, as `fusion.fuse` gives them.

    `nearest` holds the true similarities of the nearest passages and of `words.best`, rows ascending; None where the
    question has no vector.
    """
    has_words = words.deviation > 0
    if nearest is None:
        fused, rows = _standard(words, words.best), words.best
    else:
        rows = nearest.rows.astype(np.int64)
        fused = (nearest.similarities.astype(np.float64) - nearest.mean) / (nearest.deviation or 1.0)
        if has_words:
            fused = (1 - dense_weight) * _standard(words, rows) + dense_weight * fused
    places, scores = fusion.best(fused, depth)
    return rows[places], scores


def _standard(words: Words, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return (words.scores[rows].astype(np.float64) - words.mean) / (words.deviation or 1.0)

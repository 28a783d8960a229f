"""Whether a question has anything to do with the site at all: an absolute floor below what was found. Pure arithmetic.

Scores of one search only rank passages; the best of a bad lot still gets 1. So two facts about each of the best
passages are weighed here: its cosine, on a scale that fits the embedding model, and its coverage, the part of the
question's words that it has. It must not know of passages' texts, files or answers; it tells off-topic questions from
others, not answerable from unanswerable ones. In doubt it lets a question through: the model says when its sources do
not answer.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.settings import LOCAL_MODEL

CHECKED = 5
"""Passages that are weighed: the best ones of a search."""
COVERAGE_WEIGHT = 0.4
LEAST = 0.42
"""Of scaled cosine plus weighted coverage. benchmarks/retrieval.py measures what it refuses, rightly and wrongly."""
LEAST_OF_MODELS = {LOCAL_MODEL: 0.22}
"""Of models whose cosines run lower, above all between a question of one language and a passage of another."""
CLEAR_COVERAGE = 0.35
"""From here on the words alone speak for a passage, however weak the embedding model. Measured, LEAST and this together
refuse 1 of 748 public questions on topic, and 77 % and 93 % of those about something else."""
LEAST_WORDS = 2
"""Fewer words with a meaning of their own are no question to judge ("hello"); where there are vectors they pass."""
LEAST_COVERAGE = 0.18
"""Where only words can be weighed."""
LEAST_COVERAGE_OF_RUNS = 0.1
"""The same for scripts without spaces: one unknown word breaks three bigrams."""
COVERAGE_OF_A_FOREIGN_QUESTION = 0.5
"""In another language than the site's even the best passage shares no word: that says nothing, and this is neutral."""
MEANING_FROM_WEIGHT = 0.3
"""Models with a smaller share in fusion know spelling, not meaning: their cosines tell nothing about a topic."""

PAIRS = 20_000
UNRELATED_SHARE = 0.05


def unrelated_similarity(vectors: NDArray[np.floating], documents: Sequence[str]) -> float:
    """What two texts without anything in common score by the model that made `vectors`: 0 to 1.

    `vectors` are unit vectors [passages, dimensions], `documents` says where each is from. Some models put all texts
    into a narrow cone, where strangers reach .7; others near 0. Taken from random pairs of different documents: the
    lowest twentieth, since on a site about one thing most pairs are related.
    """
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, len(vectors), (2, PAIRS))
    place = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    of_row = np.array([place[document] for document in documents])
    apart = of_row[first] != of_row[second]
    first, second = first[apart], second[apart]
    if not len(first):
        return 0.0
    # In slices, so that 20,000 pairs of 1,536 dimensions never stand in memory at once.
    slices = [slice(start, start + 1_000) for start in range(0, len(first), 1_000)]
    cosines = np.concatenate([np.einsum("ij,ij->i", vectors[first[part]], vectors[second[part]]) for part in slices])
    return float(np.clip(np.quantile(cosines, UNRELATED_SHARE), 0.0, 0.95))


def is_on_topic(
    *, similarities: Sequence[float] | None, coverages: Sequence[float], unrelated: float | None,
    in_spaceless_script: bool, is_foreign: bool, least: float = LEAST,
) -> bool:  # fmt: skip
    """Whether the best passages of a search, `CHECKED` or fewer, have anything to do with the question.

    `similarities` are their cosines, None where the question has no vector; `coverages` as `Lexical.coverage` gives
    them; `unrelated` is the build's `unrelated_similarity`, None for a model whose cosines tell nothing. A passage's
    evidence is (cosine - unrelated) / (1 - unrelated) + `COVERAGE_WEIGHT` * coverage, where the scale undoes what a
    shared direction adds to every cosine; a coverage of `CLEAR_COVERAGE` is enough by itself. `least` is the model's.
    """
    if similarities is None or unrelated is None:
        least = LEAST_COVERAGE_OF_RUNS if in_spaceless_script else LEAST_COVERAGE
        return max(coverages, default=0.0) >= least
    evidence = [
        (similarity - unrelated) / (1 - unrelated)
        + COVERAGE_WEIGHT * (max(coverage, COVERAGE_OF_A_FOREIGN_QUESTION) if is_foreign else coverage)
        for similarity, coverage in zip(similarities, coverages, strict=True)
    ]
    return max(evidence, default=0.0) >= least or max(coverages, default=0.0) >= CLEAR_COVERAGE

"""How good a ranking is, against the documents known to be right. Pure; binary relevance.

It must not know where rankings come from. Every figure is for one question; the mean over questions is the caller's.
"""

import math
import random
from collections.abc import Collection, Sequence

RESAMPLES = 2_000


def ndcg_at_10(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """Normalised discounted cumulated gain of the first ten, 0 to 1.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with a gain of 1
    for a relevant document and the discount log2(rank + 1) that trec_eval and BEIR use. 0 without a relevant document.
    """
    wanted = set(relevant)
    gain = sum(1 / math.log2(rank + 1) for rank, is_right in enumerate(_rightness(ranked, wanted, 10), 1) if is_right)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), 10) + 1))
    return gain / ideal if ideal else 0.0


def recall_at_5(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """The part of the relevant documents among the first five, 0 to 1; Manning, Raghavan and Schütze, 2008, ch. 8."""
    wanted = set(relevant)
    return sum(_rightness(ranked, wanted, 5)) / len(wanted) if wanted else 0.0


def mrr_at_10(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """One over the rank of the first relevant document, 0 beyond the tenth; its mean is the MRR.

    Voorhees, "The TREC-8 Question Answering Track Report", 1999.
    """
    right = _rightness(ranked, set(relevant), 10)
    return 1 / (right.index(True) + 1) if True in right else 0.0


def interval_95(differences: Sequence[float]) -> tuple[float, float]:
    """Between which two values the mean of paired differences lies, 95 % of the time.

    Percentile bootstrap over questions, the same for every call: Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13. An interval on one side of 0 is a difference that is not luck.
    """
    draw = random.Random(0).choices  # noqa: S311
    count = len(differences)
    means = sorted(sum(draw(differences, k=count)) / count for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def _rightness(ranked: Sequence[str], wanted: Collection[str], depth: int) -> list[bool]:
    """Whether each of the first `depth` is wanted; a document named twice counts where it stands first.

    Several passages of one page are one document, so repetitions do not use up ranks.
    """
    return [document in wanted for document in list(dict.fromkeys(ranked))[:depth]]

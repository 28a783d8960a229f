"""What the site does not answer: questions that mean the same, put together, and what is the matter with each.

Each is asked again on the live build, by search alone: that tells whether a page is missing, or there but not found, or
was added since. Knows no route and no form of a report.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rag.chat.retrieval import Retriever
from rag.deadline import Deadline
from rag.stores.protocols import QuestionFilter, QuestionGroup, QuestionStore
from rag.text.terms import function_words, terms, words

Diagnosis = Literal["no_page", "not_found", "disliked", "outage", "closed"]
MEANING: dict[Diagnosis, str] = {
    "no_page": "no page on it",
    "not_found": "there, but not found",
    "disliked": "found, but disliked",
    "outage": "answered by quotes, because the model was away",
    "closed": "closed by a later build",
}
MOST_GROUPS = 500
"""Different questions that are looked at, the most frequent first."""
MOST_GAPS = 50
EXAMPLES = 5
SHARED_WORDS = 0.6
"""Of the words of two questions, for them to mean the same where their vectors are not known."""
LEAST_ALIKE, MOST_ALIKE = 0.6, 0.9
"""Bounds of the cosine from which on two questions mean the same; between them the questions themselves tell."""
UNRELATED_PERCENTILE = 95
"""Most questions of a site are about different things: two of a pair above this share of all pairs are not."""
FEWEST_TO_TELL = 5
"""Vectors, for that to be seen."""
ASK_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Questions that mean the same and were not answered well."""

    question: str
    """The one that was asked most."""
    count: int
    examples: list[str]
    unanswered: int
    disliked: int
    reason: str
    """What one of those said who disliked the answer."""
    last_at: str
    diagnosis: Diagnosis
    meaning: str
    """The diagnosis in words."""
    nearest_title: str
    nearest_url: str
    similarity: float | None
    """Cosine of the nearest page's passage to the question."""
    build: str
    """The live build, which was asked again."""


async def find_gaps(store: QuestionStore, retriever: Retriever, *, days: int, limit: int = MOST_GAPS) -> list[Gap]:
    """The most frequent first. Raises `StateUnavailable`."""
    groups = await store.groups(QuestionFilter(days=days, gaps=True), limit=MOST_GROUPS)
    found = sorted(
        await asyncio.to_thread(clusters, groups), key=lambda cluster: -sum(group.count for group in cluster)
    )
    return [await _diagnosed(cluster, retriever) for cluster in found[:limit]]


async def most_asked(store: QuestionStore, wanted: QuestionFilter, *, limit: int) -> list[dict[str, Any]]:
    """Questions that mean the same, put together, the most frequent first. Raises `StateUnavailable`."""
    groups = await store.groups(wanted, limit=max(MOST_GROUPS, limit))
    found = await asyncio.to_thread(clusters, groups)
    return sorted(map(_together, found), key=lambda row: -int(row["count"]))[:limit]


def _together(cluster: Sequence[QuestionGroup]) -> dict[str, Any]:
    first = cluster[0]
    return {
        "question": first.question, "count": sum(group.count for group in cluster),
        "examples": [group.question for group in cluster[:EXAMPLES]],
        "wordings": len(cluster), "last_at": max(group.last_at for group in cluster),
        "unanswered": sum(group.unanswered for group in cluster), "disliked": sum(group.disliked for group in cluster),
        "language": first.language, "page": first.page, "similarity": first.similarity, "outcome": first.outcome,
        "reason": next((group.reason for group in cluster if group.reason), ""),
    }  # fmt: skip


def clusters(groups: Sequence[QuestionGroup]) -> list[list[QuestionGroup]]:
    """Groups that mean the same, put together; the first of each was asked most."""
    near = _near([_vector(group) for group in groups])
    spoken = [_spoken(group) for group in groups]
    made: list[list[int]] = []
    for place in range(len(groups)):
        for cluster in made:
            first = cluster[0]
            if near[place, first] or _share(spoken[place], spoken[first]) >= SHARED_WORDS:
                cluster.append(place)
                break
        else:
            made.append([place])
    return [[groups[place] for place in cluster] for cluster in made]


def drafts(gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    """Lines for a file of questions that `indexer evaluate` skips until an owner names the right page."""
    return [
        {
            "id": f"gap-{number}", "question": gap.question, "relevant": [], "status": "draft",
            "suggested": [gap.nearest_url] if gap.nearest_url else [], "count": gap.count, "diagnosis": gap.diagnosis,
        }
        for number, gap in enumerate(gaps, start=1)
    ]  # fmt: skip


async def _diagnosed(cluster: Sequence[QuestionGroup], retriever: Retriever) -> Gap:
    first = cluster[0]
    retrieved = await retriever.search(first.question, k=5, deadline=Deadline(ASK_TIMEOUT_S))
    best = retrieved.hits[0] if retrieved.hits else None
    unanswered, disliked = sum(group.unanswered for group in cluster), sum(group.disliked for group in cluster)
    outcomes = {group.outcome for group in cluster}
    last_build = max(group.build for group in cluster)
    if retriever.build.own_answers.match(first.question, retrieved.vector):
        diagnosis: Diagnosis = "closed"
    elif not retrieved.on_topic or best is None:
        diagnosis = "no_page"
    elif disliked > unanswered:
        diagnosis = "disliked"
    elif "nothing_found" in outcomes and last_build != retrieved.build:
        diagnosis = "closed"
    else:
        diagnosis = "outage" if outcomes == {"quoted"} else "not_found"
    return Gap(
        question=first.question, count=sum(group.count for group in cluster),
        examples=[group.question for group in cluster[:EXAMPLES]], unanswered=unanswered, disliked=disliked,
        reason=next((group.reason for group in cluster if group.reason), ""),
        last_at=max(group.last_at for group in cluster), diagnosis=diagnosis, meaning=MEANING[diagnosis],
        nearest_title=best.passage.heading_path if best else "", nearest_url=best.passage.anchored_url if best else "",
        similarity=round(best.similarity, 3) if best else None, build=retrieved.build,
    )  # fmt: skip


def _vector(group: QuestionGroup) -> np.ndarray | None:
    if group.vector is None:
        return None
    vector = np.frombuffer(group.vector, dtype=np.float16).astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector / length if length else None


def _near(vectors: Sequence[np.ndarray | None]) -> np.ndarray:
    """Which of these mean the same, as far as vectors tell: bool [count, count].

    From which cosine on differs from model to model: above that of most pairs. Only vectors of one model are compared,
    that of the first.
    """
    near = np.zeros((len(vectors), len(vectors)), dtype=bool)
    known = [(place, vector) for place, vector in enumerate(vectors) if vector is not None]
    alike = [(place, vector) for place, vector in known if len(vector) == len(known[0][1])]
    if not alike:
        return near
    places = np.array([place for place, _ in alike])
    rows = np.stack([vector for _, vector in alike])
    cosines = rows @ rows.T
    least = MOST_ALIKE
    if len(rows) >= FEWEST_TO_TELL:
        pairs = cosines[np.triu_indices(len(rows), k=1)]
        least = float(np.clip(np.percentile(pairs, UNRELATED_PERCENTILE), LEAST_ALIKE, MOST_ALIKE))
    near[np.ix_(places, places)] = cosines >= least
    return near


def _spoken(group: QuestionGroup) -> frozenset[str]:
    """The words of a question that mean something, in the form in which they are compared."""
    found = {word for word, _ in words(group.question)}
    return frozenset(terms(" ".join(found - function_words(found)), group.language))


def _share(some: frozenset[str], others: frozenset[str]) -> float:
    return len(some & others) / len(some | others) if some and others else 0.0

"""Questions with known answers, asked of a build: how good is what it finds?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from indexer.build import BATCH_TEXTS, Embedder, Progress
from indexer.metrics import mrr_at_10, ndcg_at_10, recall_at_5
from rag.errors import SourceUnreadable
from rag.models import Passage
from rag.resilience import Deadline
from rag.vector_db import Build

DEPTH = 20
"""Passages asked for; several of one page count once, so that ten pages remain."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and where its answer stands: addresses or source paths."""

    id: str
    text: str
    relevant: frozenset[str]


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over all questions, each 0 to 1."""

    questions: int
    ndcg_at_10: float
    recall_at_5: float
    mrr_at_10: float
    missed: list[str]
    """Questions none of whose pages were among the first ten."""


def read(path: Path) -> list[Question]:
    """One question a line: `{"id", "question", "relevant": ["url or source path", …]}`. Raises `SourceUnreadable`."""
    questions = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
            relevant = frozenset(map(str, _listed(fields["relevant"])))
            questions.append(Question(str(fields.get("id", number)), str(fields["question"]), relevant))
        except (ValueError, KeyError, TypeError, AttributeError):
            wanted = '{"id", "question", "relevant": ["url or source path", …]}'
            raise SourceUnreadable(f"{path}, line {number}: not of the form {wanted}") from None
        if not relevant:
            raise SourceUnreadable(f"{path}, line {number}: names no relevant page")
    if not questions:
        raise SourceUnreadable(f"{path} holds no questions")
    return questions


def _listed(places: object) -> list[object]:
    # Of a text, each character would count as a page.
    if not isinstance(places, list):
        raise TypeError("relevant is no list")
    return places


async def measure(live: Build, questions: Sequence[Question], *, embedder: Embedder, progress: Progress) -> Scores:
    """Ask every question of `live`, as the server would. Raises `UpstreamError`."""
    ndcg, recall, mrr = 0.0, 0.0, 0.0
    missed = []
    for start in range(0, len(questions), BATCH_TEXTS):
        batch = questions[start : start + BATCH_TEXTS]
        vectors = await embedder.embed([question.text for question in batch], deadline=Deadline(60.0))
        for question, vector in zip(batch, vectors, strict=True):
            ranked = _pages(live, question, vector)
            ndcg += ndcg_at_10(ranked, question.relevant)
            recall += recall_at_5(ranked, question.relevant)
            mrr += mrr_at_10(ranked, question.relevant)
            if not question.relevant & set(ranked[:10]):
                missed.append(question.text)
        progress("asking", start + len(batch), len(questions))
    count = len(questions)
    return Scores(count, ndcg / count, recall / count, mrr / count, missed)


def _pages(live: Build, question: Question, vector: object) -> list[str]:
    """The pages that were found, best first, each once, by the name under which the question knows it."""
    hits = live.search(question.text, vector=vector, k=DEPTH)  # type: ignore[arg-type]
    return list(dict.fromkeys(_name(hit.passage, question.relevant) for hit in hits))


def _name(passage: Passage, known: frozenset[str]) -> str:
    names = (passage.anchored_url, passage.url, passage.source)
    return next((name for name in names if name in known), passage.url)

"""Questions with known answers, asked of a build: how good is what it finds?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from indexer.build import BATCH_TEXTS, Embedder, Progress
from indexer.metrics import interval_95, mrr_at_10, ndcg_at_10, recall_at_5
from rag.deadline import Deadline
from rag.errors import RagError, SourceUnreadable
from rag.search.hybrid import Build
from rag.types import Hit

DEPTH = 20
"""Passages asked for; several of one page count once, so that ten pages remain."""
NAMED = 10
"""Of a list in a sentence, at most."""


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
    each: list[tuple[float, float, float]] = field(default_factory=list, compare=False, repr=False)
    """nDCG@10, recall@5 and reciprocal rank of every question, in their order."""
    unknown: list[str] = field(default_factory=list)
    """Pages that questions name and the build does not have: misspelled, moved or skipped."""
    own: int = 0
    """Questions that the owner's answers answer: what these lead to counts as found, and nothing else."""


class BelowBar(RagError):
    """A build that finds less than was asked for; `str(error)` holds both figures."""


def read(path: Path) -> list[Question]:
    """One question a line: `{"id", "question", "relevant": ["url or source path", …]}`. Raises `SourceUnreadable`."""
    questions, drafts = [], 0
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
            if fields.get("status") == "draft":
                drafts += 1
                continue
            relevant = frozenset(map(str, _listed(fields["relevant"])))
            questions.append(Question(str(fields.get("id", number)), str(fields["question"]), relevant))
        except (ValueError, KeyError, TypeError, AttributeError):
            wanted = '{"id", "question", "relevant": ["url or source path", …]}'
            raise SourceUnreadable(f"{path}, line {number}: not of the form {wanted}") from None
        if not relevant:
            raise SourceUnreadable(f"{path}, line {number}: names no relevant page")
    if not questions:
        only = f", only {drafts} drafts; name the right page of each and take its status away" if drafts else ""
        raise SourceUnreadable(f"{path} holds no questions{only}")
    if drafts:
        print(f"{drafts} drafts of questions are skipped", file=sys.stderr)
    return questions


def _listed(places: object) -> list[object]:
    # Of a text, each character would count as a page.
    if not isinstance(places, list):
        raise TypeError("relevant is no list")
    return places


async def measure(live: Build, questions: Sequence[Question], *, embedder: Embedder, progress: Progress) -> Scores:
    """Ask every question of `live`, as the server would. Raises `UpstreamError`."""
    each: list[tuple[float, float, float]] = []
    missed, own = [], 0
    pages = _Pages(live)
    unknown: dict[str, None] = {}
    for start in range(0, len(questions), BATCH_TEXTS):
        batch = questions[start : start + BATCH_TEXTS]
        vectors = await embedder.embed([question.text for question in batch], deadline=Deadline(60.0))
        for question, vector in zip(batch, vectors, strict=True):
            wanted = pages.wanted(question.relevant)
            unknown |= dict.fromkeys(sorted(wanted - pages.names))
            answer = live.own_answers.match(question.text, vector)
            own += answer is not None
            hits = answer.hits if answer else live.search(question.text, vector=vector, k=DEPTH)
            ranked = _ranked(hits, wanted)
            each.append((ndcg_at_10(ranked, wanted), recall_at_5(ranked, wanted), mrr_at_10(ranked, wanted)))
            if not wanted & set(ranked[:10]):
                missed.append(question.text)
        progress("asking", start + len(batch), len(questions))
    ndcg, recall, mrr = (sum(figures) / len(each) for figures in zip(*each, strict=True))
    return Scores(len(each), ndcg, recall, mrr, missed, each, list(unknown), own)


def require(scores: Scores, *, min_ndcg: float) -> None:
    """Raises `BelowBar` where nDCG@10 is lower than `min_ndcg`."""
    if scores.ndcg_at_10 < min_ndcg:
        absent = f"; not in the build: {', '.join(scores.unknown[:NAMED])}" if scores.unknown else ""
        raise BelowBar(f"nDCG@10 {scores.ndcg_at_10:.3f} is below {min_ndcg}{absent}")


def comparison_lines(live: Scores, other: Scores, *, live_id: str, other_id: str) -> list[str]:
    """Both builds' figures in a table, what changed between them, and whether that is more than luck.

    Both were asked the same questions in the same order.
    """
    lines = [f"live       {live_id}", f"compared   {other_id}", f"questions  {live.questions:,}", ""]
    lines.append(f"{'':<10} {'live':>7} {'compared':>9} {'change':>8}   95 % of the time")
    verdict = "no difference that could not be luck"
    for place, name in enumerate(("nDCG@10", "recall@5", "MRR@10")):
        ours, theirs = [row[place] for row in live.each], [row[place] for row in other.each]
        changes = [new - old for new, old in zip(ours, theirs, strict=True)]
        low, high = interval_95(changes)
        count = len(changes)
        lines.append(
            f"{name:<10} {sum(ours) / count:>7.3f} {sum(theirs) / count:>9.3f} {sum(changes) / count:>+8.3f}"
            f"   {low:+.3f} to {high:+.3f}"
        )
        if place == 0 and (low > 0 or high < 0):
            verdict = "the live build is better" if low > 0 else "the live build is worse"
    better = sum(new[0] > old[0] for new, old in zip(live.each, other.each, strict=True))
    worse = sum(new[0] < old[0] for new, old in zip(live.each, other.each, strict=True))
    return [*lines, "", f"{verdict}: {better:,} questions better, {worse:,} worse, {count - better - worse:,} the same"]


class _Pages:
    """What the pages of a build may be called: by address or source, and passages by their own addresses."""

    def __init__(self, live: Build) -> None:
        self._url_of: dict[str, str] = {}
        self._page_of: dict[str, str] = {}
        for passage in (*live.own_answers.pages(), *live.passages()):
            self._url_of[passage.url] = self._url_of[passage.source] = passage.url
            self._page_of[passage.anchored_url] = passage.url
        self.names = self._url_of.keys() | self._page_of.keys()

    def wanted(self, relevant: frozenset[str]) -> frozenset[str]:
        """Each relevant page once, by its address, however often and under whatever names it is listed."""
        urls = {self._url_of.get(name, name) for name in relevant}
        # A passage of a page that counts as a whole is no second answer.
        return frozenset(url for url in urls if self._page_of.get(url, url) == url or self._page_of[url] not in urls)


def _ranked(hits: Sequence[Hit], wanted: frozenset[str]) -> list[str]:
    """The pages that were found, best first, each once; passages that are wanted as such by their own addresses."""
    passages = [hit.passage for hit in hits]
    return list(dict.fromkeys(p.anchored_url if p.anchored_url in wanted else p.url for p in passages))

"""What a person sees while indexing, and after it: a bar on a terminal, plain lines elsewhere."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TextIO, TypeVar

from indexer.build import Summary
from indexer.evaluate import Scores
from rag.types import Hit

T = TypeVar("T")

BAR_CELLS = 30
TYPES = 6
PLAIN_STEPS = 4
"""Lines of a stage where there is no terminal: a log should not hold a hundred of them."""


class ProgressBar:
    """Shows how far each stage is. Writes to `out`, which is not where results go."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._last = ("", -1)
        self._open_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_line()

    def show(self, stage: str, done: int, total: int) -> None:
        """Tell that `done` of `total` in `stage` are finished."""
        steps = BAR_CELLS if self._terminal else PLAIN_STEPS
        step = done * steps // max(total, 1)
        if (stage, step) == self._last and done < total:
            return
        if self._terminal:
            if stage != self._last[0]:
                self._end_line()
            bar = "█" * step + "░" * (BAR_CELLS - step)
            self._out.write(f"\r{stage:<10} {bar} {done:,}/{total:,}\x1b[K")
            self._open_line = True
        elif step and (stage, step) != self._last:
            self._out.write(f"{stage} {done:,}/{total:,}\n")
        self._last = (stage, step)
        self._out.flush()

    def over(self, stage: str, items: Iterable[T], total: int) -> Iterator[T]:
        """The items, shown as they are taken."""
        for done, item in enumerate(items, start=1):
            yield item
            self.show(stage, done, total)

    def _end_line(self) -> None:
        if self._open_line:
            self._out.write("\n")
            self._open_line = False


def build_lines(summary: Summary, where: str, *, passed_over: Counter[str]) -> list[str]:
    """The closing summary of a build; `passed_over` counts files of unknown types by their extension."""
    embedded = f"{summary.embedded:,} embedded in {_calls(summary.calls)}, {summary.reused:,} reused"
    lines = [
        f"documents  {summary.documents:,}",
        f"passages   {summary.passages:,} ({embedded})",
        f"skipped    {len(summary.skipped):,}",
        *(f"           {skipped.source}: {skipped.reason}" for skipped in summary.skipped),
    ]
    if any(summary.own):
        lines.append(f"own words  {summary.own[0]:,} answers, {summary.own[1]:,} groups of synonyms")
    if passed_over:
        lines.append(f"other      {_other_types(passed_over)}")
    lines.append(f"seconds    {summary.seconds:.1f}")
    state = "unchanged, still live" if summary.unchanged else "live"
    return [*lines, f"build      {summary.build_id} in {where}, {state}"]


def _other_types(passed_over: Counter[str]) -> str:
    """The commonest first, and as many as fit on a line."""
    named = [f"{count:,} {extension or 'without extension'}" for extension, count in passed_over.most_common(TYPES)]
    rest = passed_over.total() - sum(count for _, count in passed_over.most_common(TYPES))
    return f"{', '.join([*named, *([f'{rest:,} more'] if rest else [])])}: not types that can be read"


def _calls(count: int) -> str:
    return "1 embedding call" if count == 1 else f"{count:,} embedding calls"


def hit_lines(hits: Sequence[Hit]) -> list[str]:
    """Passages as a numbered list: scores, where it stands, and how it begins."""
    lines = []
    for number, hit in enumerate(hits, start=1):
        beginning = " ".join(hit.passage.text.split())[:150]
        lines += [
            f"{number}. {hit.score:.3f} (similarity {hit.similarity:.3f})  {hit.passage.heading_path}",
            f"   {hit.passage.citation_url}",
            f"   {beginning}",
        ]
    return lines


def score_lines(scores: Scores, build_id: str) -> list[str]:
    """The figures of an evaluation."""
    return [
        f"build      {build_id}",
        f"questions  {scores.questions:,}",
        f"nDCG@10    {scores.ndcg_at_10:.3f}",
        f"recall@5   {scores.recall_at_5:.3f}",
        f"MRR@10     {scores.mrr_at_10:.3f}",
        *([f"own words  {scores.own:,} of the questions are answered by them"] if scores.own else []),
        *(f"not found  {question}" for question in scores.missed[:10]),
        *(f"no page    {name}" for name in scores.unknown[:10]),
    ]

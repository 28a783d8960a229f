"""The part of a passage that is quoted: whole blocks of Markdown, those that share most with the question. Pure.

A quote must read as its page does, so nothing is glued: prose is cut between sentences, lists between items, tables
between rows under their header, code between lines with its fence closed. Knows nothing of answers, links or models.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rag.text.terms import GRAM_MARK, likely_language, query_terms, terms
from rag.types import Passage

PROSE_CHARS = 480
"""Of paragraphs and lists in one excerpt: what is read at a glance."""
SOLID_CHARS = 1_200
"""Of code and tables, which say little in part. Also where a single sentence, item or line is cut in the middle."""
LEAST_ROOM_CHARS = 160
"""Less than that is not worth beginning another block for."""
LEFT_OUT = "…"

_HEADING = re.compile(r" {0,3}#{1,6}(?:\s+(.*?))?(?:\s+#+)?\s*$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"(\s*)(?:[-*+]|(\d{1,9})[.)])\s+")
_SEPARATOR = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_SENTENCE_END = re.compile(r"[.!?…][\"”’')*_`]*\s+(?=[^a-zß-ÿ\s])|[。！？]+(?=.)", re.DOTALL)
_ABBREVIATED = re.compile(r"(?:\b\w|\b(?:vs|cf|bzw|ca|Dr|Mr|Mrs|Ms|Nr|No|Fig|St))\.$")
# A cut inside of one of these would leave its other half as stray marks.
_SPAN = re.compile(r"(`+)[^`].*?\1(?!`)|\[[^\]\n]*\]\([^)\n]*\)|\*\*.+?\*\*|(?<!\w)([*_])[^*_\n]+\2(?!\w)", re.DOTALL)

Kind = Literal["paragraph", "list", "steps", "table", "code"]
Weigh = Callable[[str], float]
"""How much a text shares with the question: the weights of the question's words that it has."""


@dataclass(frozen=True, slots=True)
class _Block:
    kind: Kind
    pieces: tuple[str, ...]
    """Sentences, items, rows or lines: what it may be cut between."""
    head: str = ""
    """What stands above the pieces in any case: a table's header and separator, the opening fence."""
    tail: str = ""
    """The closing fence."""

    def text(self, pieces: Sequence[str]) -> str:
        between = " " if self.kind == "paragraph" else "\n"
        return "\n".join(filter(None, [self.head, between.join(pieces), self.tail]))

    @property
    def announces(self) -> bool:
        """Whether it ends with a colon: what follows means little without it, and it means little alone."""
        return self.kind != "code" and self.pieces[-1].endswith(":")

    @property
    def is_solid(self) -> bool:
        return self.kind in ("table", "code")


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str
    """Empty above the first heading of a passage."""
    blocks: tuple[_Block, ...]


def excerpt(passage: Passage, question: str) -> list[str]:
    """The blocks of `passage` that share the most words with `question`, rare ones first, each as Markdown lines.

    About `PROSE_CHARS` of prose and `SOLID_CHARS` of code and tables, all from under one heading; a heading that the
    passage's own path does not name stands above them in bold. Empty where the passage has nothing but headings.
    """
    sections = list(_sections(passage.text))
    weigh = _weigher(question, passage.language or likely_language(question), sections)
    best: list[str] = []
    best_score = -1.0
    for section in sections:
        named = section.heading in ("", passage.title, *passage.headings)
        for start in range(len(section.blocks)):
            if start and section.blocks[start - 1].announces:
                continue
            taken = _from(section.blocks[start:], weigh)
            # What stands under a heading is about it, even where it does not repeat its words.
            score = weigh("\n".join([section.heading, *taken])) + weigh(section.heading) / 2
            if score > best_score:
                heading = [] if named else [f"**{section.heading.replace('**', '')}**"]
                best, best_score = heading + taken, score
    return best


def is_table(block: str) -> bool:
    """Whether a block of an excerpt is a table, or the part of one."""
    return _begins_table(block.split("\n"), 0)


def is_list(block: str) -> bool:
    """Whether a block of an excerpt is a list, or the part of one."""
    return bool(_ITEM.match(block))


def _weigher(question: str, language: str, sections: Sequence[_Section]) -> Weigh:
    """A word that stands in few of the passage's blocks says more about where to quote than one that is in all."""

    def has(text: str) -> frozenset[str]:
        return frozenset(term for term in terms(text, language) if not term.startswith(GRAM_MARK))

    asked = [forms for forms in query_terms(question, [language]) if not forms[0].startswith(GRAM_MARK)]
    blocks = [has(block.text(block.pieces)) for section in sections for block in section.blocks]
    weights = {
        forms: math.log(1 + len(blocks) / max(1, sum(not block.isdisjoint(forms) for block in blocks)))
        for forms in asked
    }

    def weigh(text: str) -> float:
        present = has(text)
        return sum(weight for forms, weight in weights.items() if not present.isdisjoint(forms))

    return weigh


def _from(blocks: Sequence[_Block], weigh: Weigh) -> list[str]:
    """As many blocks from the first one on as there is room for."""
    room = {False: PROSE_CHARS, True: SOLID_CHARS}
    taken: list[str] = []
    for place, block in enumerate(blocks):
        left, whole = room[block.is_solid], block.text(block.pieces)
        announced = place == 0 or (blocks[place - 1].announces and left >= LEAST_ROOM_CHARS)
        if len(whole) > left and not announced:
            break
        taken.append(_cut(block, left, weigh))
        room[block.is_solid] -= len(taken[-1])
        if taken[-1] != whole:
            break
    return taken


def _cut(block: _Block, room: int, weigh: Weigh) -> str:
    """The block in at most about `room` characters; one piece stays in any case, at most `SOLID_CHARS` of it."""
    pieces = block.pieces
    if len(block.text(pieces)) <= (PROSE_CHARS if block.kind == "table" else room):
        return block.text(pieces)
    kept: Sequence[int]
    if block.kind == "code":
        kept = range(_fitting(pieces, room))
    elif block.kind in ("list", "table"):
        kept = _matching(pieces, room, weigh)
    else:
        runs = [range(start, start + _fitting(pieces[start:], room)) for start in range(len(pieces))]
        scores = [weigh(block.text(pieces[run.start : run.stop])) for run in runs]
        kept = runs[scores.index(max(scores))]
    text = block.text([_shortened(pieces[place], block.kind) for place in kept])
    if len(kept) == len(pieces):
        return text
    if block.kind == "paragraph":
        before, after = kept[0] > 0, kept[-1] < len(pieces) - 1
        return f"{LEFT_OUT} " * before + text + f" {LEFT_OUT}" * after
    if block.kind in ("list", "steps"):
        # An item of its own, since a paragraph below would be taken for the last item's.
        following = pieces[min(kept[-1] + 1, len(pieces) - 1)]
        marker = _ITEM.match(following)
        return f"{text}\n{marker[0] if marker else ''}{LEFT_OUT}"
    return f"{text}\n\n{LEFT_OUT}"


def _fitting(pieces: Sequence[str], room: int) -> int:
    """How many of the first pieces fit, at least one."""
    used = 0
    for count, piece in enumerate(pieces):
        used += len(piece) + 1
        if count and used > room:
            return count
    return len(pieces)


def _matching(pieces: Sequence[str], room: int, weigh: Weigh) -> Sequence[int]:
    """Places of the pieces that share words with the question, then of the first others while it stays short."""
    kept: set[int] = set()
    used = 0
    scores = [weigh(piece) for piece in pieces]
    for place in sorted(range(len(pieces)), key=lambda place: -scores[place]):
        used += len(pieces[place]) + 1
        if kept and used > (room if scores[place] else min(room, PROSE_CHARS)):
            break
        kept.add(place)
    return sorted(kept)


def _shortened(piece: str, kind: Kind) -> str:
    """A piece without end, such as a minified line, cut between words and outside of marks; rows keep their cells."""
    if len(piece) <= SOLID_CHARS or kind == "table":
        return piece
    at = next((span.start() for span in _SPAN.finditer(piece) if span.start() < SOLID_CHARS < span.end()), SOLID_CHARS)
    kept = piece[: at or SOLID_CHARS]
    kept = kept if kind == "code" else kept.rsplit(maxsplit=1)[0]
    # A fence inside an item.
    return f"{kept} {LEFT_OUT}" + ("\n  ```" if kind in ("list", "steps") and kept.count("```") % 2 else "")


def _sections(text: str) -> Iterator[_Section]:
    heading, blocks = "", []
    for block in _blocks(text.split("\n")):
        if isinstance(block, _Block):
            blocks.append(block)
            continue
        if blocks:
            yield _Section(heading, tuple(blocks))
        heading, blocks = block, []
    if blocks:
        yield _Section(heading, tuple(blocks))


def _blocks(lines: Sequence[str]) -> Iterator[_Block | str]:
    """The blocks in order; a heading is its words."""
    at = 0
    while at < len(lines):
        line, begins = lines[at], at
        if not line.strip():
            at += 1
        elif fence := _FENCE.match(line):
            at = _after_fence(lines, at)
            closed = at - begins > 1 and lines[at - 1].strip().startswith(fence[1])
            inside = tuple(lines[begins + 1 : at - closed])
            if any(map(str.strip, inside)):
                yield _Block("code", inside, head=line, tail=lines[at - 1] if closed else fence[1])
        elif heading := _HEADING.match(line):
            at += 1
            yield heading[1] or ""
        elif item := _ITEM.match(line):
            at = _after_list(lines, at)
            kept = "\n".join(lines[begins:at]).rstrip().split("\n")
            yield _Block("steps" if item[2] else "list", tuple(_items(kept, indent=len(item[1]))))
        elif _begins_table(lines, at):
            at = next((row for row in range(at + 2, len(lines)) if "|" not in lines[row]), len(lines))
            if rows := tuple(lines[begins + 2 : at]):
                yield _Block("table", rows, head="\n".join(lines[begins : begins + 2]))
        else:
            at = next((other for other in range(at + 1, len(lines)) if _ends_paragraph(lines, other)), len(lines))
            yield _Block("paragraph", tuple(sentences("\n".join(lines[begins:at]).strip())))


def _after_fence(lines: Sequence[str], at: int) -> int:
    fence = _FENCE.match(lines[at])
    mark = fence[1] if fence else ""
    return next(
        (end + 1 for end in range(at + 1, len(lines)) if (line := lines[end].strip()).startswith(mark)
         and not line.strip(mark[0])), len(lines),
    )  # fmt: skip


def _after_list(lines: Sequence[str], at: int) -> int:
    """An indented line belongs to the list, and so does one that follows without an empty line between."""
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            rest = next((other for other in lines[at:] if other.strip()), "")
            if not (rest.startswith((" ", "\t")) or _ITEM.match(rest)):
                return at
        elif _HEADING.match(line) or (_FENCE.match(line) and not line.startswith((" ", "\t"))):
            return at
        at = _after_fence(lines, at) if _FENCE.match(line) else at + 1
    return at


def _items(lines: Sequence[str], *, indent: int) -> Iterator[str]:
    at = begins = 0
    while at < len(lines):
        item = _ITEM.match(lines[at])
        if at > begins and item and len(item[1]) <= indent + 1:
            yield "\n".join(lines[begins:at]).rstrip()
            begins = at
        at = _after_fence(lines, at) if _FENCE.match(lines[at]) else at + 1
    yield "\n".join(lines[begins:])


def _begins_table(lines: Sequence[str], at: int) -> bool:
    return "|" in lines[at] and at + 1 < len(lines) and "|" in lines[at + 1] and bool(_SEPARATOR.match(lines[at + 1]))


def _ends_paragraph(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    item = _ITEM.match(line)
    return (
        not line.strip() or bool(_FENCE.match(line) or _HEADING.match(line)) or _begins_table(lines, at)
        or bool(item and item[2] in (None, "1"))
    )  # fmt: skip


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; none ends inside of code, a link or emphasis, nor at an abbreviation."""
    spans = [span.span() for span in _SPAN.finditer(text)]
    found, begins = [], 0
    for end in _SENTENCE_END.finditer(text):
        inside = any(start < end.start() and end.end() < stop for start, stop in spans)
        piece = text[begins : end.end()].rstrip()
        if not inside and not _ABBREVIATED.search(piece):
            found.append(piece)
            begins = end.end()
    return [*found, text[begins:]]

"""The part of a passage that is quoted: whole blocks of Markdown, those that share most with the question. Pure.

A quote must read as its page does, so nothing is glued: prose is cut between sentences, lists between items, tables
between rows under their header, code between lines with its fence closed. Knows nothing of answers, links or models.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt

from rag.text.terms import GRAM_MARK, likely_language, query_terms, terms
from rag.types import Passage

PROSE_CHARS = 480
"""Of paragraphs and lists in one excerpt: what is read at a glance."""
SOLID_CHARS = 1_200
"""Of code and tables, which say little in part. Also where a single sentence, item or line is cut in the middle."""
LEAST_ROOM_CHARS = 160
"""Less than that is not worth beginning another block for."""
LEFT_OUT = "…"

_MARKDOWN = MarkdownIt("zero").enable(["fence", "heading", "list", "table"]).disable("inline")

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
    first, _, others = block.partition("\n")
    return "|" in first and bool(_SEPARATOR.match(others.partition("\n")[0]))


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
    for block in _blocks(text):
        if isinstance(block, _Block):
            blocks.append(block)
            continue
        if blocks:
            yield _Section(heading, tuple(blocks))
        heading, blocks = block, []
    if blocks:
        yield _Section(heading, tuple(blocks))


def _blocks(text: str) -> Iterator[_Block | str]:
    """The blocks in order; a heading is its words."""
    lines = text.split("\n")
    tokens = _MARKDOWN.parse(text)
    for at, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        begins, ends = token.map
        kept = "\n".join(lines[begins:ends]).rstrip().split("\n")
        if token.type == "heading_open":
            yield tokens[at + 1].content
        elif token.type == "fence":
            closed = len(kept) > 1 and kept[-1].strip().startswith(token.markup)
            if token.content.strip():
                inside = tuple(lines[begins + 1 : ends - closed])
                yield _Block("code", inside, head=kept[0], tail=kept[-1] if closed else token.markup)
        elif token.type == "table_open":
            if len(kept) > 2:
                yield _Block("table", tuple(kept[2:]), head="\n".join(kept[:2]))
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            starts = [
                one.map[0] - begins
                for one in tokens[at:]
                if one.map and one.map[0] < ends and (one.type, one.level) == ("list_item_open", 1)
            ]
            items = ["\n".join(kept[first:after]).rstrip() for first, after in itertools.pairwise([*starts, len(kept)])]
            yield _Block("steps" if token.type.startswith("ordered") else "list", tuple(items))
        else:
            yield _Block("paragraph", tuple(sentences("\n".join(kept).strip())))


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

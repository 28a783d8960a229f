"""Documents -> passages of about 800 to 1,600 characters, cut where the text itself is cut. Pure: no files, no models.

Sections are cut between blocks, and blocks where they must be: prose between sentences, lists between items, tables
between rows with their header repeated, code only beyond CODE_LIMIT_CHARS. Then small neighbours are put together.
Nothing overlaps and nothing is lost: measured elsewhere, 50 % overlap doubles the index for a hundredth of nDCG.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from indexer.documents import Block, Document, Section
from indexer.passages.cutting import cut
from rag.types import Passage
from rag.types import Section as PassageSection

TARGET_CHARS = 800
LIMIT_CHARS = 1_600
TINY_CHARS = 200
"""A passage below this says too little by itself: it joins a neighbour that has room."""
LEAD_IN_CHARS = 400
"""The longest paragraph ending in a colon that moves along with what it announces."""
TITLE_CHARS = 80
"""The longest paragraph without a full stop that is taken for a title: PDFs and admonitions have such."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Blocks that follow each other below one heading."""

    headings: tuple[str, ...]
    anchor: str
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        return "\n\n".join(block.text for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring parts that become one passage."""

    parts: tuple[_Part, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        return _common([part.headings for part in self.parts])

    @property
    def text(self) -> str:
        """The parts' text; a heading that not all parts share stands above its part."""
        return "\n\n".join(text for _, texts in self._shown() for text in texts).strip()

    @property
    def sections(self) -> tuple[PassageSection, ...]:
        """Where in `text` each section stands. A heading with nothing below it belongs to what follows."""
        joined = "\n\n".join(text for _, texts in self._shown() for text in texts)
        length, at = len(joined.strip()), len(joined.lstrip()) - len(joined)
        starts: list[tuple[int, _Part]] = []
        is_open = False
        for part, texts in self._shown():
            is_same = bool(starts) and (starts[-1][1].headings, starts[-1][1].anchor) == (part.headings, part.anchor)
            if is_open:
                starts[-1] = (starts[-1][0], part)
            elif texts and not is_same:
                starts.append((max(0, at), part))
            is_open = bool(starts) and not part.text and (is_open or not is_same)
            at += sum(len(text) + 2 for text in texts)
        ends = [start for start, _ in starts[1:]] + [length]
        return tuple(
            PassageSection(start, end, part.headings, part.anchor)
            for (start, part), end in zip(starts, ends, strict=True)
        )

    def _shown(self) -> Iterator[tuple[_Part, list[str]]]:
        """Each part with what the text shows of it: headings that are new, then its own text."""
        above = common = self.headings
        for part in self.parts:
            texts: list[str] = []
            if part.headings != above:
                new = part.headings[max(len(common), len(_common([above, part.headings]))) :]
                depth = len(part.headings) - len(new) + 2
                texts = [f"{'#' * min(6, level)} {heading}" for level, heading in enumerate(new, depth)]
                above = part.headings
            yield part, [text for text in (*texts, part.text) if text]

    @property
    def chars(self) -> int:
        """Characters of text below headings: none for headings alone."""
        return sum(len(part.text) for part in self.parts)

    @property
    def is_row(self) -> bool:
        return any(block.kind == "row" for part in self.parts for block in part.blocks)

    @property
    def holds_code(self) -> bool:
        return any(block.kind == "code" for part in self.parts for block in part.blocks)


def passages(document: Document, *, target_chars: int = TARGET_CHARS, limit_chars: int = LIMIT_CHARS) -> list[Passage]:
    """The document's passages in reading order; none for a document of headings alone.

    Each holds at most `limit_chars`, unless a code block that is kept whole is in it.
    """
    groups = [
        _Group((part,))
        for section in document.sections
        for part in _parts(section, target_chars=target_chars, limit_chars=limit_chars)
    ]
    groups = _merged(groups, target_chars=target_chars, limit_chars=limit_chars)
    groups = _without_tiny(groups, target_chars=target_chars, limit_chars=limit_chars)
    return [
        Passage(
            text=group.text,
            title=document.title,
            headings=group.headings,
            url=document.url,
            anchor=group.parts[0].anchor,
            source=document.source,
            language=document.language,
            sections=group.sections,
        )
        for group in groups
        if group.chars
    ]


def _parts(section: Section, *, target_chars: int, limit_chars: int) -> Iterator[_Part]:
    """The section cut into parts within the limit."""
    if not section.blocks:
        yield _Part(section.headings, section.anchor, ())
        return
    open_blocks: list[Block] = []
    size = 0
    for block in _pieces(section.blocks, target_chars=target_chars, limit_chars=limit_chars):
        fits = size + len(block.text) + 2 <= limit_chars and size < target_chars and block.kind != "row"
        announced = block.kind == "code" and size < LEAD_IN_CHARS
        if open_blocks and not (fits or announced):
            lead_in = open_blocks.pop() if _announces(open_blocks) else None
            yield _Part(section.headings, section.anchor, tuple(open_blocks))
            open_blocks = [lead_in] if lead_in else []
            size = len(lead_in.text) + 2 if lead_in else 0
            if lead_in and block.kind != "code" and size + len(block.text) > limit_chars:
                yield _Part(section.headings, section.anchor, tuple(open_blocks))
                open_blocks, size = [], 0
        open_blocks.append(block)
        size += len(block.text) + 2
    yield _Part(section.headings, section.anchor, tuple(open_blocks))


def _announces(blocks: Sequence[Block]) -> bool:
    """Whether the last of several blocks only introduces what follows: it ends in a colon, or is a title of sorts."""
    if len(blocks) < 2 or blocks[-1].kind != "paragraph":
        return False
    text = blocks[-1].text
    is_title = len(text) <= TITLE_CHARS and text[-1].isalnum() and "\n" not in text
    return is_title or (text.endswith((":", "：")) and len(text) <= LEAD_IN_CHARS)


def _pieces(blocks: Iterable[Block], *, target_chars: int, limit_chars: int) -> Iterator[Block]:
    """Blocks, with those that are too long for a passage cut."""
    for block in blocks:
        yield from cut(block, piece_chars=target_chars, limit_chars=limit_chars)


def _merged(groups: Sequence[_Group], *, target_chars: int, limit_chars: int) -> list[_Group]:
    """Neighbours put together until they reach the target, never beyond the limit; rows stay by themselves."""
    merged: list[_Group] = []
    for group in groups:
        if merged and not (group.is_row or merged[-1].is_row) and merged[-1].chars < target_chars:
            together = _Group(merged[-1].parts + group.parts)
            if len(together.text) <= limit_chars:
                merged[-1] = together
                continue
        merged.append(group)
    return merged


def _without_tiny(groups: list[_Group], *, target_chars: int, limit_chars: int) -> list[_Group]:
    """Groups that say too little joined to the neighbour with whom they share more headings, where there is room."""
    tiny_chars = min(TINY_CHARS, target_chars // 2)
    at = 0
    while at < len(groups):
        group = groups[at]
        if group.chars >= tiny_chars or group.is_row:
            at += 1
            continue
        candidates = []
        for other, together in (
            (at - 1, _Group(groups[at - 1].parts + group.parts) if at else None),
            (at + 1, _Group(group.parts + groups[at + 1].parts) if at + 1 < len(groups) else None),
        ):
            if together is None or groups[other].is_row:
                continue
            # A heading alone must go somewhere, and code may exceed the limit as it is.
            roomy = len(together.text) <= limit_chars or (not group.chars and together.holds_code)
            if roomy:
                candidates.append((-len(together.headings), together.chars, other, together))
        if not candidates:
            at += 1
            continue
        _, _, other, together = min(candidates, key=lambda candidate: candidate[:3])
        first = min(at, other)
        groups[first : first + 2] = [together]
        at = first
    return groups


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest path that all paths begin with."""
    shortest = min(paths, key=len)
    for depth, heading in enumerate(shortest):
        if any(path[depth] != heading for path in paths):
            return shortest[:depth]
    return shortest

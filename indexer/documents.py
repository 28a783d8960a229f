"""What a file becomes once it is read: a document of sections of blocks. Knows no format, file or passage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Kind = Literal["paragraph", "code", "table", "list", "row"]


class Block(NamedTuple):
    """One thing a reader sees as a whole. Code is fenced Markdown, a table Markdown pipes, a list one line an item."""

    kind: Kind
    text: str


class PageLink(NamedTuple):
    """A link within a page's text."""

    before: str
    """What stands directly before its words, as the text has it."""
    text: str
    after: str
    target: str
    """As the page has it; in a document the address that it leads to."""


@dataclass(frozen=True, slots=True)
class Section:
    """What stands below one heading, up to the next one."""

    headings: tuple[str, ...]
    """The path of headings, outermost first, without the document's title."""
    anchor: str
    """The fragment that leads here, or empty."""
    blocks: tuple[Block, ...]
    """Empty only for a heading with nothing below it, not even another heading."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file, read."""

    source: str
    """The file, relative to the indexed folder, with forward slashes."""
    url: str
    """The page's address, without a fragment; the source where the site's address is unknown."""
    title: str
    language: str
    """ISO 639-1 code, or empty where it is not known."""
    sections: tuple[Section, ...]
    links: tuple[PageLink, ...] = ()
    """Of its prose, in reading order."""

    def to_json(self) -> dict[str, Any]:
        """Lists and strings only: what crosses the pipe from a reading process."""
        sections = [[section.headings, section.anchor, section.blocks] for section in self.sections]
        return {
            "source": self.source,
            "url": self.url,
            "title": self.title,
            "language": self.language,
            "sections": sections,
            "links": self.links,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Document":
        """The inverse of `to_json`; KeyError, TypeError or ValueError where `data` is anything else."""
        sections = tuple(
            Section(tuple(headings), anchor, tuple(Block(kind, text) for kind, text in blocks))
            for headings, anchor, blocks in data["sections"]
        )
        links = tuple(PageLink(*map(str, link)) for link in data.get("links", ()))
        return cls(data["source"], data["url"], data["title"], data["language"], sections, links)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not read, and why, in words for a person."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What a format knows of its file, before address, title and language are settled."""

    sections: tuple[Section, ...]
    title: str = ""
    """The title that the file states outside its headings: front matter, `<title>`, document properties."""
    top_heading: str = ""
    """The first heading of level one, which is the title where none is stated."""
    address: str = ""
    """The address that the file states for itself, unchecked: absolute or relative."""
    language: str = ""
    """The language tag that the file states, unchecked."""
    withheld: str = ""
    """Why the site does not show the page, or not in a search: `draft: true`. Empty for a page like any other."""
    links: tuple[PageLink, ...] = ()


class Outline:
    """Collects headings and blocks in reading order and hands them out as sections."""

    def __init__(self) -> None:
        self.top_heading = ""
        self._open: list[tuple[int, str, str]] = []
        self._sections: list[tuple[tuple[str, ...], str, list[Block]]] = [((), "", [])]
        self._levels: list[int] = [0]

    def heading(self, level: int, text: str, anchor: str = "") -> None:
        """Open a section below `text`; a heading without an anchor takes that of the heading around it."""
        if not text:
            return
        if level == 1 and not self.top_heading:
            self.top_heading = text
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        if not anchor and self._open:
            anchor = self._open[-1][2]
        self._open.append((level, text, anchor))
        self.start(anchor)

    def start(self, anchor: str) -> None:
        """Open a section at `anchor` below the same headings, as a new page does."""
        self._sections.append((tuple(text for _, text, _ in self._open), anchor, []))
        self._levels.append(self._open[-1][0] if self._open else 0)

    def add(self, kind: Kind, text: str) -> None:
        """Append a block to the open section; an empty text is nothing."""
        if text.strip():
            self._sections[-1][2].append(Block(kind, text))

    def extend(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self.add(block.kind, block.text)

    def replace_last(self, block: Block, replaced: Block) -> None:
        """Put `block` where `replaced` was added last, on the page before."""
        for _, _, blocks in reversed(self._sections):
            if blocks:
                if blocks[-1] == replaced:
                    blocks[-1] = block
                return

    def sections(self) -> tuple[Section, ...]:
        """Every section with blocks, and every heading with nothing below it."""
        return tuple(self._kept())

    def _kept(self) -> Iterator[Section]:
        for number, (headings, anchor, blocks) in enumerate(self._sections):
            following = self._levels[number + 1] if number + 1 < len(self._levels) else 0
            if blocks or (headings and following <= self._levels[number] and not self._repeats(number)):
                yield Section(headings, anchor, tuple(blocks))

    def _repeats(self, number: int) -> bool:
        """Whether a neighbour stands below the same headings, so that they are not lost with this section."""
        headings = self._sections[number][0]
        around = self._sections[max(0, number - 1) : number + 2]
        return sum(other[0] == headings for other in around) > 1


def fenced(code: str, language: str = "") -> str:
    """`code` as a Markdown code block, whatever backticks it holds itself; empty for blank code."""
    code = code.strip("\n").rstrip()
    if not code.strip():
        return ""
    longest = run = 0
    for character in code:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def piped(rows: Sequence[Sequence[str]]) -> str:
    """`rows` as a Markdown table whose header is the first row; short rows are filled up, empty ones left out."""
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    if not filled:
        return ""
    width = max(len(row) for row in filled)
    lines = []
    for row in filled:
        cells = [" ".join(cell.split()).replace("\\|", "|").replace("|", "\\|") for cell in row]
        lines.append("| " + " | ".join(cells + [""] * (width - len(cells))) + " |")
    lines.insert(1, "|" + " --- |" * width)
    return "\n".join(lines)

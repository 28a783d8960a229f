"""README and docs/ taken apart: prose, links, tables and fenced blocks. Runs nothing, compares nothing.

The convention for fenced blocks: `console` blocks are run (lines that begin with `$ ` are commands, the others what
they print), `sh` blocks are read (they need root, a network, or a server that stays), `ini` blocks are settings.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import REPOSITORY

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, without its indentation."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """README.md and everything in docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def blocks(*languages: str, page: Path | None = None) -> list[Block]:
    """The blocks of these languages, of one page or of all."""
    found = []
    for path in [page] if page else pages():
        for indentation, language, text in FENCE.findall(path.read_text(encoding="utf-8")):
            if language in languages:
                lines = [line.removeprefix(indentation) for line in text.splitlines()]
                found.append(Block(name_of(path), language, "\n".join(lines)))
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of the page's links, those inside code left out."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end in."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(page))}


def rows(name: str, first_column: str) -> Iterator[list[str]]:
    """The cells of every table row on the page whose table begins with a column of that name."""
    wanted = False
    for line in prose(REPOSITORY / name).splitlines():
        if not line.startswith("|"):
            wanted = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if cells[0] == first_column:
            wanted = True
        elif wanted and set(line) - set("|-: "):
            yield cells


def unquoted(cell: str) -> str:
    """A cell's text without the backticks around it."""
    return cell.strip("`")

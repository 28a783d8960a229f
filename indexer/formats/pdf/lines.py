"""A PDF's pages -> lines of text with their size, without what every page repeats. Knows no headings or paragraphs."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pypdf import PageObject

PAGE_NUMBER = re.compile(
    r"^(?:(?:page|seite|p\.|página|pagina)\s*)?[-–—|]?\s*(?:\d{1,4}|[ivxlc]{1,6})\s*[-–—|]?"
    r"(?:\s*(?:/|of|von|de|di|van|sur)\s*\d{1,4})?$",
    re.I,
)
EDGE_LINES = 3
"""How many lines at a page's top and bottom may be a running header or footer."""
REPEATED_SHARE = 0.5
REPEATED_PAGES = 3
PARAGRAPH_GAP = 1.6
"""Lines further apart than this many times the usual distance belong to different paragraphs."""
LIGATURES = re.compile("[\ufb00-\ufb06]")


@dataclass(slots=True)
class Line:
    text: str
    """Empty for a gap between paragraphs."""
    size: float
    """The height of most of its letters, in points."""
    y: float


def lines_of(page: PageObject) -> list[Line]:
    """The lines of a page from top to bottom as its author wrote them, with an empty line where paragraphs part."""
    lines: list[Line] = []
    text: list[str] = []
    sizes: Counter[float] = Counter()
    y = 0.0

    def close() -> None:
        nonlocal y
        shown = " ".join(LIGATURES.sub(_letters, "".join(text)).replace("\u00a0", " ").split())
        lines.append(Line(shown, sizes.most_common(1)[0][0] if sizes else 0.0, y))
        text.clear()
        sizes.clear()

    def visit(piece: str, cm: Any, tm: Any, font: Any, font_size: float) -> None:
        nonlocal y
        first, *others = piece.split("\n")
        for number, part in enumerate((first, *others)):
            if number:
                close()
            text.append(part)
            if part.strip():
                scale = abs(tm[3] or tm[1] or 1) * abs(cm[3] or cm[1] or 1)
                sizes[round(font_size * scale, 1)] += len(part.strip())
                y = tm[5] * (cm[3] or 1) + cm[5]

    page.extract_text(visitor_text=visit)
    close()
    return _with_gaps(lines)


def without_furniture(pages: list[list[Line]]) -> list[list[Line]]:
    """The pages without page numbers, and without headers and footers that stand on at least half of them."""
    seen: Counter[str] = Counter()
    for page in pages:
        seen.update({_pattern(page[place].text) for place in _edges(page)})
    needed = max(REPEATED_PAGES, REPEATED_SHARE * len(pages))
    cleaned = []
    for page in pages:
        dropped = {
            place
            for place in _edges(page)
            if seen[_pattern(page[place].text)] >= needed or PAGE_NUMBER.match(page[place].text)
        }
        cleaned.append([line for place, line in enumerate(page) if place not in dropped])
    return cleaned


def _edges(page: list[Line]) -> list[int]:
    written = [place for place, line in enumerate(page) if line.text]
    return sorted({*written[:EDGE_LINES], *written[-EDGE_LINES:]})


def _pattern(text: str) -> str:
    """What two running headers have in common: everything but the numbers."""
    return re.sub(r"\d+", "0", text.casefold())


def _letters(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match[0])


def _with_gaps(lines: list[Line]) -> list[Line]:
    """An empty line wherever the author left one, or left as much room."""
    written = [line for line in lines if line.text]
    steps = Counter(
        round(above.y - below.y) for above, below in pairwise(written) if 0 < above.y - below.y < 4 * max(above.size, 1)
    )
    usual = steps.most_common(1)[0][0] if steps else 0
    result: list[Line] = []
    above: Line | None = None
    for line in lines:
        if line.text and above is not None and usual and above.y - line.y > PARAGRAPH_GAP * usual:
            result.append(Line("", 0.0, line.y))
        result.append(line)
        above = line if line.text else None
    return result

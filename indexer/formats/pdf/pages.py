"""PDF -> draft: one section a page (`page=N`) or heading, paragraphs rebuilt from lines. Knows no password."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from indexer.documents import Block, Draft, Outline
from indexer.formats.pdf.lines import Line, lines_of, without_furniture
from indexer.formats.pdf.paragraphs import Paragraphs
from rag.errors import SourceUnreadable

HEADING_SIZE = 1.15
"""Letters at least this many times the size of the running text are a heading."""
HEADING_LIMIT_CHARS = 120
HEADINGS_SHARE = 0.2
"""If more of the text than this looks like headings, size says nothing about this file."""
NOT_A_TITLE = re.compile(
    r"^(?:untitled.*|document\s*\d*|microsoft \w+\s*[-–].*|powerpoint.*|slide \d+|.*\.\w{2,5})$", re.I
)
LETTER = re.compile(r"[^\W\d_]")


def read(data: bytes) -> Draft:
    """The draft of a PDF; SourceUnreadable where it is broken, protected, or only pictures of text."""
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise SourceUnreadable("password-protected PDF")
        written = [lines_of(page) for page in reader.pages]
        outline = dict(_outline(reader))
        title = " ".join(str(reader.metadata.title or "").split()) if reader.metadata else ""
    except FileNotDecryptedError:
        raise SourceUnreadable("password-protected PDF") from None
    except DependencyError:
        raise SourceUnreadable("encrypted PDF, in a way that cannot be read here") from None
    except PyPdfError as error:
        raise SourceUnreadable(f"broken PDF ({' '.join(str(error).split())[:80]})") from None
    pages = without_furniture(written)
    if not any(line.text for page in pages for line in page):
        raise SourceUnreadable("no text (scanned pages?)")
    sections = _outlined(pages, outline).sections()
    above_all = {section.headings[:1] for section in sections}
    return Draft(
        sections=sections,
        # What stands above everything else is the name on the cover.
        top_heading="".join(next(iter(above_all))) if len(above_all) == 1 else "",
        title="" if len(title) < 3 or NOT_A_TITLE.match(title) or not LETTER.search(title) else title,
    )


def _outline(reader: PdfReader) -> Iterator[tuple[tuple[int, str], int]]:
    """The document's own table of contents: page number from 0 and title, to level from 1."""

    def entries(items: list[Any], level: int) -> Iterator[tuple[tuple[int, str], int]]:
        for item in items:
            if isinstance(item, list):
                yield from entries(item, level + 1)
            else:
                page = reader.get_destination_page_number(item)
                title = " ".join(str(item.title or "").split())
                if page is not None and page >= 0 and title:
                    yield (page, title), level

    try:
        yield from entries(reader.outline, 1)
    except (PyPdfError, KeyError, TypeError, ValueError, AttributeError):
        return  # a broken table of contents must not cost the text


def _outlined(pages: list[list[Line]], contents: Mapping[tuple[int, str], int]) -> Outline:
    paragraphs = Paragraphs([line.text for page in pages for line in page])
    levels = {} if contents else _levels_by_size(pages)
    outline = Outline()
    unfinished: Block | None = None
    for number, page in enumerate(pages):
        pending = {_folded(title): (title, level) for (at, title), level in contents.items() if at == number}
        shown = {_folded(line.text) for line in page}
        outline.start(f"page={number + 1}")
        for folded in [folded for folded in pending if folded not in shown]:
            title, level = pending.pop(folded)
            outline.heading(level, title, f"page={number + 1}")
        run: list[Line] = []
        parts: list[list[Line] | tuple[str, int]] = []
        for line in page:
            title, level = pending.pop(_folded(line.text), ("", 0)) if line.text else ("", 0)
            level = level or (levels.get(line.size, 0) if _looks_like_heading(line) else 0)
            if not level:
                run.append(line)
                continue
            above = parts[-1] if parts and not any(line.text for line in run) else None
            if isinstance(above, tuple) and above[1] == level and not title and not run:
                parts[-1] = (f"{above[0]} {line.text}", level)  # a heading that goes over two lines
            else:
                parts += [run, (title or line.text, level)]
            run = []
        for part in [*parts, run]:
            if isinstance(part, tuple):
                unfinished = None
                outline.heading(part[1], part[0], f"page={number + 1}")
                continue
            blocks = paragraphs.rebuilt(part)
            if unfinished and blocks and paragraphs.goes_on(unfinished, blocks[0]):
                outline.replace_last(paragraphs.joined(unfinished, blocks.pop(0)), unfinished)
            outline.extend(blocks)
            unfinished = blocks[-1] if blocks else unfinished
    return outline


def _levels_by_size(pages: list[list[Line]]) -> dict[float, int]:
    """Which letter sizes are headings, and of which level; empty where size is no reliable sign."""
    letters: Counter[float] = Counter()
    for page in pages:
        for line in page:
            letters[line.size] += len(line.text)
    body = letters.most_common(1)[0][0]
    large = sorted((size for size in letters if size >= HEADING_SIZE * body), reverse=True)
    if sum(letters[size] for size in large) > HEADINGS_SHARE * letters.total():
        return {}
    return {size: min(level, 6) for level, size in enumerate(large, 1)}


def _looks_like_heading(line: Line) -> bool:
    return len(line.text) <= HEADING_LIMIT_CHARS and bool(LETTER.search(line.text)) and line.text[-1] not in ".,;"


def _folded(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()

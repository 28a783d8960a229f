"""CSV -> draft: each row by itself, as lines of `Column: value`, at `row=N` (RFC 7111, the header counted)."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from indexer.documents import Block, Draft, Section
from indexer.formats.decoding import decoded
from rag.errors import SourceUnreadable

DELIMITERS = ",;\t|"
SAMPLE_LINES = 50
FIELD_LIMIT_CHARS = 1_000_000
SEPARATOR_LINE = re.compile(r"\Asep=.\r?\n")
VALUE = re.compile(
    r"[-+]?[$€£¥]?\s?\d[\d.,' ]*\s?[$€£¥%]?|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}|[^@\s]+@[^@\s]+\.\w+|https?://\S+"
)
YEAR = re.compile(r"(?:19|20)\d\d")
"""A number that names a column as often as not."""

Row = tuple[int, list[str]]
"""Its number in the file, and its cells."""


def read(data: bytes) -> Draft:
    """The draft of a CSV file; SourceUnreadable where it is not text or not a table.

    Lines above the table stand before its rows, the first as title. Without a header columns are numbered.
    """
    csv.field_size_limit(FIELD_LIMIT_CHARS)
    # Excel's word for its delimiter; the line stays, so that rows keep their numbers.
    text = SEPARATOR_LINE.sub("\n", decoded(data))
    try:
        raw = list(csv.reader(io.StringIO(text), delimiter=_delimiter(text), skipinitialspace=True))
    except csv.Error as error:
        raise SourceUnreadable(f"not a CSV file ({error})") from None
    rows = [(number, [" ".join(cell.split()) for cell in row]) for number, row in enumerate(raw, 1)]
    rows = [(number, row) for number, row in rows if any(row)]
    above = _above(rows)
    table = rows[len(above) :]
    has_header = not _starts_with_values([row for _, row in table[:SAMPLE_LINES]])
    header = table[0][1] if table and has_header else []
    sections = [Section((), f"row={number}", (Block("paragraph", row[0]),)) for number, row in above]
    for number, row in table[1:] if has_header else table:
        names = [*header, *[""] * (len(row) - len(header))]
        lines = [
            f"{name or f'Column {place}'}: {value}"
            for place, (name, value) in enumerate(zip(names, row, strict=False), 1)
            if value
        ]
        sections.append(Section((), f"row={number}", (Block("row", "\n".join(lines)),)))
    return Draft(sections=tuple(sections), top_heading=above[0][1][0] if above else "")


def _above(rows: Sequence[Row]) -> list[Row]:
    """The lines above a table: single cells where the table has several columns."""
    widths = Counter(len(row) for _, row in rows[:SAMPLE_LINES] if len(row) > 1)
    width = widths.most_common(1)[0][0] if widths else 1

    def is_single(row: Sequence[str]) -> bool:
        # Exported from a spreadsheet, a line has the table's delimiters; of two cells the second may be a nameless one.
        return bool(row[0]) and not any(row[1:]) and (len(row) == 1 or len(row) == width > 2)

    return list(takewhile(lambda numbered: is_single(numbered[1]), rows)) if width > 1 else []


def _starts_with_values(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds numbers, dates or addresses above others of their kind, and so names no columns."""
    if len(rows) < 2:
        return False
    for place, cell in enumerate(rows[0]):
        below = [row[place] for row in rows[1:] if place < len(row) and row[place]]
        if VALUE.fullmatch(cell) and not YEAR.fullmatch(cell) and below and all(map(VALUE.fullmatch, below)):
            return True
    return False


def _delimiter(text: str) -> str:
    """The delimiter that cuts most of the first lines into the same number of fields, the more the better."""
    sample = "\n".join(text.split("\n", SAMPLE_LINES)[:SAMPLE_LINES])

    def fit(delimiter: str) -> tuple[int, int]:
        widths = Counter(len(row) for row in csv.reader(io.StringIO(sample), delimiter=delimiter) if row)
        width, rows = max(widths.items(), key=lambda item: (item[0] > 1, item[1], item[0]), default=(1, 0))
        return (rows, width) if width > 1 else (0, 0)

    return max(DELIMITERS, key=fit)

"""CSV -> draft: each row by itself, as lines of `Column: value`, at `row=N` (RFC 7111, the header counted)."""

import csv
import io
from collections import Counter

from indexer.documents import Block, Draft, Section
from indexer.formats.decoding import decoded
from rag.errors import SourceUnreadable

DELIMITERS = ",;\t|"
SAMPLE_LINES = 50
FIELD_LIMIT_CHARS = 1_000_000


def read(data: bytes) -> Draft:
    """The draft of a CSV file with a header row; SourceUnreadable where it is not text or not a table."""
    csv.field_size_limit(FIELD_LIMIT_CHARS)
    text = decoded(data)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=_delimiter(text), skipinitialspace=True))
    except csv.Error as error:
        raise SourceUnreadable(f"not a CSV file ({error})") from None
    first = next((number for number, row in enumerate(rows) if any(map(str.strip, row))), len(rows))
    header = [" ".join(name.split()) for name in rows[first]] if first < len(rows) else []
    sections = []
    for number, row in enumerate(rows[first + 1 :], first + 2):
        values = [" ".join(value.split()) for value in row]
        names = [*header, *[""] * (len(values) - len(header))]
        lines = [
            f"{name or f'Column {place}'}: {value}"
            for place, (name, value) in enumerate(zip(names, values, strict=False), 1)
            if value
        ]
        if lines:
            sections.append(Section((), f"row={number}", (Block("row", "\n".join(lines)),)))
    return Draft(sections=tuple(sections))


def _delimiter(text: str) -> str:
    """The delimiter that cuts most of the first lines into the same number of fields, the more the better."""
    sample = "\n".join(text.split("\n", SAMPLE_LINES)[:SAMPLE_LINES])

    def fit(delimiter: str) -> tuple[int, int]:
        widths = Counter(len(row) for row in csv.reader(io.StringIO(sample), delimiter=delimiter) if row)
        width, rows = max(widths.items(), key=lambda item: (item[0] > 1, item[1], item[0]), default=(1, 0))
        return (rows, width) if width > 1 else (0, 0)

    return max(DELIMITERS, key=fit)

"""What the owner reads, as a table for a spreadsheet."""

import csv
import io
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query, Response

Format = Annotated[Literal["json", "csv"], Query()]
FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""What a cell begins with that a spreadsheet runs."""
FORMS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/csv": {}}}}


def csv_of(rows: Sequence[dict[str, Any]]) -> Response:
    """The rows as a table. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    written = io.StringIO()
    if rows:
        writer = csv.DictWriter(written, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return Response(written.getvalue(), media_type="text/csv; charset=utf-8")


def _harmless(value: Any) -> Any:
    text = " | ".join(map(str, value)) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULAS) else text

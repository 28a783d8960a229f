"""Which files may be uploaded, and how sizes are written. Knows no request and no file."""

import re

TYPES = ("pdf", "docx", "txt", "md", "mdx", "csv", "html", "htm")
"""Types of files that the indexer reads, as their names end."""


def size(value: str) -> int:
    """Bytes: `10MB` is ten million, `512KiB` 512 times 1024. Raises `ValueError` with what is allowed."""
    found = re.fullmatch(r"(\d{1,9})\s*([kmg]?)(i?)b?", value.strip().lower())
    count = int(found[1]) * (1024 if found[3] else 1000) ** " kmg".index(found[2] or " ") if found else 0
    if not 1000 <= count <= 1_000_000_000:
        raise ValueError("a size from 1kB to 1GB, such as 10MB")
    return count


def shown_size(count: int) -> str:
    """`10 MB`, as settings have it."""
    return f"{count / 1_000_000:g} MB" if count >= 1_000_000 else f"{count / 1000:g} kB"

"""Which files may be uploaded, and how sizes are written. Knows no request and no file."""

import re
from urllib.parse import urlsplit

TYPES = ("pdf", "docx", "txt", "md", "mdx", "csv", "html", "htm")
"""Types of files that the indexer reads, as their names end."""


def size(value: str) -> int:
    """Bytes: `10MB` is ten million, `512KiB` 512 times 1024. Raises `ValueError` with what is allowed."""
    found = re.fullmatch(r"(\d{1,9})\s*([kmg]?)(i?)b?", value.strip().lower())
    count = int(found[1]) * (1024 if found[3] else 1000) ** " kmg".index(found[2] or " ") if found else 0
    if not 1000 <= count <= 1_000_000_000:
        raise ValueError("a size from 1kB to 1GB, such as 10MB")
    return count


def scanner(value: str) -> str:
    """The address of a clamd. Raises `ValueError` with what is allowed."""
    try:
        parts = urlsplit(value)
        sound = parts.scheme == "clamd" and (parts.hostname or len(parts.path) > 1) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment or (parts.hostname and parts.path.strip("/")):
        raise ValueError("clamd://HOST:3310, or clamd:///PATH of a socket")
    return value


def shown_size(count: int) -> str:
    """`10 MB`, as settings have it."""
    return f"{count / 1_000_000:g} MB" if count >= 1_000_000 else f"{count / 1000:g} kB"

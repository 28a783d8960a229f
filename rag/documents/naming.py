"""What an upload may be called, and which type that makes it. Names are for people: no file lies under one."""

import re
import unicodedata
from collections.abc import Collection

from rag.errors import InvalidRequest, UnsupportedType

MOST_CHARS = 200
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters, half characters, and marks that make a name look like another one."""


def document_name(given: str) -> str:
    """The name without folders, in one form. Raises `InvalidRequest` where nothing is left that could be shown."""
    name = unicodedata.normalize("NFC", given.replace("\\", "/").rsplit("/", 1)[-1]).strip()
    if not name or name.startswith(".") or _HIDDEN.search(name):
        raise InvalidRequest(detail="A file has no name that could be shown.")
    if len(name) > MOST_CHARS:
        raise InvalidRequest(detail=f"A file's name has more than {MOST_CHARS} characters.")
    return name


def require_type(name: str, allowed: Collection[str]) -> None:
    """Raises `UnsupportedType` unless the name ends as one of the `allowed` types does."""
    stem, dot, ending = name.rpartition(".")
    if not (stem and dot and ending.lower() in allowed):
        raise UnsupportedType(detail=f"{name} is not of a type that is taken: {', '.join(allowed)}.")

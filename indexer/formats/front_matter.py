"""The YAML or TOML-like block on top of a Markdown file: title, address and language. Broken YAML still gives lines."""

import re
from importlib import import_module
from typing import Any, NamedTuple

BLOCK = re.compile(r"\A\s*(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
LINE = re.compile(r"^([A-Za-z_][\w-]*)[ \t]*[:=][ \t]*(.*?)[ \t]*$", re.M)
ADDRESS_KEYS = ("url", "canonical", "canonical_url", "permalink", "slug")
YAML_LIMIT_CHARS = 20_000
"""More is no front matter written by a person, and a small bomb of YAML aliases must not be expanded for long."""


class FrontMatter(NamedTuple):
    title: str
    address: str
    slug: bool
    """Whether `address` is a slug: relative to the file's folder unless it starts with a slash."""
    language: str
    body: str


def split(text: str) -> FrontMatter:
    """Separate the front matter from the text below it; a file without one is all body."""
    match = BLOCK.match(text)
    if not match or (match[2].strip() and not LINE.search(match[2])):
        return FrontMatter("", "", False, "", text)
    fields = _fields(match[2], yaml=match[1] == "---")
    key = next((key for key in ADDRESS_KEYS if fields.get(key)), "")
    return FrontMatter(
        title=fields.get("title", ""),
        address=fields.get(key, ""),
        slug=key == "slug",
        language=fields.get("lang", "") or fields.get("language", "") or fields.get("locale", ""),
        body=text[match.end() :],
    )


def _fields(block: str, *, yaml: bool) -> dict[str, str]:
    loaded: Any = None
    if yaml and len(block) <= YAML_LIMIT_CHARS:
        parser: Any = import_module("yaml")  # late: it costs more than reading a file without front matter
        try:
            loaded = parser.safe_load(block)
        except (parser.YAMLError, ValueError, RecursionError):
            loaded = None
    if not isinstance(loaded, dict):
        loaded = {key: value.strip("\"'") for key, value in LINE.findall(block)}
    wanted = ("title", "lang", "language", "locale", *ADDRESS_KEYS)
    lowered = {str(key).lower(): value for key, value in loaded.items()}
    return {
        key: " ".join(str(lowered[key]).split())
        for key in wanted
        if isinstance(lowered.get(key), str | int | float) and not isinstance(lowered[key], bool)
    }

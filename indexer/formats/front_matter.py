"""The YAML or TOML on top of a page: title, address, language, and whether the site shows it. Broken, its lines count.

Site generators disagree on the words by which a page is withheld; those that mean only that are all understood,
whichever generator it is: a page indexed against its owner's will is worse than one that is named as skipped.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib import import_module
from typing import Any, NamedTuple

from indexer.formats.robots_tag import is_noindex

BLOCK = re.compile(r"\A\s*(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
LINE = re.compile(r"^([A-Za-z_][\w-]*)[ \t]*[:=][ \t]*(.*?)[ \t]*$", re.M)
ADDRESS_KEYS = ("url", "canonical", "canonical_url", "permalink", "slug")
LIMIT_CHARS = 20_000
"""More is no front matter written by a person, and a small bomb of YAML aliases must not be expanded for long."""
WITHHELD_IF = {
    "draft": True,  # Hugo, Docusaurus, Starlight, Zola, and by custom Eleventy and Astro
    "published": False,  # Jekyll, Hexo
    "unlisted": True,  # Docusaurus: only for those who have the link
    "headless": True,  # Hugo: a part of other pages
    "permalink": False,  # Eleventy, Hexo: not written to the site
    "noindex": True,
    "pagefind": False,  # Starlight: not in the site's own search
    "search": False,  # VitePress, the same
    "search_exclude": True,  # Just the Docs, the same
}
NOT_FOUND = re.compile(r"/?404(?:\.html|/)?")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class FrontMatter(NamedTuple):
    title: str
    address: str
    slug: bool
    """Whether `address` is a slug: relative to the file's folder unless it starts with a slash."""
    language: str
    withheld: str
    """Why the site does not show the page, or not in a search; empty for a page like any other."""
    body: str


def split(text: str) -> FrontMatter:
    """Separate the front matter from the text below it; a file without one is all body."""
    match = BLOCK.match(text)
    if not match or (match[2].strip() and not LINE.search(match[2])):
        return FrontMatter("", "", False, "", "", text)
    stated = _stated(match[2], yaml=match[1] == "---")
    fields = _fields(stated)
    key = next((key for key in ADDRESS_KEYS if fields.get(key)), "")
    return FrontMatter(
        title=fields.get("title", ""),
        address=fields.get(key, ""),
        slug=key == "slug",
        language=fields.get("lang", "") or fields.get("language", "") or fields.get("locale", ""),
        withheld=_withheld(stated, now=datetime.now(UTC)),
        body=text[match.end() :],
    )


def _stated(block: str, *, yaml: bool) -> dict[str, Any]:
    """The block's keys in lower case, with their values as they were written."""
    loaded: Any = None
    if len(block) <= LIMIT_CHARS:
        # Late: it costs more than reading a file without front matter.
        parser: Any = import_module("yaml" if yaml else "tomllib")
        try:
            loaded = parser.safe_load(block) if yaml else parser.loads(block)
        except (ValueError, RecursionError, getattr(parser, "YAMLError", ValueError)):
            loaded = None
    if not isinstance(loaded, dict):
        loaded = {key: value.strip("\"'") for key, value in LINE.findall(block)}
    return {str(key).lower(): value for key, value in loaded.items()}


def _fields(stated: Mapping[str, Any]) -> dict[str, str]:
    wanted = ("title", "lang", "language", "locale", *ADDRESS_KEYS)
    return {
        key: " ".join(str(stated[key]).split())
        for key in wanted
        if isinstance(stated.get(key), str | int | float) and not isinstance(stated[key], bool)
    }


def _withheld(stated: Mapping[str, Any], *, now: datetime) -> str:
    for key, value in WITHHELD_IF.items():
        if _flag(stated.get(key)) is value:
            return f"withheld by its front matter ({key}: {str(value).lower()})"
    if NOT_FOUND.fullmatch(str(stated.get("permalink"))):
        return "the page for addresses that do not exist"
    build, search = (stated.get(key) for key in ("build", "search"))
    if isinstance(build, dict) and build.get("render") in ("never", False):
        return "withheld by its front matter (build: render: never)"  # Hugo
    if isinstance(search, dict) and _flag(search.get("exclude")):
        return "withheld by its front matter (search: exclude: true)"  # Material for MkDocs
    robots = stated.get("robots")
    if is_noindex(", ".join(map(str, robots)) if isinstance(robots, list) else str(robots or "")):
        return "withheld by its front matter (robots: noindex)"
    # Hugo's dates. Others give their pages a `date` to come and show them: that one is not taken for it.
    if (begins := _moment(stated.get("publishdate"))) and begins > now:
        return f"not published before {begins:%Y-%m-%d} (publishDate)"
    if (ends := _moment(stated.get("expirydate"))) and ends <= now:
        return f"not published after {ends:%Y-%m-%d} (expiryDate)"
    return ""


def _flag(value: object) -> bool | None:
    """True or False where that is what stands there, in whichever spelling."""
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else value if isinstance(value, bool) else None


def _moment(value: object) -> datetime | None:
    """A date as YAML, TOML and their lines give it; UTC where it says nothing else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)

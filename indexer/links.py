"""Links within a page's text: the address that each leads to, and where in the passages its words stand."""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from indexer.addresses import PAGE_EXTENSIONS, is_absolute, page_url
from indexer.documents import PageLink
from indexer.formats import markdown
from rag.errors import SourceUnreadable
from rag.types import Link, Passage

LOOKED = 20
"""Passages in which a link is looked for, from the one with the link before: a page of links alone takes no minutes."""


def resolved(links: Sequence[PageLink], *, path: Path, source: str, url: str, site_url: str) -> Iterator[PageLink]:
    """The links that lead somewhere for certain, with their addresses; `path` is the file, known as `source`."""
    parts = PurePosixPath(source).parts
    root = path.parents[len(parts) - 1] if len(parts) <= len(path.parents) else path.parent
    for link in links:
        target = _resolved(link.target, root=root, source=source, url=url, site_url=site_url)
        if target:
            yield link._replace(target=target)


def _resolved(target: str, *, root: Path, source: str, url: str, site_url: str) -> str:
    if is_absolute(target):
        return target
    try:
        parts = urlsplit(target)
    except ValueError:
        return ""
    # What a path from the site's root leads to, only the site knows.
    if parts.scheme or parts.netloc or parts.query or parts.path.startswith("/") or not site_url:
        return ""
    fragment = f"#{quote(unquote(parts.fragment), safe='-._~')}" if parts.fragment else ""
    if not parts.path:
        return f"{url}{fragment}" if fragment else ""
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(parts.path)))
    if wanted.startswith("..") or PurePosixPath(wanted).suffix.lower() not in PAGE_EXTENSIONS:
        return ""
    stated = _stated(root, wanted)
    return "" if stated is None else f"{page_url(wanted, site_url=site_url, stated=stated)}{fragment}"


@lru_cache(maxsize=4096)
def _stated(root: Path, source: str) -> str | None:
    """The address that another page of the folder states, empty for none; None where there is no such page."""
    path = root / source
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return None
        return markdown.address(path.read_bytes())
    except (OSError, ValueError, SourceUnreadable):
        return None


def with_links(links: Sequence[PageLink], passages: Sequence[Passage]) -> list[Passage]:
    """The passages with their `links`: each is looked for with what stands around it, in reading order."""
    found: list[list[Link]] = [[] for _ in passages]
    place = at = 0
    for link in links:
        around = f"{link.before}{link.text}{link.after}"
        for number in range(place, min(place + LOOKED, len(passages))):
            # What stands before it may be the link before.
            begin = passages[number].text.find(around, max(0, at - len(link.before)) if number == place else 0)
            if begin >= 0:
                start = begin + len(link.before)
                found[number].append(Link(start, start + len(link.text), link.target))
                place, at = number, start + len(link.text)
                break
    return [replace(one, links=tuple(its)) if its else one for one, its in zip(passages, found, strict=True)]

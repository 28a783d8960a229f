"""Links of a page to others of its folder: the address that each leads to."""

import posixpath
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from indexer.documents import PageLink
from indexer.formats.markdown import page
from indexer.reading.addresses import PAGE_EXTENSIONS, is_absolute, page_url
from rag.errors import SourceUnreadable


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
        return page.address(path.read_bytes())
    except (OSError, ValueError, SourceUnreadable):
        return None

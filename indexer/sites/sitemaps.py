"""What a sitemap and a page say of other pages. Pure: bytes in, addresses out; fetches nothing.

Both come from outside. XML is refused as soon as it declares a document type, so that no entity is ever expanded.
"""

from contextlib import suppress
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urljoin
from xml.parsers import expat

from indexer.formats.robots_tag import is_nofollow, is_noindex
from rag.errors import SourceUnreadable

LINKS_WITHIN_BYTES = 4_000_000
MOST_ADDRESSES = 200_000


class Sitemap(NamedTuple):
    pages: list[str]
    sitemaps: list[str]
    """Of a sitemap index."""


class Links(NamedTuple):
    addresses: list[str]
    is_noindex: bool
    """The page asks not to be found by a search."""


def looks_like_xml(body: bytes) -> bool:
    start = body[:400].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"<?xml", b"<urlset", b"<sitemapindex")) and b"<html" not in body[:2000].lower()


def read_sitemap(body: bytes) -> Sitemap:
    """The addresses in a sitemap or a sitemap index. Raises `SourceUnreadable` for anything else."""
    found = Sitemap([], [])
    path: list[str] = []
    text: list[str] = []

    def start(name: str, _: dict[str, str]) -> None:
        path.append(name.rpartition(":")[2].lower())
        text.clear()
        if len(path) > 20:
            raise SourceUnreadable("a sitemap nested too deeply")

    def end(_: str) -> None:
        place = path[-2:]
        path.pop()
        if place in (["url", "loc"], ["sitemap", "loc"]) and len(found.pages) + len(found.sitemaps) < MOST_ADDRESSES:
            (found.pages if place[0] == "url" else found.sitemaps).append("".join(text).strip())

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise SourceUnreadable(f"a broken sitemap (line {error.lineno})") from None
    return found


def _refuse_doctype(*_: object) -> None:
    raise SourceUnreadable("a sitemap with a document type declaration is not read")


def read_links(body: bytes, *, url: str) -> Links:
    """Absolute addresses of a page's links, in their order, each once, unchecked."""
    reader = _LinkReader()
    # What breaks the reader of links ends the links; the page itself is read elsewhere.
    with suppress(AssertionError, ValueError):
        reader.feed(body[:LINKS_WITHIN_BYTES].decode("utf-8", "replace"))
    base = _joined(url, reader.base) or url
    joined = [] if reader.is_nofollow else [_joined(base, link) for link in reader.links]
    return Links(list(dict.fromkeys(filter(None, joined))), reader.is_noindex)


def _joined(base: str, link: str) -> str:
    try:
        return urljoin(base, link.strip())
    except ValueError:
        return ""


class _LinkReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.base = ""
        self.is_noindex = self.is_nofollow = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        href = values.get("href", "")
        if tag in {"a", "area"} and href and "nofollow" not in values.get("rel", "").lower().split():
            self.links.append(href)
        elif tag == "base" and not self.base:
            self.base = href
        elif tag == "meta" and values.get("name", "").lower() == "robots":
            said = values.get("content", "")
            self.is_noindex |= is_noindex(said)
            self.is_nofollow |= is_nofollow(said)

"""Addresses in running text, and those that an answer may link to: what its passages are called and what they name.

Knows no Markdown.
"""

import re
from collections.abc import Sequence

from rag.types import Hit

OPENINGS = ("https://", "http://", "ftp://", "www.")
"""What readers of Markdown make a link by themselves."""
URL = re.compile(
    r"(?:https?|ftp)://\[[0-9a-f:.]+\][^\s<>\"'`\])}|\\]*|(?:(?:https?|ftp)://|www\.)[^\s<>\"'`\])}|\\]+", re.IGNORECASE
)
CLOSING_MARKS = ".,;:!?*_"
"""They end a sentence, or words in bold, and no address."""
_HARMLESS = re.compile(
    r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]|(?:[a-z0-9-]+\.)*example\.(?:com|net|org))(?::\d{1,5})?", re.ASCII
)
"""Hosts that lead nowhere: the reader's own machine, and those reserved for documentation (RFC 2606, RFC 6761)."""
_FRAGMENT = re.compile(r"[\w.~:=,%&+-]*", re.ASCII)
_PARTS = re.compile(r"(?:([a-z]+)://|(?=www\.))([^/?#]*)([^#]*)(?:#(.*))?", re.IGNORECASE | re.DOTALL)


class Addresses:
    """What may be linked to: origin and path stand in a passage, a fragment holds nothing that begins an address."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        # Most answers hold no link, and then no passage has to be searched for addresses.
        self._known: set[str] | None = None

    def allow(self, url: str) -> bool:
        if self._known is None:
            named = (url for hit in self._hits for url in (hit.passage.url, *URL.findall(hit.passage.text)))
            self._known = {_plain(url) for url in named} - {""}
        parts = _PARTS.fullmatch(url)
        if parts is None:
            # A path of the same site, as passages without an address have it.
            address, _, fragment = url.partition("#")
            return address in self._known and _FRAGMENT.fullmatch(fragment) is not None
        if "://" in parts[3] or not _FRAGMENT.fullmatch(parts[4] or ""):
            return False
        web = (parts[1] or "http").lower() in ("http", "https")
        return _plain(url) in self._known or (web and _HARMLESS.fullmatch(parts[2].lower()) is not None)


def _plain(url: str) -> str:
    """For comparison: host in lower case where it is ASCII, path as it is; no fragment and no closing marks.

    `www.` needs no scheme.
    """
    parts = _PARTS.fullmatch(url)
    if parts is None:
        return url.partition("#")[0]
    scheme, host = (parts[1] or "https").lower(), parts[2]
    host = host.lower() if host.isascii() else host
    bare = f"{host}{parts[3]}".rstrip(CLOSING_MARKS).rstrip("/")
    return bare if host.startswith("www.") and scheme != "ftp" else f"{scheme}://{bare}"

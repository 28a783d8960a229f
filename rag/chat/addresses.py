"""Addresses in running text, and those that an answer may link to: what its passages are called and what they name.

Knows no Markdown.
"""

import re
from collections.abc import Sequence

from rag.types import Hit

# What begins another address ends one, and so do two tildes: readers do not agree there.
_CHARS = r"(?:(?!(?:https?:|ftp:)?//|~~|www\.)[^\s<>\"'`\[\])}|\\])"
URL = re.compile(
    rf"(?:https?|ftp)://\[[0-9a-f:.]+\]{_CHARS}*|(?:(?:https?|ftp|dict)://(?:www\.)?|www\.){_CHARS}+",
    re.IGNORECASE,
)
"""What readers of Markdown make a link by themselves."""
_OPENING = re.compile(r"(?:https?|ftp|dict)://|www\.", re.IGNORECASE)
CLOSING_MARKS = ".,;:!?*_"
"""They end a sentence, or words in bold, and no address."""
_HARMLESS = re.compile(
    r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]|(?:[a-z0-9-]+\.)*example\.(?:com|net|org))(?::\d{1,5})?", re.ASCII
)
"""Hosts that lead nowhere: the reader's own machine, and those reserved for documentation (RFC 2606, RFC 6761)."""
_FRAGMENT = re.compile(r"[\w.~:=,%&+-]*", re.ASCII)
_PARTS = re.compile(r"(?:([a-z]+)://|(?=www\.))([^/?#]*)([^#]*)(?:#(.*))?", re.IGNORECASE | re.DOTALL)
_ASCII = re.compile(r"[!-~]*")
# Where such an address is only looked at, never followed: a path goes no further than this site.
_STAYS = re.compile(r"[\w.~%+,$*@=-]*(?:[?#]|/(?![/\\&])|\Z)")


def leads_elsewhere(target: str) -> bool:
    """Whether a link's target, as it is written, may lead to another site for some reader, or run something."""
    return not _STAYS.match(target) or any(mark in target for mark in "\"'<>`")


class Addresses:
    """What may be linked to: origin and path stand in a passage, a fragment holds nothing that begins an address."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        # Most answers hold no link, and then no passage has to be searched for addresses.
        self._known: set[str] | None = None
        self._origins: set[str] = set()

    def allow(self, url: str) -> bool:
        known = self._named()
        parts = _PARTS.fullmatch(url)
        if parts is None:
            # A path of the same site, as passages without an address have it.
            address, _, fragment = url.partition("#")
            return address in known and _FRAGMENT.fullmatch(fragment) is not None
        if "://" in parts[3] or not _FRAGMENT.fullmatch(parts[4] or ""):
            return False
        web = (parts[1] or "http").lower() in ("http", "https")
        return _plain(url) in known or (web and _HARMLESS.fullmatch(parts[2].lower()) is not None)

    def allowed(self, run: str) -> str:
        """The address that may be shown of a run of characters without blanks; "" if there is none.

        Where no blank is written after an address, as in Chinese, it ends before what is not ASCII.
        """
        ascii_part = found[0] if (found := _ASCII.match(run)) else ""
        return next((url for one in (run, ascii_part) if self.allow(url := one.rstrip(CLOSING_MARKS)) and url), "")

    def defused(self, code: str) -> str:
        """Code with a blank in each address of an unknown origin, so that who takes it for prose links none.

        Other paths of a known origin stay: code is made up from what the passages say of an interface.
        """

        def shown(found: re.Match[str]) -> str:
            url = found[0]
            if self.allow(url.rstrip(CLOSING_MARKS)) or _origin(url) in self._origins:
                return url
            return _OPENING.sub(r"\g<0> ", url, count=1)

        self._named()
        return URL.sub(shown, code)

    def _named(self) -> set[str]:
        if self._known is None:
            passages = [hit.passage for hit in self._hits]
            linked = [link.url for passage in passages for link in passage.links]
            named = [url for passage in passages for url in (passage.url, *URL.findall(passage.text))] + linked
            self._known = {_plain(url) for url in named} - {""}
            self._origins = {_origin(url) for url in named} - {""}
        return self._known


def _origin(url: str) -> str:
    parts = _PARTS.fullmatch(url)
    return parts[2].lower() if parts and parts[2].isascii() and "@" not in parts[2] else ""


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

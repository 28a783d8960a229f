"""Addresses in running text, and those that an answer may link to: what its passages are called and what they name.

Knows no Markdown.
"""

import re
from collections.abc import Sequence

from rag.types import Hit

OPENINGS = ("https://", "http://", "ftp://", "www.")
"""What readers of Markdown make a link by themselves."""
URL = re.compile(r"(?:(?:https?|ftp)://|www\.)[^\s<>\"'`\])}|\\]+", re.IGNORECASE)
CLOSING_MARKS = ".,;:!?*_"
"""They end a sentence, or words in bold, and no address."""


class Addresses:
    """What may be linked to."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        # Most answers hold no link, and then no passage has to be searched for addresses.
        self._known: set[str] | None = None

    def allow(self, url: str) -> bool:
        if self._known is None:
            named = (url for hit in self._hits for url in (hit.passage.url, *URL.findall(hit.passage.text)))
            self._known = {_plain(url) for url in named}
        return _plain(url) in self._known


def _plain(url: str) -> str:
    """For comparison: without fragment, closing punctuation and trailing slash; `www.` needs no scheme."""
    bare = url.split("#")[0].rstrip(CLOSING_MARKS).rstrip("/").casefold()
    return re.sub(r"^https?://(?=www\.)", "", bare)

"""Words that a link can open a page at: how a browser shows them, and how a text directive spells them. Pure.

The directive is that of wicg.github.io/scroll-to-text-fragment.
"""

import re
from urllib.parse import quote

_MARKS = re.compile(r"(`+)([^`\n]+)\1|`|\*\*|__|(?<!\w)[*_]|[*_](?!\w)")


def without_marks(text: str) -> str:
    """Markdown's words without the marks for code and emphasis; what is within those for code stays as it is."""
    return _MARKS.sub(r"\2", text)


def directive(words: str) -> str:
    """Words of a page as the value of `:~:text=`; marks go, and what ends a sentence or a clause."""
    shown = " ".join(without_marks(words).split()).rstrip(",.;:!?)。！？，")
    # A comma, an ampersand and a dash have a meaning of their own in a text directive.
    return quote(shown, safe="").replace("-", "%2D")

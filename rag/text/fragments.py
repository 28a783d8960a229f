"""Words of a page that are linked, or linked to: as a browser shows them, as text directives and Markdown have them.

The directive is that of wicg.github.io/scroll-to-text-fragment.
"""

import re
from collections.abc import Sequence
from urllib.parse import quote

from rag.types import Passage

AROUND_CHARS = 24
"""What stands before a link and tells its words from the same elsewhere."""

_MARKS = re.compile(r"(`+)([^`\n]+)\1|`|\*\*|__|(?<!\w)[*_]|[*_](?!\w)")


def without_marks(text: str) -> str:
    """Markdown's words without the marks for code and emphasis; what is within those for code stays as it is."""
    return _MARKS.sub(r"\2", text)


def directive(words: str) -> str:
    """Words of a page as the value of `:~:text=`; marks go, and what ends a sentence or a clause."""
    shown = " ".join(without_marks(words).split()).rstrip(",.;:!?)。！？，")
    # A comma, an ampersand and a dash have a meaning of their own in a text directive.
    return quote(shown, safe="").replace("-", "%2D")


def link_target(url: str) -> str:
    """An address as it may stand in a link of Markdown."""
    return url.replace(" ", "%20").replace("(", "%28").replace(")", "%29")


def with_links(blocks: Sequence[str], passage: Passage) -> list[str]:
    """Blocks of Markdown from the passage's text with its links in them, those in code left out."""
    linked = list(blocks)
    # From the end, so that what stands before a link is still as the passage has it.
    for link in reversed(passage.links):
        words, line = passage.text[link.start : link.end], passage.text.rfind("\n", 0, link.start) + 1
        around = passage.text[max(line, link.start - AROUND_CHARS) : link.end]
        for place, block in enumerate(linked):
            if around in block and not block.startswith(("```", "~~~")) and not set("[]\n") & set(words):
                before = around[: len(around) - len(words)]
                linked[place] = block.replace(around, f"{before}[{words}]({link_target(link.url)})", 1)
                break
    return linked

"""Names for headings, so that a link made by the indexer finds the heading on the page. Pure."""

import re

_NOT_IN_ANCHOR = re.compile(r"[^\w\- ]")


def anchor(text: str, taken: set[str]) -> str:
    """GitHub's anchor for a heading: lower case, punctuation out, spaces to hyphens, repeated ones numbered."""
    first = unique = _NOT_IN_ANCHOR.sub("", text.strip().lower()).replace(" ", "-")
    number = 0
    while unique in taken:
        number += 1
        unique = f"{first}-{number}"
    return unique

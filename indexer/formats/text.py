"""Plain text -> draft: paragraphs between blank lines. Knows no headings, since plain text has none to rely on."""

import re

from indexer.documents import Draft, Outline
from indexer.formats.decoding import decoded

LISTED = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s")


def read(data: bytes) -> Draft:
    """The draft of a text file; SourceUnreadable where it is not text."""
    outline = Outline()
    for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", decoded(data)):
        lines = [line.rstrip() for line in paragraph.strip("\n").split("\n")]
        if any(LISTED.match(line) for line in lines):
            outline.add("list", "\n".join(lines))
        else:
            # Line breaks may carry meaning here (an address, a log), and they cost nothing.
            outline.add("paragraph", "\n".join(" ".join(line.split()) for line in lines))
    return Draft(sections=outline.sections())

"""Where a checked answer cites: each `[n]` of its prose. Code cites nothing, and neither do the words of a link."""

import re
from collections.abc import Iterator

from rag.chat.fences import Fences

_MARK = re.compile(r"\\[\\`]|(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)|\[(\d{1,3})\](?!\()")


def marks(answer: str) -> Iterator[tuple[int, int, int]]:
    """Begin, end and number of each. Places count code points from 0."""
    blocks, at = Fences(), 0
    for line in answer.split("\n"):
        blocks.begin(line, complete=True)
        for mark in _MARK.finditer(line) if blocks.kind == "prose" else ():
            if mark[2]:
                yield at + mark.start(), at + mark.end(), int(mark[2])
        at += len(line) + 1

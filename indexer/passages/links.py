"""Where in the passages the words of a page's links stand."""

from collections.abc import Sequence
from dataclasses import replace

from indexer.documents import PageLink
from rag.types import Link, Passage

LOOKED = 20
"""Passages in which a link is looked for, from the one with the link before: a page of links alone takes no minutes."""


def with_links(links: Sequence[PageLink], passages: Sequence[Passage]) -> list[Passage]:
    """The passages with their `links`: each is looked for with what stands around it, in reading order."""
    found: list[list[Link]] = [[] for _ in passages]
    place = at = 0
    for link in links:
        around = f"{link.before}{link.text}{link.after}"
        for number in range(place, min(place + LOOKED, len(passages))):
            # What stands before it may be the link before.
            begin = passages[number].text.find(around, max(0, at - len(link.before)) if number == place else 0)
            if begin >= 0:
                start = begin + len(link.before)
                found[number].append(Link(start, start + len(link.text), link.target))
                place, at = number, start + len(link.text)
                break
    return [replace(one, links=tuple(its)) if its else one for one, its in zip(passages, found, strict=True)]

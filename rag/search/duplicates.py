"""Passages that say the same: one page kept in two places, or a paragraph repeated on every page. Pure.

Must not know of scores or builds. What differs in a number, a name of an error or a price is never the same, however
much of the rest agrees: a reader who asks for one of two such passages would get the other.
"""

import re

SHINGLE_WORDS = 3
LEAST_SHARED = 0.8
"""Of two texts' shingles: Jaccard similarity, after Broder, "On the resemblance and containment of documents", 1997."""

_WORD = re.compile(r"\w+")


def says_the_same(one: str, other: str) -> bool:
    """Whether a reader of `one` learns nothing from `other`: the same numbers, and nearly the same words in a row."""
    if one == other:
        return True
    words, other_words = _WORD.findall(one.casefold()), _WORD.findall(other.casefold())
    if _with_digits(words) != _with_digits(other_words):
        return False
    shingles, other_shingles = _shingles(words), _shingles(other_words)
    shared = len(shingles & other_shingles)
    return shared >= LEAST_SHARED * (len(shingles) + len(other_shingles) - shared)


def _with_digits(words: list[str]) -> list[str]:
    return sorted(word for word in words if any(letter.isdigit() for letter in word))


def _shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}

"""Texts to unit vectors without a model: words and letter groups are hashed, or measured vectors are looked up.

Texts that share words point the same way, so retrieval through the emulator finds what a reader would look for.
Knows nothing of HTTP.
"""

import json
import math
import re
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

CACHED_TEXTS = 20_000
SHORTEST_KNOWN = 12
"""Characters; a shorter known text is only found when it is the whole text."""

_WORD = re.compile(r"\w+")
_ENDING = re.compile(r"(?:ations?|ings?|ungen|ung|edly|ed|es|en|er|ly|s|e)$")
_COMMON_ENGLISH = """a an and are as at be but by can do does for from has have how i if in is it its me my not of on
or our should so that the their there this to was we what when where which who why will with you your"""
_COMMON_GERMAN = """auf aus bei das dem den der die ein eine einem einen einer es für ich im ist kann mit nach nicht
oder sich sie sind und von was welche wenn wer wie wird wo zu zum zur"""
_COMMON = frozenset(f"{_COMMON_ENGLISH} {_COMMON_GERMAN}".split())
_COMMON_WEIGHT = 0.05
_LETTERS_WEIGHT = 0.25


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(text.lower()):
        if word in _COMMON:
            yield word, _COMMON_WEIGHT
            continue
        stem = _ENDING.sub("", word) if word.isalpha() and len(word) > 4 else word
        yield f"={stem}", 1.0
        # Scripts without spaces come as one long word: there the letter groups carry the meaning.
        width, weight = (3, _LETTERS_WEIGHT) if word.isascii() else (2, 0.5)
        for start in range(len(stem) - width + 1):
            yield stem[start : start + width], weight


def hashed_vector(text: str, dimension: int) -> Vector:
    """Signed feature hashing (Weinberger et al., 2009) with logarithmic counts; shape (dimension,), length 1."""
    weights: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for feature, weight in _features(text):
        counts[feature] += 1
        weights[feature] = weight
    vector = np.zeros(dimension, dtype=np.float32)
    for feature, count in counts.items():
        digest = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
        vector[(digest >> 1) % dimension] += (1 if digest & 1 else -1) * weights[feature] * (1 + math.log(count))
    if not vector.any():
        vector[0] = 1.0
    return normalised(vector)


def normalised(vector: Vector) -> Vector:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _key(text: str) -> str:
    """Only the words: Markdown and line breaks change on the way through an indexer."""
    return " ".join(_WORD.findall(text.lower()))


class Vectors:
    """A vector for every text; given ones first, hashed ones otherwise."""

    def __init__(self, *, dimension: int, files: list[Path] | None = None) -> None:
        self._given: dict[str, Vector] = {}
        for file in files or []:
            self._given.update(read_given(file))
        self.dimension = len(next(iter(self._given.values()))) if self._given else dimension
        self._longest_first = sorted(self._given, key=len, reverse=True)
        self._cache: OrderedDict[str, Vector] = OrderedDict()

    def of(self, text: str, dimension: int | None = None) -> Vector:
        """Shape (dimension,), length 1. Fewer dimensions than the whole are cut off and normalised again."""
        vector = self._cache.get(text)
        if vector is None:
            vector = self._given_for(text)
            if vector is None:
                vector = hashed_vector(text, self.dimension)
            if len(self._cache) >= CACHED_TEXTS:
                self._cache.popitem(last=False)
            self._cache[text] = vector
        if dimension is None or dimension == self.dimension:
            return vector
        return normalised(vector[:dimension])

    def _given_for(self, text: str) -> Vector | None:
        """The vector of the known text that this is, or that it contains, or that it is a piece of."""
        if not self._given:
            return None
        key = _key(text)
        if key in self._given:
            return self._given[key]
        for known in self._longest_first:
            if len(known) < SHORTEST_KNOWN:
                break
            if known in key:
                return self._given[known]
        # A passage has its headings above it; what follows the first empty line is the document's own text.
        piece = _key(text.partition("\n\n")[2])
        if len(piece) >= SHORTEST_KNOWN:
            for known in self._longest_first:
                if piece in known:
                    return self._given[known]
        return None


def read_given(file: Path) -> dict[str, Vector]:
    """Words of a text -> vector, from `corpus_ids`, `corpus`, `query_ids`, `queries` and the .jsonl files beside."""
    table: dict[str, Vector] = {}
    with np.load(file, allow_pickle=False) as stored:
        for ids, rows, texts in (("corpus_ids", "corpus", "corpus.jsonl"), ("query_ids", "queries", "queries.jsonl")):
            row_of = {str(name): row for row, name in enumerate(stored[ids])}
            matrix = stored[rows].astype(np.float32)
            with (file.parent / texts).open(encoding="utf-8") as lines:
                for entry in map(json.loads, lines):
                    row = row_of.get(str(entry["id"]))
                    if row is not None:
                        table[_key(entry["text"])] = normalised(matrix[row])
    return table

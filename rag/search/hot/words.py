"""The words of several indexes, scored as if they were one's. Knows no vectors.

Each index on disk holds finished shares of BM25's score, made with its own frequencies. Here the frequencies are
summed, and each term's shares scaled by what its idf is over all passages: so a word that is rare on the whole site
counts the same wherever it stands, and scores can be compared. Lengths are measured by the build's mean length in every
part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.search.bm25 import Lexical, hashes_of, inverse_frequency, most_passages_of_a_gram
from rag.search.hot.parts import Part, shared
from rag.text.terms import GRAM_MARK

Numbers = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one part has of each term that is asked for."""

    lexical: Lexical
    starts: Numbers
    counts: Numbers
    """Postings of each; 0 for a term that no passage of the part has."""

    @classmethod
    def of(cls, lexical: Lexical, hashes: NDArray[np.uint64]) -> "_Found":
        if not len(lexical._hashes):
            nothing = np.zeros(len(hashes), dtype=np.int64)
            return cls(lexical, nothing, nothing)
        places = lexical._hashes.searchsorted(hashes)
        known = lexical._hashes.take(places, mode="clip") == hashes
        starts = lexical._starts.take(places, mode="clip")
        return cls(lexical, starts, np.where(known, lexical._starts.take(places + 1, mode="clip") - starts, 0))

    def joined(self, array: NDArray[Any], terms: Numbers) -> NDArray[Any]:
        """The postings' rows or shares of these terms, one after the other."""
        starts, ends = self.starts[terms].tolist(), (self.starts[terms] + self.counts[terms]).tolist()
        return np.concatenate([array[:0], *(array[start:end] for start, end in zip(starts, ends, strict=True))])

    def alive(self, alive: NDArray[np.bool_] | None) -> Numbers:
        """Of each term's postings, how many are of passages that count."""
        if alive is None:
            return self.counts
        counting = alive[self.joined(self.lexical._rows, np.arange(len(self.counts)))]
        until = np.concatenate([[0], np.cumsum(counting)])
        ends = np.cumsum(self.counts)
        return np.asarray(until[ends] - until[ends - self.counts], dtype=np.int64)


class LayeredWords(Lexical):
    """Behaves as the words of one build. The first of `parts` is the build itself."""

    def __init__(self, parts: Sequence[Part]) -> None:
        # Not the base class's: there are no arrays of its own.
        self._parts = parts
        self.languages = tuple(sorted({language for part in parts for language in part.build.lexical.languages}))
        self.passages = sum(part.count for part in parts)
        self.left_out = parts[0].build.lexical.left_out

    def knows(self, forms: Sequence[str]) -> bool:
        return any(part.build.lexical.knows(forms) for part in self._parts)

    def scores(self, words: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        asked = [tuple(forms) for forms in words]
        found, frequencies, hashes = self._found([form for forms in asked for form in forms])
        idf = np.where(
            self._says_nothing(hashes, frequencies, found[0]), 0, inverse_frequency(self.passages, frequencies)
        )
        firsts = np.cumsum([0, *map(len, asked)])
        single = np.array([at for at, forms in zip(firsts, asked, strict=False) if len(forms) == 1], dtype=np.int64)
        several = [np.arange(at, at + len(forms)) for at, forms in zip(firsts, asked, strict=False) if len(forms) > 1]
        return np.concatenate([
            _scores_of(part, one, idf, single, several) for part, one in zip(self._parts, found, strict=True)
        ])  # fmt: skip

    def coverage(self, words: Iterable[Sequence[str]], rows: Sequence[int]) -> list[float]:
        asked = [tuple(forms) for forms in words if not forms[0].startswith(GRAM_MARK)]
        found, frequencies, _ = self._found([form for forms in asked for form in forms])
        idf, firsts = inverse_frequency(self.passages, frequencies), np.cumsum([0, *map(len, asked)]).tolist()
        # The most frequent form weighs least.
        weights = [float(idf[first:end].min()) for first, end in pairwise(firsts)]
        whole = sum(weights)
        if not whole:
            return [1.0] * len(rows)
        wanted, met = np.asarray(rows, dtype=np.int64), np.zeros(len(rows))
        places_of = {id(part): places for part, places in shared(self._parts, wanted)}
        for part, one in zip(self._parts, found, strict=True):
            if (places := places_of.get(id(part))) is None:
                continue
            own, spans = part.own(wanted[places]).astype(np.int32), zip(one.starts, one.counts, strict=True)
            held = [part.build.lexical._rows[start : start + count] if count else None for start, count in spans]
            for weight, (first, end) in zip(weights, pairwise(firsts), strict=True):
                has = [
                    each.take(each.searchsorted(own), mode="clip") == own
                    for each in held[first:end]
                    if each is not None
                ]
                if has:
                    met[places] += weight * np.logical_or.reduce(has)
        return [float(sum_) / whole for sum_ in met]

    def _found(self, forms: Sequence[str]) -> tuple[list[_Found], Numbers, NDArray[np.uint64]]:
        """What each part has of each term, in how many passages of all that count it is, and its hash."""
        hashes = np.array(hashes_of(forms), dtype=np.uint64)
        found = [_Found.of(part.build.lexical, hashes) for part in self._parts]
        frequencies = np.zeros(len(forms), dtype=np.int64)
        for part, one in zip(self._parts, found, strict=True):
            frequencies += one.alive(part.alive)
        return found, frequencies, hashes

    def _says_nothing(self, hashes: NDArray[np.uint64], frequencies: Numbers, base: _Found) -> NDArray[np.bool_]:
        """Which terms are grams that are too frequent, or were left out of the build as such.

        Where the build does not tell which ones it left out, every gram that it lacks is one.
        """
        if self.left_out is None:
            absent = base.counts == 0
        elif not len(self.left_out):
            absent = np.zeros(len(hashes), dtype=bool)
        else:
            absent = self.left_out.take(self.left_out.searchsorted(hashes), mode="clip") == hashes
        is_gram = (hashes & np.uint64(1)).astype(bool)
        silent: NDArray[np.bool_] = is_gram & (absent | (frequencies > most_passages_of_a_gram(self.passages)))
        return silent


def _scores_of(
    part: Part, found: _Found, idf: Floats, single: Numbers, several: Sequence[Numbers]
) -> NDArray[np.float32]:
    count, lexical = part.build.count, found.lexical
    stored = inverse_frequency(lexical.passages, found.counts)
    scales = np.divide(idf, stored, out=np.zeros(len(idf)), where=found.counts > 0)
    spoken = single[scales[single] > 0]
    total = np.zeros(count, dtype=np.float32)
    if len(spoken):
        shares = found.joined(lexical._impacts, spoken) * np.repeat(scales[spoken], found.counts[spoken])
        total = np.bincount(found.joined(lexical._rows, spoken), shares, minlength=count).astype(np.float32)
    for forms in several:
        # Forms of one word are alternatives, as in `Lexical.scores`.
        best = np.zeros_like(total)
        for form in forms[scales[forms] > 0].tolist():
            rows = lexical._rows[found.starts[form] : found.starts[form] + found.counts[form]]
            shares = lexical._impacts[found.starts[form] : found.starts[form] + found.counts[form]] * scales[form]
            best[rows] = np.maximum(best[rows], shares)
        total += best
    return total if part.live is None else total[part.live]

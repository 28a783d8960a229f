"""The words of several indexes, scored as if they were one's. Knows no vectors.

Each index on disk holds finished shares of BM25's score, made with its own frequencies. Here the frequencies are
summed, and each term's shares scaled by what its idf is over all passages: so a word that is rare on the whole site
counts the same wherever it stands, and scores can be compared. Lengths are measured by the build's mean length in every
part.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rag.search.bm25 import Lexical, inverse_frequency, most_passages_of_a_gram, term_hash
from rag.search.hot.parts import Part, shared
from rag.text.terms import GRAM_MARK

Postings = tuple[NDArray[np.int32], NDArray[np.float32]]


class LayeredWords(Lexical):
    """Behaves as the words of one build. The first of `parts` is the build itself."""

    def __init__(self, parts: Sequence[Part]) -> None:
        # Not the base class's: there are no arrays of its own.
        self._parts = parts
        self.languages = tuple(sorted({language for part in parts for language in part.build.lexical.languages}))
        self.passages = sum(part.count for part in parts)
        self.left_out = parts[0].build.lexical.left_out

    def scores(self, words: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        asked = [tuple(forms) for forms in words]
        forms = [form for one in asked for form in one]
        found, frequencies = self._postings(forms)
        return np.concatenate([
            self._scores_of(part, asked, postings, self._scales(part, forms, postings, frequencies))
            for part, postings in zip(self._parts, found, strict=True)
        ])  # fmt: skip

    def coverage(self, words: Iterable[Sequence[str]], rows: Sequence[int]) -> list[float]:
        asked = [tuple(forms) for forms in words if not forms[0].startswith(GRAM_MARK)]
        found, frequencies = self._postings([form for forms in asked for form in forms])
        counts = iter(frequencies.tolist())
        weights = [
            float(inverse_frequency(self.passages, max(islice(counts, len(forms)), default=0))) for forms in asked
        ]
        whole = sum(weights)
        if not whole:
            return [1.0] * len(rows)
        wanted, met = np.asarray(rows, dtype=np.int64), np.zeros(len(rows))
        places_of = {id(part): places for part, places in shared(self._parts, wanted)}
        for part, postings in zip(self._parts, found, strict=True):
            places = places_of.get(id(part))
            if places is None:
                continue
            own, each = part.own(wanted[places]).astype(np.int32), iter(postings)
            for forms, weight in zip(asked, weights, strict=True):
                has = [(one[0].take(one[0].searchsorted(own), mode="clip") == own)
                       for one in islice(each, len(forms)) if one]  # fmt: skip
                if has:
                    met[places] += weight * np.logical_or.reduce(has)
        return [float(sum_) / whole for sum_ in met]

    def _postings(self, forms: Sequence[str]) -> tuple[list[list[Postings | None]], NDArray[np.int64]]:
        """What each part has of each term, and in how many passages the term is, of all that count."""
        found = [part.build.lexical.postings(forms) for part in self._parts]
        frequencies = np.zeros(len(forms), dtype=np.int64)
        for part, postings in zip(self._parts, found, strict=True):
            for place, one in enumerate(postings):
                if one is not None:
                    frequencies[place] += len(one[0]) if part.alive is None else part.alive[one[0]].sum()
        return found, frequencies

    def _scales(
        self, part: Part, forms: Sequence[str], postings: Sequence[Postings | None], frequencies: NDArray[np.int64]
    ) -> list[float]:
        """What the shares of each term in `part` are to be multiplied with; 0 for a term that says nothing."""
        most = most_passages_of_a_gram(self.passages)
        scales = []
        for form, one, frequency in zip(forms, postings, frequencies.tolist(), strict=True):
            if one is None or (form.startswith(GRAM_MARK) and (frequency > most or self._is_left_out(form))):
                scales.append(0.0)
            else:
                stored = inverse_frequency(part.build.lexical.passages, len(one[0]))
                scales.append(float(inverse_frequency(self.passages, frequency) / stored))
        return scales

    def _is_left_out(self, gram: str) -> bool:
        """Whether the build left it out as too frequent; where it does not tell, every gram that it lacks is one."""
        if self.left_out is None:
            return self._parts[0].build.lexical.postings([gram])[0] is None
        place = int(self.left_out.searchsorted(np.uint64(term_hash(gram))))
        return place < len(self.left_out) and int(self.left_out[place]) == term_hash(gram)

    @staticmethod
    def _scores_of(
        part: Part, asked: Sequence[Sequence[str]], postings: Sequence[Postings | None], scales: Sequence[float]
    ) -> NDArray[np.float32]:
        single, several = list[Postings](), list[list[Postings]]()
        each = iter(zip(postings, scales, strict=True))
        for forms in asked:
            present = [(one[0], one[1] * np.float32(by)) for one, by in islice(each, len(forms)) if one and by]
            if len(present) > 1:
                several.append(present)
            else:
                single += present
        count = part.build.count
        total = np.zeros(count, dtype=np.float32)
        if single:
            rows, shares = (np.concatenate(arrays) for arrays in zip(*single, strict=True))
            total = np.bincount(rows, shares, minlength=count).astype(np.float32)
        for present in several:
            # Forms of one word are alternatives, as in `Lexical.scores`.
            best = np.zeros_like(total)
            for rows, shares in present:
                best[rows] = np.maximum(best[rows], shares)
            total += best
        return total if part.live is None else total[part.live]

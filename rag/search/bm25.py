"""BM25 over terms, from arrays on disk that every worker maps and none writes to.

`write` makes the files of a build, `Lexical` answers from them. It must not know of builds, checksums, vectors or
passages' fields beyond the four it is given.

Score of a passage d: the sum over the question's words t of

    idf(t) * tf(t, d) * (k1 + 1) / (tf(t, d) + k1 * (1 - b + b * length(d) / mean length))

with idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5)); Robertson and Zaragoza, "The Probabilistic Relevance Framework:
BM25 and Beyond", 2009, sections 3.4 and 3.6.1: tf and length sum the fields, each times its weight. A gram's share is
`GRAM_WEIGHT` of that; grams do not count for the length, and those in more than `GRAM_MOST` of the passages, which say
next to nothing and would be most of the index, are left out. All of it but the sum is known when a build is made, so
the files hold each posting's finished share and a search only adds.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rag.errors import BuildDamaged, BuildMismatch
from rag.search.mapped_arrays import mapped, mapped_list, writable_list
from rag.text.terms import ANALYSIS_VERSION, GRAM_MARK, LONGEST_REMEMBERED, WORDS_REMEMBERED, query_terms, terms

TITLE_WEIGHT = 1.0
HEADINGS_WEIGHT = 1.0
K1 = 0.9
B = 0.4

GRAM_WEIGHT = 0.15
GRAM_MOST = 0.1
GRAM_MOST_AT_LEAST = 20
"""Passages that a gram may always occur in, however small the index."""

POSTINGS_PER_RUN = 2_000_000
"""Postings held in memory while writing, some 60 bytes each at the peak."""

FILES = {"hashes": np.uint64, "starts": np.int64, "rows": np.int32, "impacts": np.float32}
"""The arrays, `lexical_<name>.npy`: sorted term hashes; where each term's postings start (one more than terms);
postings' rows, ascending within a term; postings' shares of the score."""
_POSTING = np.dtype([("hash", np.uint64), ("row", np.int32), ("tf", np.float32)])


LEFT_OUT = "left_out"
"""One more, which early builds lack: the sorted hashes of the grams that were left out."""


class Entry(NamedTuple):
    """What is indexed of one passage; its row is its place in the stream."""

    title: str
    headings: str
    body: str
    language: str


@lru_cache(maxsize=5 * WORDS_REMEMBERED)
def term_hash(term: str) -> int:
    """63 bits of BLAKE2b, then 1 for a gram and 0 for a word. Of ten million terms two are alike once in 180,000."""
    value = int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return value | 1 if term.startswith(GRAM_MARK) else value & ~1


def hashes_of(terms: Iterable[str]) -> list[int]:
    return [term_hash(one) if len(one) <= LONGEST_REMEMBERED else term_hash.__wrapped__(one) for one in terms]


def write(
    folder: Path, passages: Iterable[tuple[str, str, str, str]], *, beside_length: float | None = None
) -> dict[str, Any]:
    """Write the arrays of `passages` (title, headings, body, language) into `folder`; return the manifest's part.

    With `beside_length`, the mean length of another index, these passages are a part that is searched beside it: their
    lengths are measured by that, and no gram is left out, since only all parts together tell which are frequent.

    The postings, some 300 a passage, never stand in memory all at once: sorted runs of `POSTINGS_PER_RUN` wait on disk
    (16 bytes a posting), and are laid out through memory maps. Held throughout are the vocabulary (some 50 bytes a
    term), bounded caches and a length a passage.
    """
    with TemporaryDirectory(dir=folder, prefix="lexical-runs-") as scratch:
        lengths, languages, runs = _set_aside(Path(scratch), passages)
        return _lay_out(folder, np.frombuffer(lengths, dtype=np.float32), sorted(languages), runs, beside_length)


def _set_aside(scratch: Path, passages: Iterable[tuple[str, str, str, str]]) -> tuple[Any, set[str], list[Path]]:
    lengths, languages, runs = array("f"), set[str](), list[Path]()
    hashes, rows, frequencies = array("Q"), array("i"), array("f")

    def spill() -> None:
        run = np.empty(len(hashes), dtype=_POSTING)
        run["hash"], run["row"], run["tf"] = hashes, rows, frequencies
        # Stable, so that a term's rows stay ascending.
        path = scratch / f"{len(runs)}.npy"
        np.save(path, run[np.argsort(run["hash"], kind="stable")], allow_pickle=False)
        runs.append(path)
        del hashes[:], rows[:], frequencies[:]

    for row, entry in enumerate(passages):
        weighted = _weigh(Entry(*entry))
        languages.add(entry[3])
        lengths.append(sum(frequency for term, frequency in weighted.items() if not term.startswith(GRAM_MARK)))
        hashes.extend(hashes_of(weighted))
        rows.extend([row] * len(weighted))
        frequencies.extend(weighted.values())
        if len(hashes) >= POSTINGS_PER_RUN:
            spill()
    if hashes:
        spill()
    return lengths, languages, runs


def _weigh(entry: Entry) -> dict[str, float]:
    weighted: dict[str, float] = {}
    for text, weight in ((entry.title, TITLE_WEIGHT), (entry.headings, HEADINGS_WEIGHT), (entry.body, 1.0)):
        for term, count in Counter(terms(text, entry.language)).items():
            weighted[term] = weighted.get(term, 0.0) + count * weight
    return weighted


def _lay_out(
    folder: Path, lengths: NDArray[np.float32], languages: list[str], runs: list[Path], beside_length: float | None
) -> dict[str, Any]:
    passages = len(lengths)
    mean_length = beside_length or (float(lengths.mean()) if passages else 0.0)
    norms = K1 * (1 - B + B * lengths / (mean_length or 1.0))
    hashes, counts = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    for run in map(mapped, runs):
        run_hashes, run_counts = np.unique(run["hash"], return_counts=True)
        merged = np.union1d(hashes, run_hashes)
        merged_counts = np.zeros(len(merged), dtype=np.int64)
        merged_counts[np.searchsorted(merged, hashes)] += counts
        merged_counts[np.searchsorted(merged, run_hashes)] += run_counts
        hashes, counts = merged, merged_counts
    is_gram = (hashes & np.uint64(1)).astype(bool)
    kept = ~is_gram | (counts <= most_passages_of_a_gram(passages)) | (beside_length is not None)
    np.save(_file(folder, LEFT_OUT), hashes[~kept], allow_pickle=False)
    hashes, counts, is_gram = hashes[kept], counts[kept], is_gram[kept]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    shares = inverse_frequency(passages, counts) * (K1 + 1) * np.where(is_gram, GRAM_WEIGHT, 1.0)

    np.save(_file(folder, "hashes"), hashes, allow_pickle=False)
    np.save(_file(folder, "starts"), starts, allow_pickle=False)
    rows = writable_list(_file(folder, "rows"), np.int32, int(starts[-1]))
    impacts = writable_list(_file(folder, "impacts"), np.float32, int(starts[-1]))
    filled = starts[:-1].copy()
    for run in map(mapped, runs):
        held = run[np.isin(run["hash"], hashes)]
        run_hashes, first, run_counts = np.unique(held["hash"], return_index=True, return_counts=True)
        slots = np.searchsorted(hashes, run_hashes)
        # Runs come in the order of the passages, so appending keeps each term's rows ascending.
        places = np.arange(len(held)) + np.repeat(filled[slots] - first, run_counts)
        rows[places] = held["row"]
        impacts[places] = np.repeat(shares[slots], run_counts) * held["tf"] / (held["tf"] + norms[held["row"]])
        filled[slots] += run_counts
    del rows, impacts  # unmapping writes them out
    return {
        "analysis_version": ANALYSIS_VERSION,
        "passages": passages,
        "terms": len(hashes),
        "postings": int(starts[-1]),
        "languages": languages,
        "mean_length": mean_length,
        "parameters": {
            "k1": K1, "b": B, "title_weight": TITLE_WEIGHT, "headings_weight": HEADINGS_WEIGHT,
            "gram_weight": GRAM_WEIGHT, "gram_most": GRAM_MOST,
        },
    }  # fmt: skip


def most_passages_of_a_gram(passages: int) -> float:
    return max(GRAM_MOST_AT_LEAST, GRAM_MOST * passages)


def inverse_frequency(passages: int, counts: Any) -> Any:
    """idf of a term that `counts` of so many passages have: the formula above."""
    return np.log1p((passages - counts + 0.5) / (counts + 0.5))


def _file(folder: Path, name: str) -> Path:
    return folder / f"lexical_{name}.npy"


class Lexical:
    """An index opened for reading. Threads may share it: a search writes only to arrays of its own."""

    def __init__(
        self, *, hashes: NDArray[np.uint64], starts: NDArray[np.int64], rows: NDArray[np.int32],
        impacts: NDArray[np.float32], languages: Sequence[str], passages: int,
        left_out: NDArray[np.uint64] | None = None,
    ) -> None:  # fmt: skip
        self._hashes, self._starts, self._rows, self._impacts = hashes, starts, rows, impacts
        self.languages = tuple(languages)
        self.passages = passages
        self.left_out = left_out  # None where a build does not tell

    @classmethod
    def open(cls, folder: Path, manifest_part: Mapping[str, Any]) -> Self:
        """Map the arrays in `folder`; `manifest_part` is what `write` returned.

        Raises BuildMismatch for terms made by another version, BuildDamaged for arrays that do not agree.
        """
        version = manifest_part.get("analysis_version")
        if version != ANALYSIS_VERSION:
            raise BuildMismatch(f"{folder}: terms of version {version}, this server reads {ANALYSIS_VERSION}; rebuild")
        try:
            arrays = {name: mapped_list(_file(folder, name), kind) for name, kind in FILES.items()}
            left_out = mapped_list(_file(folder, LEFT_OUT), np.uint64) if _file(folder, LEFT_OUT).exists() else None
            passages, languages = int(manifest_part["passages"]), [str(code) for code in manifest_part["languages"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BuildDamaged(f"{folder}: the lexical index cannot be read: {error}") from error
        counts = (len(arrays["starts"]) - 1, len(arrays["rows"]), len(arrays["impacts"]))
        if counts != (len(arrays["hashes"]), int(arrays["starts"][-1]), int(arrays["starts"][-1])):
            raise BuildDamaged(f"{folder}: the lexical arrays' lengths do not agree: {counts}")
        return cls(**arrays, languages=languages, passages=passages, left_out=left_out)

    def words(self, question: str) -> list[tuple[str, ...]]:
        """What `question` asks of this index: see `rag.text.terms.query_terms`."""
        return _words(question, tuple(self.languages))

    def knows(self, forms: Sequence[str]) -> bool:
        """Whether any passage has any of `forms`."""
        return any(self._spans(forms))

    def scores(self, words: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        """BM25 of every passage, shape [passages], for `words` as `Lexical.words` gives them; 0 where none occurs."""
        asked = [tuple(forms) for forms in words]
        spans = self._spans([form for forms in asked for form in forms])
        single, several = list[slice](), list[list[slice]]()
        if len(spans) == len(asked):
            # In an index of one language every word has one form.
            single = [span for span in spans if span]
        else:
            rest = iter(spans)
            for forms in asked:
                present = [span for span in islice(rest, len(forms)) if span]
                if len(present) > 1:
                    several.append(present)
                else:
                    single += present
        if not single:
            total = np.zeros(self.passages, dtype=np.float32)
        else:
            all_rows, all_impacts = self._rows, self._impacts
            rows = np.concatenate([all_rows[span] for span in single])
            impacts = np.concatenate([all_impacts[span] for span in single])
            total = np.bincount(rows, impacts, minlength=self.passages).astype(np.float32)
        for present in several:
            # Forms of one word are alternatives: a passage with two of them has still met one word.
            best = np.zeros_like(total)
            for span in present:
                best[self._rows[span]] = np.maximum(best[self._rows[span]], self._impacts[span])
            total += best
        return total

    def coverage(self, words: Iterable[Sequence[str]], rows: Sequence[int]) -> list[float]:
        """Of each row's passage, how much of what is asked it has, 0 to 1: its words' idf over that of all words.

        Grams do not count, and a word that no passage has counts most. 1 where nothing is asked.
        """
        asked = [tuple(forms) for forms in words if not forms[0].startswith(GRAM_MARK)]
        places = np.asarray(rows, dtype=np.int32)
        met, whole = [0.0] * len(places), 0.0
        spans = iter(self._spans([form for forms in asked for form in forms]))
        for forms in asked:
            postings = [self._rows[span] for span in islice(spans, len(forms)) if span]
            known_in = max(map(len, postings), default=0)
            idf = math.log1p((self.passages - known_in + 0.5) / (known_in + 0.5))
            # Methods, not numpy's functions: around five rows the functions' wrappers would be most of the price.
            has = [(found.take(found.searchsorted(places), mode="clip") == places).tolist() for found in postings]
            met = [sum_ + idf if any(forms_met) else sum_ for sum_, *forms_met in zip(met, *has, strict=True)]
            whole += idf
        return [sum_ / whole for sum_ in met] if whole else [1.0] * len(places)

    def _spans(self, asked: Sequence[str]) -> list[slice | None]:
        """Where each term's postings are; None for a term that no passage has."""
        if not asked or not len(self._hashes):
            return [None] * len(asked)
        sought = np.array(hashes_of(asked), dtype=np.uint64)
        places = self._hashes.searchsorted(sought)
        known = (self._hashes.take(places, mode="clip") == sought).nonzero()[0]
        places = places[known]
        found = map(slice, self._starts[places].tolist(), self._starts[places + 1].tolist())
        spans = dict(zip(known.tolist(), found, strict=True))
        return [spans.get(at) for at in range(len(asked))]


# Who searches and who judges what was found ask one after the other.
_words = lru_cache(maxsize=8)(query_terms)

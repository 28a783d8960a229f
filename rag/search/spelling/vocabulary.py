"""A build's words on disk, found by the letters that a misspelling shares with them. Knows no question.

After Garbe's SymSpell: of each word its forms with one letter left out are kept too, by their hashes. Two words that
are one letter, one wrong letter or one swap apart have such a form in common.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag.errors import BuildDamaged
from rag.search.mapped_arrays import mapped
from rag.text.terms import words

SHORTEST, LONGEST = 3, 24
"""Letters of the words that are kept."""
MOST_WORDS = 200_000
"""The most frequent ones: some 25 MB on disk, mapped."""
MOST_COUNTED = 1_000_000
"""Different words in memory while they are counted, some 100 bytes each."""
FORMS, WORDS, ENDS, LETTERS = "forms", "words", "ends", "letters"
"""The arrays, `spelling_<name>.npy`: sorted hashes of the forms; the word that each is of; where each word ends in the
letters; all words in UTF-8, the most frequent first."""
KINDS = {FORMS: np.uint64, WORDS: np.int32, ENDS: np.int64, LETTERS: np.uint8}


def write(folder: Path, texts: Iterable[str]) -> dict[str, Any]:
    """Write the arrays of the words of `texts` into `folder`; return the manifest's part."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({word for word, is_run in words(text) if not is_run and is_kept(word)})
        if len(counts) > MOST_COUNTED:
            # Those that were met once may be met again, and are then counted from there: what is frequent stays.
            counts = Counter({word: count for word, count in counts.items() if count > 1})
    # By number of passages, then by letters, so that the same passages make the same files.
    kept = [word for word, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MOST_WORDS]]
    hashes, rows = array("Q"), array("i")
    for row, word in enumerate(kept):
        found = [form_hash(form) for form in sorted({word, *shortened(word)})]
        hashes.extend(found)
        rows.extend([row] * len(found))
    forms, of_words = np.frombuffer(hashes, dtype=np.uint64), np.frombuffer(rows, dtype=np.int32)
    order = np.argsort(forms, kind="stable")
    encoded = [word.encode() for word in kept]
    arrays: dict[str, NDArray[Any]] = {
        FORMS: forms[order], WORDS: of_words[order], ENDS: np.cumsum([len(word) for word in encoded], dtype=np.int64),
        LETTERS: np.frombuffer(b"".join(encoded), dtype=np.uint8),
    }  # fmt: skip
    for name, values in arrays.items():
        np.save(_file(folder, name), values, allow_pickle=False)
    return {"words": len(kept), "forms": len(rows)}


def is_kept(word: str) -> bool:
    """Whether a word may be misspelled, or meant by a misspelling: numbers and keys may not."""
    return SHORTEST <= len(word) <= LONGEST and word.isalpha()


def shortened(word: str) -> set[str]:
    """The word with each of its letters left out."""
    return {word[:place] + word[place + 1 :] for place in range(len(word))}


def form_hash(form: str) -> int:
    return int.from_bytes(blake2b(form.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _file(folder: Path, name: str) -> Path:
    return folder / f"spelling_{name}.npy"


class Vocabulary:
    """The words, opened for reading. Threads may share it."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._forms, self._words = arrays[FORMS], arrays[WORDS]
        self._ends, self._letters = arrays[ENDS], arrays[LETTERS]

    @classmethod
    def open(cls, folder: Path, manifest_part: Mapping[str, Any]) -> Self:
        """Map the arrays in `folder`; `manifest_part` is what `write` returned. Raises `BuildDamaged`."""
        try:
            arrays = {name: np.asarray(mapped(_file(folder, name))) for name in KINDS}
            sizes = {FORMS: manifest_part["forms"], WORDS: manifest_part["forms"], ENDS: manifest_part["words"]}
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise BuildDamaged(f"{folder}: the words for typing errors cannot be read: {error}") from error
        sound = all(values.dtype == KINDS[name] and values.ndim == 1 for name, values in arrays.items())
        if not sound or any(len(arrays[name]) != size for name, size in sizes.items()):
            raise BuildDamaged(f"{folder}: the words for typing errors do not agree with the manifest")
        return cls(arrays)

    def sharing(self, forms: Sequence[str]) -> list[tuple[int, str]]:
        """The words that have one of `forms`, each with its place by frequency, 0 for the most frequent."""
        sought = np.array([form_hash(form) for form in forms], dtype=np.uint64)
        starts = self._forms.searchsorted(sought, side="left").tolist()
        ends = self._forms.searchsorted(sought, side="right").tolist()
        spans = zip(starts, ends, strict=True)
        rows = {row for start, end in spans if start < end for row in self._words[start:end].tolist()}
        return [(row, self._word(row)) for row in sorted(rows)]

    def _word(self, row: int) -> str:
        start = int(self._ends[row - 1]) if row else 0
        return self._letters[start : int(self._ends[row])].tobytes().decode()

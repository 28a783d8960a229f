"""The embedding model that needs no network, no key and no model file: texts by the letters of their words.

It knows spelling, not meaning: "vacaton days" lies near "vacation day", not near "holidays". It is there so that the
first question works and a typing error does not matter; it must not know of indexes or rankings.

A text is the sum of its words' features, signed and hashed to `DIMENSIONS` places (Weinberger et al., "Feature Hashing
for Large Scale Multitask Learning", ICML 2009). A word's features are itself; its pieces of two and three letters
(after Bojanowski et al., "Enriching Word Vectors with Subword Information", TACL 2017); and itself with each of its
letters left out, which two spellings of one word share (the deletions of Garbe's SymSpell).
"""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.deadline import Deadline
from rag.text.terms import LONGEST_REMEMBERED, WORDS_REMEMBERED, function_words, words

DIMENSIONS = 2048
PIECES_SHARE = 0.4
"""The pieces' part of a word's squared length; the word and its deletions have the rest."""
LONGEST = 10
"""Long words are rare ones, as a rule, so a word weighs the square root of its letters, up to this many."""
MISSPELLED_UP_TO = 30
"""Letters; beyond are keys and hashes, whose deletions would only cost time."""
AT_ONCE = 8
"""More texts than this would hold up the event loop (some 0.2 ms a passage), so they go to a thread."""


class LocalEmbedder:
    """Same text, same vector, on every machine; `name` changes when a vector does."""

    name = "embedded-letters-v1"
    dimensions = DIMENSIONS
    dense_weight = 0.05
    """Its share in `rag.search.fusion.fuse`. The words are counted already, so it only tips the balance."""

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "endpoints": []}

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> NDArray[np.float32]:
        """Vectors of length 1, shape [texts, DIMENSIONS]. `deadline` is part of the interface; nothing is awaited."""
        if len(texts) > AT_ONCE:
            return await asyncio.to_thread(_embed, texts)
        return _embed(texts)


def _embed(texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row] = _vector(text)
    return vectors


def _vector(text: str) -> NDArray[np.float64]:
    counts = Counter(words(text))
    stops = function_words({word for word, is_run in counts if not is_run})
    content = {word: count for word, count in counts.items() if word[1] or word[0] not in stops} or counts
    vector: NDArray[np.float64] = np.zeros(DIMENSIONS)
    if content:
        features = [
            _features(*word) if len(word[0]) <= LONGEST_REMEMBERED else _features.__wrapped__(*word) for word in content
        ]
        repeated = [1 + math.log(count) for count in content.values()]
        values = np.concatenate([weights * times for (_, weights), times in zip(features, repeated, strict=True)])
        places = np.concatenate([places for places, _ in features])
        vector = np.bincount(places, values, minlength=DIMENSIONS).astype(np.float64)
    length = float(np.linalg.norm(vector))
    # A text without a word gets a direction all the same: a vector of length 0 has no cosine.
    return vector / length if length else np.eye(1, DIMENSIONS)[0]


@lru_cache(maxsize=WORDS_REMEMBERED)
def _features(word: str, is_run: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places and signed weights of a word's features."""
    weighted = _run_features(word) if is_run else _word_features(word)
    hashes = np.array([_hash(feature) for feature, _ in weighted], dtype=np.int64)
    signs = np.where(hashes >> 31, 1.0, -1.0)
    return hashes % DIMENSIONS, signs * np.array([weight for _, weight in weighted])


def _word_features(word: str) -> list[tuple[str, float]]:
    edged = f"<{word}>"
    pieces = [edged[i : i + size] for size in (2, 3) for i in range(len(edged) - size + 1)]
    spellings = {word}
    if 3 < len(word) <= MISSPELLED_UP_TO and word.isalpha():
        spellings |= {word[:i] + word[i + 1 :] for i in range(len(word))}
    # Squared weights add up, so each share is spread over its features before the root is taken.
    letters = min(len(word), LONGEST)
    each_piece = math.sqrt(letters * PIECES_SHARE / len(pieces))
    each_spelling = math.sqrt(letters * (1 - PIECES_SHARE) / len(spellings))
    return [(piece, each_piece) for piece in pieces] + [(f"={spelling}", each_spelling) for spelling in spellings]


def _run_features(run: str) -> list[tuple[str, float]]:
    """Scripts without spaces: characters, neighbours, and neighbours but one."""
    neighbours = [(first + second, 0.7) for first, second in pairwise(run)]
    next_but_one = [(f"{first} {second}", 0.7) for first, second in zip(run, run[2:], strict=False)]
    return [(character, 0.5) for character in run] + neighbours + next_but_one


def _hash(feature: str) -> int:
    """32 bits: the lower ones are a place, the highest a sign."""
    return int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")

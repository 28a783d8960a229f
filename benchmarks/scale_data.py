"""Passages, vectors and questions by the million, made up as they are asked for; `scale` measures with them.

Runs nothing by itself, and knows nothing of builds and servers.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from indexer.documents import Block, Document, Section
from rag.deadline import Deadline

BLOCK = 1_024
PASSAGES_A_PAGE = 16
PASSAGES_A_TOPIC = 800
TOPIC_DIRECTIONS, OTHER_DIRECTIONS = 24, 120
"""Effective ones, (sum of eigenvalues)^2 / sum of squares. All in all that is some 45, and 120 within topics; measured
were 38 and 47, and 90 and 121, with half of the variance within 25 clusters, and 65 and 119 for what a question
differs by."""
WORDS = 30
VOCABULARY = 50_000
MODEL = "emulated-embeddings"


class Collection:
    """Passages that do not exist until they are asked for, and then are always the same."""

    def __init__(self, count: int, dimensions: int) -> None:
        self.count, self.dimensions = count, dimensions
        draw = np.random.default_rng(0)
        self._common = self._directions(draw, 1, TOPIC_DIRECTIONS)
        self._topics = self._directions(draw, max(4, count // PASSAGES_A_TOPIC), TOPIC_DIRECTIONS)

    def _directions(self, draw: np.random.Generator, count: int, effective: int) -> np.ndarray:
        """Random vectors of about length 1. Eigenvalues fall as (i + a)^-2, which are 3a effective directions."""
        spread = ((np.arange(self.dimensions) + effective / 3) ** -1).astype(np.float32)
        spread /= np.linalg.norm(spread)
        return draw.standard_normal((count, self.dimensions), dtype=np.float32) * spread

    @lru_cache(maxsize=4)  # noqa: B019  # one collection lives as long as its process
    def block(self, number: int) -> np.ndarray:
        """Unit vectors of rows number * BLOCK and on, float32 [BLOCK, dimensions]."""
        draw = np.random.default_rng((1, number))
        pages = BLOCK // PASSAGES_A_PAGE
        topics = (draw.random(pages) ** 2 * len(self._topics)).astype(int)  # some topics are larger than others
        page = 0.67 * self._topics[topics] + 0.47 * self._directions(draw, pages, OTHER_DIRECTIONS)
        passage = 0.47 * self._directions(draw, BLOCK, OTHER_DIRECTIONS)
        vectors = 0.3 * self._common + np.repeat(page, PASSAGES_A_PAGE, axis=0) + passage
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        return np.stack([self.block(row // BLOCK)[row % BLOCK] for row in rows])

    def words(self, row: int, count: int) -> str:
        draw = np.random.default_rng((2, row))
        return " ".join(f"w{int(VOCABULARY**share)}" for share in draw.random(count))  # as often as 1 / rank

    def documents(self) -> Iterator[Document]:
        """One passage each: what chunking costs is not what is measured here."""
        for row in range(self.count):
            block = Block("paragraph", f"p{row} {self.words(row, WORDS)}")
            name = f"page-{row // PASSAGES_A_PAGE}"
            yield Document(f"{name}.md", f"https://x.example/{name}/", name, "en", (Section((), "", (block,)),))

    def questions(self, count: int) -> tuple[list[str], np.ndarray]:
        """Texts, and unit vectors [count, dimensions]."""
        draw = np.random.default_rng(3)
        rows = draw.integers(0, self.count, count).tolist()
        vectors = 0.55 * self.vectors(rows) + 0.83 * self._directions(draw, count, OTHER_DIRECTIONS)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return [f"question {n} {self.words(row, WORDS)[:40]}" for n, row in enumerate(rows)], vectors

    def nearest(self, questions: np.ndarray, count: int) -> list[set[int]]:
        """Rows of the nearest by exact search in float32."""
        best: list[list[tuple[float, int]]] = [[] for _ in questions]
        for start in range(0, self.count, BLOCK):
            near = questions @ self.block(start // BLOCK)[: self.count - start].T
            for place, row in enumerate(near):
                top = np.argpartition(-row, min(count, len(row)) - 1)[:count]
                best[place] = sorted([*best[place], *((float(row[i]), start + int(i)) for i in top)])[-count:]
        return [{row for _, row in rows} for rows in best]


class Looked:
    """An embedder that knows the vectors: what the service takes is not what is measured here."""

    name = MODEL
    dense_weight = 0.6

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        return self._collection.vectors([int(re.findall(r"\bp(\d+)\b", text)[-1]) for text in texts])

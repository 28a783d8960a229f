"""Remembers the vectors of questions that were asked lately, and asks once for a question that many ask at a time.

Visitors of one site ask much the same. Knows nothing of models or searches, and keeps no words: a question is known by
its hash. Answers are never kept; they hang on the conversation and on the live build.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from rag.resilience import Deadline
from rag.retrieval import Embedder

QUESTIONS = 512
"""Vectors kept by each worker; of 1,536 dimensions they take 3 MB."""


class EmbeddingCache:
    """An `Embedder` in front of another one. A text that comes alone is a question; several at once pass through."""

    def __init__(self, *, embedder: Embedder, dimensions: Callable[[], int], capacity: int = QUESTIONS) -> None:
        """`dimensions` are those of the live build: a vector that it cannot be searched for is not worth keeping."""
        self.name = embedder.name
        self._embedder = embedder
        self._dimensions = dimensions
        self._capacity = capacity
        self._vectors: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._asked: dict[bytes, asyncio.Event] = {}
        """Questions that wait for their vector, and what tells others that the wait is over."""

    def health(self) -> dict[str, Any]:
        return self._embedder.health()

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        """Unit vectors, float32 [len(texts), dimensions], not to be changed. Raises `UpstreamError`."""
        if len(texts) != 1:
            return await self._embedder.embed(texts, deadline=deadline)
        key = hashlib.sha256(texts[0].encode("utf-8", "surrogatepass")).digest()
        if (asked := self._asked.get(key)) is not None:
            with suppress(TimeoutError):
                async with deadline.timeout():
                    await asked.wait()
        if (known := self._vectors.get(key)) is not None:
            self._vectors.move_to_end(key)
            return known
        # Whoever was first failed or left, if anyone was. A failure is not shared: here there may be more time.
        mine = asyncio.Event()
        others = self._asked.setdefault(key, mine)
        try:
            vectors = await self._embedder.embed(texts, deadline=deadline)
        finally:
            mine.set()
            if others is mine:
                del self._asked[key]
        if vectors.shape[1] == self._dimensions():
            self._keep(key, vectors)
        return vectors

    def _keep(self, key: bytes, vectors: np.ndarray) -> None:
        vectors.flags.writeable = False
        self._vectors[key] = vectors
        if len(self._vectors) > self._capacity:
            self._vectors.popitem(last=False)

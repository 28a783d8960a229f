"""From a question to passages: embed it, search by meaning and by words, keep what is relevant.

Knows no HTTP and no prompts. When the embeddings cannot be had, words alone must do, and the answer says so.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from rag.errors import BuildMismatch, UpstreamError
from rag.live_index import LiveIndex
from rag.models import Hit, Message
from rag.resilience import Deadline

log = logging.getLogger(__name__)

EMBEDDING_SHARE = 0.4
"""Of a request's time, at most, for the question's vector: an embeddings service that hangs leaves time to answer."""
INLINE_WORK = 4_000_000
"""Passages times dimensions that are searched on the event loop: under a millisecond, less than a thread would cost."""
SEARCH_THREADS = 2
"""Per worker, for larger builds: faiss lets go of the interpreter, so that two are searched while others wait."""

WITHOUT_EMBEDDINGS = "embeddings unavailable: found by words alone"

_REFERRING = re.compile(
    r"\b(it|its|they|them|their|those|these|this|that|one|ones|he|she|her|his|there|same|other|others|another|else|more|"
    r"also|instead|er|sie|es|ihn|ihm|ihr|ihnen|deren|davon|dazu|damit|dafür|dort|diese[rsmn]?|noch|"
    r"il|elle|ils|elles|lui|leur|cela|ça|celui|celle|ello|ellos|ellas|eso|esto|otro|otra)\b|^\s*(and|or|but|und|oder|et|y)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
SHORT_QUESTION_WORDS = 4
"""A question of so few words ("and in winter?") leans on the one before it, whether it says so or not."""


class Embedder(Protocol):
    """What turns texts into vectors: Azure's service, or the embedded one."""

    name: str

    def health(self) -> dict[str, Any]: ...

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        """Unit vectors, float32 [len(texts), dimensions]. Raises `UpstreamError`."""


@dataclass(slots=True)
class Retrieved:
    """The outcome of one search, with what went missing on the way and how long it took."""

    hits: list[Hit]
    degraded: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


class Retriever:
    """Searches the live build."""

    def __init__(self, *, index: LiveIndex, embedder: Embedder, threshold: float | None) -> None:
        """`threshold` is the cosine similarity below which a passage does not answer; None takes whatever is found."""
        self._index = index
        self._embedder = embedder
        self._threshold = threshold
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def search(self, query: str, *, k: int, deadline: Deadline) -> Retrieved:
        """The `k` best passages for `query`, best first. Never raises for an upstream that is down."""
        build = self._index.build
        began = time.perf_counter()
        vector, degraded = None, None
        try:
            vector = (await self._embedder.embed([query], deadline=deadline.share(EMBEDDING_SHARE)))[0]
            if vector.shape[0] != build.dimensions:
                raise BuildMismatch(f"the question has {vector.shape[0]} dimensions, the build {build.dimensions}")
        except (UpstreamError, BuildMismatch) as error:
            vector, degraded = None, WITHOUT_EMBEDDINGS
            log.warning("question not embedded, words alone are searched", extra={"reason": str(error)})
        embedded = time.perf_counter()
        if build.count * build.dimensions <= INLINE_WORK:
            hits = build.search(query, vector=vector, k=k)
        else:
            loop = asyncio.get_running_loop()
            hits = await loop.run_in_executor(self._threads, lambda: build.search(query, vector=vector, k=k))
        found = time.perf_counter()
        timings = {"embed_ms": round((embedded - began) * 1000, 1), "search_ms": round((found - embedded) * 1000, 1)}
        return Retrieved(hits, degraded, timings)

    def relevant(self, retrieved: Retrieved) -> list[Hit]:
        """The hits that may go into a prompt: those above the threshold, where there is one and it can be applied."""
        if self._threshold is None or retrieved.degraded:
            return retrieved.hits
        return [hit for hit in retrieved.hits if hit.similarity >= self._threshold]


def search_query(question: str, history: Sequence[Message]) -> str:
    """What to search for: the question, with the one before it where it cannot stand alone ("how many of them?")."""
    earlier = next((turn.content for turn in reversed(history) if turn.role == "user"), "")
    if not earlier:
        return question
    leans = len(_WORD.findall(question)) <= SHORT_QUESTION_WORDS or _REFERRING.search(question) is not None
    return f"{earlier}\n{question}" if leans else question

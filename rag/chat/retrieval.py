"""From a question to passages: embed it, search by meaning and by words, keep what is relevant.

Knows no HTTP and no prompts. When the embeddings cannot be had, words alone must do, and the answer says so.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from rag.chat.follow_ups import search_query as search_query
from rag.chat.prompt import within_budget
from rag.deadline import Deadline
from rag.errors import BudgetSpent, BuildMismatch, UpstreamError
from rag.protocols import Embedder
from rag.search import relevance
from rag.search.hybrid import Build
from rag.search.live import LiveIndex
from rag.telemetry.logs import Stage
from rag.telemetry.metrics import Metrics
from rag.types import Hit, Missing

log = logging.getLogger(__name__)

EMBEDDING_SHARE = 0.4
"""Of a request's time, at most, for the question's vector: an embeddings service that hangs leaves time to answer."""
SEARCH_THREADS = 2
"""Per worker, for builds that are not quick: faiss lets go of the interpreter, and a wait for a database does."""

WITHOUT_EMBEDDINGS = Missing("embeddings", "embeddings unavailable: found by words alone")


@dataclass(slots=True)
class Retrieved:
    """The outcome of one search, with what went missing on the way."""

    hits: list[Hit]
    """The best passages, best first, whether or not they have anything to do with the question."""
    missing: Missing | None = None
    on_topic: bool = True
    """False where even the best ones have nothing to do with it: see `rag.search.relevance`."""
    vector: np.ndarray | None = None
    """The question's, float32 [dimensions]; None where it could not be had."""
    build: str = ""
    """The id of the build that was searched."""
    nearest: list[Hit] = field(default_factory=list)
    """Those that share a word with the question: what may be offered where none of them answers it."""


class Retriever:
    """Searches the live build."""

    def __init__(self, *, index: LiveIndex, embedder: Embedder, threshold: float | None, metrics: Metrics) -> None:
        """`threshold` is the cosine similarity below which a passage does not answer; None takes the build's floor."""
        self._index = index
        self._embedder = embedder
        self._threshold = threshold
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")

    @property
    def build(self) -> Build:
        """The live build."""
        return self._index.build

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def search(self, query: str, *, k: int, deadline: Deadline) -> Retrieved:
        """The `k` best passages for `query`, best first. Never raises for an upstream that is down."""
        build = self._index.build
        vector, missing = None, None
        embedding, searching = Stage("embed"), Stage("search")
        # Another one is searched by words beside the call for the vector: that takes as long as the rest of a search.
        threads = self._threads
        beside = None if build.is_quick else threads.submit(build.by_words, query)
        try:
            with embedding:
                vector = (await self._embedder.embed([query], deadline=deadline.share(EMBEDDING_SHARE)))[0]
                if vector.shape[0] != build.dimensions:
                    raise BuildMismatch(f"the question has {vector.shape[0]} dimensions, the build {build.dimensions}")
        except (UpstreamError, BuildMismatch) as error:
            vector, missing = None, WITHOUT_EMBEDDINGS
            if not isinstance(error, BudgetSpent):
                log.warning("question not embedded, words alone are searched", extra={"reason": str(error)})
        with searching:
            if beside is None:
                hits, on_topic, nearest = _find(build, query, vector, k)
            else:
                loop, by_words = asyncio.get_running_loop(), await asyncio.wrap_future(beside)
                hits, on_topic, nearest = await loop.run_in_executor(threads, _find, build, query, vector, k, by_words)
        self._metrics.searched(embed_s=embedding.seconds, search_s=searching.seconds)
        return Retrieved(hits, missing, on_topic, vector, build.id, nearest)

    def relevant(self, retrieved: Retrieved, *, question: str, in_conversation: bool) -> list[Hit]:
        """The hits that may go into a prompt, within its budget; none where the question is off-topic.

        A threshold that is set decides in place of the build's floor, passage by passage, where it can be applied.
        The floor judges only what opens a conversation: later turns ("what did I ask first?") may be about that.
        """
        if self._threshold is not None and not retrieved.missing:
            hits = [hit for hit in retrieved.hits if hit.similarity >= self._threshold]
            return within_budget(hits, question)
        return within_budget(retrieved.hits, question) if retrieved.on_topic or in_conversation else []


def _find(
    build: Build, query: str, vector: np.ndarray | None, k: int, by_words: np.ndarray | None = None
) -> tuple[list[Hit], bool, list[Hit]]:
    hits = build.search(query, vector=vector, k=max(k, relevance.CHECKED), by_words=by_words)
    on_topic = build.has_something_on(query, hits, by_words_alone=vector is None)
    return hits[:k], on_topic, hits[:k] if on_topic else build.sharing_words(query, hits[:k])

"""The same question, asked again by somebody else: answered from memory, by the letter and never by meaning.

A key holds all that an answer depends on, so that a new build, prompt or model is simply another key. Kept is only what
a model wrote in full and with citations, and only once a question was asked a second time: what one visitor alone asks
is never stored. By meaning a question and its reverse are neighbours; so there are no near hits.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import orjson

from rag.chat.turn import Turn
from rag.errors import StateUnavailable
from rag.search.hybrid import Build
from rag.settings import Settings
from rag.stores.protocols import Answers
from rag.text.asked import normalised
from rag.types import Hit

log = logging.getLogger(__name__)

FORM = 1
"""Of keys and values; another number is another cache."""
POLL_S = 0.1
PIECE_CHARS = 120
"""Of an answer that is streamed from memory, in one delta."""
SHAPES_ANSWERS = (
    "chat_urls", "chat_models", "embeddings_urls", "embeddings_models", "embeddings", "site_name", "site_url",
    "max_vector_results", "similarity_threshold", "query_rewrite", "chat_temperature", "chat_max_tokens",
)  # fmt: skip
"""The settings that make another answer of the same question; the instructions do so too."""


def fingerprint(settings: Settings, instructions: str) -> bytes:
    """What of a server's configuration shapes its answers, as one hash."""
    shaping = [FORM, instructions, *(repr(getattr(settings, name)) for name in SHAPES_ANSWERS)]
    return hashlib.sha256(orjson.dumps(shaping)).digest()


def cache_of(settings: Settings, answers: Callable[[], Answers], *, instructions: str) -> "AnswerCache | None":
    """The cache that these settings want, on the store that `answers` opens; None where they want none."""
    if not settings.enable_caching or settings.demo:
        return None
    shaped = fingerprint(settings, instructions)
    return AnswerCache(answers=answers(), fingerprint=shaped, longest_ask_s=2 * settings.request_timeout_s)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that stands already. `hits` are its sources by their numbers, the first `cited` of them cited."""

    text: str
    hits: Sequence[Hit]
    cited: int
    is_own: bool = False
    """Whether the owner wrote it, and no model."""

    def pieces(self) -> Iterator[str]:
        """The text in pieces, cut before blanks."""
        yield from re.findall(rf"(?s).{{1,{PIECE_CHARS}}}(?=\s|\Z)|.+?(?=\s|\Z)", self.text)


class Entry:
    """What the cache knows of one question that was asked just now."""

    def __init__(self, cache: "AnswerCache", key: str, *, answer: KeptAnswer | None, keeps: bool) -> None:
        self.answer = answer
        self._cache = cache
        self._key = key
        self._keeps = keeps

    async def keep(self, turn: Turn) -> None:
        """Keeps the answer, where it is this one's turn to be kept and the answer is whole."""
        whole = turn.outcome == "answered" and turn.generated == "model" and not turn.missing and turn.cited
        # What leads to a person is of this visitor.
        whole = whole and not turn.judged
        if self._keeps and whole:
            self._keeps = False
            await self._cache.keep(self._key, turn)

    def free(self) -> None:
        """Lets the next one ask, where this answer was not kept. Needs no waiting, so that it may end anything."""
        if self._keeps:
            self._keeps = False
            self._cache.free(self._key)


class AnswerCache:
    """Answers over a store that all workers share. A store that does not answer is an empty one."""

    def __init__(self, *, answers: Answers, fingerprint: bytes, longest_ask_s: float) -> None:
        """`longest_ask_s` is how long somebody may take to answer a question while others wait for it."""
        self._answers = answers
        self._fingerprint = fingerprint
        self._longest_ask_s = longest_ask_s
        self._freeing: set[asyncio.Task[None]] = set()

    async def look(self, question: str, build: Build, *, wait_s: float) -> Entry:
        """What is known of the question on this build. Waits up to `wait_s` while somebody else is asking it."""
        key, until = self._key(question, build), asyncio.get_running_loop().time() + wait_s
        try:
            while True:
                found = await self._answers.look(key, lease_s=self._longest_ask_s)
                if found.value is not None:
                    return Entry(self, key, answer=await _read(found.value, build), keeps=False)
                if not found.is_asked or asyncio.get_running_loop().time() >= until:
                    return Entry(self, key, answer=None, keeps=found.may_keep)
                await asyncio.sleep(POLL_S)
        except StateUnavailable as error:
            log.warning("answer cache not read", extra={"reason": str(error)})
            return Entry(self, key, answer=None, keeps=False)

    async def keep(self, key: str, turn: Turn) -> None:
        hits = [(hit.row, hit.score, hit.similarity) for hit in turn.hits]
        try:
            await self._answers.keep(key, orjson.dumps([turn.text, hits, turn.cited]))
        except StateUnavailable as error:
            log.warning("answer not kept", extra={"reason": str(error)})

    async def evict(self, question: str, build: Build) -> None:
        """Forgets the answer to a question, and keeps none for as long as answers are kept."""
        try:
            await self._answers.evict(self._key(question, build))
        except StateUnavailable as error:
            log.warning("answer not evicted", extra={"reason": str(error)})

    def free(self, key: str) -> None:
        task = asyncio.get_running_loop().create_task(self._free(key))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._freeing)
        await self._answers.close()

    async def _free(self, key: str) -> None:
        try:
            await self._answers.free(key)
        except StateUnavailable as error:
            log.warning("answer cache not written", extra={"reason": str(error)})

    def _key(self, question: str, build: Build) -> str:
        parts = (self._fingerprint, build.id.encode(), normalised(question).encode("utf-8", "surrogatepass"))
        return hashlib.sha256(b"\0".join(parts)).hexdigest()


async def _read(value: bytes, build: Build) -> KeptAnswer:
    text, kept, cited = orjson.loads(value)
    rows = [row for row, _, _ in kept]
    passages = build.passages_of(rows) if build.is_quick else await asyncio.to_thread(build.passages_of, rows)
    hits = [Hit(one, score, similarity, row) for one, (row, score, similarity) in zip(passages, kept, strict=True)]
    return KeptAnswer(text, hits, cited)

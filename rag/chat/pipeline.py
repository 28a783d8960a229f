"""The story of a question: recall, retrieve, ask, answer, remember.

Yields events that a route spells as JSON, as a stream, or in another dialect. Knows no HTTP.
"""

import logging
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from rag.chat.citations import Citations
from rag.chat.follow_ups import Rewriter, search_query
from rag.chat.prompt import PromptWriter, newest
from rag.chat.retrieval import WITHOUT_EMBEDDINGS, Retriever
from rag.deadline import Deadline
from rag.errors import ContentFiltered, RagError, StateUnavailable, UpstreamError
from rag.llm.quoting import QuotingChat
from rag.protocols import ChatModel
from rag.stores.protocols import Conversations
from rag.telemetry.logs import Stage, note, request_trace
from rag.telemetry.metrics import Metrics
from rag.types import Completion, Hit, Message, Prompt

log = logging.getLogger(__name__)

WITHOUT_MEMORY = "memory unavailable: this conversation is not remembered"
WITHOUT_MODEL = "chat model unavailable: passages are quoted"
OUTAGE = "The language model cannot be reached right now. These passages fit your question best:"
"""How an answer begins that only quotes."""
QUOTED_INSTEAD = QuotingChat(degraded=WITHOUT_MODEL, opening=OUTAGE, found_by_words=False)
CUT_SHORT = "answer cut short: it reached the longest length allowed"
CUT_MARK = " […]"
"""Ends such an answer, so that every client shows it, and nobody takes the memory of it for a whole one."""
REASONS = {
    WITHOUT_MODEL: "model", WITHOUT_EMBEDDINGS: "embeddings", WITHOUT_MEMORY: "memory", CUT_SHORT: "length",
}  # fmt: skip
"""What metrics call each way in which an answer can be degraded; a model that is degraded by nature is `no_model`."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages that the answer may be made from, best first."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """A further piece of the answer."""

    text: str
    cited: tuple[int, ...]
    """What has been cited so far: `[n]` in the text is the passage at place `cited[n - 1]` of `Sources`."""


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer, after the last piece."""

    response: str
    hits: tuple[Hit, ...]
    """The passages again, now by their numbers in the text: first those that were cited, then the others."""
    cited: int
    """How many were cited."""
    degraded: str | None
    prompt_tokens: int
    """As the model counted them; 0 where it told nothing, or none was asked."""
    completion_tokens: int
    cut: bool
    """It ended at the longest length allowed, and with `CUT_MARK`."""


Event = Sources | Delta | Done


@dataclass(slots=True)
class _Course:
    """What is noted while one question is answered."""

    missing: list[str] = field(default_factory=list)
    claimed: Sequence[Message] = ()
    """What the client says was said before, where nothing is remembered."""
    began: bool = False
    """Whether the model has begun to answer: from then on nothing is started over."""
    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    outcome: str = "answered"
    """What becomes of the question once it is `done`."""
    done: bool = False
    began_s: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the question came."""
        return time.perf_counter() - self.began_s

    @property
    def degraded(self) -> str | None:
        return "; ".join(self.missing) or None

    def count(self, completion: Completion) -> None:
        self.fields["prompt_tokens"] = completion.prompt_tokens
        self.fields["completion_tokens"] = completion.completion_tokens
        self.missing += [CUT_SHORT] if completion.cut else []
        if (trace := request_trace.get()) is not None:
            trace.used(prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens)

    def first_token(self, metrics: Metrics) -> None:
        metrics.first_token(self.seconds)
        self.fields["first_token_ms"] = round(self.seconds * 1000, 1)
        if (trace := request_trace.get()) is not None:
            trace.happened("first token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Answers questions about the documents. `timeout_s` is a question's whole time, retries included."""

    retriever: Retriever
    model: ChatModel
    conversations: Conversations
    prompts: PromptWriter
    max_results: int
    timeout_s: float
    degraded_answers: bool
    metrics: Metrics
    rewriter: Rewriter | None = None
    """Words what a follow-up searches for; None leaves it to rules."""

    async def answer(
        self, question: str, *, session_id: str | None, is_new: bool = False, claimed: Sequence[Message] = (),
        kept: Sequence[Message] | None = None, stream: bool,
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """`Sources`, then `Delta`s, then `Done`. With `stream` a delta is what just arrived, else the whole answer.

        `claimed` is the conversation as the client tells it, believed where the server remembers none; without a
        `session_id` it is all there is, and nothing is remembered. `is_new` is an id that was made just now, under
        which nothing can be remembered yet. `kept` is what stays of the conversation when its last answer is asked
        for again: the rest is forgotten once the new one is complete. Raises
        `ContentFiltered`; `UpstreamError` where degraded answers are switched off, or after the first delta. What
        broke off is not remembered.
        """
        course = _Course()
        with self._accounted(course):
            deadline = Deadline(self.timeout_s)
            if kept is None:
                history = await self._recall(None if is_new else session_id, claimed, course)
            else:
                history = list(kept)
            query = search_query(question, history)
            if self.rewriter is not None:
                query = await self.rewriter.query(question, history, deadline=deadline)
            retrieved = await self.retriever.search(query, k=self.max_results, deadline=deadline)
            course.missing += [retrieved.degraded] if retrieved.degraded else []
            # What only the client claims was said opens no conversation: it would switch the judgement off.
            remembers = bool(history) and not course.claimed
            hits = tuple(self.retriever.relevant(retrieved, question=question, in_conversation=remembers))
            citations = Citations(hits)
            yield Sources(hits)

            if hits:
                prompt = self.prompts.write(question, history=history, hits=hits)
                with Stage("model"):
                    async with aclosing(self._ask(prompt, deadline, course, stream=stream)) as pieces:
                        async for piece in pieces:
                            if text := citations.feed(piece):
                                if stream and not course.text:
                                    course.first_token(self.metrics)
                                course.text += text
                                yield Delta(text, tuple(citations.order))
                rest = citations.end() + (CUT_MARK if CUT_SHORT in course.missing else "")
            else:
                course.outcome = "nothing_found"
                rest = self.prompts.nothing_found_but(retrieved.hits)
            if rest:
                course.text += rest
                yield Delta(rest, tuple(citations.order))
            course.fields |= {"hits": len(hits), "cited": len(citations.order)}
            if session_id is not None:
                await self._remember(session_id, question, course, kept)
            course.done = True
            yield Done(
                course.text, citations.sorted(hits), len(citations.order), course.degraded,
                prompt_tokens=course.fields.get("prompt_tokens", 0),
                completion_tokens=course.fields.get("completion_tokens", 0), cut=CUT_SHORT in course.missing,
            )  # fmt: skip

    @contextmanager
    def _accounted(self, course: _Course) -> Iterator[None]:
        """Counts what became of the question, and puts what is known of it into the request's line of the log."""
        failure = "left"
        try:
            yield
        except ContentFiltered:
            failure = "filtered"
            raise
        except Exception as error:
            failure = "failed"
            if isinstance(error, RagError):
                course.fields["error"] = error.code
            raise
        finally:
            # Whoever wants the whole answer stops listening at `Done`: that is no visitor who left.
            outcome = course.outcome if course.done else failure
            self.metrics.answer_ended(
                outcome, degraded=[REASONS.get(one, "no_model") for one in course.missing],
                prompt_tokens=course.fields.get("prompt_tokens", 0),
                completion_tokens=course.fields.get("completion_tokens", 0),
            )  # fmt: skip
            note(**course.fields, degraded=course.degraded, outcome=outcome)

    async def _recall(self, session_id: str | None, claimed: Sequence[Message], course: _Course) -> list[Message]:
        try:
            remembered = []
            if session_id is not None:
                with Stage("recall"):
                    remembered = await self.conversations.history(session_id)
        except StateUnavailable as error:
            log.warning("conversation not read", extra={"reason": str(error)})
            course.missing.append(WITHOUT_MEMORY)
            remembered = []
        # Kept with the answer, not before: a question that is refused leaves nothing.
        course.claimed = () if remembered else claimed
        # The model that answers again would say that it cannot be reached; what was quoted meanwhile it may know.
        return [Message(turn.role, turn.content.removeprefix(f"{OUTAGE}\n\n")) for turn in remembered or claimed]

    async def _ask(
        self, prompt: Prompt, deadline: Deadline, course: _Course, *, stream: bool
    ) -> AsyncGenerator[str, None]:
        try:
            async with aclosing(self._pieces(self.model, prompt, deadline, course, stream=stream)) as pieces:
                async for text in pieces:
                    course.began = True
                    yield text
        except ContentFiltered:
            raise
        except UpstreamError as error:
            if course.began or not self.degraded_answers:
                raise
            log.warning("model not reached, passages are quoted", extra={"reason": str(error)})
            course.outcome = "quoted"
            async with aclosing(self._pieces(QUOTED_INSTEAD, prompt, deadline, course, stream=stream)) as pieces:
                async for text in pieces:
                    yield text

    async def _pieces(
        self, model: ChatModel, prompt: Prompt, deadline: Deadline, course: _Course, *, stream: bool
    ) -> AsyncGenerator[str, None]:
        if stream:
            async with aclosing(model.stream(prompt, deadline=deadline)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        course.count(piece)
                    else:
                        yield piece
        else:
            completion = await model.complete(prompt, deadline=deadline)
            course.count(completion)
            yield completion.text
        if model.degraded:
            course.missing.append(model.degraded)

    async def _remember(self, session_id: str, question: str, course: _Course, kept: Sequence[Message] | None) -> None:
        turns = [Message("user", question), Message("assistant", course.text)]
        try:
            with Stage("remember"):
                if kept is not None:
                    await self._replace(session_id, [*kept, *turns])
                    return
                if claimed := newest(course.claimed):
                    await self.conversations.restore(session_id, claimed, asked_s_ago=course.seconds)
                await self.conversations.append(session_id, turns, asked_s_ago=course.seconds)
        except StateUnavailable as error:
            log.warning("conversation not written", extra={"reason": str(error)})
            if WITHOUT_MEMORY not in course.missing:
                course.missing.append(WITHOUT_MEMORY)

    async def _replace(self, session_id: str, turns: Sequence[Message]) -> None:
        # One that is gone was deleted meanwhile, and must not come back.
        if await self.conversations.history(session_id):
            await self.conversations.delete(session_id)
            await self.conversations.append(session_id, turns)

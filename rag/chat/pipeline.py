"""The story of a question: recall, retrieve, ask, answer, remember.

Yields events that a route spells as JSON, as a stream, or in another dialect. Knows no HTTP. What happened is a `Turn`.
"""

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from rag.chat.answer_cache import AnswerCache, KeptAnswer
from rag.chat.citations import Citations
from rag.chat.follow_ups import Rewriter, search_query
from rag.chat.owner import own_words
from rag.chat.owner.handoff import with_thumbs
from rag.chat.owner.question_log import QuestionLog
from rag.chat.prompt import PromptWriter, newest
from rag.chat.retrieval import Retriever
from rag.chat.turn import CacheResult, Outcome, Question, Turn
from rag.chat.wording.stand_ins import INSTEAD, asked
from rag.chat.wording.voice import Voice
from rag.deadline import Deadline
from rag.errors import ContentFiltered, RagError, StateUnavailable
from rag.protocols import ChatModel
from rag.stores.protocols import Conversations, FeedbackStore
from rag.telemetry.logs import Stage, note, request_trace
from rag.telemetry.metrics import Metrics
from rag.types import Completion, Generated, Hit, Message, Missing

log = logging.getLogger(__name__)

WITHOUT_MEMORY = Missing("memory", "memory unavailable: this conversation is not remembered")
CACHE_SHARE = 0.33
"""Of a request's time, at most, to wait for somebody who asks the same just now."""
CUT_MARK = " […]"
"""Ends an answer that was cut short: every client shows it, and nobody takes the memory of it for a whole one."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages that the answer may be made from, best first."""

    hits: Sequence[Hit]
    cache: CacheResult | None = None
    """Whether the answer comes from memory; None where it could not."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A further piece of the answer."""

    text: str
    cited: tuple[int, ...]
    """What has been cited so far: `[n]` in the text is the passage at place `cited[n - 1]` of `Sources`."""


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer: all that happened. `turn.hits` are the passages by their numbers in the text: first the
    `turn.cited` that were cited, then the others.
    """

    turn: Turn


Event = Sources | Delta | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Answers questions about the documents. `timeout_s` is a question's whole time, retries included."""

    retriever: Retriever
    model: ChatModel
    conversations: Conversations
    prompts: PromptWriter
    voice: Voice
    max_results: int
    timeout_s: float
    degraded_answers: bool
    metrics: Metrics
    rewriter: Rewriter | None = None
    """Words what a follow-up searches for; None leaves it to rules."""
    cache: AnswerCache | None = None
    """Keeps answers for those who ask the same; None keeps none."""
    feedback: FeedbackStore | None = None
    """Tells whose answers got thumbs down; None where no person could be offered."""
    log: QuestionLog | None = None
    """Keeps questions for the owner; None keeps none."""

    async def answer(self, question: Question, *, stream: bool) -> AsyncGenerator[Event, None]:
        """`Sources`, then `Delta`s, then `Done`. With `stream` a delta is what just arrived, else the whole answer.

        Raises `ContentFiltered`; `UpstreamError` where degraded answers are switched off, or after the first delta.
        What broke off is not remembered.
        """
        turn, began_s, entry = Turn(question=question), time.perf_counter(), None
        try:
            deadline = Deadline(self.timeout_s)
            turn = await self._recall(turn)
            own = own_words.exact(turn, self.retriever.build)
            if own is None:
                turn = replace(turn, talk=self.voice.small_talk(question.text, asked_for=question.asks_for))
            searches = own is None and turn.talk is None
            if searches and self.cache and not (turn.earlier or question.selection) and question.kept is None:
                entry = await self.cache.look(
                    question.text, self.retriever.build, wait_s=deadline.remaining_s * CACHE_SHARE
                )
                found: CacheResult = "hit" if entry.answer else "miss"
                turn = replace(turn, cache=found)
                self.metrics.answer_looked_up(found)
            ready = own or (entry.answer if entry else None)
            if ready is not None:
                events = _replayed(ready, turn, stream=stream)
            elif not searches:
                events = self._replied(turn)
            else:
                events = self._composed(turn, deadline, began_s, stream=stream)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Turn):
                        turn = event
                    else:
                        yield event
            turn = await with_thumbs(turn, self.feedback)
            turn = turn.without(await self._remember(turn, asked_s_ago=time.perf_counter() - began_s))
            turn = replace(turn, outcome=_outcome(turn))
            if entry is not None:
                await entry.keep(turn)
            yield Done(turn)
        except ContentFiltered:
            turn = replace(turn, outcome="filtered")
            raise
        except Exception as error:
            turn = replace(turn, outcome="failed", error=error.code if isinstance(error, RagError) else None)
            raise
        finally:
            if entry is not None:
                entry.free()
            self.metrics.answer_ended(
                turn.outcome, degraded=[one.code for one in turn.missing],
                prompt_tokens=turn.prompt_tokens, completion_tokens=turn.completion_tokens,
            )  # fmt: skip
            note(**turn.noted())
            if self.log is not None:
                self.log.record(turn, seconds=time.perf_counter() - began_s)

    async def _composed(
        self, turn: Turn, deadline: Deadline, began_s: float, *, stream: bool
    ) -> AsyncGenerator[Event | Turn, None]:
        """An answer made now: its events, and the turn whenever more is known of it."""
        text, selection, said = turn.question.text, turn.question.selection, ""
        written = [text, *(one.content for one in reversed(turn.earlier) if one.role == "user")]
        language = self.voice.language(written, asked_for=turn.question.asks_for)
        query = search_query(text, turn.earlier, selection=selection)
        if self.rewriter is not None:
            query = await self.rewriter.query(text, turn.earlier, deadline=deadline)
        retrieved = await self.retriever.search(query, k=self.max_results, deadline=deadline)
        # What only the client claims was said opens no conversation: it would switch the judgement off.
        remembers = bool(turn.earlier) and not turn.is_claimed
        hits = self.retriever.relevant(retrieved, question=text, in_conversation=remembers)
        best = max((hit.similarity for hit in retrieved.hits), default=None)
        turn = replace(turn, hits=hits, similarity=best, vector=retrieved.vector, build=retrieved.build)
        turn = turn.without(retrieved.missing)
        yield turn
        if (own := own_words.similar(turn, self.retriever.build)) is not None:
            async for event in _replayed(own, turn, stream=stream):
                yield event
            return
        yield Sources(hits, turn.cache)

        citations, rest = Citations(hits), ""
        if hits:
            prompt = self.prompts.write(
                text, history=turn.earlier, hits=hits, selection=selection, sentences=self.voice.sentences(language)
            )
            with Stage("model"):
                asked_of = asked(self.model, prompt, deadline, stream=stream, degraded_answers=self.degraded_answers)
                async with aclosing(asked_of) as pieces:
                    async for piece in pieces:
                        if not isinstance(piece, str):
                            turn = _told(turn, piece)
                            yield turn
                        elif text := citations.feed(piece):
                            if stream and not said:
                                turn = replace(turn, first_token_s=self._first_token(began_s))
                                yield turn
                            said += text
                            yield Delta(text, tuple(citations.order))
            rest = citations.end() + (CUT_MARK if turn.cut else "")
            if not (said + rest).strip():
                # Asked again, the model would be paid to say as little.
                rest = self.voice.say("answer_empty", language)
        else:
            rest = self.voice.nothing_found(language, retrieved.nearest)
        if rest:
            said += rest
            yield Delta(rest, tuple(citations.order))
        yield turn.answered(said, citations.sorted(hits), cited=len(citations.order))

    async def _replied(self, turn: Turn) -> AsyncGenerator[Event | Turn, None]:
        """The events of an answer that needs no page and no model."""
        said = self.voice.reply(turn.talk) if turn.talk else ""
        yield Sources(())
        yield Delta(said, ())
        yield replace(turn, text=said)

    def _first_token(self, began_s: float) -> float:
        seconds = time.perf_counter() - began_s
        self.metrics.first_token(seconds)
        if (trace := request_trace.get()) is not None:
            trace.happened("first token")
        return seconds

    async def _recall(self, turn: Turn) -> Turn:
        question = turn.question
        if question.kept is not None:
            return replace(turn, earlier=question.kept)
        remembered: list[Message] = []
        try:
            if question.session_id is not None and not question.is_new:
                with Stage("recall"):
                    remembered = await self.conversations.history(question.session_id)
        except StateUnavailable as error:
            log.warning("conversation not read", extra={"reason": str(error)})
            turn = turn.without(WITHOUT_MEMORY)
        # The model that answers again would say that it cannot be reached; what was quoted meanwhile it may know.
        earlier = [Message(one.role, self.voice.without_outage(one.content)) for one in remembered or question.claimed]
        return replace(turn, earlier=earlier, is_claimed=not remembered)

    async def _remember(self, turn: Turn, *, asked_s_ago: float) -> Missing | None:
        """Keeps question and answer, with what came before where only the client knew it; what went missing if not.

        Kept at the end, not before: a question that is refused leaves nothing.
        """
        question, session_id = turn.question, turn.question.session_id
        if session_id is None:
            return None
        new = [Message("user", question.text), Message("assistant", turn.text)]
        try:
            with Stage("remember"):
                if question.kept is not None:
                    await self._replace(session_id, [*question.kept, *new])
                    return None
                if turn.is_claimed and (claimed := [replace(one, is_claimed=True) for one in newest(turn.earlier)]):
                    await self.conversations.restore(session_id, claimed, asked_s_ago=asked_s_ago)
                await self.conversations.append(session_id, new, asked_s_ago=asked_s_ago)
        except StateUnavailable as error:
            log.warning("conversation not written", extra={"reason": str(error)})
            return WITHOUT_MEMORY
        return None

    async def _replace(self, session_id: str, turns: Sequence[Message]) -> None:
        # One that is gone was deleted meanwhile, and must not come back.
        if await self.conversations.history(session_id):
            await self.conversations.delete(session_id)
            await self.conversations.append(session_id, turns)


async def _replayed(answer: KeptAnswer, turn: Turn, *, stream: bool) -> AsyncGenerator[Event | Turn, None]:
    """The events of an answer that stands already, as if it were written now."""
    yield Sources(answer.hits, turn.cache)
    for piece in answer.pieces() if stream else [answer.text]:
        yield Delta(piece, tuple(range(answer.cited)))
    by: Generated = "quoted" if answer.is_own else "model"
    turn = replace(turn, generated=by, is_own=answer.is_own)
    yield turn.answered(answer.text, answer.hits, cited=answer.cited)


def _outcome(turn: Turn) -> Outcome:
    if turn.talk is not None:
        return "small_talk"
    if not turn.hits:
        return "nothing_found"
    return "quoted" if INSTEAD.keys() & turn.missing else "answered"


def _told(turn: Turn, piece: Completion | ChatModel) -> Turn:
    """The turn, with what a model tells beside its words."""
    if isinstance(piece, Completion):
        if (trace := request_trace.get()) is not None:
            trace.used(prompt_tokens=piece.prompt_tokens, completion_tokens=piece.completion_tokens)
        return turn.counted(piece)
    return replace(turn, generated=piece.generated).without(piece.degraded)

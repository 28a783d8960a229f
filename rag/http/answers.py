"""Search and chat: JSON for those who want it whole, events for those who read along."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from rag.access import callers
from rag.chat.pipeline import Delta, Done, Event, Sources
from rag.chat.prompt import newest
from rag.chat.turn import Page, Question
from rag.chat.wording import language
from rag.deadline import Deadline
from rag.errors import InvalidRequest, RagError, StateUnavailable
from rag.http import bodies, problems, streams
from rag.http.admission import AdmittedRoute, rule
from rag.http.bodies import ChatRequest, SearchRequest
from rag.http.services import Services, WithServices
from rag.stores.protocols import Conversations
from rag.types import Message

router = APIRouter(route_class=AdmittedRoute)


@router.post("/search", summary="The passages that fit best", response_model=bodies.SearchResponse,
             responses=problems.described(413, 422, 429))  # fmt: skip
@rule(limit="search", scope="search")
async def search(body: SearchRequest, services: WithServices) -> Response:
    _check(body.query, services)
    found = await services.retriever.search(
        body.query, k=body.k, deadline=Deadline(services.settings.request_timeout_s)
    )
    results = [bodies.SearchResult.of(hit, query=body.query) for hit in found.hits]
    return bodies.as_json(
        bodies.SearchResponse(results, body.query, bodies.now(), found.missing.words if found.missing else None)
    )


@router.post("/chat", summary="An answer with its sources", response_model=bodies.ChatResponse,
             responses=problems.described(413, 422, 429, 502, 503, 504))  # fmt: skip
@rule(limit="chat", scope="chat")
async def chat(body: ChatRequest, request: Request, services: WithServices) -> Response:
    question = await _asked(body, request, services)
    turn = await streams.whole(request, ask(question, services=services, stream=False))
    return bodies.as_json(bodies.ChatResponse.of(turn, session_id=question.session_id or ""))


@router.post("/chat/stream", summary="The same as server-sent events", response_class=StreamingResponse,
             responses={200: {"content": {"text/event-stream": {}}},
                        **problems.described(413, 422, 429, 502, 503, 504)})  # fmt: skip
@rule(limit="chat", scope="chat")
async def chat_stream(body: ChatRequest, request: Request, services: WithServices) -> StreamingResponse:
    question = await _asked(body, request, services)
    events = ask(question, services=services, stream=True)
    return await streams.streamed(request, events, _SiteEvents(question.session_id or ""))


def ask(question: Question, *, services: Services, stream: bool) -> AsyncGenerator[Event, None]:
    """The answer's events, in every dialect. Raises `InvalidRequest`."""
    _check(question.text, services)
    return services.chat.answer(question, stream=stream)


def language_asked_for(request: Request) -> str:
    """The chat's language that a client's `Accept-Language` names first; "" where it names none."""
    services: Services = request.state.services
    return language.accepted(request.headers.get("accept-language", ""), services.texts)


async def _asked(body: ChatRequest, request: Request, services: Services) -> Question:
    claimed = [Message(turn.role, turn.content) for turn in body.history]
    session_id = body.session_id or callers.new_session_id()
    kept = None
    if body.regenerate and body.session_id is not None:
        kept = await kept_before(session_id, claimed, services.conversations)
    told = body.page
    page = Page(url=told.url, title=told.title, selection=told.selection) if told else None
    return Question(
        text=body.message, session_id=session_id, is_new=body.session_id is None, claimed=claimed, kept=kept,
        page=page, asks_for=language_asked_for(request),
    )  # fmt: skip


async def kept_before(session_id: str, shown: Sequence[Message], conversations: Conversations) -> list[Message] | None:
    """What stays of the conversation when the answer after `shown` is asked for again; None where nothing is known.

    A client may show, or send, only the last few messages; what was said before those stays. Where nothing remembered
    ends as `shown` does, all is forgotten, and goes on from there.
    """
    with suppress(StateUnavailable):
        if remembered := await conversations.history(session_id):
            return remembered[: _end_of(shown, remembered)] or newest(shown)
    return None


def _end_of(shown: Sequence[Message], remembered: Sequence[Message]) -> int:
    """How many of the remembered messages end with most of what is shown; 0 where they end with none of it."""

    def alike(end: int) -> int:
        pairs = zip(reversed(remembered[:end]), reversed(shown), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    # The latest of equals: two answers may be the same, and the messages before them too.
    end = max(range(len(remembered), -1, -1), key=alike)
    return end if alike(end) else 0


class _SiteEvents:
    """Spells one stream of `/chat/stream`."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def begin(self) -> bytes:
        return _event("session", {"session_id": self._session_id})

    def spell(self, event: Event) -> bytes:
        match event:
            case Sources(hits):
                return _event("sources", bodies.Source.all_of(hits, cited=0))
            case Delta(text, cited):
                return _event("delta", {"text": text, "cited": cited})
            case Done(turn):
                return _event("done", bodies.Answer.of(turn))

    def broke(self, error: RagError) -> bytes:
        return _event("error", problems.body_of(error))


def _event(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def _check(text: str, services: Services) -> None:
    limit = services.settings.max_message_length
    if len(text) > limit:
        raise InvalidRequest(detail=f"The question is longer than {limit:,} characters.")
    if not text.strip() or "\x00" in text:
        raise InvalidRequest(detail="The question is empty, or holds characters that are not text.")

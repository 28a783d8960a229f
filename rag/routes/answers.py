"""Search and chat: JSON for those who want it whole, events for those who read along."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from rag import access
from rag.chat import Done, Event
from rag.errors import InvalidRequest
from rag.models import Message
from rag.resilience import Deadline
from rag.routes import bodies, problems, streams
from rag.routes.bodies import ChatRequest, SearchRequest
from rag.routes.rooms import InRooms, Rooms, now

router = APIRouter(route_class=bodies.StrictRoute)


@router.post("/search", summary="The passages that fit best", responses=problems.described(413, 422, 429))
async def search(body: SearchRequest, rooms: InRooms) -> bodies.SearchResponse:
    query = _question(body.query, rooms)
    found = await rooms.retriever.search(query, k=body.k, deadline=Deadline(rooms.settings.request_timeout_s))
    results = [bodies.SearchResult.of(hit) for hit in found.hits]
    return bodies.SearchResponse(results=results, query=body.query, timestamp=now(), degraded=found.degraded)


@router.post("/chat", summary="An answer with its sources", responses=problems.described(413, 422, 429, 502, 503, 504))
async def chat(body: ChatRequest, request: Request, rooms: InRooms) -> bodies.ChatResponse:
    session_id, events = _ask(body, rooms, stream=False)

    async def whole() -> Done:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Done):
                    return event
        raise AssertionError("every answer ends with Done")

    done = await streams.while_connected(request, whole())
    return bodies.ChatResponse(
        response=done.response, session_id=session_id, timestamp=now(),
        sources=bodies.Source.all_of(done.hits, cited=done.cited), degraded=done.degraded,
    )  # fmt: skip


@router.post("/chat/stream", summary="The same as server-sent events", response_class=StreamingResponse,
             responses={200: {"content": {"text/event-stream": {}}},
                        **problems.described(413, 422, 429, 502, 503, 504)})  # fmt: skip
async def chat_stream(body: ChatRequest, request: Request, rooms: InRooms) -> StreamingResponse:
    session_id, events = _ask(body, rooms, stream=True)
    # Up to the first piece an error is still a status, as with /chat; from then on it is an event.
    first = await streams.while_connected(request, streams.up_to_the_first_piece(events))
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    lines = streams.with_heartbeat(streams.spelled(session_id, first, events))
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


def _ask(body: ChatRequest, rooms: Rooms, *, stream: bool) -> tuple[str, AsyncGenerator[Event, None]]:
    session_id = body.session_id or access.new_session_id()
    claimed = [Message(turn.role, turn.content) for turn in body.history]
    question = _question(body.message, rooms)
    return session_id, rooms.chat.answer(question, session_id=session_id, claimed=claimed, stream=stream)


def _question(text: str, rooms: Rooms) -> str:
    limit = rooms.settings.max_message_length
    if len(text) > limit:
        raise InvalidRequest(detail=f"The question is longer than {limit:,} characters.")
    if not text.strip() or "\x00" in text:
        raise InvalidRequest(detail="The question is empty, or holds characters that are not text.")
    return text

"""The AI SDK's dialect: `POST /api/chat`, where `useChat` looks by default: UI messages in, UI message stream out."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from rag.access import callers
from rag.chat.pipeline import Delta, Done, Event, Sources
from rag.errors import RagError, StateUnavailable
from rag.http import bodies, problems, streams
from rag.http.admission import AdmittedRoute, rule
from rag.http.dialects import shared
from rag.http.services import WithServices
from rag.stores.protocols import Conversations
from rag.types import Hit, Message

TEXT_ID = "answer"
"""An answer is one part of text."""


class UIMessage(BaseModel):
    id: str = ""
    role: str
    parts: list[shared.Part] = Field(description="those of type text are read, the others passed over")


class UIChatRequest(BaseModel):
    """What `DefaultChatTransport` sends; further fields are ignored."""

    id: str | None = Field(None, description="the chat's: the session, where it is a valid session_id")
    messages: list[UIMessage] = Field(
        description="the last of role user is the question",
        examples=[[{"id": "1", "role": "user", "parts": [{"type": "text", "text": "How do I reset my password?"}]}]],
        json_schema_extra={"contains": {"required": ["role", "parts"], "properties": {
            "role": {"const": "user"}, "parts": {"contains": {"required": ["type", "text"], "properties": {
                "type": {"const": "text"}, "text": {"type": "string", "pattern": bodies.NOT_BLANK}}}}}}},
    )  # fmt: skip
    trigger: str = Field("submit-message", description="regenerate-message: the last answer is forgotten first")


router = APIRouter(route_class=AdmittedRoute)


@router.post("/api/chat", summary="The AI SDK's chat: UI messages in, UI message stream out",
             response_class=StreamingResponse,
             responses={200: {"content": {"text/event-stream": {}}},
                        **problems.described(413, 422, 429, 502, 503, 504)})  # fmt: skip
@rule(limit="chat", scope="chat")
async def ui_chat(body: UIChatRequest, request: Request, services: WithServices) -> StreamingResponse:
    turns = [(message.role, shared.text_of(message.parts)) for message in body.messages]
    session_id = _session_id(body)
    events = shared.ask(turns, session_id=session_id, services=services, stream=True)
    if body.trigger == "regenerate-message":
        await _take_back(session_id, shared.conversation(turns)[0], services.conversations)
    return await streams.streamed(request, events, _Parts(session_id), **{"x-vercel-ai-ui-message-stream": "v1"})


async def _take_back(session_id: str, shown: Sequence[Message], conversations: Conversations) -> None:
    """Forget what was said after `shown`, or else the answer that displeased would stay in the history.

    A client may show, or send, only the last few messages; what was said before those stays. Where nothing remembered
    ends as `shown` does, all is forgotten, and goes on from there.
    """
    with suppress(StateUnavailable):
        remembered = await conversations.history(session_id)
        kept = remembered[: _end_of(shown, remembered)]
        # Not only cut: an answer that is still on its way must not come in behind.
        await conversations.delete(session_id)
        await conversations.restore(session_id, kept)


def _end_of(shown: Sequence[Message], remembered: Sequence[Message]) -> int:
    """How many of the remembered messages end with most of what is shown; 0 where they end with none of it."""

    def alike(end: int) -> int:
        pairs = zip(reversed(remembered[:end]), reversed(shown), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    # The latest of equals: two answers may be the same, and the messages before them too.
    end = max(range(len(remembered), -1, -1), key=alike)
    return end if alike(end) else 0


def _session_id(body: UIChatRequest) -> str:
    if body.id is not None and callers.is_session_id(body.id):
        return body.id
    # A short id is one that a page gives to all its visitors, such as `help`. The first message's id, drawn by chance
    # in the browser and sent every time, keeps their conversations apart.
    first = body.messages[0].id if body.messages else ""
    if body.id is None or not first:
        return callers.new_session_id()
    return hashlib.sha256(f"{body.id}\n{first}".encode()).hexdigest()


class _Parts:
    """Spells one stream."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._hits: Sequence[Hit] = ()
        self._told = 0
        """How many of the cited sources have been told; the n-th is `[n]` in the text."""

    def begin(self) -> bytes:
        return _part("start", messageMetadata={"sessionId": self._session_id}) + _part("text-start", id=TEXT_ID)

    def spell(self, event: Event) -> bytes:
        match event:
            case Sources(hits):
                self._hits = hits
                return b""
            case Delta(text, cited):
                newly = [self._hits[place] for place in cited[self._told :]]
                return _part("text-delta", id=TEXT_ID, delta=text) + b"".join(map(self._source, newly))
            case Done():
                # Within the metadata, which is ours: version 5 of the SDK refuses a `finish` with a field of that name.
                reason = "length" if event.cut else "stop"
                finish = _part("finish", messageMetadata={"degraded": event.degraded, "finishReason": reason})
                return _part("text-end", id=TEXT_ID) + finish + shared.END

    def broke(self, error: RagError) -> bytes:
        # `abort` is for programs: of the two, the SDK shows visitors only the error.
        aborted = _part("abort", reason="server stopping") if error is streams.STOPPED else b""
        return aborted + _part("error", errorText=error.detail) + shared.END

    def _source(self, hit: Hit) -> bytes:
        self._told += 1
        (source,) = bodies.Source.all_of([hit], cited=1)
        return _part("source-url", sourceId=str(self._told), url=source.url, title=source.title)


def _part(kind: str, **fields: Any) -> bytes:
    return shared.data({"type": kind, **fields})

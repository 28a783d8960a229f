"""The AI SDK's dialect: `POST /api/chat`, where `useChat` looks by default: UI messages in, UI message stream out."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from rag.access import callers
from rag.chat.pipeline import Delta, Done, Event, Sources
from rag.errors import RagError
from rag.http import answers, bodies, problems, streams
from rag.http.admission import AdmittedRoute, rule
from rag.http.dialects import shared
from rag.http.services import WithServices

TEXT_ID = "answer"
"""An answer is one part of text."""


class UIMessage(BaseModel):
    id: str = ""
    role: str
    parts: list[shared.Part] = Field(description="those of type text are read, the others passed over")
    metadata: Any = Field(None, description="sent back as it came: an answer's holds the sessionId")


class UIChatRequest(BaseModel):
    """What `DefaultChatTransport` sends; further fields are ignored."""

    session_id: bodies.SessionId | None = Field(
        None, description="continues a conversation; else the sessionId in the metadata of the answers sent back does"
    )
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
    known = _session_id(body)
    session_id = known or callers.new_session_id()
    kept = None
    if body.trigger == "regenerate-message" and known is not None:
        kept = await answers.kept_before(session_id, shared.conversation(turns)[0], services.conversations)
    events = shared.ask(turns, session_id=session_id, kept=kept, request=request, services=services, stream=True)
    return await streams.streamed(request, events, _Parts(session_id), **{"x-vercel-ai-ui-message-stream": "v1"})


def _session_id(body: UIChatRequest) -> str | None:
    """The session that this conversation was given with its first answer; None where it has none yet.

    The chat's own id is no session: a page may fix it, and then all of its visitors would share one conversation.
    """
    if body.session_id is not None:
        return body.session_id
    for message in reversed(body.messages):
        told = message.metadata.get("sessionId") if isinstance(message.metadata, dict) else None
        if message.role == "assistant" and isinstance(told, str) and callers.is_session_id(told):
            return told
    return None


class _Parts:
    """Spells one stream."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def begin(self) -> bytes:
        return _part("start", messageMetadata={"sessionId": self._session_id}) + _part("text-start", id=TEXT_ID)

    def spell(self, event: Event) -> bytes:
        match event:
            case Sources():
                return b""
            case Delta(text):
                return _part("text-delta", id=TEXT_ID, delta=text)
            case Done(turn):
                sources = bodies.Source.all_of(turn.linked[: turn.cited], cited=turn.cited)
                told = b"".join(
                    _part("source-url", sourceId=str(number), url=source.url, title=source.title)
                    for number, source in enumerate(sources, start=1)
                )
                # Within the metadata, which is ours: version 5 of the SDK refuses a `finish` with a field of that name.
                metadata = {**shared.limits_of(turn), "finishReason": "length" if turn.cut else "stop"}
                finish = _part("finish", messageMetadata=metadata)
                return told + _part("text-end", id=TEXT_ID) + finish + shared.END

    def broke(self, error: RagError) -> bytes:
        # `abort` is for programs: of the two, the SDK shows visitors only the error.
        aborted = _part("abort", reason="server stopping") if error is streams.STOPPED else b""
        return aborted + _part("error", errorText=error.detail) + shared.END


def _part(kind: str, **fields: Any) -> bytes:
    return shared.data({"type": kind, **fields})

"""OpenAI's dialect: `/v1/chat/completions` and `/v1/models`, so that its SDKs and what is built on them connect as is.

Stateless, as those clients expect: they carry the history, and every request is a conversation of its own.
"""

import time
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from rag.access import callers
from rag.chat.pipeline import Delta, Done, Event, Sources
from rag.chat.turn import Turn
from rag.errors import InvalidRequest, NotFound, RagError
from rag.http import bodies, problems, streams
from rag.http.admission import AdmittedRoute, rule
from rag.http.dialects import shared
from rag.http.services import Services, WithServices

PREFIX = "/v1/"
MODEL = "rag-server"
"""The one model: the site. It answers whatever name a client asks for."""


class CompletionMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[shared.Part] | None = None

    def text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        if self.role == "user" and any(part.type != "text" for part in self.content):
            raise InvalidRequest(detail="messages: only parts of type text are understood.")
        return shared.text_of(self.content)


class CompletionRequest(BaseModel):
    """Parameters that are not listed, `temperature` and `tools` among them, are accepted and ignored."""

    messages: list[CompletionMessage] = Field(
        description="the last of role user is the question; those of role system are ignored",
        examples=[[{"role": "user", "content": "How do I reset my password?"}]],
        json_schema_extra={"contains": {"required": ["role", "content"], "properties": {
            "role": {"const": "user"}, "content": {"type": "string", "pattern": bodies.NOT_BLANK}}}},
    )  # fmt: skip
    model: str | None = Field(None, description=f"any; {MODEL} answers")
    stream: bool | None = Field(None, strict=True)
    stream_options: dict[str, Any] | None = Field(None, description="include_usage: true asks for the tokens' counts")


class ErrorResponse(BaseModel):
    """What every error under `/v1/` looks like."""

    error: dict[Literal["message", "type", "param", "code"], str | None]


# As ranges: FastAPI would describe a 422 in its own form beside any single statuses.
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorResponse}, "5XX": {"model": ErrorResponse}}
FORMS: dict[str, Any] = {"content": {"application/json": {}, "text/event-stream": {}}}

router = APIRouter(prefix=PREFIX.rstrip("/"), route_class=AdmittedRoute, responses=ERRORS)


@router.get("/models", summary="OpenAI's list of models: the site is one")
@rule(scope="chat", takes_any_word=True)
async def models(services: WithServices) -> dict[str, Any]:
    return {"object": "list", "data": [_model(services)]}


@router.get("/models/{model}", summary="OpenAI's model of that name: the site, or none")
@rule(scope="chat", takes_any_word=True)
async def model(model: str, services: WithServices) -> dict[str, Any]:
    if model != MODEL:
        raise NotFound(detail=f"There is no such model. The only one is {MODEL}.")
    return _model(services)


def _model(services: Services) -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": services.settings.site_name}


@router.post("/chat/completions", summary="OpenAI's chat completions", responses={200: FORMS})
@rule(limit="chat", scope="chat", takes_any_word=True)
async def completions(body: CompletionRequest, request: Request, services: WithServices) -> Response:
    turns = [(turn.role, turn.text()) for turn in body.messages]
    events = shared.ask(turns, session_id=None, request=request, services=services, stream=bool(body.stream))
    if not body.stream:
        turn = await streams.whole(request, events)
        return Response(orjson.dumps(_completion(turn)), media_type="application/json")
    with_usage = (body.stream_options or {}).get("include_usage") is True
    return await streams.streamed(request, events, _Chunks(with_usage=with_usage))


class _Chunks:
    """Spells one stream."""

    def __init__(self, *, with_usage: bool) -> None:
        self._frame = _frame("chat.completion.chunk") | ({"usage": None} if with_usage else {})
        self._with_usage = with_usage

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def spell(self, event: Event) -> bytes:
        match event:
            case Sources():
                return b""
            case Delta(text):
                return self._chunk({"content": text})
            case Done(turn):
                cited = self._chunk({"annotations": found}) if (found := _annotations(turn)) else b""
                usage = _usage(turn) if self._with_usage else {}
                counts = shared.data(self._frame | {"choices": []} | usage) if usage else b""
                return cited + self._chunk({}, _reason(turn), **shared.limits_of(turn)) + counts + shared.END

    def broke(self, error: RagError) -> bytes:
        return shared.data(reworded(problems.body_of(error))[1])

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return shared.data(self._frame | {"choices": [choice]} | more)


def reworded(problem: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of an error as OpenAI has them, where a request that cannot be read is a 400."""
    status, code = problem["status"], problem["code"]
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    error = {
        "message": problem["detail"], "type": "server_error" if status >= 500 else kind, "param": None,
        "code": {"rate_limited": "rate_limit_exceeded", "content_filtered": "content_filter"}.get(code, code),
    }  # fmt: skip
    return 400 if status == 422 else status, {"error": error}


def _completion(turn: Turn) -> dict[str, Any]:
    message = {"role": "assistant", "content": turn.text, "refusal": None, "annotations": _annotations(turn)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(turn)}
    return _frame("chat.completion") | {"choices": [choice]} | shared.limits_of(turn) | _usage(turn)


def _reason(turn: Turn) -> str:
    return "length" if turn.cut else "stop"


def _frame(kind: str) -> dict[str, Any]:
    identity = f"chatcmpl-{callers.new_session_id()}"
    return {"id": identity, "object": kind, "created": int(time.time()), "model": MODEL}


def _usage(turn: Turn) -> dict[str, Any]:
    """What the model counted; nothing where it told nothing: a guess could not be told from a count."""
    if not turn.prompt_tokens:
        return {}
    counts = {"prompt_tokens": turn.prompt_tokens, "completion_tokens": turn.completion_tokens}
    return {"usage": counts | {"total_tokens": sum(counts.values())}}


def _annotations(turn: Turn) -> list[dict[str, Any]]:
    """Each `[n]` of the text with the section that it cites.

    Indices count code points from 0; `content[start:end]` is the `[n]`.
    """
    found = []
    for one, passage in turn.citations():
        place = {"start_index": one.start, "end_index": one.end, "url": passage.citation_url,
                 "title": passage.heading_path}  # fmt: skip
        found.append({"type": "url_citation", "url_citation": place})
    return found

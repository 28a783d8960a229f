"""What dialects share. A dialect is one module: it reads what its clients send, and spells the pipeline's events.

It must not know how an answer comes about, nor what any one dialect looks like.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import orjson
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.chat import Done, Event
from rag.errors import InvalidRequest, RagError
from rag.routes import answers, bodies, problems, streams
from rag.routes.rooms import Rooms

log = logging.getLogger(__name__)

STOPPED = RagError("the server stops", detail="The server is being restarted. Please ask again.")
"""What a stream breaks off with that outlasts the patience of a stopping server."""
END = b"data: [DONE]\n\n"


class Part(BaseModel):
    """A piece of a message; only those of type `text` have one."""

    type: str
    text: str = ""


class Spelling(Protocol):
    """One stream in one dialect, as server-sent events."""

    def begin(self) -> bytes: ...

    def spell(self, event: Event) -> bytes: ...

    def broke(self, error: RagError) -> bytes:
        """What is said instead of the rest; `error` may be `STOPPED`."""


def text_of(parts: Iterable[Part]) -> str:
    return "\n".join(part.text for part in parts if part.type == "text" and part.text)


def ask(
    turns: Iterable[tuple[str, str]], *, session_id: str | None, rooms: Rooms, stream: bool
) -> tuple[str, AsyncGenerator[Event, None]]:
    """The session's id, and the answer to the last user's turn; the turns before it are the history.

    `turns` are (role, text); other roles than user and assistant are passed over. Raises `InvalidRequest`.
    """
    said = [bodies.Turn.model_construct(role=role, content=text)
            for role, text in turns if role in ("user", "assistant") and text]  # fmt: skip
    while said and said[-1].role != "user":
        said.pop()
    if not said:
        raise InvalidRequest(detail="messages: one of role user, with text in it, is needed.")
    *history, question = said
    body = bodies.ChatRequest.model_construct(message=question.content, session_id=session_id, history=history)
    return answers._ask(body, rooms, stream=stream)


async def whole(request: Request, events: AsyncGenerator[Event, None]) -> Done:
    """The end of an answer, which holds all of it. Raises what `Chat.answer` does, and `VisitorLeft`."""

    async def last() -> Done:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Done):
                    return event
        raise AssertionError("every answer ends with Done")

    return await streams.while_connected(request, last())


async def streamed(
    request: Request, events: AsyncGenerator[Event, None], spelling: Spelling, **headers: str
) -> StreamingResponse:
    """The answer as it arrives. Up to its first piece errors are raised, as by `whole`; then they are spelled."""
    first = await streams.while_connected(request, streams.up_to_the_first_piece(events))
    lines = _until_stopped(streams.with_heartbeat(_lines(spelling, first, events)), spelling)
    headers |= {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


def data(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


async def _lines(spelling: Spelling, first: Sequence[Event], rest: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    try:
        async with aclosing(rest):
            yield spelling.begin() + b"".join(map(spelling.spell, first))
            async for event in rest:
                yield spelling.spell(event)
    except RagError as error:
        log.warning("stream broke off", extra={"code": error.code, "reason": str(error)})
        yield spelling.broke(error)


async def _until_stopped(lines: AsyncIterator[bytes], spelling: Spelling) -> AsyncIterator[bytes]:
    try:
        async for line in lines:
            yield line
    except asyncio.CancelledError:
        # A visitor who left does not read this; one whose server stops would take half an answer for a whole one.
        yield spelling.broke(STOPPED)
        raise


class ProblemsReworded:
    """Around the routes and all that may refuse a request: below `prefix`, problem documents leave in another form.

    `reword` makes status and body out of a problem document.
    """

    def __init__(
        self, app: ASGIApp, *, prefix: str, reword: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
    ) -> None:
        self._app = app
        self._prefix = prefix
        self._reword = reword

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        begun, held = False, None

        async def send_reworded(message: Message) -> None:
            nonlocal begun, held
            begun = True
            if held is None and _is_problem(message):
                held = message
                return
            if held is not None:
                # A problem is sent in one piece.
                status, body = self._reword(orjson.loads(message["body"]))
                content = orjson.dumps(body)
                headers = MutableHeaders(raw=list(held["headers"]))
                headers["content-type"], headers["content-length"] = "application/json", str(len(content))
                await send({**held, "status": status, "headers": headers.raw})
                message = {**message, "body": content}
            await send(message)

        try:
            await self._app(scope, receive, send_reworded)
        except Exception:
            if not begun:
                await problems.problem(RagError())(scope, receive, send_reworded)
            raise


def _is_problem(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return False
    return Headers(raw=message["headers"]).get("content-type") == "application/problem+json"

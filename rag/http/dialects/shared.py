"""What dialects share. A dialect is one module: it reads what its clients send, and spells the pipeline's events.

It must not know how an answer comes about, nor what any one dialect looks like.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import orjson
from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from rag.chat.pipeline import Event
from rag.chat.turn import Question, Turn
from rag.errors import InvalidRequest
from rag.http import answers
from rag.http.services import Services
from rag.types import Message

END = b"data: [DONE]\n\n"


class Part(BaseModel):
    """A piece of a message; only those of type `text` have one."""

    type: str
    text: str = ""


def text_of(parts: Iterable[Part]) -> str:
    return "\n".join(part.text for part in parts if part.type == "text" and part.text)


def ask(
    turns: Iterable[tuple[str, str]],
    *,
    session_id: str | None,
    kept: Sequence[Message] | None = None,
    request: Request,
    services: Services,
    stream: bool,
) -> AsyncGenerator[Event, None]:
    """The answer to the last user's turn; the turns before it are the history. Raises `InvalidRequest`."""
    history, text = conversation(turns)
    question = Question(
        text=text, session_id=session_id, claimed=history, kept=kept, asks_for=answers.language_asked_for(request)
    )  # fmt: skip
    return answers.ask(question, services=services, stream=stream)


def conversation(turns: Iterable[tuple[str, str]]) -> tuple[list[Message], str]:
    """What was said before the last user's turn, and that turn's text.

    `turns` are (role, text); other roles than user and assistant are passed over. Raises `InvalidRequest`.
    """
    said = [Message("assistant" if role == "assistant" else "user", text)
            for role, text in turns if role in ("user", "assistant") and text]  # fmt: skip
    while said and said[-1].role != "user":
        said.pop()
    if not said:
        raise InvalidRequest(detail="messages: one of role user, with text in it, is needed.")
    *history, question = said
    return history, question.content


def limits_of(turn: Turn) -> dict[str, Any]:
    """Who wrote an answer, and what it had to do without: fields of ours beside a dialect's own."""
    codes = [one.code for one in turn.missing]
    return {"generated": turn.generated, "own_words": turn.is_own, "degraded": turn.degraded, "degraded_codes": codes,
            "escalation": {"reason": turn.escalation} if turn.escalation else None}  # fmt: skip


def data(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


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
        held = None

        async def send_reworded(message: ASGIMessage) -> None:
            nonlocal held
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

        await self._app(scope, receive, send_reworded)


def _is_problem(message: ASGIMessage) -> bool:
    if message["type"] != "http.response.start":
        return False
    return Headers(raw=message["headers"]).get("content-type") == "application/problem+json"

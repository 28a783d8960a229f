"""How a route lets callers in: the only way to a handler leads through its rule.

    @router.post("/chat")
    @rule(limit="chat", scope="chat")
    async def chat(…)

The rule hangs on the route that was matched, so it does not matter how the path was spelled. A handler without a rule
cannot be registered. Admitted, the body is read, within its bounds, before anything parses it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.requests import Request

from rag.access.admission import Admission, Rule
from rag.access.admission import Request as Asked
from rag.errors import BodyTooLarge, InvalidRequest, VisitorLeft
from rag.http import problems
from rag.http.bodies import StrictRequest

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
"""For a whole body of at most 64 KiB; whoever sends more slowly keeps a place occupied on purpose."""

Handler = TypeVar("Handler", bound=Callable[..., Any])
_RULE = "__rule__"


def rule(**asked: Any) -> Callable[[Handler], Handler]:
    """Declares a handler's `Rule`; without arguments it is open to all, and not counted."""

    def declare(handler: Handler) -> Handler:
        setattr(handler, _RULE, Rule(**asked))
        return handler

    return declare


class AdmittedRoute(APIRoute):
    """A route whose handler is reached by nobody whom its rule does not let in.

    Raises `TypeError` when a handler is registered that declares no rule.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        stated: Rule | None = getattr(endpoint, _RULE, None)
        described = options.get("responses") or {}
        # A dialect describes all its errors together.
        if stated is not None and (stated.scope or stated.tells_owners_more) and "4XX" not in described:
            refusals = (401, 403, 429) if stated.scope else (401, 429)
            options["responses"] = {**problems.described(*refusals), **described}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        stated: Rule | None = getattr(self.endpoint, _RULE, None)
        if stated is None:
            raise TypeError(f"{self.path} has no rule: who may call it, and how often?")

        async def handle(request: Request) -> Response:
            admission: Admission = request.state.admission
            address = request.client.host if request.client else None
            asked = Asked(address, request.scope["headers"], request.scope.setdefault("response_headers", {}))
            request.state.caller = await admission.admit(stated, asked)
            admitted = StrictRequest(request.scope, request.receive)
            if request.method not in ("GET", "OPTIONS") and not stated.reads_own_body:
                admitted.keep(await read_body(request))
            return await handler(admitted)

        return handle


async def read_body(request: Request) -> bytes:
    """The whole body. Raises `BodyTooLarge`, `InvalidRequest` where it comes too slowly, and `VisitorLeft`."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise BodyTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise VisitorLeft
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise BodyTooLarge
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise InvalidRequest("slow body", detail="The request body did not arrive in time.") from None

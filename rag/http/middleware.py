"""Around every request: its id, its log line, the protecting headers, the size of its body, and the last resort.

Pure ASGI, so that a visitor who leaves is noticed and a stream is never held back.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.access import callers
from rag.errors import BodyTooLarge, InvalidRequest, RagError, VisitorLeft
from rag.http.problems import problem
from rag.telemetry.logs import Trace, Tracer, request_fields, request_id, request_trace
from rag.telemetry.metrics import Metrics

log = logging.getLogger("rag.access_log")

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
"""For a whole body of at most 64 KiB; whoever sends more slowly keeps a place occupied on purpose."""
PROBED = frozenset({"/health", "/ready", "/metrics"})
"""Asked every few seconds by machines: not traced unless the caller traces, else nothing else would be found."""


class RequestContext:
    """Gives a request its id, answers what nobody else did, counts it, traces it, and writes its line in the log.

    `route_name` names the route of a path for log, metrics and traces, where a path itself may hold a visitor's id.
    Without a `tracer` nothing is traced. `apology` answers for what broke before anything was sent.
    """

    def __init__(
        self, app: ASGIApp, *, route_name: Callable[[Scope], str], metrics: Metrics, tracer: Tracer | None,
        apology: ASGIApp,
    ) -> None:  # fmt: skip
        self._app = app
        self._route_name = route_name
        self._metrics = metrics
        self._tracer = tracer
        self._apology = apology

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # Every GET route answers HEAD; uvicorn keeps the headers, its Content-Length too, and drops the body.
            scope = {**scope, "method": "GET"}
        began = time.perf_counter()
        headers = Headers(scope=scope)
        identity = callers.request_id(headers.get("x-request-id"))
        noted: dict[str, Any] = {}
        tokens = request_id.set(identity), request_fields.set(noted)
        trace = None if self._tracer is None else self._trace(self._tracer, scope, method, headers)
        if trace is not None and trace.id:
            noted["trace_id"] = trace.id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.raw.extend(callers.SECURITY_HEADERS)
                headers["x-request-id"] = identity
                headers.setdefault("content-security-policy", callers.content_security_policy(scope["path"]))
                headers.setdefault("cache-control", "no-store")
                if "location" in headers:
                    # Starlette builds it from the request's Host, which anyone may choose.
                    headers["location"] = urlsplit(headers["location"])._replace(scheme="", netloc="").geturl()
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request broke", extra={"route": self._route_name(scope)})
            if not status:
                await self._apology(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The server stops and has waited long enough: a line of this request's, not a traceback of uvicorn's.
            noted["cut_off"] = True
        finally:
            seconds, route = time.perf_counter() - began, self._route_name(scope)
            status = status or VisitorLeft.status
            self._metrics.request_ended(method=method, route=route, status=status, seconds=seconds)
            fields = {"method": method, "route": route, "status": status, "duration_ms": round(seconds * 1000, 1)}
            log.info("request", extra=fields | noted)
            request_id.reset(tokens[0])
            request_fields.reset(tokens[1])
            if trace is not None:
                trace.end(route=route, status=status, noted=noted)
                request_trace.set(None)

    def _trace(self, tracer: Tracer, scope: Scope, method: str, headers: Headers) -> Trace | None:
        caller = headers.get("traceparent")
        if scope["path"] in PROBED and not caller:
            return None
        trace = tracer.begin(method=method, scheme=scope.get("scheme", "http"), traceparent=caller)
        request_trace.set(trace)
        return trace


class BodyLimit:
    """Reads a body before anything parses it, and refuses what is too large or comes too slowly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
        except RagError as error:
            await problem(error)(scope, receive, send)
            return
        if body is None:
            return
        handed_over = False

        async def receive_again() -> Message:
            nonlocal handed_over
            if handed_over:
                return await receive()
            handed_over = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_again, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body; None where the visitor left. Raises `BodyTooLarge` and `InvalidRequest`."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            raise BodyTooLarge
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        raise BodyTooLarge
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise InvalidRequest("slow body", detail="The request body did not arrive in time.") from None

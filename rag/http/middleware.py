"""Around every request: its id, its log line, the protecting headers, and the last resort.

Pure ASGI, so that a visitor who leaves is noticed and a stream is never held back.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.access import callers
from rag.errors import NotFound, VisitorLeft
from rag.telemetry.logs import Trace, Tracer, request_fields, request_id, request_trace
from rag.telemetry.metrics import Metrics

log = logging.getLogger("rag.access_log")

CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""No path of ours has any. Patterns of routers and proxies treat a line break at the end as no part of a path."""
ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
TELL_EVERY_S = 60.0
PROBED = frozenset({"/health", "/ready", "/metrics"})
"""Asked every few seconds by machines: not traced unless the caller traces, else nothing else would be found."""


class RequestContext:
    """Gives a request its id, answers what nobody else did, counts it, traces it, and writes its line in the log.

    Without a `tracer` nothing is traced. `apology` answers for what broke before anything was sent.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, tracer: Tracer | None, apology: ASGIApp) -> None:
        self._app = app
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
        added: dict[str, str] = {}
        scope["response_headers"] = added
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
                for name, value in added.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", callers.content_security_policy(scope["path"]))
                headers.setdefault("cache-control", "no-store")
                if "location" in headers:
                    # Starlette builds it from the request's Host, which anyone may choose.
                    headers["location"] = urlsplit(headers["location"])._replace(scheme="", netloc="").geturl()
            await send(message)

        app = self._app
        if CONTROL_CHARACTERS.search(scope["path"]):
            app, scope["error"] = self._apology, NotFound()
        try:
            await app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request broke", extra={"route": _route_name(scope)})
            if not status:
                await self._apology(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The server stops and has waited long enough: a line of this request's, not a traceback of uvicorn's.
            noted["cut_off"] = True
        finally:
            seconds, route = time.perf_counter() - began, _route_name(scope)
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


def _route_name(scope: Scope) -> str:
    """The route's path for log, metrics and traces, where the path itself may hold a visitor's id."""
    return getattr(scope.get("route"), "path", None) or scope.get("root_path") or "unmatched"


class RefusedOrigins:
    """Tells the owner which site's pages may not read the answers: browsers say it to the visitor's console alone.

    One line a minute and worker. Only what has an origin's form is named.
    """

    def __init__(self, app: ASGIApp, *, allowed: Collection[str], clock_s: Callable[[], float]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)
        self._clock_s = clock_s
        self._silent_until_s = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self._allowed and self._clock_s() >= self._silent_until_s:
            self._look_at(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _look_at(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._allowed or not (named := ORIGIN.fullmatch(origin)):
            return
        # Pages of the server itself name themselves too. A proxy may have taken the port from the host's name.
        host = ORIGIN.fullmatch("http://" + headers.get("host", ""))
        if host is not None and host[1].lower() == named[1].lower():
            return
        self._silent_until_s = self._clock_s() + TELL_EVERY_S
        refused = {"origin": origin, "remedy": "if the site is yours, add it to ALLOWED_ORIGINS"}
        log.warning("origin refused", extra=refused)


def cors(allowed: Sequence[str]) -> Iterator[tuple[Callable[..., ASGIApp], dict[str, Any]]]:
    """Starlette's middleware and its options, where pages of other origins may read answers."""
    if allowed:
        told = ["X-Request-ID", "Retry-After", "X-Answer-Cache"]
        told += (f"X-{kind}-{name}" for kind in ("RateLimit", "Budget") for name in ("Limit", "Remaining", "Reset"))
        yield CORSMiddleware, {
            "allow_origins": allowed, "allow_methods": ["GET", "POST", "DELETE"],
            "allow_headers": ["*"], "expose_headers": told, "max_age": 3600,
        }  # fmt: skip

"""Traces of requests, for a collector that speaks OTLP: the only user of OpenTelemetry, whose packages are optional.

Knows names, numbers, and how things ended. It must not know what visitors write or read, keys, or whole addresses:
nothing of that can be exported by what is never told here.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rag.calls import CallObserver, outcome_of
from rag.errors import RagError, UpstreamError
from rag.telemetry.logs import Trace, request_trace

log = logging.getLogger(__name__)

WAITING_SPANS = 2048
"""Kept while the collector does not answer, in each worker; beyond it the oldest are lost."""
SEND_EVERY_S = 1.0
SEND_TIMEOUT_S = 5.0
"""For one batch, its retries included."""
STOP_S = 2.0
"""For the last spans of a worker that stops, whatever the collector does."""
COMPLAIN_EVERY_S = 60.0
"""Between two warnings that traces cannot be sent; OpenTelemetry itself would give several for each batch."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"})
NOTED = {"outcome": "rag.outcome", "degraded": "rag.degraded", "hits": "rag.hits", "cited": "rag.cited",
         "first_token_ms": "rag.first_token_ms", "cut_off": "rag.cut_off"}  # fmt: skip
"""Fields of a request's log line that its span has too, and what they are called there."""


class Tracing:
    """Makes traces while it is open, and sends them from a thread of its own, so that no request waits for that."""

    def __init__(
        self, *, endpoint: str, headers: Mapping[str, str], resource: Mapping[str, str], sampler: str, ratio: float
    ) -> None:
        """`endpoint` is the collector's base address; `sampler` one of OTEL_TRACES_SAMPLER's names, `ratio` its
        argument."""
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self._headers = dict(headers)
        self._resource = Resource.create(dict(resource))
        self._sampler = _sampler(sampler, ratio)
        self._parents = TraceContextTextMapPropagator()
        self._unfinished = 0

    async def __aenter__(self) -> "Tracing":
        """Start the thread: in the process that serves, for a fork would lose it."""
        logging.getLogger("opentelemetry").handlers = [_Seldom()]
        logging.getLogger("opentelemetry").propagate = False
        self._exporter = OTLPSpanExporter(endpoint=self._url, headers=self._headers, timeout=SEND_TIMEOUT_S)
        # Not the global one: nobody else's spans go out, such as those of libraries that note whole addresses.
        self._provider = TracerProvider(sampler=self._sampler, resource=self._resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter, max_queue_size=WAITING_SPANS, schedule_delay_millis=SEND_EVERY_S * 1000,
                max_export_batch_size=WAITING_SPANS // 4,
            )
        )  # fmt: skip
        self._tracer = self._provider.get_tracer("rag-server")
        return self

    async def __aexit__(self, *error: object) -> None:
        """Send what is left, for `STOP_S` at most: the library's own closing may take half a minute."""
        ends_at = time.monotonic() + STOP_S
        # Streams that are cut off when the server stops end only after its other rooms have closed.
        while self._unfinished and time.monotonic() < ends_at - STOP_S / 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        while closing.is_alive() and time.monotonic() < ends_at:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def begin(self, *, method: str, scheme: str, traceparent: str | None) -> Trace:
        """The trace of a request that begins, continuing its caller's where that is a valid W3C `traceparent`.

        The caller's `tracestate` is left out: it is free text, and a trace holds none of a visitor's.
        """
        caller = self._parents.extract({"traceparent": traceparent}, Context()) if traceparent else Context()
        self._unfinished += 1
        return _RequestTrace(self, self._tracer, caller, method if method in METHODS else "_OTHER", scheme)

    def ended(self) -> None:
        self._unfinished -= 1

    def observing(self, observer: CallObserver) -> CallObserver:
        """Tells `observer` of every call, and puts those of a traced request into its trace."""
        return _TracedCalls(observer)


class _RequestTrace:
    """One request: its own span, below it those of its stages, and below these the calls that they made.

    The stage that a call belongs to is kept here and not in a context variable: stages begin and end inside of
    generators, which have no context of their own.
    """

    def __init__(self, tracing: Tracing, tracer: Tracer, caller: Context, method: str, scheme: str) -> None:
        self._tracing = tracing
        self._shown_method = "HTTP" if method == "_OTHER" else method
        self.tracer = tracer
        attributes = {"http.request.method": method, "url.scheme": scheme}
        self.span = tracer.start_span(self._shown_method, caller, SpanKind.SERVER, attributes)
        self.below = set_span_in_context(self.span, Context())
        self.stages: list[_TracedStage] = []
        context = self.span.get_span_context()
        self.id = format_trace_id(context.trace_id) if context.is_valid else ""

    def stage(self, name: str) -> "_TracedStage":
        return _TracedStage(self, name)

    @contextmanager
    def call(self, upstream: str, endpoint: str) -> Iterator[None]:
        stage = self.stages[-1] if self.stages else None
        span = self.tracer.start_span(
            f"{upstream} {endpoint.partition('/')[2]}".rstrip(),
            set_span_in_context(stage.span, Context()) if stage else self.below,
            SpanKind.CLIENT,
            _called(upstream, endpoint, earlier_calls=stage.calls if stage else 0),
        )
        if stage:
            stage.calls += 1
        try:
            yield
        except BaseException as error:
            _mark_call_failed(span, error)
            span.end()
            raise
        span.set_attributes({"http.response.status_code": 200, "rag.outcome": "ok"})
        if stage is None:
            span.end()
        else:
            stage.answering = span

    def happened(self, what: str) -> None:
        self.span.add_event(what)

    def used(self, *, prompt_tokens: int, completion_tokens: int) -> None:
        answering = self.stages[-1].answering if self.stages else None
        if answering is not None and prompt_tokens:
            answering.set_attributes(
                {"gen_ai.usage.input_tokens": prompt_tokens, "gen_ai.usage.output_tokens": completion_tokens}
            )

    def end(self, *, route: str, status: int, noted: Mapping[str, Any]) -> None:
        span = self.span
        if route.startswith("/"):
            span.update_name(f"{self._shown_method} {route}")
            # The template in place of the path, which may hold a visitor's id.
            span.set_attributes({"http.route": route, "url.path": route})
        span.set_attribute("http.response.status_code", status)
        span.set_attributes(
            {NOTED[name]: value for name, value in noted.items() if name in NOTED and value is not None}
        )
        if status >= 500 or noted.get("outcome") == "failed":
            _mark_failed(span, str(noted.get("error") or status))
        span.end()
        self._tracing.ended()


class _TracedStage:
    def __init__(self, trace: _RequestTrace, name: str) -> None:
        self._trace = trace
        self.span = trace.tracer.start_span(name, trace.below)
        self.calls = 0
        self.answering: Span | None = None
        """Of the call that brought the answer: it goes on until the stage ends, for a stream's words are still to come
        when the call has succeeded."""
        trace.stages.append(self)

    def end(self, error: BaseException | None) -> None:
        self._trace.stages.remove(self)
        for span in (self.answering, self.span):
            if span is not None:
                if isinstance(error, Exception):
                    _mark_failed(span, error.code if isinstance(error, RagError) else type(error).__name__)
                elif error is not None:
                    span.set_attribute("rag.outcome", "abandoned")
                span.end()


class _TracedCalls:
    """Listens to calls, for a trace and for another observer."""

    def __init__(self, observer: CallObserver) -> None:
        self._observer = observer
        self.retried = observer.retried
        self.breaker_changed = observer.breaker_changed

    def call(self, upstream: str, endpoint: str) -> AbstractContextManager[None]:
        observed, trace = self._observer.call(upstream, endpoint), request_trace.get()
        return observed if trace is None else _both(observed, trace.call(upstream, endpoint))


@contextmanager
def _both(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield


def _called(upstream: str, endpoint: str, *, earlier_calls: int) -> dict[str, str | int]:
    """What is known of a call when it begins. `endpoint` is the name of an `Endpoint`: host and deployment.

    The kinds of upstreams are called as OpenTelemetry calls what they do: chat, embeddings.
    """
    host, _, model = endpoint.partition("/")
    attributes: dict[str, str | int] = {"gen_ai.operation.name": upstream, "http.request.method": "POST"}
    address = urlsplit(f"//{host}")
    if address.hostname:
        attributes["server.address"] = address.hostname
    if address.port:
        attributes["server.port"] = address.port
    if model:
        attributes["gen_ai.request.model"] = model
    if earlier_calls:
        attributes["http.request.resend_count"] = earlier_calls
    return attributes


def _mark_call_failed(span: Span, error: BaseException) -> None:
    outcome = outcome_of(error)
    status = error.http_status if isinstance(error, UpstreamError) else None
    span.set_attribute("rag.outcome", outcome)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if outcome != "abandoned":
        _mark_failed(span, outcome if status in (None, 200) else str(status))


def _mark_failed(span: Span, error_type: str) -> None:
    # Without a description and without the exception itself: its text is for the log.
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def _sampler(name: str, ratio: float) -> Sampler:
    root = name.removeprefix("parentbased_")
    by_root = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF, "traceidratio": TraceIdRatioBased(ratio)}
    return by_root[root] if root == name else ParentBased(by_root[root])


class _Seldom(logging.Handler):
    """Says now and then what the library says with every batch, and without its tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now_s = time.monotonic()
        if now_s >= self._silent_until_s:
            self._silent_until_s = now_s + COMPLAIN_EVERY_S
            log.warning("traces may be missing", extra={"reason": record.getMessage()[:300]})

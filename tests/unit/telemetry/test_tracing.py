"""Traces as a real collector gets them: their shape, whose they are, and that no collector can hold anybody up."""

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from rag.calls import UNOBSERVED, Refused, Throttled, TooSlow, Unanswered
from rag.errors import ContentFiltered, StateUnavailable
from rag.telemetry import tracing
from rag.telemetry.logs import Stage, Trace, request_trace
from rag.telemetry.tracing import Tracing
from tests.support.otlp import Collector, ReceivedSpan
from tests.support.server import clean_environment

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRET_WORDS = "how do I hide a swordfish"
Work = Callable[[Tracing], Awaitable[None]]


def traced(url: str, work: Work, *, sampler: str = "parentbased_always_on", ratio: float = 1.0, **more: Any) -> float:
    """Runs `work` and closes; returns how long the closing took."""
    settings: dict[str, Any] = {"headers": {}, "resource": {}, **more}

    async def run() -> float:
        made = Tracing(endpoint=url, sampler=sampler, ratio=ratio, **settings)
        async with made:
            await work(made)
            began_s = time.monotonic()
        return time.monotonic() - began_s

    return asyncio.run(run())


def request(made: Tracing, traceparent: str | None = None, method: str = "POST") -> Trace:
    """A trace that has begun, and is the running request's."""
    trace = made.begin(method=method, scheme="https", traceparent=traceparent)
    request_trace.set(trace)
    return trace


def ended(trace: Trace, status: int = 200, **noted: Any) -> None:
    trace.end(route="/chat", status=status, noted=noted)


def sent_by(work: Work, **settings: Any) -> Collector:
    """What `work` made, all of it, for closing sends the rest."""
    with Collector() as collector:
        traced(collector.url, work, **settings)
    return collector


def span_of(work: Work) -> ReceivedSpan:
    """The request's own span, of a `work` with one request."""
    [root] = [one for one in sent_by(work).spans() if one.kind == "server"]
    return root


def test_calls_stand_below_the_stage_that_made_them_and_stages_below_the_request() -> None:
    async def work(made: Tracing) -> None:
        trace, calls = request(made), made.observing(UNOBSERVED)
        with Stage("embed"), calls.call("embeddings", "here.example/small"):
            pass
        with Stage("model"):
            for error in (Throttled("wait"), None):
                with suppress(Throttled), calls.call("chat", "here.example:8443/big"):
                    if error:
                        raise error
            trace.used(prompt_tokens=7, completion_tokens=3)
        ended(trace)

    collector = sent_by(work)
    [root] = collector.spans(name="POST /chat")
    assert collector.tree(root) == {
        "embed": {"embeddings small": {}},
        "model": {"chat big": {}, "chat big #2": {}},
    }
    failed, answered = collector.spans(name="chat big")
    address = {"server.address": "here.example", "server.port": 8443, "http.request.method": "POST"}
    model = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "big"}
    assert failed.attributes == {**address, **model, "rag.outcome": "throttled", "error.type": "throttled"}
    assert answered.attributes == {
        **address, **model, "rag.outcome": "ok", "http.response.status_code": 200, "http.request.resend_count": 1,
        "gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3,
    }  # fmt: skip
    assert (failed.failed, answered.failed, answered.kind) == (True, False, "client")


def test_an_answering_call_goes_on_until_its_stage_ends() -> None:
    async def work(made: Tracing) -> None:
        trace = request(made)
        with Stage("model"):
            with made.observing(UNOBSERVED).call("chat", "here.example/big"):
                pass
            with Stage("inside"):
                pass
        ended(trace)

    collector = sent_by(work)
    [call], [inside] = collector.spans(name="chat big"), collector.spans(name="inside")
    assert call.began_ns < inside.began_ns <= inside.ended_ns < call.ended_ns


def test_a_request_says_what_became_of_it() -> None:
    async def work(made: Tracing) -> None:
        trace = request(made)
        trace.happened("first token")
        ended(trace, 200, outcome="quoted", degraded="chat model unavailable", hits=5, cited=0, embed_ms=3.2, other="x")

    root = span_of(work)
    assert (root.name, root.kind, root.parent, root.failed, root.events) == (
        "POST /chat", "server", "", False, ("first token",),
    )  # fmt: skip
    assert root.attributes == {
        "http.request.method": "POST", "url.scheme": "https", "http.route": "/chat", "url.path": "/chat",
        "http.response.status_code": 200, "rag.outcome": "quoted", "rag.degraded": "chat model unavailable",
        "rag.hits": 5, "rag.cited": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "noted", "error_type"),
    [
        (500, {}, "500"),
        (504, {"outcome": "failed", "error": "upstream_timeout"}, "upstream_timeout"),
        (200, {"outcome": "failed", "error": "upstream_unavailable"}, "upstream_unavailable"),
        (404, {}, None),
        (422, {"outcome": "filtered"}, None),
        (499, {"outcome": "left"}, None),
    ],
)
def test_only_what_is_our_fault_is_an_error(status: int, noted: dict[str, Any], error_type: str | None) -> None:
    async def work(made: Tracing) -> None:
        ended(request(made), status, **noted)

    root = span_of(work)
    assert (root.failed, root.attributes.get("error.type")) == (error_type is not None, error_type)


def test_an_unknown_route_and_an_invented_method_leave_no_word_of_theirs() -> None:
    async def work(made: Tracing) -> None:
        request(made, method="SWORDFISH").end(route="unmatched", status=404, noted={})

    root = span_of(work)
    assert (root.name, root.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert not root.attributes.keys() & {"http.route", "url.path"}


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (StateUnavailable(SECRET_WORDS), "state_unavailable"),
        (ValueError(SECRET_WORDS), "ValueError"),
        (GeneratorExit(SECRET_WORDS), None),
        (asyncio.CancelledError(SECRET_WORDS), None),
    ],
)
def test_a_stage_that_breaks_names_the_kind_of_error_and_one_that_is_abandoned_is_none(
    error: BaseException, error_type: str | None
) -> None:
    async def work(made: Tracing) -> None:
        trace = request(made)
        with suppress(type(error)), Stage("recall"):
            raise error
        ended(trace)

    collector = sent_by(work)
    [stage] = collector.spans(name="recall")
    assert (stage.failed, stage.attributes.get("error.type")) == (error_type is not None, error_type)
    assert (stage.attributes.get("rag.outcome") == "abandoned") is (error_type is None)
    assert SECRET_WORDS.encode() not in b"".join(collector.bodies)


@pytest.mark.parametrize(
    ("error", "http_status", "error_type", "outcome"),
    [
        (Unanswered("x"), 503, "503", "failed"),
        (Unanswered("x"), 200, "failed", "failed"),
        (Unanswered("x"), None, "failed", "failed"),
        (TooSlow("x"), None, "timeout", "timeout"),
        (Refused("x", named="", param="", of_endpoint=True), 401, "401", "refused"),
        (ContentFiltered("x"), 400, "400", "filtered"),
        (asyncio.CancelledError(), None, None, "abandoned"),
    ],
)
def test_a_call_that_fails_says_how(
    error: BaseException, http_status: int | None, error_type: str | None, outcome: str
) -> None:
    async def work(made: Tracing) -> None:
        trace = request(made)
        if http_status:
            error.http_status = http_status  # type: ignore[attr-defined]
        with suppress(type(error)), made.observing(UNOBSERVED).call("chat", "[::1]:8000"):
            raise error
        ended(trace)

    [call] = sent_by(work).spans(name="chat")
    assert (call.attributes["rag.outcome"], call.attributes.get("error.type")) == (outcome, error_type)
    assert call.attributes.get("http.response.status_code") == http_status
    assert (call.attributes["server.address"], call.attributes["server.port"]) == ("::1", 8000)
    assert call.failed is (error_type is not None)


def test_requests_side_by_side_keep_their_stages_apart() -> None:
    async def one(made: Tracing, name: str) -> None:
        trace = request(made)
        with Stage(name):
            await asyncio.sleep(0)
            with Stage(f"{name} within"):
                await asyncio.sleep(0)
        ended(trace)

    async def work(made: Tracing) -> None:
        await asyncio.gather(*(one(made, f"stage {number}") for number in range(20)))

    collector = sent_by(work)
    trees = [collector.tree(root) for root in collector.spans(name="POST /chat")]
    assert sorted(map(str, trees)) == sorted(str({f"stage {n}": {}, f"stage {n} within": {}}) for n in range(20))


def test_a_stage_may_enclose_what_a_generator_yields_and_be_left_in_another_task() -> None:
    async def answering() -> Any:
        with Stage("model"):
            yield 1
            yield 2

    async def work(made: Tracing) -> None:
        trace, pieces = request(made), answering()
        await anext(pieces)
        await asyncio.create_task(pieces.aclose())
        ended(trace)

    [stage] = sent_by(work).spans(name="model")
    assert (stage.attributes, stage.failed) == ({"rag.outcome": "abandoned"}, False)


# --- Whose trace it is, and whether it is made ---


def test_a_callers_trace_is_continued_without_its_free_text() -> None:
    async def work(made: Tracing) -> None:
        trace = request(made, CALLER)
        assert trace.id == "4bf92f3577b34da6a3ce929d0e0e4736"
        ended(trace)

    root = span_of(work)
    assert (root.trace, root.parent, root.state) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "")


NO_TRACE, NO_SPAN = f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"


@pytest.mark.parametrize(
    "invalid",
    [
        "",
        "x",
        CALLER[:-1],
        CALLER.upper(),
        "ff" + CALLER[2:],
        CALLER + "-x",
        NO_TRACE,
        NO_SPAN,
        CALLER * 20,
        "ÿ" + CALLER,
    ],
)
def test_an_invalid_traceparent_begins_a_trace_of_its_own(invalid: str) -> None:
    async def work(made: Tracing) -> None:
        ended(request(made, invalid))

    root = span_of(work)
    assert (root.parent, len(root.trace)) == ("", 32)
    assert root.trace not in invalid


@pytest.mark.parametrize(
    ("sampler", "ratio", "traceparent", "made"),
    [
        ("parentbased_always_on", 1.0, None, True),
        ("parentbased_always_on", 1.0, CALLER, True),
        ("parentbased_always_on", 1.0, CALLER[:-1] + "0", False),
        ("always_on", 1.0, CALLER[:-1] + "0", True),
        ("always_off", 1.0, CALLER, False),
        ("parentbased_always_off", 1.0, CALLER, True),
        ("parentbased_always_off", 1.0, None, False),
        ("traceidratio", 0.0, CALLER, False),
        ("parentbased_traceidratio", 0.0, CALLER, True),
        ("parentbased_traceidratio", 0.0, None, False),
        ("parentbased_traceidratio", 1.0, None, True),
    ],
)
def test_the_sampler_and_the_callers_flag_decide_for_a_whole_trace(
    sampler: str, ratio: float, traceparent: str | None, made: bool
) -> None:
    ids = []

    async def work(traces: Tracing) -> None:
        trace = request(traces, traceparent)
        with Stage("model"), traces.observing(UNOBSERVED).call("chat", "here.example/big"):
            pass
        ids.append(trace.id)
        ended(trace)

    assert len(sent_by(work, sampler=sampler, ratio=ratio).spans()) == (3 if made else 0)
    # What is not sent has an id too, for the caller knows it by that.
    assert len(ids[0]) == 32


def test_a_collector_gets_its_headers_and_the_servers_name_at_the_standard_path() -> None:
    async def work(made: Tracing) -> None:
        ended(request(made))

    with Collector() as collector:
        traced(f"{collector.url}/base/", work, headers={"x-api-key": "k"}, resource={"service.name": "docs-chat"})
    assert collector.paths == {"/base/v1/traces"}
    assert collector.headers[0]["x-api-key"] == "k"
    assert collector.resource["service.name"] == "docs-chat"


# --- A collector that is ill ---


def unreachable() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


async def many(made: Tracing) -> None:
    """More spans than may wait."""
    for _ in range(tracing.WAITING_SPANS):
        trace = request(made)
        with Stage("model"):
            pass
        ended(trace)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    # pytest listens to OpenTelemetry's own logger as well, which leads nowhere else any more.
    return [record for record in caplog.records if not record.name.startswith("opentelemetry")]


@pytest.mark.parametrize("ill", ["hangs", "refuses", "fails", "absent"])
def test_no_collector_holds_up_requests_or_the_stop_or_fills_the_log(
    ill: str, caplog: pytest.LogCaptureFixture
) -> None:
    took_s = []

    async def work(made: Tracing) -> None:
        for _ in range(2):
            began_s = time.monotonic()
            await many(made)
            took_s.append(time.monotonic() - began_s)
            # So that the second round meets a sender that is busy, or has just failed.
            await until(lambda: collector.bodies if ill != "absent" else complaints(caplog))

    status = {"refuses": 401, "fails": 503}.get(ill, 200)
    with caplog.at_level(logging.INFO), Collector(hangs=ill == "hangs", status=status) as collector:
        closing_s = traced(unreachable() if ill == "absent" else collector.url, work)
    # The library's own closing would take many times that.
    assert closing_s < tracing.STOP_S + 2
    # Four thousand spans; waiting for the collector even once would take longer.
    assert max(took_s) < tracing.SEND_TIMEOUT_S - 1
    said = [(record.message, record.exc_info) for record in complaints(caplog)]
    assert said == [("traces may be missing", None)]
    assert not logging.getLogger("opentelemetry").propagate


def test_streams_that_are_cut_off_after_the_rooms_have_closed_are_still_sent() -> None:
    async def work(made: Tracing) -> None:
        trace = request(made)

        async def cut_off() -> None:
            # Not before the closing waits for something.
            await asyncio.sleep(0)
            ended(trace, cut_off=True)

        tasks.append(asyncio.create_task(cut_off()))

    tasks: list[asyncio.Task[None]] = []
    assert span_of(work).attributes["rag.cut_off"] is True


# --- Switched off ---

OFF = """
import sys
from rag.settings import Settings
from rag_server import create_app

create_app(Settings(demo=True))
costly = ("rag.telemetry.tracing", "opentelemetry.sdk", "requests")
loaded = [name for name in sys.modules if name.startswith(costly)]
print(loaded)
"""


def test_without_a_collector_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFF], env=clean_environment(tmp_path, {}), cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_opentelemetrys_own_switch_sends_nothing_and_names_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ids = []

    async def work(made: Tracing) -> None:
        trace = request(made)
        with Stage("model"), made.observing(UNOBSERVED).call("chat", "here.example/big"):
            ids.append(trace.id)
        ended(trace)

    assert sent_by(work).bodies == []
    assert ids == [""]


def test_calls_outside_of_a_traced_request_are_observed_as_ever() -> None:
    heard = []

    class Ears:
        def call(self, upstream: str, endpoint: str) -> Any:
            heard.append((upstream, endpoint))
            return nullcontext()

        def retried(self, upstream: str) -> None:
            heard.append(("retried", upstream))

        def breaker_changed(self, upstream: str, endpoint: str, *, closed: bool) -> None:
            heard.append(("closed", str(closed)))

    async def work(made: Tracing) -> None:
        request_trace.set(None)
        calls = made.observing(Ears())
        with calls.call("chat", "here.example/big"):
            calls.retried("chat")
            calls.breaker_changed("chat", "here.example/big", closed=False)

    assert sent_by(work).spans() == []
    assert heard == [("chat", "here.example/big"), ("retried", "chat"), ("closed", "False")]

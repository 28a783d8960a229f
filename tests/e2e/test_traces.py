"""What the real server tells a collector: the tree of a request, and nothing that a visitor said."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.otlp import Collector, ReceivedSpan
from tests.support.server import RagServer
from tests.support.small_site import FACTS, OFF_TOPIC
from tests.support.waiting import free_port, wait_until

QUESTION = FACTS[0].question
COLLECTOR_KEY = "collector-key-0123456789"
SESSION = "session-of-a-visitor-0123456789"
EMBEDDED = {"embed": {"embeddings emulated-embeddings": {}}}
ANSWERED = {"model": {"chat emulated-chat": {}}}
WHOLE = {"recall": {}, **EMBEDDED, "search": {}, **ANSWERED, "remember": {}}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(
    collector: Collector, site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    """The real server, two workers, with a collector; FastAPI's own telemetry is asked for, and must not come."""
    settings = {
        **azure_process.environment,
        "VECTOR_DB_PATH": str(site_build),
        "RATE_LIMIT_ENABLED": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={COLLECTOR_KEY}",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    }
    with RagServer.start(settings, tmp_path_factory.mktemp("traced"), workers=2) as running:
        yield running


@pytest.fixture
def ask(traced: RagServer, collector: Collector) -> Callable[..., ReceivedSpan]:
    """`ask("/chat", message=…)`: the request's own span, from a caller with a trace of its own."""

    def asked(path: str = "/chat", *, status: int = 200, **body: Any) -> ReceivedSpan:
        trace = token_hex(16)
        answer = post(traced, path, trace, **{"message": QUESTION, **body})
        assert answer.status_code == status, answer.text
        return collector.root(trace)

    return asked


def post(server: RagServer, path: str, trace: str, flags: str = "01", **body: Any) -> httpx.Response:
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-{flags}"}
    return httpx.post(f"{server.base_url}{path}", json=body, headers=headers, timeout=30, trust_env=False)


def new_session() -> str:
    return f"session-{token_hex(8)}"


@pytest.mark.usefixtures("azure")
def test_a_chat_is_a_tree_of_its_stages_and_their_calls(
    ask: Callable[..., ReceivedSpan], collector: Collector, azure_process: AzureEmulator
) -> None:
    root = ask("/chat", session_id=new_session())
    assert (root.name, root.kind, root.parent, root.failed) == ("POST /chat", "server", "00f067aa0ba902b7", False)
    assert collector.tree(root) == WHOLE
    assert {k: root.attributes[k] for k in ("http.route", "http.response.status_code", "rag.outcome", "rag.hits")} == {
        "http.route": "/chat", "http.response.status_code": 200, "rag.outcome": "answered", "rag.hits": 5,
    }  # fmt: skip
    [call] = collector.spans(trace=root.trace, name="chat emulated-chat")
    assert (call.attributes["server.address"], call.attributes["server.port"]) == ("127.0.0.1", azure_process.port)
    assert call.attributes["gen_ai.usage.input_tokens"] > call.attributes["gen_ai.usage.output_tokens"] > 0
    for parent in collector.spans(trace=root.trace):
        for child in collector.children(parent):
            assert parent.began_ns <= child.began_ns <= child.ended_ns <= parent.ended_ns


@pytest.mark.parametrize(
    ("path", "body", "stages"),
    [
        ("/chat/stream", {}, {**EMBEDDED, "search": {}, **ANSWERED, "remember": {}}),
        ("/search", {"query": QUESTION}, {**EMBEDDED, "search": {}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}]},
         {**EMBEDDED, "search": {}, **ANSWERED}),
        ("/chat", {"message": OFF_TOPIC}, {**EMBEDDED, "search": {}, "remember": {}}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("azure")
def test_every_route_has_the_stages_that_it_went_through(
    ask: Callable[..., ReceivedSpan], collector: Collector, path: str, body: dict[str, Any], stages: dict[str, Any]
) -> None:
    root = ask(path, **body)
    assert (root.name, collector.tree(root)) == (f"POST {path}", stages)


def test_a_stream_ends_with_its_last_byte_and_tells_of_its_first_token(
    ask: Callable[..., ReceivedSpan], collector: Collector, azure: AzureEmulator
) -> None:
    azure.behave(reply="It lasts for 37 months [1].", token_delay_ms=40)
    root = ask("/chat/stream")
    [call] = collector.spans(trace=root.trace, name="chat emulated-chat")
    assert root.events == ("first token",)
    lasted_ms = (root.ended_ns - root.began_ns) / 1e6
    # Six tokens: the first words come long before the last ones.
    assert root.attributes["rag.first_token_ms"] < lasted_ms / 2
    assert (call.ended_ns - call.began_ns) / 1e6 > root.attributes["rag.first_token_ms"]
    assert call.attributes["gen_ai.usage.output_tokens"] > 0


def test_every_attempt_of_a_retried_call_is_seen(
    ask: Callable[..., ReceivedSpan], collector: Collector, azure: AzureEmulator
) -> None:
    azure.fail("status", target="chat", status=503, times=1)
    root = ask("/chat")
    failed, answered = collector.spans(trace=root.trace, name="chat emulated-chat")
    assert (failed.failed, failed.attributes["http.response.status_code"], failed.attributes["error.type"]) == (
        True, 503, "503",
    )  # fmt: skip
    assert (answered.failed, answered.attributes["http.request.resend_count"]) == (False, 1)
    assert failed.parent == answered.parent
    assert (root.failed, root.attributes["rag.outcome"]) == (False, "answered")


@pytest.mark.parametrize(
    ("fault", "path", "status", "outcome", "failed"),
    [
        ({"kind": "status", "status": 401, "target": "chat"}, "/chat", 200, "quoted", False),
        ({"kind": "content_filter_prompt", "target": "chat"}, "/chat", 422, "filtered", False),
        ({"kind": "cut_stream", "target": "chat", "tokens": 3}, "/chat/stream", 200, "failed", True),
        ({"kind": "status", "status": 401, "target": "embeddings"}, "/chat", 200, "answered", False),
    ],
)
def test_what_went_wrong_is_seen(
    ask: Callable[..., ReceivedSpan], collector: Collector, azure: AzureEmulator, fault: dict[str, Any], path: str,
    status: int, outcome: str, failed: bool,
) -> None:  # fmt: skip
    azure.fail(**fault, times=1)
    root = ask(path, status=status)
    assert (root.attributes["rag.outcome"], root.attributes["http.response.status_code"]) == (outcome, status)
    assert root.failed is failed
    assert ("error.type" in root.attributes) is failed
    calls = [one for one in collector.spans(trace=root.trace) if one.kind == "client"]
    assert any(call.failed for call in calls)
    degraded = fault.get("status") == 401
    assert ("unavailable" in root.attributes.get("rag.degraded", "")) is degraded


def test_an_answer_that_fails_is_an_error(start_server: StartServer, azure: AzureEmulator) -> None:
    azure.fail("status", target="chat", status=401)
    with Collector() as collector:
        server = start_server(workers=1, DEGRADED_ANSWERS="false", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        trace = token_hex(16)
        assert post(server, "/chat", trace, message=QUESTION).status_code == 502
        root = collector.root(trace)
    assert (root.failed, root.attributes["error.type"]) == (True, "upstream_rejected")
    [model] = collector.spans(trace=trace, name="model")
    assert (model.failed, model.attributes["error.type"]) == (True, "upstream_rejected")


def test_a_visitor_who_leaves_is_seen(traced: RagServer, collector: Collector, azure: AzureEmulator) -> None:
    azure.fail("stall_after", target="chat", tokens=2, times=1)
    trace = token_hex(16)
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    url, body = f"{traced.base_url}/chat/stream", {"message": QUESTION}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=20, trust_env=False) as answer:
        assert any(line.startswith("event: delta") for line in answer.iter_lines())
    root = collector.root(trace)
    assert (root.attributes["rag.outcome"], root.failed) == ("left", False)
    [model] = collector.spans(trace=trace, name="model")
    assert (model.attributes["rag.outcome"], model.failed) == ("abandoned", False)


@pytest.mark.usefixtures("azure")
def test_a_rewritten_query_is_a_stage_with_its_call(start_server: StartServer) -> None:
    with Collector() as collector:
        server = start_server(workers=1, QUERY_REWRITE="model", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        session, trace = new_session(), token_hex(16)
        for one in (token_hex(16), trace):
            assert post(server, "/chat", one, message=QUESTION, session_id=session).status_code == 200
        tree = collector.tree(collector.root(trace))
    assert list(tree) == ["recall", "rewrite", "embed", "search", "model", "remember"]
    assert tree["rewrite"] == {"chat emulated-chat": {}}


# --- Whose trace, and what is in it ---


@pytest.mark.usefixtures("azure")
def test_the_log_line_of_a_request_names_its_trace(traced: RagServer, collector: Collector) -> None:
    mine, unsampled = token_hex(16), token_hex(16)
    post(traced, "/chat", mine, message=QUESTION)
    post(traced, "/chat", unsampled, flags="00", message=QUESTION)
    httpx.post(f"{traced.base_url}/search", json={"query": QUESTION}, timeout=20, trust_env=False)

    def ids() -> set[str]:
        lines = [json.loads(line) for line in traced.output.splitlines() if '"trace_id"' in line]
        return {line["trace_id"] for line in lines if line["message"] == "request"}

    assert {mine, unsampled} <= wait_until(lambda: {mine, unsampled} <= ids() and ids())
    own = wait_until(lambda: [one for one in collector.spans(name="POST /search") if not one.parent])
    assert {one.trace for one in own} <= ids()
    collector.root(mine)
    assert collector.spans(trace=unsampled) == []


def test_no_trace_is_passed_on_to_the_models(ask: Callable[..., ReceivedSpan], azure: AzureEmulator) -> None:
    root = ask("/chat")
    seen = azure.requests()
    assert {one["kind"] for one in seen} == {"chat", "embeddings"}
    assert root.trace not in json.dumps(seen)
    assert not {name.lower() for one in seen for name in one["headers"]} & {"traceparent", "tracestate", "baggage"}


@pytest.mark.usefixtures("azure")
def test_probes_are_not_traced_unless_their_caller_traces(traced: RagServer, collector: Collector) -> None:
    traces = {path: token_hex(16) for path in ("/health", "/ready", "/metrics")}
    with httpx.Client(base_url=traced.base_url, timeout=20, trust_env=False) as client:
        for path, trace in traces.items():
            client.get(path)
            client.get(path, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    for path, trace in traces.items():
        assert collector.root(trace).name == f"GET {path}"
    probes = [one for one in collector.spans() if one.attributes.get("http.route") in traces]
    assert {one.trace for one in probes} == set(traces.values())


def test_nothing_of_a_visitor_or_of_a_key_is_in_any_exported_byte(
    traced: RagServer, collector: Collector, azure: AzureEmulator
) -> None:
    words = {
        name: f"swordfish-{name}" for name in ("message", "history", "answer", "agent", "state", "query", "origin")
    }
    azure.behave(reply=f"It lasts 37 months [1], {words['answer']}.")
    trace = token_hex(16)
    headers = {
        "traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": f"vendor={words['state']}",
        "baggage": f"who={words['state']}", "User-Agent": words["agent"], "X-Request-ID": "swordfish-request-0123",
        "Referer": f"https://{words['origin']}.example/", "Origin": f"https://{words['origin']}.example",
    }  # fmt: skip
    history = [{"role": "user", "content": words["history"]}, {"role": "assistant", "content": words["history"]}]
    body = {"message": f"{QUESTION} {words['message']}", "session_id": SESSION, "history": history}
    with httpx.Client(base_url=traced.base_url, headers=headers, timeout=20, trust_env=False) as client:
        for path in ("/chat", "/chat/stream"):
            for fault in (None, "cut_stream", "content_filter_answer"):
                if fault:
                    azure.fail(fault, target="chat", times=1)
                client.post(path, params={"q": words["query"]}, json=body)
        client.post("/search", json={"query": words["message"]})
        client.post("/chat", json={"message": words["message"], "nonsense": 10**400, "session_id": "too short"})
        assert client.get(f"/sessions/{SESSION}/history").status_code == 200
        assert client.delete(f"/sessions/{SESSION}").status_code == 200
        assert client.get(f"/{words['query']}?{words['query']}").status_code == 404
        client.request("PROPFIND", "/chat")
    names = {"POST /chat", "POST /chat/stream", "POST /search", "GET /sessions/{session_id}/history", "GET",
             "DELETE /sessions/{session_id}", "HTTP /chat"}  # fmt: skip

    def seen() -> list[str]:
        return [one.name for one in collector.spans(trace=trace) if one.kind == "server"]

    wait_until(lambda: names <= set(seen()))
    # One trace for all of them; whatever they ended with, each is there.
    wait_until(lambda: sum(name.startswith("POST /chat") for name in seen()) == 7)
    exported = b"".join(collector.bodies)
    forbidden = ["swordfish", SESSION, azure.api_key, COLLECTOR_KEY, "api-version", "/openai/deployments", "37 months",
                 QUESTION]  # fmt: skip
    assert [word for word in forbidden if word.lower().encode() in exported.lower()] == []
    assert all(one.state == "" for one in collector.spans())


def test_only_our_own_traces_go_out(
    ask: Callable[..., ReceivedSpan], azure: AzureEmulator, collector: Collector
) -> None:
    ask("/chat")
    assert collector.paths == {"/v1/traces"}
    assert collector.headers[0]["x-api-key"] == COLLECTOR_KEY
    assert collector.resource["service.name"] == "rag-server"
    assert collector.resource["deployment.environment.name"] == "tests"
    assert not any(one.name.startswith("fastapi.") for one in collector.spans())


# --- A collector that is ill, and the end ---


@pytest.mark.usefixtures("azure")
@pytest.mark.parametrize("ill", ["hangs", "absent"])
def test_an_ill_collector_delays_neither_answers_nor_the_stop(start_server: StartServer, ill: str) -> None:
    with Collector(hangs=True) as hanging:
        url = hanging.url if ill == "hangs" else f"http://127.0.0.1:{free_port()}"
        server = start_server(workers=1, OTEL_EXPORTER_OTLP_ENDPOINT=url)
        for _ in range(2):
            began_s = time.monotonic()
            for _ in range(5):
                assert post(server, "/chat", token_hex(16), message=QUESTION).status_code == 200
            assert time.monotonic() - began_s < 4
            # Until the first batch is on its way, so that the second round meets a sender that is stuck.
            wait_until(lambda: hanging.bodies if ill == "hangs" else "traces may be missing" in server.output)
        began_s = time.monotonic()
        assert server.stop() == 0
        # The drain of a second, two for the collector, and the end of the processes; left to itself the library would
        # take half a minute.
        assert time.monotonic() - began_s < 15
    assert server.output.count("traces may be missing") <= 1
    assert "Traceback" not in server.output


@pytest.mark.usefixtures("azure")
def test_what_was_traced_just_before_a_stop_is_sent(start_server: StartServer) -> None:
    with Collector() as collector:
        server = start_server(workers=1, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        trace = token_hex(16)
        post(server, "/chat", trace, message=QUESTION)
        assert server.stop() == 0
        assert [one.name for one in collector.spans(trace=trace) if one.kind == "server"] == ["POST /chat"]


def test_a_stream_that_outlasts_the_stop_is_sent_too(start_server: StartServer, azure: AzureEmulator) -> None:
    # Twelve seconds of words; a stopping worker gives them four.
    azure.behave(reply="word " * 60, token_delay_ms=200)
    with Collector() as collector:
        server = start_server(workers=1, REQUEST_TIMEOUT_SECONDS=1, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        trace = token_hex(16)
        headers, body = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}, {"message": QUESTION}
        url = f"{server.base_url}/chat/stream"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=20, trust_env=False) as answer:
            lines = answer.iter_lines()
            assert any(line.startswith("event: delta") for line in lines)
            assert server.stop() == 0
        [root] = [one for one in collector.spans(trace=trace) if one.kind == "server"]
    assert root.attributes["rag.outcome"] == "left"
    assert "model" in collector.tree(root)

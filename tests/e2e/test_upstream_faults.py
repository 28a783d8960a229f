"""The real server against an Azure that fails in every way: what a visitor gets, what is remembered, what it costs."""

import asyncio
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.azure_errors import WORDING
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

FACT = FACTS[0]
TIMEOUT_S = 1.5
"""The request's time on these servers: a hang should cost a test little."""
DISCONNECTS = int(os.environ.get("SOAK_DISCONNECTS", "100"))
"""Visitors who leave in the middle; `SOAK_DISCONNECTS=1000` for the long form."""
OUTAGE_REQUESTS = 300
"""Fewer would be made up of those that find the outage, each with its retries, in each of the four processes."""


@pytest.fixture(scope="module")
def one_worker(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    """One process, so that its breakers, its connections and its files can be watched."""
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false",
        "REQUEST_TIMEOUT_SECONDS": str(TIMEOUT_S),
    }  # fmt: skip
    with RagServer.start(settings, tmp_path_factory.mktemp("faults"), workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def patient_worker(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    """One process with the usual time for a request, and no test's faults left in it."""
    settings = {**azure_process.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false"}
    with RagServer.start(settings, tmp_path_factory.mktemp("patient"), workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def four_workers(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false",
        "REQUEST_TIMEOUT_SECONDS": str(TIMEOUT_S),
    }  # fmt: skip
    with RagServer.start(settings, tmp_path_factory.mktemp("outages"), workers=4) as server:
        yield server


@pytest.fixture
def client(one_worker: RagServer, azure: AzureEmulator) -> Iterator[httpx.Client]:
    """Speaks to the server after it has recovered from the test before."""
    with httpx.Client(base_url=one_worker.base_url, timeout=30, trust_env=False) as client:
        wait_until(lambda: all(ask(client)["degraded"] is None for _ in range(2)), 10, "sound answers")
        azure.clear()
        yield client


def ask(client: httpx.Client, question: str = FACT.question, **more: Any) -> dict[str, Any]:
    answer = client.post("/chat", json={"message": question, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def new_question() -> str:
    """The same words further apart: who asks the same at the same moment shares one call."""
    return "".join(" " * random.randint(1, 99) if letter == " " else letter for letter in FACT.question)


def events_of(text: str) -> list[tuple[str, Any]]:
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "event" in fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def ask_streamed(client: httpx.Client, **more: Any) -> tuple[int, list[tuple[str, Any]]]:
    answer = client.post("/chat/stream", json={"message": FACT.question, **more})
    return answer.status_code, events_of(answer.text)


def remembered(client: httpx.Client, session_id: str) -> list[dict[str, str]]:
    return client.get(f"/sessions/{session_id}/history").json()["history"]  # type: ignore[no-any-return]


def session() -> str:
    return uuid.uuid4().hex


CHAT_FAILURES: list[dict[str, Any]] = [
    {"kind": "not_json"}, {"kind": "empty_choices"}, {"kind": "cut_stream", "tokens": 0}, {"kind": "reset"},
    {"kind": "huge_body", "size": 8_000_000}, {"kind": "status", "status": 500}, {"kind": "status", "status": 429},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "60"}}, {"kind": "status", "status": 401},
    {"kind": "status", "status": 404}, {"kind": "status", "status": 400}, {"kind": "hang"},
    {"kind": "error_event_in_stream", "tokens": 0}, {"kind": "stall_after", "tokens": 0},
]  # fmt: skip


def named(fault: dict[str, Any]) -> str:
    return "-".join(str(value) for value in fault.values())


@pytest.mark.parametrize("fault", CHAT_FAILURES, ids=named)
def test_a_chat_model_that_fails_before_its_first_word_is_replaced_by_quotes(
    client: httpx.Client, azure: AzureEmulator, fault: dict[str, Any]
) -> None:
    azure.fail(**fault, target="chat")
    answer = ask(client)
    assert answer["degraded"].startswith("chat model unavailable")
    assert any(FACT.words in source["content_full"] for source in answer["sources"])
    assert FACT.words in answer["response"]
    status, events = ask_streamed(client)
    assert (status, events[-1][0]) == (200, "done")
    assert events[-1][1]["degraded"].startswith("chat model unavailable")
    assert WORDING not in json.dumps([answer, events])
    assert len(azure.requests("chat")) <= 6


@pytest.mark.parametrize("kind", ["split_utf8", "many_small_chunks", "no_done", "annotation_events"])
def test_an_answer_in_an_unusual_but_sound_form_arrives_whole(
    client: httpx.Client, azure: AzureEmulator, kind: str
) -> None:
    azure.behave(reply="Größe: 10 °C – naïve 日本語 🌊, siebenunddreißig Monate. [1]")
    usual = ask(client)["response"]
    assert "🌊" in usual
    azure.fail(kind, target="chat")
    answers = [ask(client)["response"]]
    _, events = ask_streamed(client)
    answers += ["".join(data["text"] for name, data in events if name == "delta"), events[-1][1]["response"]]
    assert all(answer.startswith(usual) for answer in answers)
    assert events[-1][1]["degraded"] is None


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "cut_stream"}, "upstream_unavailable"),
        ({"kind": "error_event_in_stream"}, "upstream_unavailable"),
        ({"kind": "no_done", "finish": False}, "upstream_unavailable"),
        ({"kind": "stall_after"}, "upstream_timeout"),
        ({"kind": "content_filter_answer"}, "content_filtered"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_stream_that_breaks_off_after_its_first_word_is_neither_restarted_nor_remembered(
    client: httpx.Client, azure: AzureEmulator, fault: dict[str, Any], code: str
) -> None:
    azure.behave(token_delay_ms=20)
    azure.fail(**fault, target="chat")
    session_id = session()
    status, events = ask_streamed(client, session_id=session_id)
    names = [name for name, _ in events]
    assert status == 200
    assert names[:3] == ["session", "sources", "delta"]
    assert names[-1] == "error"
    assert "done" not in names
    assert events[-1][1]["code"] == code
    assert WORDING not in json.dumps(events)
    assert len(azure.requests("chat")) == 1
    assert remembered(client, session_id) == []
    azure.heal()
    assert ask(client, session_id=session_id)["degraded"] is None
    assert [turn["role"] for turn in remembered(client, session_id)] == ["user", "assistant"]


@pytest.mark.parametrize("fault", [
    {"kind": "wrong_dimension"}, {"kind": "nan"}, {"kind": "wrong_count"}, {"kind": "empty_choices"},
    {"kind": "not_json"}, {"kind": "cut_stream"}, {"kind": "huge_body", "size": 2_000_000}, {"kind": "hang"},
    {"kind": "reset"}, {"kind": "status", "status": 503}, {"kind": "status", "status": 401},
    {"kind": "content_filter_prompt"},
], ids=named)  # fmt: skip
def test_embeddings_that_fail_leave_the_search_by_words(
    client: httpx.Client, azure: AzureEmulator, fault: dict[str, Any]
) -> None:
    azure.fail(**fault, target="embeddings")
    answer = ask(client, new_question())
    assert answer["degraded"].startswith("embeddings unavailable")
    assert any(FACT.words in source["content_full"] for source in answer["sources"])
    found = client.post("/search", json={"query": new_question()})
    assert found.status_code == 200
    assert FACT.words in found.text
    assert len(azure.requests("embeddings")) <= 6


def test_a_question_that_many_ask_at_once_is_embedded_for_all_of_them_together(
    client: httpx.Client, azure: AzureEmulator
) -> None:
    azure.behave(embeddings_delay_ms=300)
    visitors = 20

    async def all_ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30, trust_env=False) as many:
            return await asyncio.gather(*(many.post("/search", json={"query": FACT.question}) for _ in range(visitors)))

    answers = asyncio.run(all_ask())
    assert all(answer.status_code == 200 and answer.json()["degraded"] is None for answer in answers)
    assert len({answer.json()["results"][0]["citation_url"] for answer in answers}) == 1
    # One call; on a busy machine a few visitors may come too late for it.
    assert len(azure.requests("embeddings")) <= visitors // 4


def test_a_content_filter_is_said_as_422_before_the_answer_begins(client: httpx.Client, azure: AzureEmulator) -> None:
    faults: list[dict[str, Any]] = [{"kind": "content_filter_prompt"}, {"kind": "content_filter_answer", "tokens": 0}]
    for fault in faults:
        azure.heal()
        azure.clear()
        azure.fail(**fault, target="chat")
        for route in ("/chat", "/chat/stream"):
            session_id = session()
            answer = client.post(route, json={"message": FACT.question, "session_id": session_id})
            assert (answer.status_code, answer.json()["code"]) == (422, "content_filtered")
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert WORDING not in answer.text
            assert remembered(client, session_id) == []
        assert len(azure.requests("chat")) == 2


def test_a_claimed_history_is_remembered_with_its_answer_and_not_with_a_refusal(
    client: httpx.Client, azure: AzureEmulator
) -> None:
    claimed = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Welcome."}]
    given = {"message": FACT.question, "session_id": session(), "history": claimed}
    azure.fail("content_filter_prompt", target="chat")
    assert client.post("/chat", json=given).status_code == 422
    assert remembered(client, given["session_id"]) == []
    azure.heal()
    assert client.post("/chat", json=given).status_code == 200
    assert remembered(client, given["session_id"])[:3] == [*claimed, {"role": "user", "content": FACT.question}]
    # A second claim changes nothing: what the server remembers wins.
    given["history"] = [{"role": "user", "content": "Other"}, {"role": "assistant", "content": "Words"}]
    assert client.post("/chat", json=given).status_code == 200
    assert [turn["content"] for turn in remembered(client, given["session_id"])][:2] == ["Hello", "Welcome."]
    assert len(remembered(client, given["session_id"])) == 6


def test_what_was_said_of_an_outage_is_shown_again_but_never_told_to_the_model(
    client: httpx.Client, azure: AzureEmulator
) -> None:
    session_id = session()
    azure.fail("status", target="chat", status=500)
    quoted = ask(client, session_id=session_id)["response"]
    opening = quoted.partition("\n")[0]
    azure.heal()
    wait_until(lambda: ask(client)["degraded"] is None, 10, "sound answers")
    azure.clear()
    ask(client, "And how is that checked?", session_id=session_id)
    told = azure.requests("chat")[-1]["body"]["messages"]
    assert [turn["role"] for turn in told] == ["system", "user", "assistant", "user"]
    assert "cannot be reached" in opening
    assert "cannot be reached" not in json.dumps(told)
    assert FACT.words in told[2]["content"]
    assert remembered(client, session_id)[1]["content"] == quoted


def test_without_degraded_answers_every_failure_is_a_problem_with_its_own_status(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1, DEGRADED_ANSWERS="false", REQUEST_TIMEOUT_SECONDS="1")
    codes = {503: "upstream_unavailable", 502: "upstream_rejected", 504: "upstream_timeout"}
    faults: dict[int, dict[str, Any]] = {
        503: {"kind": "status", "status": 500}, 502: {"kind": "status", "status": 401}, 504: {"kind": "hang"},
    }  # fmt: skip
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
        for status, fault in faults.items():
            azure.heal()
            wait_until(lambda: client.post("/chat", json={"message": FACT.question}).status_code == 200, 10, "sound")
            azure.fail(**fault, target="chat")
            for route in ("/chat", "/chat/stream"):
                answer = client.post(route, json={"message": FACT.question})
                assert answer.status_code == status, answer.text
                assert answer.headers["content-type"].startswith("application/problem+json")
                assert set(answer.json()) == {"type", "title", "status", "detail", "code", "request_id"}
                assert answer.json()["code"] == codes[status]
                assert not any(word in answer.text for word in (WORDING, "127.0.0.1", azure.api_key))


def test_a_retry_is_logged_with_attempt_and_delay_and_no_key_ever_is(
    one_worker: RagServer, client: httpx.Client, azure: AzureEmulator
) -> None:
    azure.fail("status", target="chat", status=503, headers={"retry-after-ms": "30"}, times=1)
    assert ask(client)["degraded"] is None
    wait_until(lambda: '"delay_ms":30' in one_worker.output, 5, "the line of the retry")
    lines = [json.loads(line) for line in one_worker.output.splitlines() if '"delay_ms":30' in line]
    retry = lines[-1]
    assert retry["message"] == "upstream call failed, trying again"
    assert (retry["attempt"], retry["attempts"], retry["delay_ms"]) == (1, 3, 30)
    assert "emulated-chat: HTTP 503" in retry["reason"]
    assert retry["request_id"]
    assert azure.api_key not in one_worker.output
    assert WORDING not in one_worker.output


def open_files(server: RagServer) -> int:
    (pid,) = server.worker_pids()
    return len(os.listdir(f"/proc/{pid}/fd"))


def send(server: RagServer, route: str) -> socket.socket:
    body = json.dumps({"message": new_question()}).encode()
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


@pytest.mark.parametrize(
    ("route", "fault"),
    [("/chat", {"kind": "hang"}), ("/chat/stream", {"kind": "hang"}),
     ("/chat/stream", {"kind": "stall_after"}), ("/chat", {"kind": "stall_after", "target": "embeddings"})],
    ids=["chat", "stream-before-first-word", "stream-after-first-words", "while-embedding"],
)  # fmt: skip
def test_visitors_who_leave_cancel_their_upstream_calls_within_a_second_and_no_connection_is_lost(
    patient_worker: RagServer, azure: AzureEmulator, route: str, fault: dict[str, Any]
) -> None:
    server = patient_worker
    batch = 50
    with httpx.Client(base_url=server.base_url, timeout=60, trust_env=False) as client:
        wait_until(lambda: ask(client)["degraded"] is None, 10, "sound answers")
        before = wait_until(lambda: open_files(server), message="open files")
        azure.clear()
        target = fault.get("target", "chat")
        azure.fail(**{"target": "chat", **fault})
        slowest_s = 0.0
        for _ in range(-(-DISCONNECTS // batch)):
            connections = [send(server, route) for _ in range(batch)]
            wait_until(lambda: azure.stats()["now"][target] == batch, 20, "all calls are under way")
            began = time.monotonic()
            for connection in connections:
                connection.close()
            wait_until(lambda: azure.stats()["now"][target] == 0, 10, "all calls are cancelled")
            slowest_s = max(slowest_s, time.monotonic() - began)
        print(f"{route} {fault}: the last of {batch} calls was cancelled after {slowest_s:.3f} s")
        assert slowest_s < 1.0
        assert azure.stats()["cancelled"][target] >= DISCONNECTS
        azure.heal()
        assert ask(client)["degraded"] is None
        # One idle connection for each kind of call may be kept that was not there before.
        wait_until(lambda: open_files(server) <= before + 2, 20, f"open files are back at {before}")
        assert "Traceback" not in server.output


async def flood(base_url: str, *, requests: int, at_once: int) -> list[dict[str, Any]]:
    """So many chats, so many at a time, each on a connection of its own; each must be answered with 200."""
    left = iter(range(requests))
    answers: list[dict[str, Any]] = []
    # A kept connection stays with one worker; new ones reach all of them, and each has breakers of its own.
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=base_url, timeout=60, trust_env=False, limits=fresh) as client:

        async def visitor() -> None:
            for _ in left:
                answer = await client.post("/chat", json={"message": new_question()})
                assert answer.status_code == 200, answer.text
                answers.append(answer.json())

        await asyncio.gather(*(visitor() for _ in range(at_once)))
    return answers


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503}, {"kind": "reset"}, {"kind": "hang"},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    ],
    ids=named,
)  # fmt: skip
def test_a_total_outage_costs_at_most_1_2_calls_a_request_and_ends_within_5_seconds(
    four_workers: RagServer, azure: AzureEmulator, fault: dict[str, Any]
) -> None:
    server = four_workers

    def are_sound() -> bool:
        return not any(answer["degraded"] for answer in asyncio.run(flood(server.base_url, requests=8, at_once=4)))

    # What the fault before opened has closed again, in each of the processes.
    wait_until(lambda: all(are_sound() for _ in range(3)), 20, "sound answers", 0.2)
    azure.fail(**fault)
    azure.clear()
    answers = asyncio.run(flood(server.base_url, requests=OUTAGE_REQUESTS, at_once=16))
    calls = sum(azure.stats()["total"].values())
    assert all("chat model unavailable" in answer["degraded"] for answer in answers)
    assert all("embeddings unavailable" in answer["degraded"] for answer in answers)
    azure.heal()
    healed = time.monotonic()
    well_since = healed
    while time.monotonic() - healed < 6.0:
        if not are_sound():
            well_since = time.monotonic()
        time.sleep(0.2)
    recovered_s = well_since - healed
    a_request = calls / OUTAGE_REQUESTS
    print(f"{named(fault)}: {a_request:.2f} calls a request, the last degraded answer {recovered_s:.1f} s after")
    assert a_request <= 1.2
    assert recovered_s <= 5.0


def test_a_hanging_first_region_is_passed_over_and_ready_names_each_endpoint(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(
        workers=1, REQUEST_TIMEOUT_SECONDS="2",
        AZURE_OPENAI_CHAT_ENDPOINT=f"{azure.chat_url_of('east')},{azure.chat_url_of('west')}",
        AZURE_OPENAI_EMBEDDINGS_ENDPOINT=f"{azure.embeddings_url_of('east')},{azure.embeddings_url_of('west')}",
        # The index knows its model by this name; of two deployments it would be the first one's.
        AZURE_OPENAI_EMBEDDINGS_MODEL="emulated-embeddings",
    )  # fmt: skip
    azure.fail("hang", deployment="east")
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:

        def breakers() -> dict[str, str]:
            endpoints = client.get("/ready").json()["chat"]["endpoints"]
            return {one["endpoint"].rpartition("/")[2]: one["breaker"] for one in endpoints}

        assert breakers() == {"east": "closed", "west": "closed"}
        assert [ask(client)["degraded"] for _ in range(6)] == [None] * 6
        assert breakers()["east"] != "closed"
        assert breakers()["west"] == "closed"
        assert client.get("/ready").json()["chat"]["status"] == "ok"
        azure.heal()
        wait_until(lambda: ask(client) and breakers()["east"] == "closed", 5, "the first region is used again", 0.1)


def test_a_throttled_region_costs_nobody_a_pause_and_a_foreign_key_is_asked_once(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(
        workers=1, AZURE_OPENAI_CHAT_ENDPOINT=f"{azure.chat_url_of('missing')},{azure.chat_url_of('east')},"
        f"{azure.chat_url_of('west')}",
    )  # fmt: skip
    azure.fail("status", target="chat", deployment="east", status=429, headers={"Retry-After": "20"})
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
        began = time.monotonic()
        assert ask(client)["degraded"] is None
        assert time.monotonic() - began < 2.0
        assert [seen["deployment"] for seen in azure.requests("chat")] == ["missing", "east", "west"]
        azure.clear()
        assert ask(client)["degraded"] is None
        assert [seen["deployment"] for seen in azure.requests("chat")] == ["missing", "west"]


def test_an_answer_that_was_cut_at_its_longest_length_says_so_in_every_dialect_and_in_memory(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1, CHAT_MAX_TOKENS="3")
    said, session_id = "one two three […]", session()
    azure.behave(reply="one two three four five six.")
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
        answer = ask(client, session_id=session_id)
        assert answer["response"] == said
        assert answer["degraded"].startswith("answer cut short")
        assert remembered(client, session_id)[1]["content"] == said
        _, events = ask_streamed(client)
        assert "".join(data["text"] for name, data in events if name == "delta") == said
        assert (events[-1][1]["response"], events[-1][1]["degraded"]) == (said, answer["degraded"])
        asked = {"messages": [{"role": "user", "content": FACT.question}]}
        choice = client.post("/v1/chat/completions", json=asked).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (said, "length")
        streamed = client.post("/v1/chat/completions", json={**asked, "stream": True}).text
        assert '"finish_reason":"length"' in streamed
        assert '"finish_reason":"stop"' not in streamed
        turn = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": FACT.question}]}
        parts = client.post("/api/chat", json={"id": session(), "messages": [turn]}).text
        assert '"finishReason":"length"' in parts
        assert answer["degraded"] in parts
        azure.behave(reply="one two.")
        assert ask(client)["degraded"] is None


def test_a_model_that_reasons_answers_from_the_first_question_on_and_a_second_endpoint_what_the_first_refuses(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    urls = f"{azure.chat_url_of('reasoning')},{azure.chat_url_of('west')}"
    server = start_server(workers=1, AZURE_OPENAI_CHAT_ENDPOINT=urls)
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
        for calls in (2, 2, 1, 1):
            azure.clear()
            assert ask(client)["degraded"] is None
            assert [seen["deployment"] for seen in azure.requests("chat")] == ["reasoning"] * calls
        assert ask_streamed(client)[1][-1][1]["degraded"] is None
        azure.fail("status", target="chat", deployment="reasoning", status=400,
                   body={"error": {"code": "context_length_exceeded"}})  # fmt: skip
        azure.clear()
        assert ask(client)["degraded"] is None
        assert [seen["deployment"] for seen in azure.requests("chat")] == ["reasoning", "west"]


def test_a_prompt_too_long_for_the_model_is_made_shorter_and_what_has_no_word_is_asked_once(
    patient_worker: RagServer, azure: AzureEmulator
) -> None:
    vllm = {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}
    with httpx.Client(base_url=patient_worker.base_url, timeout=30, trust_env=False) as client:
        wait_until(lambda: ask(client)["degraded"] is None, 10, "sound answers")
        azure.clear()
        assert ask(client)["degraded"] is None
        (asked,) = azure.requests("chat")
        for body in (None, vllm):
            azure.clear()
            azure.fail("too_long", target="chat", size=int(asked["headers"]["content-length"]) - 1, body=body)
            assert ask(client)["degraded"] is None
            assert len(azure.requests("chat")) == 2
            azure.heal()
        for kind, words in (("empty_answer", "The model gave no answer"), ("refusal", "")):
            azure.clear()
            azure.fail(kind, target="chat")
            answer = ask(client)
            assert (answer["degraded"], answer["response"].startswith(words)) == (None, True)
            assert ask_streamed(client)[1][-1][1]["degraded"] is None
            assert len(azure.requests("chat")) == 2
            azure.heal()

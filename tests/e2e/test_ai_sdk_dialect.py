"""The AI SDK's own client in Node against the real server: `useChat` works on it without a line of glue."""

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.support.small_site import SITE_URL
from tests.support.waiting import wait_until

FOLDER = Path(__file__).parent / "ai_sdk"
QUESTION = "How long does the warranty last?"

Talk = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def ai_sdk() -> Path:
    """The folder with the package installed as its lock says; installed again only when the lock has changed."""
    assert shutil.which("npm"), "node and npm are missing; `make test` installs them, or says how"
    lock = (FOLDER / "package-lock.json").read_bytes()
    stamp = FOLDER / "node_modules" / ".installed"
    wanted = hashlib.sha256(lock).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--prefer-offline"],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        stamp.write_text(wanted)
    return FOLDER


@pytest.fixture
def talk(ai_sdk: Path, server: RagServer) -> Talk:
    """`talk({"send": "…"}, …)`: what a page shows after these steps of one chat with the shared server."""

    def run(
        *steps: dict[str, Any], chat_id: str | None = None, url: str = server.base_url, **more: Any
    ) -> dict[str, Any]:
        given = {"url": url, "id": chat_id, "steps": steps, **more}
        done = subprocess.run(
            ["node", "talk.mjs", json.dumps(given)], cwd=ai_sdk, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown

    return run


@pytest.fixture
def client(server: RagServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
        yield client


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def ui_message(text: str, message_id: str, role: str = "user") -> dict[str, Any]:
    return {"id": message_id, "role": role, "parts": [{"type": "text", "text": text}]}


def parts_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The parts of a finished stream, which has to end with [DONE]."""
    *events, end, nothing = answer.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]


def history_of(client: httpx.Client, session_id: str) -> list[str]:
    history = client.get(f"/sessions/{session_id}/history").json()["history"]
    return [turn["content"] for turn in history]


def test_a_page_shows_the_answer_and_links_to_the_sources_that_it_cites(talk: Talk) -> None:
    shown = talk({"send": QUESTION})
    assert (shown["status"], shown["error"]) == ("ready", None)
    question, answer = shown["messages"]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    text, first, second = answer["parts"]
    assert "37 months" in text["text"]
    assert re.findall(r"\[\d+\]", text["text"]) == ["[1]", "[2]"]
    assert text["state"] == "done"
    assert (first["type"], first["sourceId"], first["title"]) == ("source-url", "1", "Warranty and returns")
    assert first["url"].startswith(f"{SITE_URL}/warranty/")
    assert (second["type"], second["sourceId"]) == ("source-url", "2")
    assert answer["metadata"]["degraded"] is None


def test_the_stream_has_the_parts_of_version_1_in_their_order(client: httpx.Client) -> None:
    answer = client.post("/api/chat", json={"messages": [ui_message(QUESTION, "m1")], "trigger": "submit-message"})
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache, no-transform", "no")
    kinds = [kind for kind, _ in groupby(part["type"] for part in parts_of(answer))]
    # What a source leads to is known once all that it was cited for is.
    assert kinds == ["start", "text-start", "text-delta", "source-url", "text-end", "finish"]


def session_of(shown: dict[str, Any]) -> str:
    """What the first answer's metadata says, or an id that nothing is known of."""
    answers = [message for message in shown["messages"] if message["role"] == "assistant"]
    return str(answers[0]["metadata"]["sessionId"]) if answers else "nothing-was-answered"


def test_a_conversation_goes_on_under_the_session_that_its_first_answer_named(talk: Talk, client: httpx.Client) -> None:
    shown = talk({"send": "Is there a Reef plan?"}, {"send": QUESTION})
    assert history_of(client, session_of(shown)) == [text_of(message) for message in shown["messages"]]
    assert shown["messages"][3]["metadata"]["sessionId"] == session_of(shown)
    assert session_of(shown) != shown["id"]


def test_visitors_of_a_page_with_a_fixed_chat_id_and_greeting_share_nothing(client: httpx.Client) -> None:
    greeting = ui_message("How can I help?", "greeting-of-the-page-01", "assistant")
    body = {"id": "support-chat-of-this-page", "messages": [greeting, ui_message(QUESTION, "fixed-user-message-id-1")]}
    told = [parts_of(client.post("/api/chat", json=body)) for _ in range(2)]
    sessions = [part["messageMetadata"]["sessionId"] for parts in told for part in parts if part["type"] == "start"]
    assert len(set(sessions)) == 2
    assert history_of(client, "support-chat-of-this-page") == []


def test_an_answer_that_cannot_be_made_again_is_not_forgotten(client: httpx.Client, azure: AzureEmulator) -> None:
    session_id = f"test-regenerating-{secrets.token_hex(8)}"
    question = ui_message(QUESTION, "m1")
    client.post("/api/chat", json={"session_id": session_id, "messages": [question]})
    before = history_of(client, session_id)
    azure.fail("content_filter_prompt", target="chat")
    again = {"session_id": session_id, "messages": [question], "trigger": "regenerate-message"}
    assert client.post("/api/chat", json=again).status_code == 422
    assert history_of(client, session_id) == before


def test_a_conversation_goes_on_from_what_the_page_kept(talk: Talk, azure: AzureEmulator) -> None:
    kept = [ui_message("Is there a Reef plan?", "m1"), ui_message("Yes, there is.", "m2", "assistant")]
    kept[1]["parts"].append({"type": "source-url", "sourceId": "1", "url": "https://x.example/"})
    talk({"send": QUESTION}, messages=kept)
    (asked,) = azure.requests("chat")
    assert [message["content"] for message in asked["body"]["messages"][1:3]] == [
        "Is there a Reef plan?",
        "Yes, there is.",
    ]


def test_a_short_id_of_a_page_goes_on_in_one_browser_and_is_not_shared_with_another(
    talk: Talk, client: httpx.Client
) -> None:
    mine, yours = (talk({"send": QUESTION}, {"send": "Really?"}, chat_id="help") for _ in range(2))
    sessions = [{message["metadata"]["sessionId"] for message in shown["messages"][1::2]} for shown in (mine, yours)]
    assert [len(found) for found in sessions] == [1, 1]
    assert sessions[0] != sessions[1]
    assert len(history_of(client, *sessions[0])) == 4
    told = [part for _ in range(2) for part in parts_of(client.post("/api/chat", json={
        "id": "help", "messages": [{"role": "user", "parts": [{"type": "text", "text": QUESTION}]}],
    }))]  # fmt: skip
    assert len({part["messageMetadata"]["sessionId"] for part in told if part["type"] == "start"}) == 2


def test_a_regenerated_answer_takes_the_place_of_the_one_before(talk: Talk, client: httpx.Client) -> None:
    shown = talk({"send": "Is there a Reef plan?"}, {"send": QUESTION}, {"regenerate": True})
    assert shown["error"] is None
    remembered = history_of(client, session_of(shown))
    assert remembered == [text_of(message) for message in shown["messages"]]
    assert [remembered[0], remembered[2]] == ["Is there a Reef plan?", QUESTION]


def test_a_page_that_sends_only_its_last_messages_loses_none_by_asking_for_another_answer(
    client: httpx.Client,
) -> None:
    session_id = f"test-regenerating-{secrets.token_hex(8)}"
    shown: list[dict[str, Any]] = []

    def ask(**more: Any) -> None:
        body = {"session_id": session_id, "messages": shown[-6:], **more}
        text = "".join(part.get("delta", "") for part in parts_of(client.post("/api/chat", json=body)))
        shown.append(ui_message(text, f"m{len(shown)}", "assistant"))

    for number in range(5):
        # The same question gets the same answer: the last two turns look alike.
        shown.append(ui_message(QUESTION if number > 2 else f"{QUESTION} I ask for the {number}th time.", f"m{number}"))
        ask()
    whole = history_of(client, session_id)
    assert whole == [text_of(message) for message in shown]
    del shown[-1]
    ask(trigger="regenerate-message")
    assert history_of(client, session_id) == whole
    del shown[-5:]  # an earlier answer is asked for again
    ask(trigger="regenerate-message")
    assert history_of(client, session_id) == whole[:6]


def test_regenerating_the_first_answer_begins_anew_and_so_does_what_the_server_never_heard(
    client: httpx.Client,
) -> None:
    session_id = f"test-regenerating-{secrets.token_hex(8)}"
    question = ui_message(QUESTION, "m1")
    for trigger in ("submit-message", "regenerate-message"):
        client.post("/api/chat", json={"session_id": session_id, "messages": [question], "trigger": trigger})
        assert len(history_of(client, session_id)) == 2
    elsewhere = [ui_message("Is there a Reef plan?", "m2"), ui_message("Yes.", "m3", "assistant"), question]
    client.post("/api/chat", json={"session_id": session_id, "messages": elsewhere, "trigger": "regenerate-message"})
    assert history_of(client, session_id)[:3] == ["Is there a Reef plan?", "Yes.", QUESTION]


def test_an_answer_that_breaks_off_is_an_error_on_the_page_and_not_remembered(
    talk: Talk, client: httpx.Client, azure: AzureEmulator
) -> None:
    azure.behave(tokens=["one ", "two ", "three ", "four "], token_delay_ms=20)
    azure.fail("cut_stream", target="chat", tokens=2)
    shown = talk({"send": QUESTION})
    assert shown["status"] == "error"
    assert shown["error"] == "The language model cannot be reached at the moment. Please try again shortly."
    assert text_of(shown["messages"][1]).startswith("one ")
    assert shown["chunks"][-1]["type"] == "error"
    assert history_of(client, session_of(shown)) == []


def test_a_refusal_before_the_first_word_is_a_problem_document(talk: Talk, azure: AzureEmulator) -> None:
    azure.fail("content_filter_prompt", target="chat")
    shown = talk({"send": QUESTION})
    assert shown["status"] == "error"
    assert json.loads(shown["error"])["code"] == "content_filtered"
    assert shown["chunks"] == []


def test_a_degraded_answer_says_so_in_its_metadata(talk: Talk, azure: AzureEmulator) -> None:
    azure.fail("status", target="chat", status=400)
    (_, answer) = talk({"send": QUESTION})["messages"]
    assert "37 months" in text_of(answer)
    assert "chat model unavailable" in answer["metadata"]["degraded"]


def test_stop_ends_the_upstream_call_and_nothing_is_remembered(
    talk: Talk, client: httpx.Client, azure: AzureEmulator
) -> None:
    azure.fail("stall_after", target="chat", tokens=3)
    shown = talk({"send": QUESTION, "stop": True})
    assert (shown["status"], shown["error"]) == ("ready", None)
    assert text_of(shown["messages"][1])
    wait_until(lambda: azure.requests("chat")[0]["outcome"] == "cancelled", 5, "the upstream call ends")
    assert history_of(client, session_of(shown)) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"messages": []}, "one of role user"),
        ({"id": "x", "messages": []}, "one of role user"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "url": "data:,x"}]}]}, "one of role user"),
        ({"messages": [ui_message("x" * 4001, "m1")]}, "longer than 4,000 characters"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "messages.0.parts"),
        ({}, "messages"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(client: httpx.Client, body: Any, told: str) -> None:
    answer = client.post("/api/chat", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert told in answer.json()["detail"]


def test_a_server_that_stops_in_the_middle_says_abort_and_error(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1, REQUEST_TIMEOUT_SECONDS="1")
    azure.behave(tokens=["word "] * 200, token_delay_ms=100)
    session_id = f"test-stopping-{secrets.token_hex(8)}"
    body = {"session_id": session_id, "messages": [ui_message(QUESTION, "m1")]}
    seen = []
    with httpx.stream("POST", f"{server.base_url}/api/chat", json=body, timeout=30, trust_env=False) as answer:
        for line in answer.iter_lines():
            if "text-delta" in line and "text-start" in seen[-1]:
                os.kill(server.pid, signal.SIGTERM)
            seen += [line.removeprefix("data: ")] if line else []
    assert seen[-1] == "[DONE]"
    abort, error = (json.loads(part) for part in seen[-3:-1])
    assert abort == {"type": "abort", "reason": "server stopping"}
    assert error == {"type": "error", "errorText": "The server is being restarted. Please ask again."}
    assert server.stop() == 0

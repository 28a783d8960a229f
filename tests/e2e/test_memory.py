"""Conversations over four workers: nothing is lost, nothing is another's, follow-ups know what was asked."""

import json
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.azure import AzureEmulator
from tests.support.server import RagServer

CONVERSATIONS = 50
TURNS = 6
CITED = re.compile(r"\s*\[\d+\]")


@pytest.fixture
def client(server: RagServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False, verify=False) as client:
        yield client


def new_id() -> str:
    return f"test-memory-{secrets.token_hex(8)}"


def history_of(server: RagServer, session_id: str) -> list[dict[str, str]]:
    answer = httpx.get(f"{server.base_url}/sessions/{session_id}/history", timeout=20, trust_env=False, verify=False)
    assert answer.status_code == 200
    assert answer.json()["session_id"] == session_id
    history: list[dict[str, str]] = answer.json()["history"]
    return history


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_an_answer_given_anew_takes_the_place_of_the_last_one(client: httpx.Client, azure: AzureEmulator) -> None:
    session_id, told = new_id(), []
    for question in ("What does error E17 mean?", "And how long is the warranty?"):
        response = client.post("/chat", json={"message": question, "session_id": session_id}).json()["response"]
        told += said(("user", question), ("assistant", response))
    again = {"message": told[2]["content"], "session_id": session_id, "history": told[:2], "regenerate": True}
    azure.fail("content_filter_prompt", target="chat")
    assert client.post("/chat/stream", json=again).status_code == 422
    assert client.get(f"/sessions/{session_id}/history").json()["history"] == told
    azure.heal()
    azure.behave(tokens=["Thirty-seven ", "months ", "[1]."])
    client.post("/chat/stream", json=again)
    told[3]["content"] = "Thirty-seven months [1]."
    assert client.get(f"/sessions/{session_id}/history").json()["history"] == told


def test_fifty_conversations_over_four_workers_lose_nothing_and_mix_nothing(
    server: RagServer, azure: AzureEmulator
) -> None:
    def converse(number: int) -> tuple[str, list[dict[str, str]]]:
        session_id, told = new_id(), []
        for turn in range(TURNS):
            question = f"What does error E17 mean, {turn} {number}?"
            # A connection of its own for every turn, so that any worker may get it; without the 14 ms of a TLS context.
            answer = httpx.post(
                f"{server.base_url}/chat", json={"message": question, "session_id": session_id},
                headers={"Connection": "close"}, timeout=60, trust_env=False, verify=False,
            )  # fmt: skip
            assert answer.status_code == 200
            assert answer.json()["session_id"] == session_id
            told += said(("user", question), ("assistant", answer.json()["response"]))
        return session_id, told

    with ThreadPoolExecutor(16) as visitors:
        conversations = list(visitors.map(converse, range(CONVERSATIONS)))
        histories = list(visitors.map(lambda one: history_of(server, one[0]), conversations))
    for (session_id, told), history in zip(conversations, histories, strict=True):
        assert history == told, session_id

    # What each turn's model was shown is the conversation so far, whichever worker asked it.
    shown: dict[str, int] = {}
    for asked in azure.requests("chat"):
        messages = asked["body"]["messages"]
        question = messages[-1]["content"].rpartition("Question: ")[2]
        turn, number = map(int, question.rstrip("?").split()[-2:])
        so_far = conversations[number][1][: 2 * turn]
        # Numbers of earlier sources mean nothing beside the new ones, so they are left out.
        assert messages[1:-1] == [{**one, "content": CITED.sub("", one["content"])} for one in so_far]
        shown[question] = turn
    assert len(shown) == CONVERSATIONS * TURNS


def test_several_workers_answer_one_conversation(server: RagServer) -> None:
    session_id = new_id()
    before = {pid: cpu_ticks(pid) for pid in server.worker_pids()}
    assert len(before) == 4
    with ThreadPoolExecutor(8) as visitors:
        answers = visitors.map(
            lambda number: httpx.post(
                f"{server.base_url}/chat",
                json={"message": f"What does error E17 mean, {number}?", "session_id": session_id},
                headers={"Connection": "close"}, timeout=60, trust_env=False, verify=False,
            ).status_code,
            range(120),
        )  # fmt: skip
        assert set(answers) == {200}
    worked = [pid for pid, ticks in before.items() if cpu_ticks(pid) > ticks]
    assert len(worked) >= 2
    assert len(history_of(server, session_id)) == 20


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_at_most_twenty_messages_are_kept_and_they_are_the_newest(client: httpx.Client, server: RagServer) -> None:
    session_id = new_id()
    for number in range(13):
        answer = client.post("/chat", json={"message": f"Question number {number}?", "session_id": session_id})
        assert answer.status_code == 200
    history = history_of(server, session_id)
    assert len(history) == 20
    questions = [turn["content"] for turn in history if turn["role"] == "user"]
    assert questions == [f"Question number {number}?" for number in range(3, 13)]


def test_an_unknown_conversation_looks_like_an_empty_one(client: httpx.Client) -> None:
    emptied, unknown = new_id(), new_id()
    client.post("/chat", json={"message": "How long does the warranty last?", "session_id": emptied})
    client.delete(f"/sessions/{emptied}")
    answers = [client.get(f"/sessions/{session_id}/history") for session_id in (emptied, unknown)]
    assert [answer.status_code for answer in answers] == [200, 200]
    for answer, session_id in zip(answers, (emptied, unknown), strict=True):
        assert answer.json() == {"session_id": session_id, "history": []}


def test_forgetting_answers_the_same_for_known_and_unknown(client: httpx.Client, server: RagServer) -> None:
    known, unknown = new_id(), new_id()
    client.post("/chat", json={"message": "How long does the warranty last?", "session_id": known})
    assert len(history_of(server, known)) == 2
    answers = [client.delete(f"/sessions/{session_id}") for session_id in (known, unknown, known)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert answers[0].json().keys() == {"message"}
    assert history_of(server, known) == []


def test_a_claimed_history_restores_only_what_the_server_does_not_know(client: httpx.Client, server: RagServer) -> None:
    session_id = new_id()
    claimed = said(("user", "Is there a Reef plan?"), ("assistant", "Yes."))
    first = client.post("/chat", json={"message": "Since when?", "session_id": session_id, "history": claimed}).json()
    expected = [*claimed, *said(("user", "Since when?"), ("assistant", first["response"]))]
    assert history_of(server, session_id) == expected
    invented = said(("user", "Did you promise me a refund?"), ("assistant", "Yes, 500 euros."))
    second = client.post("/chat", json={"message": "Really?", "session_id": session_id, "history": invented}).json()
    assert history_of(server, session_id) == [
        *expected, *said(("user", "Really?"), ("assistant", second["response"])),
    ]  # fmt: skip


def test_a_restored_history_is_cut_to_what_is_kept_and_a_timestamp_does_not_hurt(
    client: httpx.Client, server: RagServer
) -> None:
    session_id = new_id()
    claimed: list[dict[str, Any]] = [
        {**turn, "timestamp": stamp}
        for number, stamp in zip(range(15), ["2026-11-20T07:00:00Z", 1_800_000_000, None] * 5, strict=True)
        for turn in said(("user", f"old question {number}"), ("assistant", f"old answer {number}"))
    ]
    body = {"message": "And the newest?", "session_id": session_id, "history": claimed}
    assert (
        client.post("/chat", content=json.dumps(body), headers={"Content-Type": "application/json"}).status_code == 200
    )
    history = history_of(server, session_id)
    assert len(history) == 20
    assert history[0]["content"] == "old question 6"
    assert history[-2]["content"] == "And the newest?"


def test_a_follow_up_question_is_searched_with_the_conversation_in_mind(
    client: httpx.Client, azure: AzureEmulator
) -> None:
    alone = client.post("/chat", json={"message": "And how often must it be done?"}).json()
    session_id = new_id()
    first = {"message": "How is the salinity probe calibrated?", "session_id": session_id}
    assert "calibration" in client.post("/chat", json=first).json()["sources"][0]["url"]
    azure.clear()
    follow_up = {"message": "And how often must it be done?", "session_id": session_id}
    sources = client.post("/chat", json=follow_up).json()["sources"]
    assert "every 90 days" in sources[0]["content_full"]
    assert not any("every 90 days" in source["content_full"] for source in alone["sources"][:1])
    (embedded,) = azure.requests("embeddings")
    assert embedded["body"]["input"] == ["How is the salinity probe calibrated?\nAnd how often must it be done?"]
    (asked,) = azure.requests("chat")
    roles = [message["role"] for message in asked["body"]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert asked["body"]["messages"][1]["content"] == "How is the salinity probe calibrated?"
    assert asked["body"]["messages"][-1]["content"].endswith("Question: And how often must it be done?")


def test_a_question_that_stands_alone_is_searched_alone(client: httpx.Client, azure: AzureEmulator) -> None:
    session_id = new_id()
    client.post("/chat", json={"message": "How is the salinity probe calibrated?", "session_id": session_id})
    azure.clear()
    question = "Which port does the REST API of Brinewell listen on?"
    sources = client.post("/chat", json={"message": question, "session_id": session_id}).json()["sources"]
    assert "8731" in sources[0]["content_full"]
    assert azure.requests("embeddings")[0]["body"]["input"] == [question]


def test_an_answer_that_broke_off_is_not_remembered(
    client: httpx.Client, server: RagServer, azure: AzureEmulator
) -> None:
    session_id = new_id()
    azure.behave(tokens=["one ", "two ", "three ", "four "], token_delay_ms=20)
    azure.fail("cut_stream", target="chat", tokens=2)
    answer = client.post("/chat/stream", json={"message": "How long does the warranty last?", "session_id": session_id})
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names[-1] == "error"
    assert "done" not in names
    assert history_of(server, session_id) == []


def test_a_visitor_who_leaves_in_the_middle_leaves_no_half_answer(
    client: httpx.Client, server: RagServer, azure: AzureEmulator
) -> None:
    session_id = new_id()
    azure.fail("stall_after", target="chat", tokens=2)
    body = {"message": "How long does the warranty last?", "session_id": session_id}
    with client.stream("POST", "/chat/stream", json=body) as answer:
        assert any("event: delta" in line for line in answer.iter_lines() if line == "event: delta")
    assert history_of(server, session_id) == []

"""Answers kept for whoever asks the same again: by the letter, over two workers, in each store."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

QUESTION = "How long does the warranty last?"


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "sqlite":
        yield {}
        return
    if request.param == "postgres":
        with PostgresServer() as postgres:
            yield {"DATABASE_URL": postgres.database()}
        return
    with RedisServer(tmp_path) as redis:
        yield {"REDIS_URL": redis.url}


def ask(server: RagServer, message: str = QUESTION, path: str = "/chat", **more: Any) -> httpx.Response:
    body = {"message": message, **more}
    return httpx.post(f"{server.base_url}{path}", json=body, timeout=60, trust_env=False)


def result(answer: httpx.Response) -> str | None:
    assert answer.status_code == 200
    return answer.headers.get("x-answer-cache")


def calls(azure: AzureEmulator) -> Counter[str]:
    return Counter(seen["kind"] for seen in azure.requests())


def test_the_third_to_ask_is_answered_without_any_call(
    start_server: StartServer, azure: AzureEmulator, store: dict[str, Any]
) -> None:
    server = start_server(ENABLE_CACHING="true", **store)
    first, second = ask(server), ask(server, "  how long does the WARRANTY last ")
    assert (result(first), result(second)) == ("miss", "miss")
    azure.clear()
    third = ask(server)
    assert result(third) == "hit"
    assert not calls(azure)
    for field in ("response", "sources", "degraded", "degraded_codes", "generated", "escalation"):
        assert third.json()[field] == second.json()[field]
    streamed = ask(server, path="/chat/stream")
    assert result(streamed) == "hit"
    assert streamed.text.count("event: delta") >= 1
    done = json.loads(streamed.text.split("event: done\ndata: ")[1].split("\n")[0])
    pieces = [json.loads(line[6:])["text"] for line in streamed.text.splitlines() if line.startswith('data: {"text"')]
    assert "".join(pieces) == done["response"] == third.json()["response"]
    # The conversation goes on from an answer that came from memory.
    session = third.json()["session_id"]
    history = httpx.get(f"{server.base_url}/sessions/{session}/history", trust_env=False).json()["history"]
    assert [turn["content"] for turn in history] == [QUESTION, third.json()["response"]]
    followed = ask(server, "And the battery?", session_id=session)
    assert result(followed) is None


@pytest.mark.parametrize(
    "other",
    ["How long does the warranty not last?", "How long does the warranty last for 2 years?", "last the warranty does"],
)
def test_other_words_are_another_question(shared_server: StartServer, other: str) -> None:
    server = shared_server(ENABLE_CACHING="true")
    for _ in range(3):
        ask(server)
    assert (result(ask(server)), result(ask(server, other))) == ("hit", "miss")


def test_nothing_degraded_or_without_a_source_is_kept(start_server: StartServer, azure: AzureEmulator) -> None:
    server = start_server(ENABLE_CACHING="true")
    azure.fail("status", target="chat", status=401)
    assert [result(ask(server)) for _ in range(3)] == ["miss"] * 3
    azure.heal()
    off_topic = "zyxwv utsrq ponml"
    assert [result(ask(server, off_topic)) for _ in range(4)] == ["miss"] * 4
    assert "hit" in [result(ask(server)) for _ in range(3)]


def test_a_thumb_down_evicts_and_bars_the_answer(
    start_server: StartServer, azure: AzureEmulator, store: dict[str, Any]
) -> None:
    server = start_server(ENABLE_CACHING="true", **store)
    session = [ask(server) for _ in range(3)][-1].json()["session_id"]
    thumb = {"session_id": session, "rating": "down"}
    assert httpx.post(f"{server.base_url}/feedback", json=thumb, trust_env=False).status_code == 204
    assert [result(ask(server)) for _ in range(3)] == ["miss"] * 3


def test_many_who_ask_at_once_cause_one_call(
    start_server: StartServer, azure: AzureEmulator, store: dict[str, Any]
) -> None:
    server = start_server(ENABLE_CACHING="true", **store)
    ask(server)
    azure.clear()
    azure.behave(chat_delay_ms=500)
    with ThreadPoolExecutor(24) as visitors:
        results = Counter(map(result, visitors.map(lambda _: ask(server), range(24))))
    assert results == {"miss": 1, "hit": 23}
    assert calls(azure)["chat"] == 1


def test_one_who_fails_lets_the_next_one_ask(start_server: StartServer, azure: AzureEmulator) -> None:
    server = start_server(ENABLE_CACHING="true", DEGRADED_ANSWERS="false")
    ask(server)
    azure.fail("content_filter_prompt", target="chat", times=1)
    assert ask(server).status_code == 422
    assert result(ask(server)) == "miss"
    assert result(ask(server)) == "hit"


def test_a_hit_costs_nothing_of_the_budget_and_counts(start_server: StartServer, azure: AzureEmulator) -> None:
    server = start_server(ENABLE_CACHING="true", BUDGET_SITE="1000000/day", workers=1)

    def spent() -> str:
        text = httpx.get(f"{server.base_url}/metrics", timeout=20, trust_env=False).text
        return next(line for line in text.splitlines() if line.startswith("rag_budget_spent "))

    for _ in range(2):
        ask(server)
    settled: list[str] = []

    def is_settled() -> bool:
        settled.append(spent())
        return len(settled) > 1 and settled[-1] == settled[-2] and float(settled[-1].split()[1]) < 5_000

    wait_until(is_settled, 15, "both are settled", interval_s=1.1)
    before = settled[-1]
    assert result(ask(server)) == "hit"
    wait_until(
        lambda: 'rag_answer_cache_total{result="hit"} 1.0'
        in httpx.get(f"{server.base_url}/metrics", timeout=20, trust_env=False).text,
        10, "the hit is counted",
    )  # fmt: skip
    assert spent() == before


def test_the_oldest_answers_go_when_there_are_too_many(start_server: StartServer, azure: AzureEmulator) -> None:
    server = start_server(ENABLE_CACHING="true", CACHE_MAX_MB="0.01", workers=1)
    azure.behave(reply="The warranty lasts 37 months [1]. " + "Read on. " * 200)
    questions = [fact.question for fact in FACTS[:8]]
    for question in questions:
        assert result([ask(server, question) for _ in range(3)][-1]) == "hit"
    again = [result(ask(server, question)) for question in questions]
    assert again[0] == "miss"
    assert again[-1] == "hit"

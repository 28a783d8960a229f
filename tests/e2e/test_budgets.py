"""The most that a day may cost, over four workers: many visitors at once, some who leave, workers that are killed."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.server import RagServer
from tests.support.waiting import wait_until

QUESTION = {"message": "How long does the warranty last?"}
CAP = 40_000
SPENT = "today's budget is used up: passages are quoted"


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


def ask(server: RagServer, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.base_url}/chat", json=QUESTION, headers=headers, timeout=60, trust_env=False)


def leave_early(server: RagServer) -> None:
    """Reads the first piece of a stream and goes."""
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream("POST", f"{server.base_url}/chat/stream", json=QUESTION, timeout=60, trust_env=False) as answer,
    ):
        next((piece for piece in answer.iter_bytes() if b"event: delta" in piece), None)


def spent(server: RagServer) -> float:
    """What the server says it has spent or put aside."""
    text = httpx.get(f"{server.base_url}/metrics", timeout=20, trust_env=False).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("rag_budget_spent "))


def test_200_chats_at_once_never_cost_more_than_the_cap(
    start_server: StartServer, azure: AzureEmulator, store: dict[str, Any]
) -> None:
    server = start_server(workers=4, BUDGET_SITE=f"{CAP}/day", **store)
    azure.clear()  # of the probe that is made before the server starts
    with ThreadPoolExecutor(32) as visitors:
        leaving = [visitors.submit(leave_early, server) for _ in range(30)]
        answers = list(visitors.map(lambda _: ask(server), range(200)))
        assert all(one.exception() is None for one in leaving)
    assert Counter(answer.status_code for answer in answers) == {200: 200}
    codes = Counter(tuple(answer.json()["degraded_codes"]) for answer in answers)
    # Those who could not be paid for were answered all the same.
    assert codes[()] > 0
    assert codes["budget",] + codes["embeddings", "budget"] > 0
    assert set(codes) <= {(), ("budget",), ("embeddings", "budget"), ("embeddings",)}
    wait_until(lambda: azure.stats()["now"].get("chat", 0) == 0, 10, "no call is open")
    billed = azure.stats()["billed"]
    assert CAP / 3 < billed <= CAP
    # Once all is settled, what the server counts is at least what was billed, and never above the cap.
    wait_until(lambda: billed <= spent(server) <= CAP, 10, "all is settled")


def test_a_killed_worker_spends_nothing_twice_and_a_restart_forgets_nothing(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=4, BUDGET_SITE=f"{CAP}/day")
    azure.behave(token_delay_ms=20)
    with ThreadPoolExecutor(8) as visitors:
        asked = [visitors.submit(ask, server) for _ in range(8)]
        wait_until(lambda: azure.stats()["now"].get("chat", 0) >= 1, 10, "a call is running")
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        for one in asked:
            with contextlib.suppress(httpx.HTTPError):
                one.result()
    azure.heal()
    before = spent(server)
    server.stop()
    again = start_server(workers=2, BUDGET_SITE=f"{CAP}/day")
    assert spent(again) >= min(before, azure.stats()["billed"])
    with ThreadPoolExecutor(16) as visitors:
        answers = list(visitors.map(lambda _: ask(again), range(100)))
    assert any("budget" in answer.json()["degraded_codes"] for answer in answers)
    assert azure.stats()["billed"] <= CAP


def test_at_the_cap_a_visitor_reads_quotes_and_the_owner_hears_of_it_once(start_server: StartServer) -> None:
    server = start_server(workers=2, BUDGET_SITE="20/day")
    answers = [ask(server).json() for _ in range(6)]
    for answer in answers:
        assert answer["degraded_codes"] == ["embeddings", "budget"]
        assert SPENT in answer["degraded"]
        assert answer["generated"] == "quoted"
        assert "37 months" in answer["response"]
        assert answer["escalation"] == {"reason": "outage"}
    assert server.output.count("today's budget is used up\"") == 1
    text = httpx.get(f"{server.base_url}/metrics", timeout=20, trust_env=False).text
    assert "rag_budget_limit 20.0" in text
    assert 'rag_budget_refusals_total{budget="site"}' in text


def test_refused_is_429_until_midnight_utc(start_server: StartServer) -> None:
    server = start_server(workers=2, BUDGET_SITE="100/day", BUDGET_AT_CAP="refuse", DEGRADED_ANSWERS="true")
    answer = ask(server)
    assert (answer.status_code, answer.json()["code"]) == (429, "budget_spent")
    until_midnight_s = 86_400 - time.time() % 86_400
    assert abs(int(answer.headers["retry-after"]) - until_midnight_s) < 60
    found = httpx.post(f"{server.base_url}/search", json={"query": "warranty"}, timeout=20, trust_env=False)
    assert (found.status_code, len(found.json()["results"])) == (200, 5)


def test_a_visitor_and_a_key_have_budgets_of_their_own(start_server: StartServer) -> None:
    server = start_server(
        workers=2, BUDGET_VISITOR="100/day", BUDGET_KEY="1.00USD/day", PRICE_INPUT="0.15", PRICE_OUTPUT="0.60",
        ADMIN_API_KEY=ADMIN_API_KEY,
    )  # fmt: skip
    visitor, keyed = ask(server), ask(server, **{"X-API-Key": ADMIN_API_KEY})
    assert "budget" in visitor.json()["degraded_codes"]
    assert visitor.headers["x-budget-limit"] == "100"
    assert visitor.headers["x-budget-remaining"] == "100"
    assert keyed.json()["degraded_codes"] == []
    assert (keyed.headers["x-budget-limit"], keyed.headers["x-budget-remaining"]) == ("1.0000", "1.0000")

    def left() -> float:
        return float(ask(server, **{"X-API-Key": ADMIN_API_KEY}).headers["x-budget-remaining"])

    wait_until(lambda: 0.99 < left() < 1, 10, "the first answer is charged")

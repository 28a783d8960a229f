"""Two servers of two workers each on one real PostgreSQL: sound, killed, frozen and started again."""

import asyncio
import base64
import json
import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.month_of_questions import write_month
from tests.support.postgres_server import PgBouncer, PostgresServer
from tests.support.receivers import webhook
from tests.support.server import RagServer, run_module
from tests.support.waiting import wait_until

QUESTION = "How long does the warranty last?"
WITHOUT_MEMORY = "memory unavailable"
RECOVERY_S = 5.0
"""How long a database that is back may go unused, at most."""


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


def chat(server: RagServer, message: str = QUESTION, **body: Any) -> httpx.Response:
    """One chat on a connection of its own, so that any worker may get it."""
    return httpx.post(f"{server.base_url}/chat", json={"message": message, **body}, timeout=30, trust_env=False)


def get(server: RagServer, path: str) -> Any:
    return httpx.get(f"{server.base_url}{path}", timeout=10, trust_env=False).json()


def history(server: RagServer, session_id: str) -> list[dict[str, str]]:
    told = get(server, f"/sessions/{session_id}/history")["history"]
    return [{"role": message["role"], "content": message["content"]} for message in told]


def test_two_servers_share_one_database_through_its_bad_hours(
    start_server: StartServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.database()
    with PgBouncer(postgres, pool_size=8) as bouncer:
        # One is behind PgBouncer: they agree all the same.
        servers = [
            start_server(
                workers=2, folder=tmp_path / name, DATABASE_URL=address, RATE_LIMIT_CHAT="100000/minute",
                RATE_LIMIT_SEARCH="20/minute", ADMIN_API_KEY="k" * 32,
            )
            for name, address in (("first", url), ("second", bouncer.url(url)))
        ]  # fmt: skip
        a_conversation_goes_on_at_the_other(servers)
        limits_hold_over_both(servers)
        a_killed_worker_loses_no_remembered_message(servers)
        a_restart_and_a_freeze_heal(servers, postgres)
        metrics = httpx.get(f"{servers[0].base_url}/metrics", timeout=10, trust_env=False).text
        assert 'rag_database_connections{state="allowed"}' in metrics
        assert all("Traceback" not in server.output for server in servers)
        files = {path.name for server in servers for path in server.folder.glob("state/*.sqlite3")}
        assert not files & {"conversations.sqlite3", "rate_limits.sqlite3", "feedback.sqlite3"}


def test_the_owner_of_two_servers_sees_one_site(
    start_server: StartServer, postgres: PostgresServer, azure: AzureEmulator, site_build: Path, tmp_path: Path
) -> None:
    url = postgres.database()
    asyncio.run(write_month(tmp_path / "before", until_s=time.time(), questions=600))
    brought = run_module("rag.database", "import", str(tmp_path / "before"), env={"DATABASE_URL": url}, cwd=tmp_path)
    assert "differ" not in brought.stdout
    with PgBouncer(postgres, pool_size=8) as bouncer, webhook() as hook:
        settings = {
            "ADMIN_API_KEY": "k" * 32, "QUESTION_LOG": "all", "ENABLE_CACHING": "true", "WEEKLY_SUMMARY": "true",
            "ESCALATION_WEBHOOK_URL": hook.url, "ESCALATION_ALLOW_PRIVATE": "true",
            "ESCALATION_WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"0" * 32).decode(),
        }  # fmt: skip
        one, other = (
            start_server(workers=2, folder=tmp_path / name, DATABASE_URL=address, **settings)
            for name, address in (("first", url), ("second", bouncer.url(url)))
        )

        def asked() -> dict[str, Any]:
            return {row["question"]: row for row in owners(other, "questions?limit=200")["questions"]}

        asked_before = asked().get(QUESTION, {}).get("count", 0)
        # Kept for both, and void for both.
        first = chat(one, session_id="a-visitor-of-the-first")
        assert [answer.headers["x-answer-cache"] for answer in (first, chat(other), chat(one))] == [
            "miss",
            "miss",
            "hit",
        ]
        wait_until(lambda: asked().get(QUESTION, {}).get("count") == asked_before + 3, 20, "the questions are kept")
        thumb = {"session_id": "a-visitor-of-the-first", "rating": "down", "reason": "not for schools"}
        httpx.post(f"{other.base_url}/feedback", json=thumb, timeout=10, trust_env=False).raise_for_status()
        assert chat(one).headers["x-answer-cache"] == "miss"
        wait_until(lambda: asked().get(QUESTION, {}).get("disliked"), 10, "the questions of the first are at the other")
        assert len(owners(other, "usage")["days"]) >= 30
        told = run_module(
            "rag.gaps", env={**azure.environment, "VECTOR_DB_PATH": str(site_build), "DATABASE_URL": url}, cwd=tmp_path
        )
        for first in (owners(one, "gaps")["gaps"][0]["question"], told.stdout.splitlines()[2]):
            assert "scholarship" in first.lower()
        before = asked()[QUESTION]["count"]
        httpx.delete(
            f"{other.base_url}/sessions/a-visitor-of-the-first", timeout=10, trust_env=False
        ).raise_for_status()
        assert (asked()[QUESTION]["count"], asked()[QUESTION]["disliked"]) == (before - 1, 0)

        httpx.post(
            f"{one.base_url}/handoff", json={"session_id": "a" * 16, "email": "ada@example.org", "message": "Call."},
            timeout=10, trust_env=False,
        ).raise_for_status()  # fmt: skip
        wait_until(lambda: len(hook.got) == 2, 10, "the summary and the message have arrived")
        kinds = sorted(json.loads(body)["type"] for _, body in hook.got)
        assert kinds == ["handoff.requested", "summary.weekly"], "each once over both servers"
        with postgres.connect(url.rpartition("/")[2]) as connection:
            left = "SELECT count(*) FROM rag.outbox"
            wait_until(lambda: connection.execute(left).fetchone() == (0,), 10, "nothing of it is left")
        assert not [path for server in (one, other) for path in server.folder.glob("state/*.sqlite3")]
        assert all("Traceback" not in server.output for server in (one, other))


def owners(server: RagServer, path: str) -> Any:
    headers = {"Authorization": "Bearer " + "k" * 32}
    return httpx.get(f"{server.base_url}/admin/{path}", headers=headers, timeout=10, trust_env=False).json()


def a_conversation_goes_on_at_the_other(servers: list[RagServer]) -> None:
    session_id, told = f"shared-{secrets.token_hex(8)}", list[dict[str, str]]()
    for number in range(4):
        question = f"Question {number}: {QUESTION}"
        answer = chat(servers[number % 2], question, session_id=session_id).json()
        assert answer["degraded"] is None
        told += [{"role": "user", "content": question}, {"role": "assistant", "content": answer["response"]}]
    assert [history(server, session_id) for server in servers] == [told, told]
    httpx.post(
        f"{servers[0].base_url}/feedback", json={"session_id": session_id, "rating": "up"}, timeout=10, trust_env=False
    ).raise_for_status()
    owner = {"Authorization": "Bearer " + "k" * 32}
    thumbs = httpx.get(f"{servers[1].base_url}/feedback", headers=owner, timeout=10, trust_env=False).json()
    assert [one["answer"] for one in thumbs["feedback"]] == [told[-1]["content"]]
    httpx.delete(f"{servers[1].base_url}/sessions/{session_id}", timeout=10, trust_env=False).raise_for_status()
    assert history(servers[0], session_id) == []
    thumbs = httpx.get(f"{servers[0].base_url}/feedback", headers=owner, timeout=10, trust_env=False).json()
    assert thumbs["feedback"] == []


def limits_hold_over_both(servers: list[RagServer]) -> None:
    # Feedback of both parts above counted once, under the same limit.
    def search(number: int) -> int:
        body = {"query": "warranty"}
        server = servers[number % 2]
        return httpx.post(f"{server.base_url}/search", json=body, timeout=30, trust_env=False).status_code

    with ThreadPoolExecutor(16) as visitors:
        answers = Counter(visitors.map(search, range(100)))
    assert answers == {200: 19, 429: 81}


def a_killed_worker_loses_no_remembered_message(servers: list[RagServer]) -> None:
    remembered: dict[str, list[str]] = {}
    stop = threading.Event()

    def visit(number: int) -> None:
        session_id, said = f"visitor-{number}-{secrets.token_hex(8)}", list[str]()
        remembered[session_id] = said
        while not stop.is_set():
            try:
                answer = chat(servers[number % 2], f"{len(said)}: {QUESTION}", session_id=session_id)
            except httpx.TransportError:
                continue  # its worker was killed; what it had answered before must be there
            assert answer.status_code == 200, answer.text
            if answer.json()["degraded"] is None:
                said.append(answer.json()["response"])

    visitors = [threading.Thread(target=visit, args=[number]) for number in range(6)]
    for visitor in visitors:
        visitor.start()
    try:
        for server in servers:
            before = server.worker_pids()
            wait_until(lambda: all(said for said in remembered.values()), 20, "visitors are answered")
            os.kill(before[0], signal.SIGKILL)
            wait_until(
                lambda server=server, before=before: len(set(server.worker_pids()) - {before[0]}) == 2, 20, "replaced"
            )
    finally:
        stop.set()
        for visitor in visitors:
            visitor.join()
    for session_id, said in remembered.items():
        assert len(said) > 1
        kept = [message["content"] for message in history(servers[0], session_id) if message["role"] == "assistant"]
        # One more may be remembered than was read: the answer whose connection died.
        assert [text for text in kept if text in said][-5:] == said[-5:]


def a_restart_and_a_freeze_heal(servers: list[RagServer], postgres: PostgresServer) -> None:
    def answers(count: int) -> list[tuple[httpx.Response, float]]:
        def one(server: RagServer) -> tuple[httpx.Response, float]:
            began = time.monotonic()
            return chat(server), time.monotonic() - began

        with ThreadPoolExecutor(count) as visitors:
            return list(visitors.map(one, (servers * count)[:count]))

    def parts() -> set[str]:
        return {
            get(server, "/ready")[part]["status"] for server in servers for part in ("conversations", "rate_limits")
        }

    def all_is_well() -> bool:
        return {answer.json()["degraded"] for answer, _ in answers(8)} == {None} and parts() == {"ok"}

    session_id = f"kept-{secrets.token_hex(8)}"
    chat(servers[0], session_id=session_id)
    kept = history(servers[1], session_id)
    for away, back in ((postgres.kill, postgres.start), (postgres.freeze, postgres.thaw)):
        away()
        for answer, seconds in answers(16):
            assert (answer.status_code, WITHOUT_MEMORY in answer.json()["degraded"]) == (200, True)
            assert seconds < 8
        assert parts() == {"unavailable"}
        back()
        wait_until(all_is_well, 2 * RECOVERY_S, "all is well again")
    assert history(servers[1], session_id) == kept
    assert len(kept) == 2

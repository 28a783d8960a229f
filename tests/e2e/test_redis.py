"""Two servers of two workers each that share one real Redis: sound, frozen, killed and started again."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.altcha import solved
from tests.support.redis_server import RedisServer
from tests.support.server import RagServer
from tests.support.waiting import wait_until

QUESTION = "How long does the warranty last?"
WITHOUT_MEMORY = "memory unavailable"
RECOVERY_S = 5.0
"""How long a Redis that is back may go unused, at most."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as running:
        yield running


@pytest.fixture
def start_two(start_server: StartServer, redis: RedisServer, tmp_path: Path) -> Callable[..., list[RagServer]]:
    def start(**settings: Any) -> list[RagServer]:
        return [
            start_server(workers=2, folder=tmp_path / name, REDIS_URL=redis.url, **settings)
            for name in ("first", "second")
        ]

    return start


def chat(server: RagServer, message: str = QUESTION, **body: Any) -> httpx.Response:
    """One chat on a connection of its own, so that any worker may get it."""
    return httpx.post(f"{server.base_url}/chat", json={"message": message, **body}, timeout=30, trust_env=False)


def get(server: RagServer, path: str) -> Any:
    return httpx.get(f"{server.base_url}{path}", timeout=10, trust_env=False).json()


def test_a_conversation_goes_on_at_the_other_server(start_two: Callable[..., list[RagServer]]) -> None:
    servers = start_two()
    session_id, told = f"shared-{secrets.token_hex(8)}", list[dict[str, str]]()
    for number in range(6):
        question = f"Question {number}: {QUESTION}"
        answer = chat(servers[number % 2], question, session_id=session_id).json()
        assert answer["degraded"] is None
        told += [{"role": "user", "content": question}, {"role": "assistant", "content": answer["response"]}]
    for server in servers:
        assert get(server, f"/sessions/{session_id}/history")["history"] == told
    claimed = [{"role": "user", "content": "a lie"}, {"role": "assistant", "content": "another"}]
    chat(servers[0], session_id=session_id, history=claimed)
    assert get(servers[1], f"/sessions/{session_id}/history")["history"][:12] == told
    httpx.delete(f"{servers[0].base_url}/sessions/{session_id}", timeout=10, trust_env=False).raise_for_status()
    assert get(servers[1], f"/sessions/{session_id}/history")["history"] == []
    assert not list(servers[0].folder.glob("state/conversations*"))
    assert not list(servers[0].folder.glob("state/rate_limits*"))


def test_two_hundred_chats_at_once_over_both_servers_pass_exactly_twenty(
    start_two: Callable[..., list[RagServer]],
) -> None:
    servers = start_two(RATE_LIMIT_CHAT="20/minute")
    with ThreadPoolExecutor(24) as visitors:
        answers = list(visitors.map(lambda number: chat(servers[number % 2]), range(200)))
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 180}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in answers if answer.status_code == 429)


@dataclass
class Seen:
    """What visitors and a probe saw."""

    chats: list[tuple[float, int, str | None, float]] = field(default_factory=list)
    """(when it was sent, status, degraded, seconds)"""
    health: list[float] = field(default_factory=list)
    """Seconds."""
    faults: list[str] = field(default_factory=list)

    def between(self, start: float, end: float) -> list[tuple[float, int, str | None, float]]:
        return [one for one in self.chats if start <= one[0] < end]


@contextmanager
def load(servers: list[RagServer]) -> Iterator[Seen]:
    """Eight visitors who chat without pause, and a probe of `/health` at each server, until the block ends."""
    seen, stop = Seen(), threading.Event()

    def again_and_again(server: RagServer, visit: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
            while not stop.is_set():
                try:
                    visit(client)
                except Exception as error:
                    seen.faults.append(repr(error))

    def ask(client: httpx.Client) -> None:
        began = time.monotonic()
        answer = client.post("/chat", json={"message": QUESTION})
        degraded = answer.json().get("degraded", answer.text)
        seen.chats.append((began, answer.status_code, degraded, time.monotonic() - began))

    def probe(client: httpx.Client) -> None:
        began = time.monotonic()
        client.get("/health").raise_for_status()
        seen.health.append(time.monotonic() - began)
        stop.wait(0.05)

    threads = [
        *(threading.Thread(target=again_and_again, args=[servers[number % 2], ask]) for number in range(8)),
        *(threading.Thread(target=again_and_again, args=[server, probe]) for server in servers),
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def freeze(redis: RedisServer) -> Callable[[], None]:
    redis.freeze()
    return redis.thaw


def kill(redis: RedisServer) -> Callable[[], None]:
    redis.kill()
    return redis.start


@pytest.mark.parametrize("outage", [freeze, kill])
def test_while_redis_is_away_every_chat_is_answered_and_says_what_is_missing_and_all_is_well_soon_after(
    start_two: Callable[..., list[RagServer]],
    redis: RedisServer,
    outage: Callable[[RedisServer], Callable[[], None]],
) -> None:
    servers = start_two(RATE_LIMIT_CHAT="100000/minute")
    workers = [server.worker_pids() for server in servers]

    def states(part: str) -> set[str]:
        return {get(server, "/ready")[part]["status"] for server in servers for _ in range(4)}

    with load(servers) as seen:
        wait_until(lambda: len(seen.chats) > 40, 30, "visitors are answered")
        assert {degraded for _, _, degraded, _ in seen.chats} == {None}
        gone_at = time.monotonic()
        end = outage(redis)
        wait_until(lambda: len(seen.between(gone_at + 1, gone_at + 60)) > 100, 60, "visitors are answered without")
        assert states("conversations") == states("rate_limits") == {"unavailable"}
        back_at = time.monotonic()
        end()
        wait_until(
            lambda: len(seen.between(back_at + RECOVERY_S, back_at + 60)) > 40, 60, "visitors are answered with it"
        )
        assert states("conversations") == states("rate_limits") == {"ok"}

    assert seen.faults == []
    assert {status for _, status, _, _ in seen.chats} == {200}
    missing = [degraded or "" for _, _, degraded, _ in seen.between(gone_at + 1, back_at - 1)]
    assert all(WITHOUT_MEMORY in reason for reason in missing)
    assert {degraded for _, _, degraded, _ in seen.between(back_at + RECOVERY_S, time.monotonic())} == {None}
    before = sorted(seconds for *_, seconds in seen.between(0, gone_at))
    during = sorted(seconds for *_, seconds in seen.between(gone_at, back_at))
    # A quarter second for the limits and half a second for the memory, once; the rest is what the machine needs.
    assert during[-1] < before[-1] + 2.0
    assert sorted(seen.health)[len(seen.health) * 95 // 100] < 0.5
    assert [server.worker_pids() for server in servers] == workers
    assert all("Traceback" not in server.output for server in servers)
    [hits] = redis.client.keys("rag:limit:*")
    assert redis.client.zcard(hits) > 40, "limits are counted in Redis again"


def test_servers_that_start_while_redis_is_away_serve_and_find_it_when_it_comes(
    start_two: Callable[..., list[RagServer]], redis: RedisServer
) -> None:
    redis.kill()
    servers = start_two()
    assert all("each worker limits for itself" in server.output for server in servers)
    first = chat(servers[0])
    assert (first.status_code, WITHOUT_MEMORY in first.json()["degraded"]) == (200, True)
    redis.start()
    wait_until(lambda: {chat(each).json()["degraded"] for each in servers * 3} == {None}, 2 * RECOVERY_S, "recovered")
    session_id = chat(servers[0]).json()["session_id"]
    assert len(get(servers[1], f"/sessions/{session_id}/history")["history"]) == 2


def test_a_visit_holds_at_the_other_server_and_its_proof_counts_once_for_both(
    start_two: Callable[..., list[RagServer]],
) -> None:
    site = {"Origin": "https://www.example.com"}
    servers = start_two(
        ALLOWED_ORIGINS=site["Origin"], BROWSER_SESSIONS="required", VISIT_PROOF="altcha",
        BROWSER_SESSION_SECRET=secrets.token_hex(32),
    )  # fmt: skip

    def begin(server: RagServer, proof: Any = None) -> httpx.Response:
        return httpx.post(f"{server.base_url}/visit", json={"proof": proof}, headers=site, timeout=10, trust_env=False)

    asked = begin(servers[0])
    assert asked.status_code == 428
    proof = solved(asked.json()["proof"])
    begun = begin(servers[1], proof)
    assert begun.status_code == 200
    assert [begin(server, proof).status_code for server in servers * 4] == [428] * 8
    shown = {**site, "Authorization": f"Bearer {begun.json()['token']}"}
    for server in servers:
        answer = httpx.post(
            f"{server.base_url}/search", json={"query": "warranty"}, headers=shown, timeout=10, trust_env=False
        )
        assert answer.status_code == 200

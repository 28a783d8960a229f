"""Keys, closed servers and visits, as callers meet them: real workers, real files, and the command that makes keys."""

import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.altcha import solved
from tests.support.server import RagServer, run_module

SITE = "https://www.example.com"
QUERY, QUESTION = {"query": "warranty"}, {"message": "How long does the warranty last?"}
SECRET = "a-secret-of-32-bytes-or-some-more"


@pytest.fixture
def client_of() -> Iterator[Callable[[RagServer], httpx.Client]]:
    clients = []

    def connect(server: RagServer, **options: Any) -> httpx.Client:
        # A new connection for each request, so that all workers are asked.
        clients.append(httpx.Client(base_url=server.base_url, trust_env=False, timeout=30, verify=False, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def new_key(server: RagServer, *argv: str) -> str:
    done = run_module("rag.keys", *argv, env={"STATE_DIR": str(server.folder / "state")}, cwd=server.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def statuses(server: RagServer, key: str, times: int) -> Counter[int]:
    """One connection each, which the kernel deals to the workers."""
    headers = {"X-API-Key": key, "Connection": "close", "X-Forwarded-For": f"198.51.100.{time.time_ns() % 250}"}
    asked = (
        httpx.get(f"{server.base_url}/sessions/stats", headers=headers, trust_env=False, verify=False)
        for _ in range(times)
    )
    return Counter(answer.status_code for answer in asked)


def eventually(server: RagServer, key: str, status: int, within_s: float) -> float:
    """The seconds until 40 requests in a row all have that status; all workers are among those who answer."""
    began = time.monotonic()
    while statuses(server, key, 40) != {status: 40}:
        assert time.monotonic() - began < within_s, f"{key} is not answered with {status} by every worker"
    return time.monotonic() - began


def test_a_key_is_taken_up_rotated_and_revoked_on_all_four_workers_within_5_seconds(start_server: StartServer) -> None:
    server = start_server(workers=4)
    assert httpx.get(f"{server.base_url}/sessions/stats", trust_env=False).status_code == 404
    old = new_key(server, "new", "owner", "--scopes", "admin")
    assert eventually(server, old, 200, 5.0) < 5
    new = new_key(server, "rotate", "owner", "--grace", "1h")
    assert eventually(server, new, 200, 5.0) < 5
    assert statuses(server, old, 20) == {200: 20}
    file = server.folder / "state" / "keys.jsonl"
    kept = file.read_bytes()
    file.write_bytes(kept[:40])
    time.sleep(1.2)
    assert statuses(server, new, 20) == {200: 20}
    assert "API keys not read, the old ones stay" in server.output
    file.write_bytes(kept)
    new_key(server, "revoke", "owner")
    # With nobody left who could be admin there is no such route any more.
    assert eventually(server, new, 404, 5.0) < 5
    assert statuses(server, old, 20) == {404: 20}
    assert len(server.worker_pids()) == 4


def test_a_closed_server_answers_nobody_without_a_credential(
    start_server: StartServer, client_of: Callable[..., httpx.Client]
) -> None:
    server = start_server(ANONYMOUS_SCOPES="none", API_KEYS=f"{'k' * 32};scopes=chat", ADMIN_API_KEY=ADMIN_API_KEY)
    client = client_of(server)
    completion = {"messages": [{"role": "user", "content": "How long does the warranty last?"}]}
    closed: list[tuple[str, str, Any]] = [
        ("POST", "/chat", QUESTION), ("POST", "/chat/stream", QUESTION), ("POST", "/search", QUERY),
        ("POST", "/api/chat", {"messages": []}), ("POST", "/v1/chat/completions", completion),
        ("GET", "/v1/models", None), ("POST", "/feedback", {}),
        ("GET", "/sessions/a-session-of-somebody/history", None),
        ("DELETE", "/sessions/a-session-of-somebody", None), ("GET", "/sessions/stats", None),
    ]  # fmt: skip
    for method, path, body in closed:
        for headers in ({}, {"Authorization": "Bearer sk-any-word"}):
            answer = client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith('Bearer realm="rag-server"')
            assert ('error="' in answer.headers["www-authenticate"]) == bool(headers)
    for path in ("/", "/health", "/ready", "/metrics", "/widget.js", "/demo", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    keyed = {"Authorization": f"Bearer {'k' * 32}"}
    assert client.post("/chat", json=QUESTION, headers=keyed).status_code == 200
    assert client.post("/v1/chat/completions", json=completion, headers=keyed).status_code == 200
    assert client.get("/v1/models", headers=keyed).status_code == 200
    assert client.post("/search", json=QUERY, headers=keyed).status_code == 403


def test_limits_count_per_key_and_per_subject_and_else_per_address(
    start_server: StartServer, client_of: Callable[..., httpx.Client]
) -> None:
    keys = ["a" * 32, "b" * 32]
    server = start_server(RATE_LIMIT_SEARCH="3/minute", API_KEYS=",".join(keys), JWT_SECRET_KEY=SECRET)
    client = client_of(server)

    def token(subject: str) -> str:
        claims = {"sub": subject, "exp": time.time() + 60, "scope": "search", "jti": str(time.time_ns())}
        return jwt.encode(claims, SECRET, algorithm="HS256")

    callers: list[Callable[[], dict[str, str]]] = [
        lambda: {}, lambda: {"X-API-Key": keys[0]}, lambda: {"X-API-Key": keys[1]},
        lambda: {"Authorization": f"Bearer {token('ann')}"}, lambda: {"Authorization": f"Bearer {token('bob')}"},
    ]  # fmt: skip
    for place, headers in enumerate(callers):
        # From four addresses: a key's limit is no address' limit. A stranger has but one.
        addresses = [f"198.51.100.{0 if place == 0 else number}" for number in range(4)]
        answers = [client.post("/search", json=QUERY, headers={**headers(), "X-Forwarded-For": address})
                   for address in addresses]  # fmt: skip
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429], place


def visit(client: httpx.Client, proof: Any = None, **headers: str) -> httpx.Response:
    return client.post("/visit", json={"proof": proof} if proof else {}, headers={"Origin": SITE, **headers})


def test_where_visits_are_required_a_page_asks_with_one_and_nobody_without(
    start_server: StartServer, client_of: Callable[..., httpx.Client]
) -> None:
    server = start_server(
        ALLOWED_ORIGINS=SITE, BROWSER_SESSIONS="required", API_KEYS="k" * 32, RATE_LIMIT_CHAT="2/minute", workers=4
    )
    client = client_of(server, headers={"Connection": "close"})
    begun = visit(client)
    assert begun.status_code == 200
    assert set(begun.json()) == {"token", "expires_at", "proof"}
    assert begun.json()["proof"] is None
    assert begun.headers["cache-control"] == "no-store"
    assert begun.headers["access-control-allow-origin"] == SITE
    token = {"Authorization": f"Bearer {begun.json()['token']}"}
    # All four workers know it, and a key needs no page.
    for _ in range(12):
        assert client.post("/search", json=QUERY, headers={"Origin": SITE, **token}).status_code == 200
    assert client.post("/search", json=QUERY, headers={"X-API-Key": "k" * 32}).status_code == 200
    for headers in (
        {},
        {"Origin": SITE},
        token,
        {**token, "Origin": "https://evil.example"},
        {**token, "Origin": "null"},
    ):
        assert client.post("/search", json=QUERY, headers=headers).status_code == 401, headers
    # Another visit of the same address does not bring another allowance.
    chats = []
    for _ in range(4):
        another = {"Authorization": f"Bearer {visit(client).json()['token']}", "Origin": SITE}
        chats.append(client.post("/chat", json=QUESTION, headers=another).status_code)
    assert chats == [200, 200, 429, 429]
    [secret] = (server.folder / "state").glob("visit_secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text("ascii") not in server.output


def test_visits_begin_for_allowed_pages_alone_and_ten_times_a_minute(
    start_server: StartServer, client_of: Callable[..., httpx.Client]
) -> None:
    server = start_server(ALLOWED_ORIGINS=SITE, BROWSER_SESSIONS="on", RATE_LIMIT_ENABLED="true")
    client = client_of(server)
    for number, origin in enumerate(["https://evil.example", "null", "", f"{SITE}.evil.example", SITE.upper()]):
        refused = visit(client, Origin=origin, **{"X-Forwarded-For": f"198.51.100.{number}"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), origin
    assert client.post("/visit", json={}, headers={"X-Forwarded-For": "198.51.101.1"}).status_code == 403
    assert visit(client, **{"Sec-Fetch-Site": "none", "X-Forwarded-For": "198.51.101.2"}).status_code == 403
    assert client.post("/visit", headers={"Origin": SITE, "X-Forwarded-For": "198.51.101.3"}).status_code == 200
    begun = [visit(client, **{"X-Forwarded-For": "198.51.101.4"}).status_code for _ in range(12)]
    assert begun == [200] * 10 + [429] * 2


def test_a_proof_of_work_is_asked_for_and_counts_once_over_all_workers(
    start_server: StartServer, client_of: Callable[..., httpx.Client]
) -> None:
    server = start_server(ALLOWED_ORIGINS=SITE, BROWSER_SESSIONS="on", VISIT_PROOF="altcha", workers=4)
    client = client_of(server, headers={"Connection": "close"})
    asked = visit(client)
    assert (asked.status_code, asked.json()["code"]) == (428, "proof_required")
    assert asked.headers["content-type"] == "application/problem+json"
    challenge = asked.json()["proof"]
    assert visit(client, {**challenge, "number": 0}).status_code == 428
    proof = solved(challenge)
    assert Counter(visit(client, proof).status_code for _ in range(12)) == {200: 1, 428: 11}


def test_with_everything_off_there_is_no_route_and_no_file(
    start_server: StartServer, client_of: Callable[..., httpx.Client]
) -> None:
    server = start_server(workers=1)
    client = client_of(server)
    assert client.post("/visit", json={}, headers={"Origin": SITE}).status_code == 404
    assert client.get("/sessions/stats").status_code == 404
    assert client.get("/sessions/stats", headers={"X-API-Key": "x" * 40}).status_code == 404
    assert "/visit" not in client.get("/openapi.json").json()["paths"]
    assert client.post("/search", json=QUERY).status_code == 200
    names = {path.name for path in (server.folder / "state").iterdir()}
    assert not names & {"visit_secret", "keys.jsonl"}


def test_what_a_caller_is_stands_in_the_line_of_its_request(
    start_server: StartServer, client_of: Callable[..., httpx.Client], tmp_path: Path
) -> None:
    server = start_server(ADMIN_API_KEY=ADMIN_API_KEY, workers=1)
    client_of(server).get("/sessions/stats", headers={"X-API-Key": ADMIN_API_KEY})
    deadline = time.monotonic() + 5
    while '"caller": "key admin"' not in server.output.replace('":"', '": "'):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ADMIN_API_KEY not in server.output

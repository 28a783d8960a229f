"""Attacks on the real server over real sockets: addresses, slow and hostile clients, foreign sessions, secrets."""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.http import admission
from rag.ops import connections
from tests.conftest import ADMIN_API_KEY, StartServer
from tests.soak import scenarios
from tests.support.azure import AzureEmulator
from tests.support.canary import PROMPT_CANARY, Watch
from tests.support.server import RagServer, clean_environment
from tests.support.waiting import REPOSITORY, wait_until

JSON = {"Content-Type": "application/json"}
CROSS_SESSION_ATTEMPTS = int(os.environ.get("CROSS_SESSION_ATTEMPTS", "500"))
"""`make soak` asks for 100,000."""
GROWTH_BYTES = 4 << 20
"""What a worker may grow by in 2,000 hostile requests: caches that fill, far below one body for each."""


@pytest.fixture
def client(server: RagServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=20, trust_env=False) as client:
        yield client


def post(client: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return client.post(path, content=body, headers=JSON)


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/docs", "/demo", "/openapi.json", "/widget.js"])
def test_head_answers_like_get_without_the_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    changing = {"x-request-id", "date"} | ({"content-length"} if path == "/ready" else set())
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/feedback", "GET, HEAD, POST"), ("HEAD", "/chat", "POST"), ("OPTIONS", "/chat", "POST"),
        ("PATCH", "/sessions/some-session-0001", "DELETE"), ("TRACE", "/", "GET, HEAD"), ("DELETE", "/search", "POST"),
        ("POST", "/static/docs.js", "GET, HEAD"),
    ],
)  # fmt: skip
def test_a_wrong_method_is_told_the_right_ones(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


TWICE = {
    "plainly": b'{"query": "warranty", "query": "price"}',
    "with an escape": b'{"query": "warranty", "qu\\u0065ry": "price"}',
    "further inside": b'{"query": "warranty", "more": [{"a": 1, "b": {"c": 1, "c": 2}}]}',
}


@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE.keys())
def test_a_field_that_stands_twice_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = post(client, "/search", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "twice" in answer.json()["detail"]


def test_the_same_name_in_two_objects_is_no_repetition(client: httpx.Client) -> None:
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    body = json.dumps({"message": "How long does the warranty last?", "history": history}).encode()
    assert post(client, "/chat", body).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"message": "warranty", "history": [{"role": "user", "content": "a\x00b"}]}),
        ("/feedback", {"session_id": "some-session-0001", "rating": "up", "reason": "a\x00b"}),
        ("/feedback", {"session_id": "some-session-0001\u202e", "rating": "up"}),
        ("/chat", {"message": "warranty", "session_id": "\u2066some-session-0001"}),
        ("/chat", {"message": "warranty", "session_id": "some-session\r\nX: 0001"}),
    ],
)
def test_nul_bidi_controls_and_line_breaks_are_refused_where_they_have_no_meaning(
    client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_whole_number_may_be_written_with_a_point(client: httpx.Client) -> None:
    assert len(post(client, "/search", b'{"query": "warranty", "k": 2.0}').json()["results"]) == 2


@pytest.mark.parametrize("host", [b"evil.example", b"[::1", b"a@b:zz/%%", b"evil.example:99999999", b""])
def test_a_redirect_never_leads_to_a_host_that_the_client_made_up(server: RagServer, host: bytes) -> None:
    answer = ask_raw(server.port, b"GET /health/ HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 307")
    assert re.findall(rb"\r\nlocation: (.*)\r\n", answer) == [b"/health"]


def ask_raw(port: int, request: bytes, timeout_s: float = 10.0) -> bytes:
    """Everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def seconds_until_dropped(port: int, first: bytes, drop: bytes, limit_s: float) -> tuple[float, bytes]:
    """Sends `first`, then `drop` twice a second, until the server closes."""
    began, got = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
        connection.sendall(first)
        while time.monotonic() - began < limit_s:
            try:
                piece = connection.recv(65536)
                if not piece:
                    break
                got += piece
            except TimeoutError:
                try:
                    connection.sendall(drop)
                except OSError:
                    break
            except OSError:
                break
    return time.monotonic() - began, got


def test_whoever_sends_slowly_loses_the_connection_in_the_stated_time(server: RagServer) -> None:
    chunk = b"1\r\nx\r\n"
    head = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    slow_body_s = admission.BODY_TIMEOUT_S + connections.LINGER_S
    attacks = {
        "head": (b"GET / HTTP/1.1\r\nX-Slow: ", b"a", connections.HEAD_TIMEOUT_S),
        "nothing": (b"", b"", connections.HEAD_TIMEOUT_S),
        "body": (head + b"Content-Length: 1000\r\n\r\n", b" ", slow_body_s),
        "chunks": (
            head + b"Transfer-Encoding: chunked\r\n\r\n",
            chunk,
            slow_body_s,
        ),
        "refused": (head + b"Content-Length: 99999999\r\n\r\n", b"xxxx", connections.LINGER_S),
    }
    with ThreadPoolExecutor(len(attacks)) as threads:
        running = {name: threads.submit(seconds_until_dropped, server.port, first, drop, 40.0)
                   for name, (first, drop, _) in attacks.items()}  # fmt: skip
        found = {name: one.result() for name, one in running.items()}
    for name, (_, _, bound_s) in attacks.items():
        # The server looks once a second; the rest is for a busy machine.
        assert bound_s - 1 < found[name][0] < bound_s + 6, name
    assert found["head"][1] == found["nothing"][1] == b""
    for name in ("body", "chunks"):
        assert found[name][1].startswith(b"HTTP/1.1 422")
        assert b"did not arrive in time" in found[name][1]
    assert found["refused"][1].startswith(b"HTTP/1.1 413")


def hostile_requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, what httpx is given): every kind of refusal that a body or a header can earn, again and again."""
    deep = b'{"message": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    deeper = b"[" * 100_000
    bodies = [
        deep, deeper, *TWICE.values(), b'{"message": "\xff\xfe"}', b'{"message": "\\ud800"}', b'{"message": NaN}',
        b'{"message": "a\\u0000b"}', b'{"message": "' + b"x" * 60_000 + b'"}', b"{" + b'"a":1,' * 9_000 + b'"b":1}',
        b'{"message": "x", "history": [' + b'{"role":"system","content":"x"},' * 1500 + b"1]}", b"", b"\x00" * 1000,
        b'{"message": "m", "session_id": "' + "\u202e".encode() * 20 + b'"}', b"x" * 200_000,
    ]  # fmt: skip
    number = 0
    while True:
        for body in bodies:
            number += 1
            headers = {
                **JSON,
                "X-Request-ID": f"bad\u202e{number}".encode(),
                "X-Forwarded-For": f"10.0.{number % 250}.1",
            }
            yield ("/chat", "/search", "/chat/stream", "/feedback")[number % 4], {"content": body, "headers": headers}


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


def test_2000_hostile_requests_are_all_refused_and_leave_one_log_line_each_and_no_memory(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1)
    (pid,) = server.worker_pids()
    attacks = hostile_requests()
    azure.clear()
    seen: Counter[int] = Counter()
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:

        def attack(times: int) -> None:
            for _, (path, request) in zip(range(times), attacks, strict=False):
                answer = client.post(path, **request)
                assert answer.json()["request_id"] == answer.headers["x-request-id"]
                seen[answer.status_code] += 1

        attack(300)
        before = resident_bytes(pid)
        attack(2000)
        grown = resident_bytes(pid) - before
    assert set(seen) == {413, 422}
    assert grown < GROWTH_BYTES
    assert server.worker_pids() == [pid]
    assert azure.requests() == []

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in server.output.splitlines() if '"rag.access_log"' in line]

    wait_until(lambda: len([line for line in lines() if line["status"] in (413, 422)]) == 2300)
    log = server.output[server.output.index('{"time"') :].splitlines()
    assert all(isinstance(json.loads(line), dict) for line in log)
    assert "\u202e" not in server.output
    assert "Traceback" not in server.output


def test_a_foreign_session_can_be_neither_read_nor_told_from_a_missing_one(client: httpx.Client) -> None:
    scenarios.guesses(client, CROSS_SESSION_ATTEMPTS)


@pytest.mark.parametrize("path", ["", "/../", "/%2e%2e/", "/stats%2f..%2f", "/%00", "/*", "/%25", "/' OR 1=1 --"])
def test_no_spelling_of_an_address_reaches_another_session(client: httpx.Client, path: str) -> None:
    victim = client.post("/chat", json={"message": "How long does the warranty last?"}).json()["session_id"]
    answer = client.get(f"/sessions/{path}/{victim}x/history")
    assert "37 months" not in answer.text
    assert answer.status_code in (200, 404, 422)
    assert answer.status_code != 200 or answer.json()["history"] == []


def test_the_time_of_an_answer_does_not_tell_which_ids_are_near(client: httpx.Client) -> None:
    victim = client.post("/chat", json={"message": "How long does the warranty last?"}).json()["session_id"]
    kinds = {"near": victim[:-2], "far": "0" * (len(victim) - 2)}
    took: dict[str, list[float]] = {"near": [], "far": []}
    for number in range(200):
        for kind, beginning in kinds.items():
            began = time.perf_counter()
            client.get(f"/sessions/{beginning}{number % 100:02}/history")
            took[kind].append(time.perf_counter() - began)
    near, far = (statistics.median(took[kind]) for kind in kinds)
    assert 0.5 < near / far < 2.0


def test_ids_are_not_readable_in_the_files_of_the_state(client: httpx.Client, server: RagServer) -> None:
    victim = client.post("/chat", json={"message": "How long does the warranty last?"}).json()["session_id"]
    files = [file for file in (server.folder / "state").iterdir() if file.is_file()]
    assert files
    assert not [file.name for file in files if victim.encode() in file.read_bytes()]


def first_line_from(port: int, source: str, forwarded: str | None, family: int = socket.AF_INET) -> bytes:
    """The status line for one search that comes from the address `source`, as through a proxy there."""
    to = "127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1"
    body = b'{"query": "warranty"}'
    header = f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
    head = f"POST /search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{header}"
    with socket.create_connection((to, port), timeout=20, source_address=(source, 0)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer.split(b"\r\n")[0]


def passed(lines: list[bytes]) -> int:
    assert set(lines) <= {b"HTTP/1.1 200 OK", b"HTTP/1.1 429 Too Many Requests"}
    return sum(b" 200 " in line for line in lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "::"], ids=["ipv4", "dual stack"])
def test_visitors_behind_a_proxy_of_a_trusted_network_have_limits_of_their_own(
    start_server: StartServer, host: str
) -> None:
    if host == "::" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    server = start_server(workers=1, HOST=host, FORWARDED_ALLOW_IPS="127.8.0.0/13", RATE_LIMIT_SEARCH="2/hour")
    visitors = [f"203.0.113.{number}" for number in range(1, 6)]
    assert passed([first_line_from(server.port, "127.9.0.5", one) for one in visitors]) == 5
    assert passed([first_line_from(server.port, "127.15.255.254", visitors[0]) for _ in range(3)]) == 1
    # Outside of the network the header is anyone's invention, and so is everything left of the proxy's own word.
    assert passed([first_line_from(server.port, "127.16.0.1", one) for one in visitors]) == 2
    invented = [f"198.51.100.{number}, 192.0.2.7" for number in range(5)]
    assert passed([first_line_from(server.port, "127.9.0.5", one) for one in invented]) == 2


def test_a_proxy_on_a_unix_socket_is_one_of_this_machine(
    azure: AzureEmulator, site_build: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rag.sock"
    settings = {**azure.environment, "VECTOR_DB_PATH": str(site_build), "WORKERS": "1", "RATE_LIMIT_SEARCH": "2/hour"}
    command = ["gunicorn", "--config", str(REPOSITORY / "gunicorn.conf.py"), "--bind", f"unix:{path}", "rag_server:app"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=tmp_path, env=clean_environment(tmp_path, settings),
            stdout=log, stderr=subprocess.STDOUT,
        ) as process,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x", timeout=20) as client,
    ):  # fmt: skip
        try:

            def up() -> bool:
                try:
                    return client.get("/ready").status_code == 200
                except httpx.TransportError:
                    assert process.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
                    return False

            wait_until(up, 60.0, "the server answers on its socket", interval_s=0.1)

            def ask(forwarded: str) -> int:
                headers = {"X-Forwarded-For": forwarded}
                return client.post("/search", json={"query": "warranty"}, headers=headers).status_code

            assert [ask(f"203.0.113.{number}") for number in range(5)] == [200] * 5
            assert [ask("203.0.113.1") for _ in range(2)] == [200, 429]
        finally:
            process.terminate()


def test_the_page_of_the_api_needs_nothing_from_elsewhere_and_runs_nothing_inline(client: httpx.Client) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//|<style|<script(?![^>]*\ssrc=)|\son\w+=""", page.text)
    for linked in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        part = client.get(f"/{linked}")
        assert part.status_code == 200
        assert "://" not in part.text
        assert "innerHTML" not in part.text


def test_secrets_are_sent_to_the_model_alone_and_the_watch_of_this_run_has_seen_bodies(
    client: httpx.Client, azure: AzureEmulator, watch: Watch, server: RagServer
) -> None:
    before = watch.looked_at_bytes
    for path in ("/chat", "/chat/stream"):
        client.post(path, json={"message": "How long does the warranty last?"})
    for path in ("/ready", "/metrics", "/openapi.json", "/sessions/stats", "/feedback"):
        client.get(path, headers={"Authorization": f"Bearer {ADMIN_API_KEY}"})
    assert PROMPT_CANARY in json.dumps(azure.requests("chat")[0]["body"])
    assert watch.looked_at_bytes - before > 10_000
    watch.look_at_output()
    assert watch.leaks == []


def test_the_watch_finds_a_secret_in_a_header_a_body_and_over_two_pieces() -> None:
    secret = "swordfish-0123"
    with pytest.MonkeyPatch.context() as patch:
        watch = Watch()
        watch.install(patch)
        watch._secrets[4321] = {secret}
        for headers, pieces in (
            ({"X-Key": secret}, [b"fine"]), ({}, [b"a", secret.encode(), b"b"]), ({}, [b"swordf", b"ish-0123"]),
            ({}, [b"fine", b"as well"]),
        ):  # fmt: skip
            request = httpx.Request("GET", "http://127.0.0.1:4321/")
            httpx.Response(200, headers=headers, content=iter(pieces), request=request).read()
    assert [leak.split(" of ")[0] for leak in watch.leaks] == ["header", "body", "body", "body"]

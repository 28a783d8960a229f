"""What bounds a client before a route sees it: the worker's protocol over real sockets, then the middleware as ASGI.

Times are shortened here; that the real ones hold is for the end-to-end tests.
"""

import asyncio
import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from uvicorn.config import Config

from rag.access import callers
from rag.http import middleware, problems
from rag.ops import connections, gunicorn_worker
from rag.ops.connections import BoundedProtocol
from rag.ops.gunicorn_worker import GentleServer
from rag.settings import Settings
from rag.telemetry.metrics import Metrics
from rag_server import create_app
from tests.support.waiting import free_port, wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENCE_S = 10.0


class App:
    """Answers `ok`; on /endless it writes until nobody reads, on /wait it waits for `go`; a body it leaves unread."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.left = threading.Event()
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = scope["headers"]
        if scope["path"] == "/wait":
            while not self.go.is_set():
                await asyncio.sleep(0.01)
        if scope["path"] == "/read":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            gone = asyncio.ensure_future(_gone(receive))
            while not gone.done():
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)
            self.left.set()
        await send({"type": "http.response.body", "body": b"ok"})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def port(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of one thread with the worker's protocol, every bound a fraction of a second."""
    for name, value in {"HEAD_TIMEOUT_S": 2.0, "LINGER_S": 0.2, "UNSENT_TIMEOUT_S": 0.5}.items():
        monkeypatch.setattr(connections, name, value)
    monkeypatch.setattr(gunicorn_worker, "TICKS_PER_S", 1)
    port = free_port()
    config = Config(
        app, host="127.0.0.1", port=port, http=BoundedProtocol, ws="none", lifespan="off", log_config=None,
        timeout_keep_alive=1, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = GentleServer(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, PATIENCE_S, "the server listens")
    yield port
    app.go.set()
    server.should_exit = True
    thread.join(PATIENCE_S)


def test_the_heart_of_a_worker_beats_until_its_last_answer(app: App) -> None:
    beats: list[float] = []

    async def beat() -> None:
        beats.append(time.monotonic())

    port = free_port()
    server = GentleServer(Config(
        app, host="127.0.0.1", port=port, http=BoundedProtocol, ws="none", lifespan="off", log_config=None,
        callback_notify=beat, timeout_notify=3600, timeout_graceful_shutdown=60,
    ))  # fmt: skip
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, PATIENCE_S, "the server listens")
    with connect(port) as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: bool(app.headers), PATIENCE_S, "the request is running")
        so_far = len(beats)
        server.should_exit = True
        wait_until(lambda: len(beats) >= so_far + 3, PATIENCE_S, "three beats while the server stops")
        app.go.set()
        assert all_of(connection).startswith(b"HTTP/1.1 200")
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def all_of(connection: socket.socket) -> bytes:
    """What arrives until the server closes; TimeoutError if it does not within the patience."""
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def drip(port: int, first: bytes, drop: bytes, every_s: float = 0.05) -> tuple[bytes, float]:
    """Sends `first`, then `drop` again and again; what came back, and the seconds until the server had enough."""
    began = time.monotonic()
    with connect(port) as connection:
        connection.sendall(first)
        connection.settimeout(every_s)
        got = b""
        while time.monotonic() - began < PATIENCE_S:
            try:
                piece = connection.recv(65536)
                if not piece:
                    return got, time.monotonic() - began
                got += piece
            except TimeoutError:
                try:
                    connection.sendall(drop)
                except OSError:
                    return got, time.monotonic() - began
            except ConnectionError:
                return got, time.monotonic() - began
    raise AssertionError(f"the server still listens after {PATIENCE_S:g} s")


def flood(port: int, first: bytes, more: bytes) -> int:
    """Sends `first`, then `more` again and again; how many bytes it took until the server had enough."""
    sent = 0
    with connect(port) as connection:
        connection.sendall(first)
        while sent < 1 << 26:
            try:
                sent += connection.send(more)
            except ConnectionError:
                return sent
    return sent


def problem_of(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert lines[b"content-type"] == b"application/problem+json"
    assert lines[b"x-content-type-options"] == b"nosniff"
    assert int(lines[b"content-length"]) == len(body)
    problem: dict[str, Any] = json.loads(body)
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["request_id"]) == (status, lines[b"x-request-id"].decode())
    return problem


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    with connect(port) as connection:
        assert all_of(connection) == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(port: int) -> None:
    got, after_s = drip(port, b"GET / HTTP/1.1\r\nX-Slow: ", b"a")
    assert got == b""
    assert after_s < 5.0


def test_line_breaks_between_requests_keep_no_connection_alive(port: int) -> None:
    got, after_s = drip(port, REQUEST, b"\r\n")
    assert got.startswith(b"HTTP/1.1 200")
    assert after_s < 5.0


def test_an_answered_request_may_not_send_its_body_for_ever(port: int) -> None:
    got, after_s = drip(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n", b"x")
    assert got.endswith(b"2\r\nok\r\n0\r\n\r\n")
    # The time for a new head must not begin with the rest of an old body.
    assert after_s < 1.8


def test_a_reader_who_stops_reading_loses_the_connection_and_the_answer_stops(port: int, app: App) -> None:
    with connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert app.left.wait(PATIENCE_S)


def test_a_reader_who_reads_slowly_but_steadily_is_served(port: int, app: App) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        read, until = 0, time.monotonic() + 3 * connections.UNSENT_TIMEOUT_S
        while time.monotonic() < until:
            read += len(connection.recv(1 << 20))
        assert not app.left.is_set()
        assert read > 1 << 20


def test_a_head_above_the_bound_is_a_problem_and_one_just_below_is_served(port: int) -> None:
    frame = len(b"/Hostx    X    Connectionclose    ")
    for size, status in ((connections.MAX_HEAD_BYTES - frame, 200), (connections.MAX_HEAD_BYTES - frame + 1, 431)):
        with connect(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"a" * size + b"\r\n\r\n")
            answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert problem_of(answer, 431)["code"] == "request_header_fields_too_large"


def test_a_head_without_an_end_is_cut_off_before_it_fills_the_memory(port: int) -> None:
    assert flood(port, b"GET / HTTP/1.1\r\nX: ", b"a" * 65536) < 1 << 24


@pytest.mark.parametrize(
    ("first", "more"),
    [(b"", b"1;" + b"e" * 60_000 + b"\r\nx\r\n"), (b"0\r\nX: ", b"t" * 60_000)],
    ids=["chunk extensions", "a trailer"],
)
def test_a_chunked_body_of_nothing_but_framing_is_cut_off(port: int, first: bytes, more: bytes) -> None:
    head = b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert flood(port, head + first, more) < 1 << 24


def test_a_trailer_becomes_no_header(port: int, app: App) -> None:
    with connect(port) as connection:
        connection.sendall(
            b"POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        )
        assert all_of(connection).startswith(b"HTTP/1.1 200")
    assert b"x-forwarded-for" not in dict(app.headers)


def test_a_few_requests_at_once_are_answered_in_order_and_a_flood_of_them_is_not_held(port: int) -> None:
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(port) as connection:
        connection.sendall(REQUEST * connections.MAX_PIPELINED + last)
        assert all_of(connection).count(b"HTTP/1.1 200") == connections.MAX_PIPELINED + 1
    with connect(port) as connection:
        connection.sendall(REQUEST * 1000 + last)
        assert all_of(connection).count(b"HTTP/1.1 200") <= 1


@pytest.mark.parametrize(
    "broken",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"POST /read HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_a_problem_and_the_end_of_the_connection(port: int, broken: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(broken)
        assert problem_of(all_of(connection), 400)["code"] == "bad_request"


def test_a_request_for_another_protocol_is_answered_in_this_one(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 200")


@pytest.fixture
def three_at_most(port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(BoundedProtocol, "max_connections", 3)
    # Else the idle ones below would go because of their age.
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 60.0)
    return port


def test_beyond_the_most_connections_one_that_is_idle_goes(three_at_most: int) -> None:
    everyone = [connect(three_at_most) for _ in range(4)]
    answered = []
    for one in reversed(everyone):
        try:
            one.sendall(REQUEST)
            answered.append(one.recv(65536).startswith(b"HTTP/1.1 200"))
        except ConnectionError:
            answered.append(False)
    # The newcomer is served; of those before it, one is gone.
    assert answered[0]
    assert sorted(answered) == [False, True, True, True]
    for one in everyone:
        one.close()


@pytest.mark.parametrize("head", [
    b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
    b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
])  # fmt: skip
def test_bodies_that_never_come_take_no_place_from_those_who_ask(three_at_most: int, head: bytes) -> None:
    waiting = [connect(three_at_most) for _ in range(6)]
    for one in waiting:
        one.sendall(head)
    for _ in range(3):
        with connect(three_at_most) as visitor:
            visitor.sendall(REQUEST)
            assert visitor.recv(65536).startswith(b"HTTP/1.1 200")
    for one in waiting:
        one.close()


def test_a_body_that_never_comes_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.5)
    with connect(port) as connection:
        connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        assert all_of(connection) == b""


def test_a_slow_answer_to_a_whole_request_is_waited_for_also_where_the_next_body_does_not_come(
    port: int, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.2)
    with connect(port) as connection:
        connection.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok")
        connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        time.sleep(2.5)  # two of the looks that are taken once a second
        app.go.set()
        # Then the second one's own time begins, and ends without an answer.
        assert all_of(connection).count(b"HTTP/1.1 200") == 1


def test_one_address_has_a_share_of_the_connections_and_the_machine_itself_and_proxies_have_all(
    port: int, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "max_connections", 2 * connections.ADDRESSES_SHARE)
    monkeypatch.setattr(BoundedProtocol, "is_exempt", staticmethod(lambda address: address == "127.0.0.4"))
    ask = b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    def asking(address: str) -> socket.socket:
        one = socket.create_connection(("127.0.0.1", port), PATIENCE_S, source_address=(address, 0))
        one.sendall(ask)
        return one

    running = [asking(address) for address in ("127.0.0.2", "127.0.0.2", "127.0.0.3", *["127.0.0.4"] * 4)]
    with asking("127.0.0.2") as third:
        problem_of(all_of(third), 503)
    app.go.set()
    for one in running:
        assert all_of(one).startswith(b"HTTP/1.1 200")
        one.close()
    wait_until(lambda: not BoundedProtocol.of_address, PATIENCE_S, "no connection is counted any more")


def test_a_trusted_proxy_is_known_in_both_forms_of_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [ipaddress.ip_network(one) for one in callers.trusted_proxies("172.16.0.0/12, 2001:db8::/32")]
    monkeypatch.setattr(BoundedProtocol, "proxies", networks)
    known = ("127.0.0.1", "::1", "172.17.0.1", "::ffff:172.17.0.1", "2001:db8::7")
    assert [BoundedProtocol.is_exempt(address) for address in known] == [True] * 5
    strangers = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db9::1", "fe80::1%eth0", "unknown", "")
    assert [BoundedProtocol.is_exempt(address) for address in strangers] == [False] * 6


def test_running_requests_are_never_taken_away_and_who_comes_then_is_told(three_at_most: int, app: App) -> None:
    running = [connect(three_at_most) for _ in range(3)]
    for one in running:
        one.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    def refused() -> bytes:
        with connect(three_at_most) as newcomer:
            newcomer.settimeout(0.2)
            try:
                return newcomer.recv(65536)
            except TimeoutError:
                return b""

    answer = wait_until(refused, PATIENCE_S, "a newcomer is refused")
    assert problem_of(answer, 503)["code"] == "service_unavailable"
    app.go.set()
    assert all(all_of(one).startswith(b"HTTP/1.1 200") for one in running)


def asgi(app: Any, scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `app` sends for these messages; after them the client waits for ever."""
    sent: list[dict[str, Any]] = []
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        for message in waiting:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    usual = {"type": "http", "method": "POST", "path": "/chat", "headers": [], "query_string": b""}
    asyncio.run(app({**usual, **scope}, receive, send))
    return sent


async def _never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing may come this far")


def in_context(app: Any, *, headers: list[tuple[bytes, bytes]] | None = None, method: str = "GET") -> Any:
    context = middleware.RequestContext(app, metrics=Metrics(folder=None), tracer=None, apology=problems.apology)
    sent = asgi(context, {"headers": headers or [], "method": method, "route": Route("/route", _never)}, [])
    return sent[0]["status"], dict(sent[0]["headers"]), sent[-1].get("body", b"")


def answering(*headers: tuple[bytes, bytes]) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": scope["method"].encode()})

    return app


def test_a_fault_of_ours_is_a_problem_that_tells_nothing_and_one_log_line_that_tells_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("the password is swordfish")

    with caplog.at_level(logging.INFO):
        status, headers, body = in_context(app)
    assert status == 500
    assert headers[b"content-type"] == b"application/problem+json"
    assert b"swordfish" not in body
    assert "swordfish" in caplog.text
    assert [record.message for record in caplog.records] == ["request broke", "request"]


@pytest.mark.parametrize("path", ["/broken", "/v1/broken"])
@pytest.mark.parametrize("origin", ["https://www.example.com", "https://evil.example"])
def test_a_fault_of_ours_can_be_read_by_the_pages_that_may_call(tmp_path: Path, path: str, origin: str) -> None:
    settings = Settings(demo=True, state_dir=tmp_path, allowed_origins=("https://www.example.com",))
    app = create_app(settings)

    async def broken() -> None:
        raise ValueError("the password is swordfish")

    app.add_api_route(path, broken)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here.example") as client:
            return await client.get(path, headers={"Origin": origin})

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.headers.get("access-control-allow-origin") == (origin if "evil" not in origin else None)
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert answer.headers["x-request-id"]
    fault = answer.json()["error"] if path.startswith("/v1/") else answer.json()
    assert fault["code"] == "internal_error"


def test_head_runs_the_route_of_get_and_is_logged_as_head(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _, _, body = in_context(answering(), method="HEAD")
    assert body == b"GET"
    assert [(record.method, record.route) for record in caplog.records] == [("HEAD", "/route")]


@pytest.mark.parametrize("where", [b"http://evil.example/health?a=b", b"https://evil.example:8443/health?a=b"])
def test_a_redirect_keeps_its_path_and_loses_the_host(where: bytes) -> None:
    assert in_context(answering((b"location", where)))[1][b"location"] == b"/health?a=b"


def test_a_route_may_choose_its_caching_but_not_the_protecting_headers() -> None:
    _, headers, _ = in_context(answering((b"cache-control", b"public, max-age=60")))
    assert headers[b"cache-control"] == b"public, max-age=60"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"content-security-policy"] == b"default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize("path", ["/chat\n", "/\x00", "/sessions/a\r\nb", "/\x7f", "/\x85"])
def test_a_path_with_a_control_character_reaches_nobody(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    context = middleware.RequestContext(_never, metrics=Metrics(folder=None), tracer=None, apology=problems.apology)
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    sent = asgi(context, scope, [])
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (404, "not_found")
    assert [record.route for record in caplog.records if record.message == "request"] == ["unmatched"]


def test_a_refused_origin_is_told_once_a_minute_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]

    async def ok(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    telling = middleware.RefusedOrigins(ok, allowed=["https://www.brinewell.example"], clock_s=lambda: now_s[0])

    def told(origin: str) -> list[str]:
        caplog.clear()
        headers = [(b"host", b"chat.example:8443"), (b"origin", origin.encode())]
        assert asgi(telling, {"type": "http", "method": "POST", "path": "/chat", "headers": headers}, [])
        return [record.origin for record in caplog.records if "ALLOWED_ORIGINS" in record.remedy]

    for silent in ("https://www.brinewell.example", "https://chat.example", "null", "https://x\n.example", "a" * 9000):
        assert told(silent) == []
    assert told("https://brinewell.example") == ["https://brinewell.example"]
    now_s[0] = middleware.TELL_EVERY_S - 1
    assert told("https://other.example") == []
    now_s[0] = middleware.TELL_EVERY_S
    assert told("https://other.example") == ["https://other.example"]

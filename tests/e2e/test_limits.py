"""Limits over four workers, whom they count, and which pages may call: one server as it stands behind a proxy."""

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.support.waiting import wait_until

ALLOWED = "https://www.brinewell.example"
QUESTION = {"message": "How long does the warranty last?"}
_addresses = (f"198.51.{number // 250}.{number % 250 + 1}" for number in count())


@pytest.fixture(scope="module")
def limited(
    site_build: object, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    """Four workers with the contract's own limits and one allowed origin; the test is the trusted proxy before it."""
    settings = {
        **azure_process.environment,
        "VECTOR_DB_PATH": str(site_build),
        "ALLOWED_ORIGINS": f"{ALLOWED},http://localhost:3000",
        "ADMIN_API_KEY": "an-admin-key-0123456789abcdef0123",
    }
    with RagServer.start(settings, tmp_path_factory.mktemp("limited")) as running:
        yield running


@pytest.fixture
def visitor() -> str:
    """An address that no other test has used up."""
    return next(_addresses)


def ask(server: RagServer, forwarded: str | None, path: str = "/chat", method: str = "POST") -> httpx.Response:
    headers = {"Connection": "close"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
    # What every route that answers can read: this dialect or the other.
    body = QUESTION | {"query": "warranty", "messages": [{"role": "user", "content": QUESTION["message"]}]}
    content = None if method == "GET" else body
    # A TLS context is 14 ms of CPU a client, and nobody speaks TLS here.
    return httpx.request(
        method, f"{server.base_url}{path}", json=content, headers=headers, timeout=60, trust_env=False, verify=False
    )


def statuses(server: RagServer, forwarded: list[str | None], path: str = "/chat", method: str = "POST") -> Counter[int]:
    with ThreadPoolExecutor(32) as visitors:
        answers = visitors.map(lambda one: ask(server, one, path, method), forwarded)
        return Counter(answer.status_code for answer in answers)


def test_of_200_concurrent_chats_from_one_address_exactly_20_pass(limited: RagServer) -> None:
    assert statuses(limited, [None] * 200) == {200: 20, 429: 180}


def test_of_100_concurrent_searches_exactly_30_pass(limited: RagServer, visitor: str) -> None:
    assert statuses(limited, [visitor] * 100, "/search") == {200: 30, 429: 70}


def test_streams_count_as_chats(limited: RagServer, visitor: str) -> None:
    assert statuses(limited, [visitor] * 12, "/chat/stream") == {200: 12}
    assert statuses(limited, [visitor] * 12, "/chat") == {200: 8, 429: 4}


def test_deletions_are_limited_whatever_the_id_and_never_named_by_it(limited: RagServer, visitor: str) -> None:
    paths = [f"/sessions/a-session-of-nobody-{number}" for number in range(310)]
    answers = [ask(limited, visitor, path, "DELETE") for path in paths]
    assert [answer.status_code for answer in answers] == [200] * 300 + [429] * 10
    assert answers[-1].json()["code"] == "rate_limited"
    wait_until(
        lambda: limited.output.count('"/sessions/{session_id}"') >= 310, 10, "the refused are logged by the route"
    )
    assert "a-session-of-nobody" not in limited.output


def test_every_limited_answer_says_what_is_left(limited: RagServer, visitor: str) -> None:
    answers = [ask(limited, visitor) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["20"] * 21
    assert [int(answer.headers["x-ratelimit-remaining"]) for answer in answers] == [*range(19, -1, -1), 0]
    assert all(int(answer.headers["x-ratelimit-reset"]) > 0 for answer in answers)
    assert not any("retry-after" in answer.headers for answer in answers[:20])


def test_a_refusal_is_a_problem_and_says_when_to_come_back(limited: RagServer, visitor: str) -> None:
    assert statuses(limited, [visitor] * 20) == {200: 20}
    refused = ask(limited, visitor)
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json().keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (refused.json()["status"], refused.json()["code"]) == (429, "rate_limited")
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_a_refused_chat_asks_no_model(limited: RagServer, azure: AzureEmulator, visitor: str) -> None:
    statuses(limited, [visitor] * 20)
    azure.clear()
    assert statuses(limited, [visitor] * 20) == {429: 20}
    assert azure.requests() == []


def test_a_bad_request_counts_like_any_other(limited: RagServer, visitor: str) -> None:
    headers = {"X-Forwarded-For": visitor}
    url = f"{limited.base_url}/chat"
    answers = [
        httpx.post(url, content=b"{", headers=headers, trust_env=False, verify=False).status_code for _ in range(21)
    ]
    assert answers == [422] * 20 + [429]


def test_health_from_loopback_is_never_limited_and_from_elsewhere_it_is(limited: RagServer, visitor: str) -> None:
    assert statuses(limited, [None] * 80, "/health", "GET") == {200: 80}
    assert statuses(limited, [visitor] * 70, "/health", "GET") == {200: 60, 429: 10}


def test_routes_without_a_limit_stay_open_to_one_who_has_used_his_up(limited: RagServer, visitor: str) -> None:
    statuses(limited, [visitor] * 21)
    for path in ("/", "/ready", "/sessions/some-session-0001/history"):
        answer = ask(limited, visitor, path, "GET")
        assert answer.status_code == 200
        assert "x-ratelimit-limit" not in answer.headers


def test_a_proxy_tells_visitors_apart(limited: RagServer) -> None:
    here, there = next(_addresses), next(_addresses)
    assert statuses(limited, [here, there] * 20) == {200: 40}
    assert statuses(limited, [here, there] * 5) == {429: 10}


def test_inventing_earlier_hops_gains_nothing(limited: RagServer, visitor: str) -> None:
    invented = [f"203.0.113.{number}, 10.0.0.{number}, {visitor}" for number in range(40)]
    assert statuses(limited, [*invented]) == {200: 20, 429: 20}
    # The proxy itself may stand in the list behind the visitor: it is trusted, so the visitor is the hop before it.
    assert ask(limited, f"203.0.113.99, {visitor}, 127.0.0.1").status_code == 429


def test_an_address_that_is_none_shares_one_bucket(limited: RagServer) -> None:
    nonsense = [f"visitor-{number}" for number in range(25)]
    assert statuses(limited, [*nonsense]) == {200: 20, 429: 5}


def test_ipv6_is_counted_by_its_network_of_64_bits(limited: RagServer) -> None:
    one_home = [f"2001:db8:0:1:{number:x}::{number:x}" for number in range(1, 31)]
    assert statuses(limited, [*one_home]) == {200: 20, 429: 10}
    assert ask(limited, "2001:db8:0:2::1").status_code == 200


def test_an_ipv4_address_in_ipv6_form_is_the_same_visitor(limited: RagServer, visitor: str) -> None:
    assert statuses(limited, [visitor, f"::ffff:{visitor}"] * 15) == {200: 20, 429: 10}


def test_a_proxy_that_is_not_trusted_is_itself_the_visitor(start_server: StartServer) -> None:
    server = start_server(workers=1, RATE_LIMIT_SEARCH="3/minute", FORWARDED_ALLOW_IPS="192.0.2.1")
    invented: list[str | None] = [f"203.0.113.{number}" for number in range(10)]
    assert statuses(server, invented, "/search") == {200: 3, 429: 7}


def test_a_limit_survives_a_restart(start_server: StartServer) -> None:
    first = start_server(workers=1, RATE_LIMIT_SEARCH="3/hour")
    assert statuses(first, [None] * 3, "/search") == {200: 3}
    first.stop()
    assert statuses(start_server(workers=1, RATE_LIMIT_SEARCH="3/hour"), [None], "/search") == {429: 1}


@pytest.mark.parametrize("origin", [ALLOWED, "http://localhost:3000"])
def test_an_allowed_origin_may_call(limited: RagServer, visitor: str, origin: str) -> None:
    headers = {"Origin": origin, "X-Forwarded-For": visitor}
    answer = httpx.post(
        f"{limited.base_url}/chat", json=QUESTION, headers=headers, timeout=20, trust_env=False, verify=False
    )
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers
    assert "origin" in answer.headers["vary"].lower()
    exposed = answer.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("X-Request-ID", "Retry-After", "X-RateLimit-Remaining"))
    preflight = preflight_of(limited, origin)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert preflight.headers["x-request-id"]


@pytest.mark.parametrize(
    "origin",
    [
        "null", "https://evil.example", f"{ALLOWED}.evil.example", f"{ALLOWED}:444", "http://www.brinewell.example",
        "https://brinewell.example", f"{ALLOWED}/", "HTTPS://WWW.BRINEWELL.EXAMPLE", "https://www.brinewellxexample",
    ],
)  # fmt: skip
def test_another_origin_may_not_call(limited: RagServer, visitor: str, origin: str) -> None:
    headers = {"Origin": origin, "X-Forwarded-For": visitor}
    answer = httpx.post(
        f"{limited.base_url}/search", json={"query": "x"}, headers=headers, trust_env=False, verify=False
    )
    assert "access-control-allow-origin" not in answer.headers
    preflight = preflight_of(limited, origin)
    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers


def preflight_of(server: RagServer, origin: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    return httpx.options(f"{server.base_url}/chat", headers={"Origin": origin, **asked}, trust_env=False, verify=False)


def test_an_allowed_page_can_read_why_it_was_refused(limited: RagServer, visitor: str) -> None:
    statuses(limited, [visitor] * 20)
    headers = {"Origin": ALLOWED, "X-Forwarded-For": visitor}
    for content, status in ((b"{}", 429), (b"x" * 70_000, 429)):
        answer = httpx.post(f"{limited.base_url}/chat", content=content, headers=headers, trust_env=False, verify=False)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ALLOWED


def test_without_allowed_origins_no_page_may_call(server: RagServer) -> None:
    answer = httpx.get(server.base_url, headers={"Origin": ALLOWED}, trust_env=False, verify=False)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_no_spelling_of_a_path_is_answered_uncounted(limited: RagServer) -> None:
    dressings = ("{}%0A", "{}%0a%0a", "{}%0D", "{}%00", "{}/", "/{}", "{}//", "{};x=1", "{}%20", "{}?x", "{}%3F",
                 "{}#x", "/.{}", "/x/..{}", "/%2e{}", "{}%2F", "{}%E2%80%A8", "{}%C2%85", "/static/..{}")  # fmt: skip
    routes = ("/chat", "/search", "/%63hat", "/%2563hat", "/CHAT", "/v1/chat/completions", "/api/chat")
    answered = set()
    for path in [dressing.format(route) for route in routes for dressing in dressings]:
        answer = ask(limited, next(_addresses), path)
        assert answer.status_code < 500, path
        if answer.status_code < 300:
            answered.add(path)
            assert int(answer.headers["x-ratelimit-remaining"]) < int(answer.headers["x-ratelimit-limit"]), path
        if "%0" in path:
            form = "application/json" if path.startswith("/v1/") else "application/problem+json"
            assert (answer.status_code, answer.headers["content-type"]) == (404, form), path
    assert {"/chat?x", "/search?x", "/%63hat?x", "/v1/chat/completions?x"} <= answered


def spoken(server: RagServer, *requests: bytes) -> Counter[int]:
    """The statuses of what is sent on one connection, all at once."""
    with socket.create_connection(("127.0.0.1", httpx.URL(server.base_url).port or 80), timeout=30) as connection:
        connection.sendall(b"".join(requests))
        answers, said = b"", list[bytes]()
        while len(said) < len(requests) and (piece := connection.recv(65_536)):
            answers += piece
            said = re.findall(rb"HTTP/1\.[01] (\d{3})", answers)
    return Counter(map(int, said))


@pytest.mark.parametrize(
    ("target", "version", "more"),
    [(b"/chat", b"1.0", b""), (b"http://brinewell.example/chat", b"1.1", b"Host: other.example\r\n"),
     (b"/chat?x=1#/health", b"1.1", b"Host: x\r\n"), (b"/chat", b"1.1", b"Host: x\r\nX-HTTP-Method-Override: GET\r\n")],
)  # fmt: skip
def test_an_odd_way_to_speak_http_is_counted_like_any_other(
    limited: RagServer, visitor: str, target: bytes, version: bytes, more: bytes
) -> None:
    body = json.dumps(QUESTION).encode()
    head = b"POST %b HTTP/%b\r\n%bX-Forwarded-For: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (
        target, version, more, visitor.encode(), len(body)
    )  # fmt: skip
    last = b"Connection: close\r\n\r\n"
    for _ in range(22):
        counted = spoken(limited, head + last + body)
        assert counted.keys() <= {200, 429}
    assert counted == {429: 1}
    assert ask(limited, visitor).status_code == 429


def test_requests_that_are_sent_before_their_answers_are_each_counted(limited: RagServer, visitor: str) -> None:
    body = json.dumps(QUESTION).encode()
    head = b"POST /chat HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %b\r\nContent-Type: application/json\r\n" % (
        visitor.encode()
    )  # fmt: skip
    one = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert spoken(limited, *[one] * 12) + spoken(limited, *[one] * 12) == {200: 20, 429: 4}

"""What a client may send wrongly: each a clear problem of the contract, no 500, nothing of the body or of us in it."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.azure import AzureEmulator
from tests.support.server import RagServer

JSON = {"Content-Type": "application/json"}
CANARY = "Zanzibarquokka"
"""In every bad body: it must never come back."""
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


@pytest.fixture
def client(server: RagServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=20, trust_env=False) as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Holds the answer to the contract; returns its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"].endswith(".")
    assert CANARY.lower() not in answer.text.lower()
    for ours in ("Traceback", "pydantic", "rag/", "/work", "/tmp", "emulated", "JSONDecodeError", "urn:uuid"):
        assert ours not in answer.text
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    return body


NOT_JSON = {
    "NaN": f'{{"query": "{CANARY}", "k": NaN}}'.encode(),
    "an infinite number": f'{{"query": "{CANARY}", "k": 1e999}}'.encode(),
    "a lone surrogate": f'{{"query": "{CANARY} \\ud800"}}'.encode(),
    "a lone surrogate in a name": f'{{"query": "{CANARY}", "\\udfff": 1}}'.encode(),
    "invalid UTF-8": b'{"query": "' + CANARY.encode() + b' \xff\xfe"}',
    "a deep list": f'{{"query": "{CANARY}", "more": {"[" * 20_000}{"]" * 20_000}}}'.encode(),
    "a cut body": f'{{"query": "{CANARY}'.encode(),
    "an empty body with a type": b" ",
    "two documents": f'{{"query": "{CANARY}"}} {{}}'.encode(),
    "a huge whole number": f'{{"query": "{CANARY}", "k": {"9" * 6000}}}'.encode(),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize("path", ["/search", "/chat", "/chat/stream"])
def test_a_body_that_is_not_json_is_a_422(client: httpx.Client, path: str, body: bytes) -> None:
    assert_problem(client.post(path, content=body, headers=JSON), 422, "invalid_request")


BAD_SEARCHES: dict[str, tuple[Any, str]] = {
    "a negative k": ({"query": CANARY, "k": -3}, "k"),
    "no passages": ({"query": CANARY, "k": 0}, "k"),
    "too many passages": ({"query": CANARY, "k": 21}, "k"),
    "a fraction": ({"query": CANARY, "k": 2.5}, "k"),
    "a truth": ({"query": CANARY, "k": True}, "k"),
    "a number in quotes": ({"query": CANARY, "k": "5"}, "k"),
    "k as a list": ({"query": CANARY, "k": [5]}, "k"),
    "k as null": ({"query": CANARY, "k": None}, "k"),
    "a k beyond all bounds": ({"query": CANARY, "k": 10**18}, "k"),
    "a query as a list": ({"query": [CANARY]}, "query"),
    "a query as a number": ({"query": 5}, "query"),
    "no query": ({"k": 5, "Query": CANARY}, "query"),
    "an empty query": ({"query": ""}, "query"),
    "a blank query": ({"query": " \n\t "}, "question"),
    "a NUL": ({"query": f"{CANARY}\x00"}, "question"),
    "a list": ([CANARY], "body"),
    "a text": (CANARY, "body"),
    "null": (None, "body"),
}


@pytest.mark.parametrize(("body", "named"), BAD_SEARCHES.values(), ids=BAD_SEARCHES.keys())
def test_a_search_of_a_wrong_form_is_told_what_is_wrong(client: httpx.Client, body: Any, named: str) -> None:
    problem = assert_problem(client.post("/search", content=json.dumps(body), headers=JSON), 422, "invalid_request")
    assert named in problem["detail"].lower()


BAD_CHATS: dict[str, tuple[dict[str, Any], str]] = {
    "an empty message": ({"message": ""}, "message"),
    "a blank message": ({"message": "   "}, "question"),
    "a NUL": ({"message": "a\x00b"}, "question"),
    "a message as an object": ({"message": {"text": CANARY}}, "message"),
    "a message that is too long": ({"message": CANARY + "x" * 4000}, "4,000"),
    "a short session id": ({"message": CANARY, "session_id": "short"}, "session_id"),
    "an empty session id": ({"message": CANARY, "session_id": ""}, "session_id"),
    "a long session id": ({"message": CANARY, "session_id": "a" * 129}, "session_id"),
    "a session id with a slash": ({"message": CANARY, "session_id": "../../etc/passwd-0000"}, "session_id"),
    "a session id with a line break": ({"message": CANARY, "session_id": "a" * 20 + "\n"}, "session_id"),
    "a session id with a letter of another script": ({"message": CANARY, "session_id": "é" * 20}, "session_id"),
    "a session id as a number": ({"message": CANARY, "session_id": 12345678901234567}, "session_id"),
    "a history that is no list": ({"message": CANARY, "history": "user: hi"}, "history"),
    "a system message": ({"message": CANARY, "history": [{"role": "system", "content": CANARY}]}, "history"),
    "a tool's message": ({"message": CANARY, "history": [{"role": "tool", "content": CANARY}]}, "history"),
    "a turn without content": ({"message": CANARY, "history": [{"role": "user"}]}, "history"),
    "a history of 201 turns": ({"message": CANARY, "history": [{"role": "user", "content": "x"}] * 201}, "history"),
}


@pytest.mark.parametrize(("body", "named"), BAD_CHATS.values(), ids=BAD_CHATS.keys())
def test_a_chat_of_a_wrong_form_is_told_what_is_wrong_and_asks_no_model(
    client: httpx.Client, azure: AzureEmulator, body: dict[str, Any], named: str
) -> None:
    for path in ("/chat", "/chat/stream"):
        problem = assert_problem(client.post(path, json=body), 422, "invalid_request")
        assert named in problem["detail"]
    assert azure.requests() == []


def test_a_message_of_a_megabyte_is_refused_before_it_is_read(client: httpx.Client) -> None:
    assert_problem(client.post("/chat", json={"message": CANARY * 75_000}), 413, "body_too_large")


def test_a_chunked_body_of_100_kb_is_refused_although_it_states_no_length(client: httpx.Client) -> None:
    pieces = (b'{"message": "' + CANARY.encode() * 700 for _ in range(10))
    assert_problem(client.post("/chat", content=pieces, headers=JSON), 413, "body_too_large")


def test_a_body_of_just_64_kib_is_read_and_one_byte_more_is_not(client: httpx.Client) -> None:
    frame = len(json.dumps({"message": ""}))
    largest = json.dumps({"message": "x" * (64 * 1024 - frame)})
    assert_problem(client.post("/chat", content=largest, headers=JSON), 422, "invalid_request")
    assert_problem(client.post("/chat", content=largest + " ", headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/no/such/page", 404, "not_found"),
        ("GET", "/static/../rag_server.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/%2e%2e/rag_server.py", 404, "not_found"),
        ("POST", f"/{CANARY}", 404, "not_found"),
        ("PUT", "/chat", 405, "method_not_allowed"),
        ("GET", "/search", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/sessions/short/history", 422, "invalid_request"),
        ("GET", "/sessions/%00%0d%0aSet-Cookie:x=yyyyyyy/history", 404, "not_found"),
        ("DELETE", "/sessions/%ff%fe-not-utf8-at-all", 422, "invalid_request"),
        ("GET", "/sessions/stats", 401, "unauthorized"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_problem_like_any_other(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    assert_problem(client.request(method, path), status, code)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_of_another_type_is_no_request(client: httpx.Client, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps({"message": CANARY}).encode()
    assert_problem(client.post("/chat", content=body, headers=headers), 422, "invalid_request")


def test_a_sane_request_id_of_the_caller_is_kept(client: httpx.Client) -> None:
    answer = client.get("/", headers={"X-Request-ID": "trace-0123.ABC_9"})
    assert answer.headers["x-request-id"] == "trace-0123.ABC_9"


@pytest.mark.parametrize("given", ["short", "x" * 129, "white space inside", 'quote"inside', "über-lang-genug"])
def test_another_request_id_is_replaced_by_a_new_one(client: httpx.Client, given: str) -> None:
    answer = client.get("/no/such/page", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize("line_break", [b"\r\n ", b"\n ", b"\r", b"\x00", b"\n"])
def test_a_line_break_in_a_request_id_makes_no_header(server: RagServer, line_break: bytes) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: abcdefgh%bSet-Cookie: evil=1\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request % line_break)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith((b"http/1.1 200", b"http/1.1 400"))
    assert b"evil" not in head


def test_security_headers_stand_on_every_kind_of_answer(client: httpx.Client) -> None:
    answers = [
        client.get("/"), client.get("/health"), client.get("/openapi.json"), client.get("/health/"),
        client.post("/search", json={"query": "warranty"}), client.request("OPTIONS", "/chat"),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 200, 200, 307, 200, 405]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers


def test_no_bad_input_left_a_traceback_in_the_log(server: RagServer, client: httpx.Client) -> None:
    for body in (*NOT_JSON.values(), json.dumps({"message": {"text": CANARY}}).encode()):
        assert client.post("/chat", content=body, headers=JSON).status_code == 422
    assert "Traceback" not in server.output
    assert CANARY not in server.output

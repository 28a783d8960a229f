"""The way to a handler: none without a rule; callers are counted before the body is read, and the body is bounded."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request

from rag.access.admission import Admission
from rag.http import admission as gate
from rag.http import problems
from rag.http.admission import AdmittedRoute, rule
from rag.settings import Settings
from tests.support.admission import admission, admitting

Called = tuple[int, dict[str, str], bool]
"""Status, headers, and whether anybody read the body."""


def app_of(**asked: Any) -> FastAPI:
    router = APIRouter(route_class=AdmittedRoute)

    @router.post("/ask/{name}")
    @rule(**asked)
    async def ask(request: Request, name: str) -> dict[str, Any]:
        caller = request.state.caller
        return {"length": len(await request.body()), "scopes": sorted(caller.scopes), "local": caller.is_local}

    app = FastAPI()
    problems.install(app, document=lambda document: None)
    app.include_router(router)
    return app


def call(
    app: FastAPI, by: Admission, *, path: str = "/ask/x", client: str = "192.0.2.1",
    headers: list[tuple[bytes, bytes]] | None = None, messages: list[dict[str, Any]] | None = None,
) -> Called:  # fmt: skip
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": b"{}", "more_body": False}] if messages is None else list(messages)
    reads = 0

    async def receive() -> Any:
        nonlocal reads
        reads += 1
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    added: dict[str, str] = {}
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers or [], "client": (client, 1), "response_headers": added, "scheme": "http",
        "server": ("here", 80), "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(admitting(app, by)(scope, receive, send))
    headers_sent = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], {**headers_sent, **added}, bool(reads)


def test_a_handler_without_a_rule_cannot_be_registered() -> None:
    router = APIRouter(route_class=AdmittedRoute)
    with pytest.raises(TypeError, match="/open has no rule"):

        @router.get("/open")
        async def open_to_whom() -> None:
            """Nobody has said."""


def test_every_route_of_the_server_has_a_rule() -> None:
    from rag_server import create_app

    free = {"/openapi.json", "/static"}
    for route in create_app(Settings(demo=True)).routes:
        assert isinstance(route, AdmittedRoute) or getattr(route, "path", "") in free | {""}, route


def test_what_is_counted_is_the_route_and_not_the_spelling_of_its_path(tmp_path: Path) -> None:
    app, by = app_of(limit="chat", scope="chat"), admission(tmp_path, chat="3/minute")
    paths = ["/ask/x", "/ask/another", "/ask/%78", "/ask/x"]
    assert [call(app, by, path=path)[0] for path in paths] == [200, 200, 200, 429]
    assert call(app, by, client="192.0.2.2")[0] == 200


def test_a_refusal_comes_before_the_body_is_read_and_says_when_to_come_back(tmp_path: Path) -> None:
    app, by = app_of(limit="chat", scope="chat"), admission(tmp_path, chat="1/minute")
    status, headers, body_was_read = call(app, by)
    assert (status, headers["X-RateLimit-Remaining"], body_was_read) == (200, "0", True)
    status, headers, body_was_read = call(app, by)
    assert (status, headers["X-RateLimit-Limit"], body_was_read) == (429, "1", False)
    assert 0 < int(headers["retry-after"]) <= 60


def test_a_probe_on_the_machine_itself_is_not_counted_where_the_rule_says_so(tmp_path: Path) -> None:
    app, by = app_of(limit="health", free_on_loopback=True), admission(tmp_path, health="1/minute")
    assert [call(app, by, client="127.0.0.1")[0] for _ in range(3)] == [200] * 3
    assert [call(app, by)[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(("asked", "status"), [({"scope": "admin"}, 404), ({"scope": "ingest"}, 401), ({}, 200)])
def test_a_stranger_gets_what_strangers_may(asked: dict[str, Any], status: int, tmp_path: Path) -> None:
    assert call(app_of(**asked), admission(tmp_path))[0] == status


def body(size: int, *, last: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": not last}


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., int]:
    app, by = app_of(), admission(tmp_path)
    return lambda *messages, **more: call(app, by, messages=list(messages), **more)[0]


def test_a_body_is_handed_on_whole_and_what_is_too_large_is_not(ask: Callable[..., int]) -> None:
    limit = gate.MAX_BODY_BYTES
    for pieces, status in (([limit], 200), ([limit - 1, 1], 200), ([limit, 1], 413), ([limit + 1], 413)):
        last = len(pieces) - 1
        assert ask(*(body(size, last=place == last) for place, size in enumerate(pieces))) == status


def test_a_length_that_is_too_large_is_refused_before_a_byte_is_read(ask: Callable[..., int]) -> None:
    assert ask(headers=[(b"content-length", b"65537")]) == 413


def test_a_body_that_does_not_come_is_not_waited_for(ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.05)
    assert ask(body(10, last=False)) == 422


def test_a_visitor_who_leaves_while_sending_reaches_no_handler(ask: Callable[..., int]) -> None:
    assert ask(body(10, last=False), {"type": "http.disconnect"}) == 499

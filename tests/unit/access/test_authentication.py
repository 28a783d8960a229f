"""What telling callers apart costs those who show nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rag.access.authentication import authenticator
from rag.settings import Settings
from rag_server import create_app

HEADERS = [
    (b"host", b"www.example.com"), (b"connection", b"keep-alive"), (b"content-length", b"45"),
    (b"sec-ch-ua-platform", b'"Linux"'), (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"*/*"),
    (b"content-type", b"application/json"), (b"sec-ch-ua", b'"Chromium";v="140"'), (b"sec-ch-ua-mobile", b"?0"),
    (b"origin", b"https://www.example.com"), (b"sec-fetch-site", b"same-origin"), (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-dest", b"empty"), (b"referer", b"https://www.example.com/"), (b"accept-encoding", b"gzip, br"),
    (b"accept-language", b"en"),
]  # fmt: skip
"""Those of a browser."""


async def fetch(url: str) -> bytes:
    raise AssertionError("nobody has a token")


async def fastest_s(call: Callable[[], Awaitable[Any]], times: int) -> float:
    """Seconds of CPU of one call, in the best of seven rounds: what else runs here is left out."""
    taken = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(times):
            await call()
        taken.append((time.process_time() - began) / times)
    return min(taken)


def test_without_credentials_it_costs_less_than_3_percent_of_the_smallest_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process: the smallest answer there is, through all middleware, and what of it is for callers' sake."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(state_dir=tmp_path / "state", vector_db_path=tmp_path / "none", demo=True)
    known = authenticator(settings, visits=None, fetch=fetch)
    app = create_app(settings)

    async def compare() -> tuple[float, float]:
        async with app.router.lifespan_context(app) as state:
            scope = {
                "type": "http", "method": "GET", "path": "/health", "raw_path": b"/health", "query_string": b"",
                "root_path": "", "scheme": "http", "http_version": "1.1", "headers": HEADERS, "server": ("x", 80),
                "client": ("127.0.0.1", 1),
            }  # fmt: skip

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                assert message.get("status", 200) == 200

            whole = await fastest_s(lambda: app({**scope, "state": dict(state or {})}, receive, send), 200)
            telling = await fastest_s(lambda: known.identify(HEADERS, any_word=False), 2000)
            return telling, whole

    telling_s, whole_s = asyncio.run(compare())
    print(f"telling callers apart: {telling_s * 1e6:.2f} µs of {whole_s * 1e6:.0f} µs")
    assert telling_s < 0.03 * whole_s

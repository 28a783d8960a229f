"""Fetching one document: what comes late, too large, from elsewhere or not at all is refused."""

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rag.llm.http_client import fetched
from tests.support.waiting import free_port


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1.0)
        self.send_response({"/moved": 302, "/missing": 404}.get(self.path, 200))
        self.send_header("Location", "/sound")
        self.end_headers()
        self.wfile.write(b"x" * (2000 if self.path == "/large" else 20))

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def fetch(url: str, *, timeout_s: float = 10.0) -> bytes:
    return asyncio.run(fetched(url, timeout_s=timeout_s, largest_bytes=1000))


def test_a_sound_document_comes_whole(address: str) -> None:
    assert fetch(f"{address}/sound") == b"x" * 20


@pytest.mark.parametrize(("path", "why"), [("/large", "more than 1000"), ("/moved", "302"), ("/missing", "404")])
def test_what_is_too_large_moved_or_missing_is_refused(path: str, why: str, address: str) -> None:
    with pytest.raises(ValueError, match=why):
        fetch(f"{address}{path}")


def test_what_comes_late_is_not_waited_for(address: str) -> None:
    with pytest.raises(TimeoutError):
        fetch(f"{address}/slow", timeout_s=0.5)


def test_nobody_there_is_a_failure_of_the_transport() -> None:
    with pytest.raises(Exception, match="127"):
        fetch(f"http://127.0.0.1:{free_port()}/keys")

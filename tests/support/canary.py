"""Watches for secrets in everything that leaves a server of the tests: bodies, headers, output. Knows no test.

Bodies and headers are those that `httpx` reads; output is all that the process wrote, tracebacks included.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.server import RagServer

PROMPT_CANARY = "canary-in-the-prompt-5d1f0c7ab2"
"""Stands in the instructions that the tests' servers give to the model."""

_SHORTEST = 8
_TAIL = 200
"""Bytes of a piece that are kept: a secret may be split over two."""


def secrets_of(settings: Mapping[str, str]) -> set[str]:
    """The values of a server's settings that nobody outside may see."""
    keys = {key.strip() for name, value in settings.items() if name.endswith("_API_KEY") for key in value.split(",")}
    password = urlsplit(settings.get("REDIS_URL", "")).password or ""
    return {secret for secret in keys | {password, PROMPT_CANARY} if len(secret) >= _SHORTEST}


class Watch:
    """Notes every server that is started and looks at what it sends."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.looked_at_bytes = 0
        self._servers: list[RagServer] = []
        self._secrets: dict[int, set[str]] = {}

    def started(self, server: RagServer, settings: Mapping[str, str]) -> None:
        self._servers.append(server)
        self._secrets.setdefault(server.port, set()).update(secrets_of(settings))

    def look(self, port: int | None, where: str, sent: bytes) -> None:
        """Notes a leak if the server on `port` has `sent` a secret of its own."""
        self._search(where, sent, self._secrets.get(port or 0, set()))

    def look_at_output(self) -> None:
        for server in self._servers:
            self.look(server.port, f"output of {server.folder.name}", server.output.encode())

    def _search(self, where: str, sent: bytes, secrets: set[str]) -> None:
        self.looked_at_bytes += len(sent) if secrets else 0
        self.leaks += [f"{where}: {secret[:6]}…" for secret in secrets if secret.encode() in sent]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """From now on see every server that starts and every answer that `httpx` reads from one."""
        start = RagServer.start

        def noted_start(env: Mapping[str, str], *args: Any, **kwargs: Any) -> RagServer:
            try:
                server = start(env, *args, **kwargs)
            except RuntimeError as error:  # carries the output of a server that did not start
                self._search("output of a failed start", str(error).encode(), secrets_of(env))
                raise
            self.started(server, env)
            return server

        patch.setattr(RagServer, "start", staticmethod(noted_start))
        patch.setattr(httpx.Response, "iter_bytes", self._seen(httpx.Response.iter_bytes))
        patch.setattr(httpx.Response, "aiter_bytes", self._seen_async(httpx.Response.aiter_bytes))

    def _seen(self, read: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        def iter_bytes(response: httpx.Response, *args: Any) -> Iterator[bytes]:
            before = self._head(response)
            for piece in read(response, *args):
                before = self._body(response, before, piece)
                yield piece

        return iter_bytes

    def _seen_async(self, read: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        async def aiter_bytes(response: httpx.Response, *args: Any) -> AsyncIterator[bytes]:
            before = self._head(response)
            async for piece in read(response, *args):
                before = self._body(response, before, piece)
                yield piece

        return aiter_bytes

    def _head(self, response: httpx.Response) -> bytes:
        self.look(_port(response), _place(response, "header"), repr(response.headers.raw).encode())
        return b""

    def _body(self, response: httpx.Response, before: bytes, piece: bytes) -> bytes:
        self.look(_port(response), _place(response, "body"), before + piece)
        return (before + piece)[-_TAIL:]


def _port(response: httpx.Response) -> int | None:
    try:
        return response.request.url.port
    except RuntimeError:  # made by hand, never asked for
        return None


def _place(response: httpx.Response, part: str) -> str:
    port = _port(response)
    return f"{part} of {response.request.method} {re.sub('[0-9]+', '…', response.request.url.path)}" if port else part

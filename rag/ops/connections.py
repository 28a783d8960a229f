"""One client's connection: what it may occupy, and for how long.

Knows HTTP as uvicorn and httptools read it, and nothing of what is asked.
"""

import asyncio
import logging
import resource
from contextlib import suppress
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rag.access import callers

log = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 10.0
"""From the connection, or the first byte on an idle one, until a request's head has arrived. uvicorn has no bound."""

LINGER_S = 5.0
"""How long the rest of a request may still arrive after its answer is complete, so that the client can read it."""

UNSENT_TIMEOUT_S = 20.0
"""How long written bytes may wait for a reader. Beside them, the system's own socket buffers take in any answer."""

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers together."""

MAX_FRAMING_BYTES = 512 * 1024
"""What a request may send that is not body: its head, chunk sizes, trailers. A body of single-byte chunks fits."""

MAX_PIPELINED = 16
"""Requests that wait on one connection for the answer before theirs."""

MAX_CONNECTIONS = 2000
"""Of one worker; fewer where the system allows too few open files."""

FILES_A_CONNECTION = 3
"""The client's own, and one to the chat model and one to the embedding model, which may be kept for the next."""

OTHER_FILES = 100
"""Index, state, log, metrics, and what a worker listens on: some 50, and as many to spare."""


def places() -> int:
    """How many connections this process has open files for, after raising its limit as far as it needs and may."""
    needed = MAX_CONNECTIONS * FILES_A_CONNECTION + OTHER_FILES
    soft, hard = (needed if limit == resource.RLIM_INFINITY else limit for limit in _open_files())
    if soft < min(needed, hard):
        # Where a sandbox forbids it, what there is has to do.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), _open_files()[1]))
            soft = min(needed, hard)
    return max(1, min(MAX_CONNECTIONS, (soft - OTHER_FILES) // FILES_A_CONNECTION))


def _open_files() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over httptools, except that no client can occupy a connection, or memory, without bound.

    `GentleServer` looks at every connection once a second, which costs requests nothing.
    """

    max_connections: ClassVar[int] = MAX_CONNECTIONS

    due_s: float | None
    """The loop's time at which what the client owes must have come; None while the server owes the answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A Unix socket opens only to those who may open its file: proxies of this machine.
        self.client = self.client or ("127.0.0.1", 0)
        self.due_s = self.loop.time() + HEAD_TIMEOUT_S
        self._unsent_since_s: float | None = None
        self._framing_bytes = 0
        self._in_head = self._complete = True
        self._status = HTTPStatus.BAD_REQUEST
        if len(self.connections) > self.max_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._complete and self.timeout_keep_alive_task is not None:
            # Idle until now; uvicorn stops its own clock at the first byte, be it half a line break.
            self.due_s = self.loop.time() + HEAD_TIMEOUT_S
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._framing_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._framing_bytes > MAX_FRAMING_BYTES:
            self.drop("endless framing")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing_bytes = 0
        self._in_head, self._complete = True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer must not become a header after everyone has looked at those.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("the head is too large")  # the parser stops, and uvicorn asks for the refusal
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests wait for their turn")
        self.due_s = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._complete = True
        super().on_message_complete()
        if self.cycle.response_complete:
            self.due_s = self.loop.time() + self.timeout_keep_alive + LINGER_S

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:
            patience_s = self.timeout_keep_alive + LINGER_S if self._complete else LINGER_S
            self.due_s = self.loop.time() + patience_s

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._status)

    def _unsupported_upgrade_warning(self) -> None:
        # Asked for another protocol, the server answers in this one, as the standard allows. The parser is no longer of
        # use for what follows, and the log has no use for the news.
        self.cycle.keep_alive = False

    def check(self, now_s: float) -> None:
        """Drop the connection if its client lets the server wait for too long. `now_s` is the loop's time."""
        if self.due_s is not None and now_s > self.due_s:
            self.drop("slow sender")
        elif not self.transport.get_write_buffer_size():
            self._unsent_since_s = None
        elif self._unsent_since_s is None:
            self._unsent_since_s = now_s
        elif now_s - self._unsent_since_s > UNSENT_TIMEOUT_S:
            self.drop("slow reader")

    def drop(self, reason: str) -> None:
        """Close at once; what is unsent is lost, and the request that runs is told that its visitor left."""
        log.info("connection dropped", extra={"reason": reason})
        self.connections.discard(self)
        self.transport.abort()

    def _make_room(self) -> None:
        waiting = [one for one in self.connections if one is not self and getattr(one, "due_s", None) is not None]
        if waiting:
            # Whoever floods with idle connections loses them first; a running request is never taken away.
            min(waiting, key=lambda one: one.due_s).drop("too many connections")  # type: ignore[union-attr]
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer what never became a request, in the form of every other error, and close."""
        running = self.cycle is not None and not self.cycle.response_complete
        if running and not self.cycle.response_started and not self.pipeline:
            # Its body broke off: whoever reads it is told that nobody waits for an answer any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            running = False
        if not running:
            self.transport.write(callers.refusal(status, status.phrase))
        self.transport.close()

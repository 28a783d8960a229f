"""One client's connection: what it may occupy, and for how long.

Knows HTTP as uvicorn and httptools read it, and nothing of what is asked.
"""

import asyncio
import ipaddress
import logging
import resource
from collections.abc import Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rag.access import callers

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HEAD_TIMEOUT_S = 10.0
"""From the connection, or the first byte on an idle one, until a request's head has arrived. uvicorn has no bound."""

BODY_TIMEOUT_S = 15.0
"""From a head until its body has arrived. A route that waits for a body gives up sooner, and can still say so."""

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

ADDRESSES_SHARE = 8
"""One address may have this part of a worker's connections: 250 of 2,000, enough for an office behind one address."""

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
    proxies: ClassVar[Sequence[Network]] = ()
    """Whose connections carry many visitors, so that no share of one address holds for them."""
    of_address: ClassVar[dict[str, int]] = {}
    """How many connections of this process each address has that is not exempt."""

    due_s: float | None
    """The loop's time at which what the client owes must have come; None while the server owes the answer."""
    _bucket: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A Unix socket opens only to those who may open its file: proxies of this machine.
        self.client = self.client or ("127.0.0.1", 0)
        self.due_s = self.loop.time() + HEAD_TIMEOUT_S
        self._unsent_since_s: float | None = None
        self._framing_bytes = 0
        self._in_head = self._complete = True
        self._status = HTTPStatus.BAD_REQUEST
        if not self.is_exempt(self.client[0]):
            self._bucket = callers.client_bucket(self.client[0])
            self.of_address[self._bucket] = self.of_address.get(self._bucket, 0) + 1
        if self._bucket and self.of_address[self._bucket] > max(1, self.max_connections // ADDRESSES_SHARE):
            self._make_room([one for one in self.connections if getattr(one, "_bucket", None) == self._bucket])
        elif len(self.connections) > self.max_connections:
            self._make_room(self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._bucket:
            self.of_address[self._bucket] -= 1
            if not self.of_address[self._bucket]:
                del self.of_address[self._bucket]
            self._bucket = None

    @classmethod
    def is_exempt(cls, address: str) -> bool:
        """Whether an address may have any number of connections: this machine's own, and trusted proxies."""
        if callers.is_loopback(address):
            return True
        try:
            ip = ipaddress.ip_address(address.split("%")[0])
        except ValueError:
            return False
        return any(ip in network for network in cls.proxies)

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
        is_running = self.cycle is not None and not self.cycle.response_complete
        # An answer that runs is not cut off because the next request is slow.
        self.due_s = None if is_running else self.loop.time() + BODY_TIMEOUT_S
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._complete = True
        super().on_message_complete()
        # While a request is answered, the server owes.
        self.due_s = self.loop.time() + self.timeout_keep_alive + LINGER_S if self.cycle.response_complete else None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:
            patience_s = self.timeout_keep_alive + LINGER_S if self._complete else LINGER_S
            self.due_s = self.loop.time() + patience_s
        elif not self._complete and not self.pipeline:
            self.due_s = self.loop.time() + BODY_TIMEOUT_S

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

    def _make_room(self, among: Iterable[object]) -> None:
        waiting = [one for one in among if one is not self and getattr(one, "due_s", None) is not None]
        if waiting:
            # Whoever floods with idle connections, or with bodies that never come, loses them first; a request that is
            # being answered is never taken away.
            min(waiting, key=lambda one: one.due_s).drop("too many connections")  # type: ignore[attr-defined]
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

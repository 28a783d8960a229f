"""How one gunicorn worker serves and stops, and how long it waits for whom.

Knows uvicorn and gunicorn, nothing of questions and answers.
"""

import asyncio
import logging
import logging.config
import os
import resource
import signal
import socket
import sys
import time
from http import HTTPStatus
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from rag import access

log = logging.getLogger(__name__)

DRAIN_S = 1.0
"""How long a stopping worker still takes requests on connections that it has already accepted, in seconds."""

HURRIED_S = 1
"""How long answers may still take after SIGQUIT, which gunicorn sends its workers on Ctrl-C, in whole seconds."""

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

TRY_AGAIN_S = 1.0
"""Between two attempts to replace a worker where the one in its place could not start."""

TICKS_PER_S = 10
"""How often uvicorn's server ticks."""

MAX_CONNECTIONS = 2000
"""Of one worker; fewer where the system allows fewer than twice as many open files."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over httptools, except that no client can occupy a connection, or memory, without bound.

    `GentleServer` looks at every connection once a second, which costs requests nothing.
    """

    max_connections: ClassVar[int] = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

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
            self.transport.write(access.refusal(status, status.phrase))
        self.transport.close()


class GentleServer(Server):
    """uvicorn's server, except that stopping it breaks no request that is already on its way.

    uvicorn closes every connection without a running request at once. A request that the client has sent and the
    worker has not read yet would be lost with it, at every reload.
    """

    hurried = False
    master_pid: int | None = None
    """Who started this worker; without it nobody replaces or stops one, and the port stays occupied."""

    def hurry(self) -> None:
        """Stop now: whoever pressed Ctrl-C does not wait for half a minute."""
        self.hurried = self.should_exit = True
        self.config.timeout_graceful_shutdown = HURRIED_S

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_S == 0:
            if self.master_pid not in (None, os.getppid()):
                self.should_exit = True
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.check(now_s)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        closing = (b"connection", b"close")
        self.server_state.default_headers = [*self.server_state.default_headers, closing]
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + DRAIN_S
        # uvicorn tells nobody when its last connection is gone.
        while self.server_state.connections and loop.time() < ends_at and not self.hurried:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]
    """A uvicorn worker on uvloop and httptools whose log lines go where all others go.

    `gunicorn.conf.py` derives the class that it runs and adds what comes from the settings.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": BoundedProtocol,
        "lifespan": "on",  # "auto" would serve on after a start-up that failed
        "ws": "none",  # no route speaks WebSocket
        "server_header": False,  # a version number helps only those who look for a hole
        "access_log": False,  # rag/telemetry.py writes one line a request, with more in it
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class hands on gunicorn's own handlers, which are none here: a failed start would stay unexplained.
        error_log = logging.getLogger("uvicorn.error")
        error_log.handlers = []
        error_log.propagate = True
        # Five lines for each worker that comes or goes say no more than gunicorn's two.
        error_log.setLevel(max(logging.WARNING, error_log.level))

    def init_process(self) -> None:
        try:
            super().init_process()
        except (Exception, SystemExit) as error:
            # gunicorn ends the whole server when a worker cannot start. That is right for the first ones; a later one
            # (a file of the settings was removed, code is being replaced) must not take those along that serve.
            is_late = self.age > self.cfg.workers
            if not is_late or (isinstance(error, SystemExit) and error.code != Arbiter.WORKER_BOOT_ERROR):
                raise
            log.error("worker did not start, it is tried again", exc_info=error)
            time.sleep(TRY_AGAIN_S)
            sys.exit(1)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = GentleServer(config=self.config)
        server.master_pid = self.ppid
        # The base class would only note SIGQUIT, and the master kill the worker after `graceful_timeout`.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.hurry)
        # Not gunicorn's wrappers: uvloop would close their descriptors twice, and gunicorn report it at every stop.
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ProcessLog(Logger):  # type: ignore[misc]
    """gunicorn's own lines through the root logger, so that they look like the application's.

    `gunicorn.conf.py` derives the class and sets `CONFIG`. It is not handed over as `logconfig_dict`, because gunicorn
    prints its whole configuration at debug level, and the dictionary knows the secrets that it hides.
    """

    CONFIG: ClassVar[dict[str, Any]] = {"version": 1}

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        # After a reload `self` is still of the first class; the configuration carries the new one.
        logging.config.dictConfig(cfg.logger_class.CONFIG)
        logging.captureWarnings(True)
        for log in (self.error_log, self.access_log):
            log.handlers = []
            log.propagate = True

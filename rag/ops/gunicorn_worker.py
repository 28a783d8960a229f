"""How one gunicorn worker serves and stops, and how long it waits for whom.

Knows uvicorn and gunicorn, nothing of questions and answers.
"""

import asyncio
import ipaddress
import logging
import logging.config
import math
import os
import signal
import socket
import sys
import time
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from rag.ops.connections import BoundedProtocol, places
from rag.ops.gunicorn_master import STOP

log = logging.getLogger(__name__)

DRAIN_S = 1.0
"""How long a stopping worker still takes requests on connections that it has already accepted, in seconds."""

HURRIED_S = 1
"""How long answers may still take after SIGQUIT, which gunicorn sends its workers on Ctrl-C, in whole seconds."""

TRY_AGAIN_S = 1.0
"""Between two attempts to replace a worker where the one in its place could not start."""

TICKS_PER_S = 10
"""How often uvicorn's server ticks."""


class GentleServer(Server):
    """uvicorn's server, except that stopping it breaks no request that is already on its way.

    uvicorn closes every connection without a running request at once. A request that the client has sent and the
    worker has not read yet would be lost with it, at every reload.
    """

    hurried = False
    stop_s = 1.0
    """How long answers may still take when the server stops; uvicorn's `timeout_graceful_shutdown` is for a reload."""
    master_pid: int | None = None
    """Who started this worker; without it nobody replaces or stops one, and the port stays occupied."""
    _ends_at_s = math.inf
    _patience: asyncio.Timeout | None = None

    def stop(self) -> None:
        """Stop soon, also where the worker is leaving already: somebody waits for the end of the whole server."""
        self.handle_exit(signal.SIGTERM, None)
        self._end_within(DRAIN_S + self.stop_s)

    def hurry(self) -> None:
        """Stop now: whoever pressed Ctrl-C does not wait for half a minute."""
        self.hurried = self.should_exit = True
        self._end_within(HURRIED_S)

    def _end_within(self, seconds: float) -> None:
        self._ends_at_s = min(self._ends_at_s, asyncio.get_running_loop().time() + seconds)
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(self._ends_at_s)

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_S == 0:
            self._look_around()
        return await super().on_tick(counter)

    def _look_around(self) -> None:
        if self._ends_at_s == math.inf and self.master_pid not in (None, os.getppid()):
            self.stop()
        now_s = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.check(now_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        looking = asyncio.create_task(self._look_around_meanwhile())
        try:
            await self._shut_down(sockets)
        finally:
            looking.cancel()

    async def _look_around_meanwhile(self) -> None:
        # uvicorn ticks no longer then, and gunicorn would kill a worker whose heart stands still for `timeout`.
        while True:
            self._look_around()
            if self.config.callback_notify is not None:
                await self.config.callback_notify()
            await asyncio.sleep(1.0)

    async def _wait_tasks_to_complete(self) -> None:
        # uvicorn's own bound is fixed when the waiting begins; this one may come nearer until it ends.
        async with asyncio.timeout_at(self._ends_at_s if self._ends_at_s < math.inf else None) as self._patience:
            await super()._wait_tasks_to_complete()

    async def _shut_down(self, sockets: list[socket.socket] | None) -> None:
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

    STOP_S: ClassVar[float]
    """See `GentleServer.stop_s`."""
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": BoundedProtocol,
        "lifespan": "on",  # "auto" would serve on after a start-up that failed
        "ws": "none",  # no route speaks WebSocket
        "server_header": False,  # a version number helps only those who look for a hole
        "access_log": False,  # rag/telemetry/logs.py writes one line a request, with more in it
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
        BoundedProtocol.max_connections = places()
        BoundedProtocol.proxies = [ipaddress.ip_network(one) for one in self.CONFIG_KWARGS["forwarded_allow_ips"]]
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
        server.stop_s = self.STOP_S
        # The base class would only note SIGQUIT, and the master kill the worker after `graceful_timeout`.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.hurry)
        asyncio.get_running_loop().add_signal_handler(STOP, server.stop)
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

"""How gunicorn's master replaces its workers and stops them.

By itself gunicorn waits inside of a reload until the old workers are gone, deaf to every signal meanwhile. It counts
those that are left, so that a new worker which dies is not replaced, and tells them to end once a second. And a worker
cannot tell a reload, where it has all the time that its answers need, from a stop, where somebody waits.

Knows gunicorn's arbiter, and of a worker only the signals it takes.
"""

import math
import signal
from typing import Any

STOP = signal.SIGUSR2
"""What a worker is told when the server stops. SIGTERM alone, from a reload or by hand, leaves it at its leisure."""

LEAVING = math.inf
"""The age of a worker that was told to leave: to gunicorn the newest, so that it waits for none of them."""


def replace_gently(server: Any) -> None:
    """Change how this arbiter reloads, manages and stops its workers."""
    reload, manage_workers, kill_workers = server.reload, server.manage_workers, server.kill_workers
    told: set[int] = set()

    def reload_without_waiting() -> None:
        for worker in server.WORKERS.values():
            worker.age = LEAVING
        reload()

    def manage_those_that_stay() -> None:
        leaving = {pid: worker for pid, worker in server.WORKERS.items() if worker.age == LEAVING}
        told.intersection_update(leaving)
        for pid in leaving.keys() - told:
            server.kill_worker(pid, signal.SIGTERM)
            told.add(pid)
        for pid in leaving:
            server.WORKERS.pop(pid, None)
        try:
            manage_workers()
        finally:
            server.WORKERS.update(leaving)

    def tell_workers(sig: int) -> None:
        kill_workers(STOP if sig == signal.SIGTERM else sig)

    server.reload, server.manage_workers = reload_without_waiting, manage_those_that_stay
    server.kill_workers = tell_workers

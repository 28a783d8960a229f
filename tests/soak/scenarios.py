"""What is done to a server under load, as often as wanted. Each asserts what has to hold and returns what it measured.

The short forms stand in `tests/e2e/test_processes.py`, the long ones beside this file.
"""

import os
import random
import signal
import statistics
import time
from itertools import cycle
from pathlib import Path

from rag import builds
from tests.soak.load import LogTail, Visitors
from tests.support.server import RagServer
from tests.support.waiting import wait_until

READY_WITHIN_S = 2.0
"""From the death of a worker until the one in its place serves."""


def kills(server: RagServer, times: int, workers: int) -> str:
    """Workers are killed one after another, each when the one before has been replaced."""
    wait_until(lambda: len(server.worker_pids()) == workers, 20, "all workers run")
    killed_at_s, replaced_s = [], []
    with Visitors(server) as visitors:
        for _ in range(times):
            ready = LogTail(server, '"worker is ready"')
            victim = random.choice(server.worker_pids())
            killed_at_s.append(time.monotonic())
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda tail=ready: tail.count() == 1, 30, "a new worker is ready")
            replaced_s.append(time.monotonic() - killed_at_s[-1])
    assert visitors.failures_not_of(killed_at_s) == []
    assert visitors.forgotten() == []
    assert len(server.worker_pids()) == workers
    median_s = statistics.median(replaced_s)
    measured = (
        f"{times} kills, {visitors.answered} answers, {len(visitors.failures)} requests lost, all in the hands of a "
        f"killed worker; a new one ready after {median_s:.2f} s (median), {max(replaced_s):.2f} s (most)"
    )
    print(measured)
    assert median_s < READY_WITHIN_S
    return measured


def reloads(server: RagServer, times: int, workers: int) -> str:
    """SIGHUP, again and again, each when all workers of the one before are gone."""
    with Visitors(server) as visitors:
        for _ in range(times):
            before, answered = set(server.worker_pids()), visitors.answered
            server.reload()
            wait_until(lambda old=before: not set(server.worker_pids()) & old, 60, "the old workers are gone")
            wait_until(lambda: len(server.worker_pids()) == workers, 20, "as many workers as before")
            wait_until(lambda so_far=answered: visitors.answered > so_far + 10, 20, "the new workers answer")
    return _nothing_lost(visitors, f"{times} reloads")


def swaps(server: RagServer, root: Path, times: int, workers: int) -> str:
    """The two kept builds in `root` are made live in turns, each when all workers have taken up the one before."""
    kept = builds.kept_ids(root)
    assert len(kept) == 2
    assert builds.live_id(root) == kept[0]
    taken_up_s = []
    with Visitors(server) as visitors:
        for _, build_id in zip(range(times), cycle(reversed(kept)), strict=False):
            live = LogTail(server, '"new build is live"')
            began_s = time.monotonic()
            builds.make_live(root, build_id)
            wait_until(lambda tail=live: tail.count() == workers, 20, "every worker has the new build")
            taken_up_s.append(time.monotonic() - began_s)
    assert max(taken_up_s) < 5.0
    return _nothing_lost(visitors, f"{times} builds, each served by all workers within {max(taken_up_s):.2f} s")


def _nothing_lost(visitors: Visitors, what: str) -> str:
    assert visitors.failures == []
    assert visitors.forgotten() == []
    measured = f"{what}, {visitors.answered} answers, none failed, nothing forgotten"
    print(measured)
    return measured

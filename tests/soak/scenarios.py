"""What is done to a server under load, as often as wanted. Each asserts what has to hold and returns what it measured.

The short forms stand in `tests/e2e/test_processes.py`, the long ones beside this file.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import statistics
import time
from itertools import cycle
from pathlib import Path

import httpx

from rag.search import builds
from tests.soak.load import LogTail, Visitors, resident_bytes
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

MB = 1024 * 1024
READY_WITHIN_S = 2.0
"""From the death of a worker until the one in its place serves."""
MOST_GROWTH = 1.10
"""A worker's resident size after many chats over the one before."""


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
            ready.wait_for(1, 30)
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
            reload(server, visitors, workers)
    return _nothing_lost(visitors, f"{times} reloads")


def reload(server: RagServer, visitors: Visitors, workers: int) -> None:
    before, answered = set(server.worker_pids()), visitors.answered
    server.reload()
    wait_until(lambda: not set(server.worker_pids()) & before, 60, "the old workers are gone")
    wait_until(lambda: len(server.worker_pids()) == workers, 20, "as many workers as before")
    wait_until(lambda: visitors.answered > answered + 10, 20, "the new workers answer")


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
            live.wait_for(workers, 20)
            taken_up_s.append(time.monotonic() - began_s)
    assert max(taken_up_s) < 5.0
    return _nothing_lost(visitors, f"{times} builds, each served by all workers within {max(taken_up_s):.2f} s")


def chats_for_memory(server: RagServer, warm_up: int, chats: int, workers: int) -> str:
    """So many chats, each a conversation of its own; what the workers occupy is compared with after the warm-up."""
    wait_until(lambda: len(server.worker_pids()) == workers, 20, "all workers run")
    asyncio.run(_chats(server, warm_up))
    before = {pid: resident_bytes(pid) for pid in server.worker_pids()}
    asyncio.run(_chats(server, chats))
    after = {pid: resident_bytes(pid) for pid in server.worker_pids()}
    assert after.keys() == before.keys()
    sizes = ", ".join(f"{before[pid] / MB:.1f} → {after[pid] / MB:.1f}" for pid in before)
    growth = max(after[pid] / before[pid] for pid in before)
    measured = f"{chats} chats: MB of each worker {sizes}; at most × {growth:.3f}"
    print(measured)
    assert growth < MOST_GROWTH
    return measured


def guesses(client: httpx.Client, attempts: int) -> str:
    """Of ids of a conversation, near ones first: none reads, deletes or rates it, and all are told the same."""
    victim = client.post("/chat", json={"message": "How long does the warranty last?"}).json()["session_id"]
    mine = f"/sessions/{victim}/history"
    said = client.get(mine).json()["history"]
    assert len(said) == 2
    digest = hashlib.sha256(victim.encode()).hexdigest()
    near = [victim[:-1] + ("A" if victim[-1] != "A" else "B"), victim.swapcase(), victim[::-1], victim + "0", digest,
            digest[:32], victim[1:], "0" * 32]  # fmt: skip
    forms: dict[str, set[tuple[int, str, str]]] = {"history": set(), "delete": set(), "feedback": set()}
    for attempt in range(attempts):
        guess = (
            near[attempt] if attempt < len(near) else hashlib.sha256(b"%d" % attempt).hexdigest()[: 16 + attempt % 48]
        )
        answers = {"history": client.get(f"/sessions/{guess}/history")}
        if attempt % 5 == 0:
            answers["delete"] = client.delete(f"/sessions/{guess}")
            answers["feedback"] = client.post("/feedback", json={"session_id": guess, "rating": "down"})
        for kind, answer in answers.items():
            headers = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date", "content-length")}
            forms[kind].add((answer.status_code, answer.text.replace(guess, "ID"), json.dumps(headers, sort_keys=True)))
    assert [len(forms[kind]) for kind in forms] == [1, 1, 1]
    assert json.loads(next(iter(forms["history"]))[1]) == {"session_id": "ID", "history": []}
    assert client.get(mine).json()["history"] == said
    return f"{attempts} guesses at ids, each fifth also to delete and to rate: one and the same answer"


async def _chats(server: RagServer, number: int) -> None:
    left = iter(range(number))
    # A kept connection would stay with one worker.
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.base_url, timeout=60, trust_env=False, limits=fresh) as client:

        async def visitor() -> None:
            for turn in left:
                answer = await client.post("/chat", json={"message": FACTS[turn % len(FACTS)].question})
                assert answer.status_code == 200, answer.text
                assert answer.json()["degraded"] is None

        await asyncio.gather(*(visitor() for _ in range(16)))


def _nothing_lost(visitors: Visitors, what: str) -> str:
    assert visitors.failures == []
    assert visitors.forgotten() == []
    measured = f"{what}, {visitors.answered} answers, none failed, nothing forgotten"
    print(measured)
    return measured

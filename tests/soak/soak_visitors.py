"""Many chats for the workers' memory, and exact limits again and again."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.conftest import StartServer
from tests.soak.load import resident_bytes
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

WORKERS = 4
WARM_UP = 2_000
CHATS = 10_000
GROWTH = 1.10
"""Of a worker's resident size over `CHATS`, at most."""
LIMIT = 20


async def chats(server: RagServer, number: int) -> None:
    left = iter(range(number))
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.base_url, timeout=60, trust_env=False, limits=fresh) as client:

        async def visitor() -> None:
            for turn in left:
                answer = await client.post("/chat", json={"message": FACTS[turn % len(FACTS)].question})
                assert answer.status_code == 200, answer.text
                assert answer.json()["degraded"] is None

        await asyncio.gather(*(visitor() for _ in range(16)))


def test_after_10_000_chats_every_worker_is_as_large_as_before(start_server: StartServer) -> None:
    server = start_server(workers=WORKERS)
    wait_until(lambda: len(server.worker_pids()) == WORKERS, 20, "all workers run")
    asyncio.run(chats(server, WARM_UP))
    before = {pid: resident_bytes(pid) for pid in server.worker_pids()}
    asyncio.run(chats(server, CHATS))
    after = {pid: resident_bytes(pid) for pid in server.worker_pids()}
    assert after.keys() == before.keys()
    mb = 1024 * 1024
    sizes = ", ".join(f"{before[pid] / mb:.1f} → {after[pid] / mb:.1f}" for pid in before)
    growth = max(after[pid] / before[pid] for pid in before)
    print(f"{CHATS} chats: MB of each worker before and after: {sizes}; the most is a factor of {growth:.3f}")
    assert growth < GROWTH


def test_in_20_runs_over_4_workers_exactly_20_of_200_chats_pass(start_server: StartServer) -> None:
    server = start_server(workers=WORKERS, RATE_LIMIT_CHAT=f"{LIMIT}/minute")
    wait_until(lambda: len(server.worker_pids()) == WORKERS, 20, "all workers run")

    def ask(address: str) -> int:
        headers = {"Connection": "close", "X-Forwarded-For": address}
        body = {"message": FACTS[0].question}
        return httpx.post(
            f"{server.base_url}/chat", json=body, headers=headers, timeout=60, trust_env=False
        ).status_code

    with ThreadPoolExecutor(32) as visitors:
        runs = [Counter(visitors.map(ask, [f"198.51.100.{run}"] * 200)) for run in range(1, 21)]
    print(f"{len(runs)} runs: {Counter(str(dict(sorted(run.items()))) for run in runs)}")
    assert runs == [{200: LIMIT, 429: 180}] * 20

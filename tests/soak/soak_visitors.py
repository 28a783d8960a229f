"""Many chats for the workers' memory, and exact limits again and again."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.conftest import StartServer
from tests.soak import scenarios
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

WORKERS = 4
LIMIT = 20


def test_after_10_000_chats_every_worker_is_as_large_as_before(start_server: StartServer) -> None:
    scenarios.chats_for_memory(start_server(workers=WORKERS), warm_up=2_000, chats=10_000, workers=WORKERS)


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

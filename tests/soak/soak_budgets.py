"""The most that a day may cost, again and again: many chats at once, visitors who leave, workers that are killed."""

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

WORKERS = 4
CHATS = 200
LEAVING = 40
"""Of them, streams whose visitors go after the first words."""
KILLS = 3
CAP = 100_000
RUNS = int(os.environ.get("SOAK_BUDGET_RUNS", "20"))


class Watch:
    """Reads all the time what a server says it has spent and put aside; `most` is the most that it ever said."""

    def __init__(self, server: RagServer) -> None:
        self._server = server
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = 0.0
        self.looks = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.05):
            # A worker that is killed takes the question along.
            with contextlib.suppress(httpx.HTTPError, StopIteration):
                self.most = max(self.most, spent(self._server))
                self.looks += 1


def spent(server: RagServer) -> float:
    text = httpx.get(f"{server.base_url}/metrics", timeout=20, trust_env=False).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("rag_budget_spent "))


def question() -> dict[str, str]:
    # Who asks the same at the same moment shares one call: none does here.
    return {"message": f"{random.choice(FACTS).question} ({random.randrange(10**9)})"}


def ask(server: RagServer) -> str:
    """Who answered; `lost` where the worker was killed meanwhile."""
    try:
        answer = httpx.post(f"{server.base_url}/chat", json=question(), timeout=60, trust_env=False)
    except httpx.HTTPError:
        return "lost"
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generated"])


def leave_early(server: RagServer) -> str:
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream("POST", f"{server.base_url}/chat/stream", json=question(), timeout=60, trust_env=False) as answer,
    ):
        next((piece for piece in answer.iter_bytes() if b"event: delta" in piece), None)
    return "left"


def kill_workers(server: RagServer, azure: AzureEmulator) -> None:
    """Each while a call of somebody's is running, as far as any still is."""
    for _ in range(KILLS):
        with contextlib.suppress(AssertionError):
            wait_until(lambda: azure.stats()["now"].get("chat", 0) >= 1, 2, "a call is running")
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(server.worker_pids()), signal.SIGKILL)


@pytest.fixture(
    params=[("sqlite", RUNS), ("redis", max(1, RUNS // 4)), ("postgres", max(1, RUNS // 4))], ids=lambda given: given[0]
)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Iterator[dict[str, str]]]:
    """Settings of a store that nothing was spent in yet, one for each run."""
    kind, runs = request.param
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer()) if kind == "postgres" else None

        def each() -> Iterator[dict[str, str]]:
            for run in range(runs):
                if postgres is not None:
                    yield {"DATABASE_URL": postgres.database()}
                elif kind == "redis":
                    folder = tmp_path / f"redis-{run}"
                    folder.mkdir()
                    with RedisServer(folder) as redis:
                        yield {"REDIS_URL": redis.url}
                else:
                    yield {}

        yield each()


def test_no_run_of_200_chats_costs_more_than_the_cap_whoever_leaves_or_is_killed(
    start_server: StartServer, azure: AzureEmulator, stores: Iterator[dict[str, str]], tmp_path: Path
) -> None:
    azure.behave(token_delay_ms=10)
    for run, store in enumerate(stores):
        settings = {"BUDGET_SITE": f"{CAP}/day", "RATE_LIMIT_ENABLED": "false", **store}
        server = start_server(workers=WORKERS, folder=tmp_path / f"run-{run}", **settings)
        wait_until(lambda server=server: len(server.worker_pids()) == WORKERS, 20, "all workers run")
        azure.clear()  # of the probe that is made before the server starts
        with Watch(server) as watch, ThreadPoolExecutor(64) as visitors:
            killing = visitors.submit(kill_workers, server, azure)
            todo = [leave_early] * LEAVING + [ask] * (CHATS - LEAVING)
            random.shuffle(todo)
            ends = Counter(visitors.map(lambda one, server=server: one(server), todo))
            killing.result()
        wait_until(lambda: azure.stats()["now"].get("chat", 0) == 0, 20, "no call is open")
        billed = azure.stats()["billed"]
        wait_until(lambda: billed <= spent(server), 20, "all is settled")  # noqa: B023 - waited for in its own round
        most = max(watch.most, spent(server))
        print(f"run {run}: cap {CAP}, billed {billed}, counted {most:.0f} at most in {watch.looks} looks, {dict(ends)}")
        assert billed <= CAP
        assert most <= CAP
        assert (ends["model"] > 0, watch.looks > 0) == (True, True)
        server.stop()

"""Two servers on one PostgreSQL, for what they remember and for their index, through PgBouncer and behind nginx.

Whatever happens to a worker, a server or the database: no remembered message is lost, and limits hold over both.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from rag.search.postgres.backend import PostgresBackend
from rag.stores.postgres.migrating import Schema
from tests.conftest import StartServer
from tests.soak import scenarios
from tests.soak.load import LogTail, Visitors
from tests.support.azure import AzureEmulator
from tests.support.nginx import Proxy, nginx
from tests.support.postgres_server import PgBouncer, PgvectorServer
from tests.support.server import RagServer, build_index
from tests.support.small_site import SITE_URL, write_small_site
from tests.support.waiting import wait_until

WORKERS = 4
KILLS, RELOADS, BUILDS, LIMIT_RUNS = (
    int(os.environ.get(f"SOAK_SERVERS_{name}", usual))
    for name, usual in (("KILLS", "6"), ("RELOADS", "4"), ("BUILDS", "3"), ("LIMIT_RUNS", "3"))
)
ATTEMPTS = int(os.environ.get("CROSS_SESSION_ATTEMPTS", "500"))
LIMIT = 20
TAKEN_UP_WITHIN_S = 5.0
NOTICED_S = 0.5
"""Until nginx no longer sends a question over a connection to a worker that was killed."""
WELL_AGAIN_WITHIN_S = 30.0
"""After the database is back, on a machine that runs all of this at once."""


class Pair:
    """The two servers, what is before and behind them, and the owner who publishes builds."""

    def __init__(self, folder: Path, azure: AzureEmulator, start_server: StartServer) -> None:
        self.site = write_small_site(folder / "site")
        self.programs = ExitStack()
        self.primary = self.programs.enter_context(PgvectorServer())
        self.bouncer = self.programs.enter_context(PgBouncer(self.primary, pool_size=20))
        self.servers: list[RagServer] = []
        self._folder = folder
        self._azure = azure
        self._start = start_server
        self.settings = {**self._azure.environment, "VECTOR_DB_URL": self.bouncer.url(self.primary.empty_database())}
        Schema(self.settings["VECTOR_DB_URL"]).migrate(lambda migration: None)
        self.publish(0)

    def publish(self, number: int) -> None:
        (self.site / "news.md").write_text(f"# News\n\nThe controller speaks {number + 2} languages now.\n")
        done = build_index(
            self.site, env=self.settings, output=None, cwd=self._folder, extra_args=["--site-url", SITE_URL]
        )
        assert done.returncode == 0, done.stderr

    def start(self, **settings: str) -> None:
        """Anew, where they run already, with these settings and on the same ports."""
        url = self.settings["VECTOR_DB_URL"]
        for place, name in enumerate(("first", "second")):
            port = self.servers[place].port if len(self.servers) > place else None
            if port:
                self.servers[place].stop()
            server = self._start(
                workers=WORKERS, folder=self._folder / name, port=port, VECTOR_DB_PATH=None, VECTOR_DB_URL=url,
                DATABASE_URL=url, **settings,
            )  # fmt: skip
            self.servers[place : place + 1] = [server]

    def is_well(self) -> bool:
        """Whether every worker of both servers remembers, counts and finds."""
        parts = ("conversations", "rate_limits", "index")

        def says_so(server: RagServer) -> bool:
            try:
                answer = httpx.get(f"{server.base_url}/ready", timeout=10, trust_env=False)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and {answer.json()[part]["status"] for part in parts} == {"ok"}

        return all(says_so(server) for server in self.servers for _ in range(2 * WORKERS))


@pytest.fixture
def pair(start_server: StartServer, azure: AzureEmulator, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path, azure, start_server)
    with pair.programs:
        yield pair
        for server in pair.servers:  # before their database
            server.stop()
    assert not [server for server in pair.servers if "Traceback" in server.output]


def test_two_servers_behind_nginx_lose_nothing_and_count_as_one(pair: Pair, tmp_path: Path) -> None:
    pair.start(RATE_LIMIT_ENABLED="false")
    with nginx(tmp_path / "nginx", *(server.port for server in pair.servers)) as front:
        for part in (workers_are_killed, servers_reload, builds_are_published, the_database_restarts, it_fails_over):
            print(f"{part.__name__}: {part(pair, front)}")
        visitor = front.visitor("127.0.0.1")
        print(scenarios.guesses(visitor, ATTEMPTS))
        pair.start(RATE_LIMIT_CHAT=f"{LIMIT}/minute")
        print(limits_are_exact(front))


def workers_are_killed(pair: Pair, front: Proxy) -> str:
    killed_at_s, replaced_s = [], []
    with Visitors(front) as visitors:
        for number in range(KILLS):
            server = pair.servers[number % 2]
            ready = LogTail(server, '"worker is ready"')
            victim = random.choice(server.worker_pids())
            killed_at_s.append(time.monotonic())
            os.kill(victim, signal.SIGKILL)
            ready.wait_for(1, 30)
            replaced_s.append(time.monotonic() - killed_at_s[-1])
    assert visitors.failures_not_of(killed_at_s, noticed_s=NOTICED_S) == []
    assert visitors.forgotten() == []
    return f"{KILLS} kills, {_told(visitors)}, replaced within {max(replaced_s):.2f} s"


def servers_reload(pair: Pair, front: Proxy) -> str:
    with Visitors(front) as visitors:
        for number in range(RELOADS):
            scenarios.reload(pair.servers[number % 2], visitors, WORKERS)
    assert visitors.failures == []
    assert visitors.forgotten() == []
    return f"{RELOADS} reloads, {_told(visitors)}"


def builds_are_published(pair: Pair, front: Proxy) -> str:
    taken_up_s = []
    with Visitors(front) as visitors, closing(PostgresBackend(pair.settings["VECTOR_DB_URL"])) as builds:
        for number in range(1, BUILDS + 1):
            for publish in (partial(pair.publish, number), builds.rollback):
                lives = [LogTail(server, '"new build is live"') for server in pair.servers]
                publish()
                began_s = time.monotonic()
                for live in lives:
                    live.wait_for(WORKERS, 30)
                taken_up_s.append(time.monotonic() - began_s)
    assert visitors.failures == []
    assert visitors.forgotten() == []
    assert max(taken_up_s) < TAKEN_UP_WITHIN_S
    return f"{BUILDS} builds and rollbacks, {_told(visitors)}, served by all workers within {max(taken_up_s):.2f} s"


def the_database_restarts(pair: Pair, front: Proxy) -> str:
    def restart() -> None:
        pair.primary.stop()
        pair.primary.start()

    return _outage(pair, front, restart)


def it_fails_over(pair: Pair, front: Proxy) -> str:
    replica = pair.programs.enter_context(PgvectorServer(replica_of=pair.primary))
    pair.primary.set("synchronous_standby_names", "*")
    with pair.primary.connect() as connection:
        state = "SELECT sync_state FROM pg_stat_replication"
        wait_until(lambda: connection.execute(state).fetchall() == [("sync",)], 20, "the replica has everything")

    def fail_over() -> None:
        pair.primary.kill()
        replica.promote()
        pair.bouncer.lead_to(replica)

    return _outage(pair, front, fail_over)


def _outage(pair: Pair, front: Proxy, outage: Callable[[], None]) -> str:
    """Under load. Whoever asks while the database is away is told so; afterwards everything is as it was."""
    with Visitors(front) as visitors:
        began_s = time.monotonic()
        outage()
        back_s = time.monotonic()
        wait_until(pair.is_well, WELL_AGAIN_WITHIN_S, "all is well again", interval_s=0.2)
        well_s = time.monotonic()
        answered = visitors.answered
        wait_until(lambda: visitors.answered > answered + 100, 60, "visitors are answered")
    late = [one for one in visitors.failures if one.ended_s < began_s or one.began_s > well_s]
    assert late == []
    assert visitors.forgotten() == []
    return f"away for {back_s - began_s:.1f} s, all is well {well_s - back_s:.1f} s later, {_told(visitors)}"


def limits_are_exact(front: Proxy) -> str:
    def ask(visitor: httpx.Client) -> int:
        return visitor.post("/chat", json={"message": "How long does the warranty last?"}, timeout=60).status_code

    runs: list[dict[int, int]] = []
    for run in range(LIMIT_RUNS):
        visitor = front.visitor(f"127.0.1.{run + 1}")
        with ThreadPoolExecutor(32) as askers:
            runs.append(dict(Counter(askers.map(ask, [visitor] * 200))))
    assert runs == [{200: LIMIT, 429: 200 - LIMIT}] * LIMIT_RUNS
    return f"{LIMIT_RUNS} runs of 200 chats at once over both: exactly {LIMIT} passed in each"


def _told(visitors: Visitors) -> str:
    return f"{visitors.answered} answers, {len(visitors.failures)} failed, nothing forgotten"

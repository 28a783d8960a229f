"""Two servers of two workers on one index in a real PostgreSQL with pgvector, one of them through PgBouncer."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PgBouncer, PgvectorServer
from tests.support.server import RagServer, build_index, run_module
from tests.support.small_site import SITE_URL, write_small_site
from tests.support.waiting import wait_until

TAKEN_UP_WITHIN_S = 5.0
PASSWORD = "canary-of-the-database"
OWNER = {"Authorization": "Bearer " + "k" * 32}
QUESTION = "What does the Reef plan cost per month?"


class Owner:
    """Who has a site and publishes it, with the settings alone to say where."""

    def __init__(self, folder: Path, azure: AzureEmulator, url: str) -> None:
        self.folder = folder
        self.site = write_small_site(folder / "site")
        self.settings = {**azure.environment, "VECTOR_DB_URL": url}

    def publish(self, price: str) -> None:
        page = self.site / "pricing.md"
        page.write_text(f"# Prices and plans\n\n## Reef plan\n\nThe Reef plan costs {price} euros a month.\n")
        done = build_index(
            self.site, env=self.settings, output=None, cwd=self.folder, extra_args=["--site-url", SITE_URL]
        )
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr

    def told(self, *command: str) -> str:
        done = run_module("indexer", *command, env=self.settings, cwd=self.folder)
        assert (done.returncode, done.stderr, PASSWORD in done.stdout) == (0, "", False)
        return done.stdout


def search(server: RagServer, query: str = QUESTION) -> httpx.Response:
    """On a connection of its own, so that any worker may get it."""
    return httpx.post(f"{server.base_url}/search", json={"query": query}, timeout=30, trust_env=False)


def says(server: RagServer, price: str) -> bool:
    """Whether the workers of a server do: each gets some of eight searches."""
    # While the database is away there are none, and whoever waits for it asks again.
    found = [search(server).json().get("results") for _ in range(8)]
    answers = [results[0]["content"] if results else "" for results in found]
    return all(f"costs {price} euros" in answer for answer in answers)


def ready(server: RagServer) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{server.base_url}/ready", timeout=10, trust_env=False)
    return answer.status_code, answer.json()


@contextmanager
def no_visitor_notices(servers: list[RagServer]) -> Iterator[None]:
    """Visitors search on both servers without a pause; none of them may get anything but an answer."""
    failures, stop, count = list[str](), threading.Event(), 0

    def visit(server: RagServer) -> None:
        nonlocal count
        while not stop.is_set():
            answer = search(server)
            count += 1
            if answer.status_code != 200 or not answer.json()["results"]:
                failures.append(answer.text)

    visitors = [threading.Thread(target=visit, args=[servers[number % 2]]) for number in range(4)]
    for visitor in visitors:
        visitor.start()
    try:
        yield
    finally:
        stop.set()
        for visitor in visitors:
            visitor.join()
    assert (failures[:3], count > 20) == ([], True)


@pytest.fixture
def postgres() -> Iterator[PgvectorServer]:
    with PgvectorServer() as running:
        yield running


def test_two_servers_share_one_index_through_builds_rollbacks_and_bad_hours(
    start_server: StartServer, postgres: PgvectorServer, azure: AzureEmulator, tmp_path: Path
) -> None:
    url = postgres.empty_database().replace("rag@", f"rag:{PASSWORD}@")
    with PgBouncer(postgres, pool_size=8) as bouncer:
        owner = Owner(tmp_path, azure, url)
        owner.publish("19")
        servers = [
            start_server(
                workers=2, folder=tmp_path / name, VECTOR_DB_PATH=None, VECTOR_DB_URL=address, ADMIN_API_KEY="k" * 32
            )
            for name, address in (("first", url), ("second", bouncer.url(url)))
        ]
        assert [says(server, "19") for server in servers] == [True, True]
        builds_and_rollbacks_are_taken_up(owner, servers)
        the_owner_builds_again_from_the_page(owner, servers)
        a_restart_is_survived(postgres, servers)
    for server in servers:
        assert "Traceback" not in server.output
        assert PASSWORD not in server.output
        assert not (server.folder / "vector_db").exists()


def builds_and_rollbacks_are_taken_up(owner: Owner, servers: list[RagServer]) -> None:
    def both_say(price: str) -> bool:
        return all(says(server, price) for server in servers)

    with no_visitor_notices(servers):
        owner.publish("23")
        wait_until(lambda: both_say("23"), TAKEN_UP_WITHIN_S + 2, "the new build is served")
        owner.told("rollback")
        wait_until(lambda: both_say("19"), TAKEN_UP_WITHIN_S + 2, "the old build is served")
        owner.publish("29")
        wait_until(lambda: both_say("29"), TAKEN_UP_WITHIN_S + 2, "the new build is served")
    assert "every checksum is right" in owner.told("verify")
    assert [line.split()[0] for line in owner.told("info").splitlines()] == ["live", "kept", "kept"]
    assert "costs 29 euros" in owner.told("search", QUESTION)
    page = str(owner.site / "pricing.md")
    for command in (["add", page], ["remove", "pricing.md"]):
        refused = run_module("indexer", *command, env=owner.settings, cwd=owner.folder)
        assert (refused.returncode, "no document can be added beside the builds" in refused.stderr) == (1, True)


def the_owner_builds_again_from_the_page(owner: Owner, servers: list[RagServer]) -> None:
    page = owner.site / "pricing.md"
    page.write_text(page.read_text().replace("29", "31"))
    with httpx.Client(base_url=servers[0].base_url, headers=OWNER, timeout=30, trust_env=False) as client:
        client.post("/admin/build").raise_for_status()
        wait_until(lambda: client.get("/admin/build").json()["state"] != "running", 60, "the rebuild has ended")
        ended = client.get("/admin/build").json()
        assert ended["state"] == "done", ended["said"]
        wait_until(lambda: says(servers[1], "31"), TAKEN_UP_WITHIN_S + 2, "the new build is served")
        known = client.get("/admin/usage").json()["build"]
        assert (known["id"] in known["kept"], len(known["kept"])) == (True, 3)
        assert client.post("/admin/rollback").status_code == 200
    wait_until(lambda: all(says(server, "29") for server in servers), TAKEN_UP_WITHIN_S + 2, "the old one is served")


def a_restart_is_survived(postgres: PgvectorServer, servers: list[RagServer]) -> None:
    postgres.stop()
    wait_until(lambda: all(ready(server)[0] == 503 for server in servers), 10, "nobody is ready without the index")
    for server in servers:
        began_s = time.monotonic()
        refused = search(server)
        assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
        assert PASSWORD not in refused.text + str(ready(server))
        assert time.monotonic() - began_s < 10
    postgres.start()
    wait_until(lambda: all(ready(server)[0] == 200 for server in servers), 10, "everybody is ready again")
    wait_until(lambda: all(says(server, "29") for server in servers), 10, "everything is found again")


def test_a_server_starts_without_the_database_and_the_check_says_what_is_wrong(
    start_server: StartServer, postgres: PgvectorServer, azure: AzureEmulator, tmp_path: Path
) -> None:
    url = postgres.empty_database()
    settings = {**azure.environment, "VECTOR_DB_URL": url, "STATE_DIR": str(tmp_path / "state")}
    nothing = run_module("run_production", "--check", env=settings, cwd=tmp_path)
    assert (nothing.returncode, "✗ index       no build in postgresql://" in nothing.stdout) == (1, True)
    Owner(tmp_path, azure, url).publish("19")
    assert run_module("run_production", "--check", env=settings, cwd=tmp_path).returncode == 0
    postgres.stop()
    away = run_module("run_production", "--check", env=settings, cwd=tmp_path)
    assert (away.returncode, "! index" in away.stdout, "check VECTOR_DB_URL" in away.stdout) == (0, True, True)
    server = start_server(workers=1, VECTOR_DB_PATH=None, VECTOR_DB_URL=url, wait=False)
    wait_until(lambda: "worker is ready" in server.output, 30, "the worker has started")
    assert ready(server)[0] == 503
    postgres.start()
    wait_until(lambda: ready(server)[0] == 200, 10, "it has found its index")
    assert says(server, "19")

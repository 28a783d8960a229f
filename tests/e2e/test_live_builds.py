"""A running server takes a new build up, a rollback and a reload, under load, without a failed request."""

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rag.search import builds
from rag.search.hybrid import open_build
from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, build_index, run_module
from tests.support.small_site import SITE_URL, write_small_site
from tests.support.waiting import wait_until

TAKEN_UP_WITHIN_S = 5.0
WORKERS = 4
QUESTION = "What does the Reef plan cost per month?"


class Owner:
    """Who has a site and publishes it."""

    def __init__(self, folder: Path, azure: AzureEmulator) -> None:
        self.site = write_small_site(folder / "site")
        self.root = folder / "vector_db"
        self._azure = azure

    def publish(self, price: str) -> str:
        """The id of a build in which the Reef plan costs `price`."""
        page = self.site / "pricing.md"
        page.write_text(f"# Prices and plans\n\n## Reef plan\n\nThe Reef plan costs {price} euros a month.\n")
        done = build_index(
            self.site, env=self._azure.environment, output=self.root, extra_args=["--site-url", SITE_URL]
        )
        assert done.returncode == 0, done.stderr
        return builds.live_id(self.root)

    def rollback(self) -> None:
        done = run_module(
            "indexer", "rollback", "--output", str(self.root), env=self._azure.environment, cwd=self.root.parent
        )
        assert done.returncode == 0, done.stderr


class Load:
    """Visitors who ask without a pause, each on a connection of its own that is closed after some questions."""

    def __init__(self, server: RagServer, visitors: int = 4) -> None:
        self.failures: list[str] = []
        self.prices: list[tuple[float, str]] = []
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(visitors)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.prices) > 20, 20, "the load is on")
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            with httpx.Client(base_url=self._server.base_url, timeout=20, trust_env=False, verify=False) as client:
                for _ in range(5):
                    asked_at = time.monotonic()
                    try:
                        answer = client.post("/chat", json={"message": QUESTION})
                        text = answer.json()["sources"][0]["content_full"]
                        assert answer.status_code == 200
                        self.prices.append((asked_at, text.split("costs ")[1].split(" euros")[0]))
                    except Exception as error:  # whatever it is, a visitor saw it
                        self.failures.append(repr(error))
                    self._stop.wait(0.01)

    def only(self, price: str, since: float) -> bool:
        """Whether enough questions were asked since then, all of them answered with this price."""
        recent = [told for asked_at, told in list(self.prices) if asked_at >= since]
        return len(recent) >= 20 and set(recent) == {price}


@pytest.fixture
def owner(tmp_path: Path, azure: AzureEmulator) -> Owner:
    return Owner(tmp_path, azure)


@contextmanager
def no_visitor_notices(server: RagServer) -> Iterator[Load]:
    with Load(server) as load:
        yield load
    assert load.failures == []
    assert server.running()


def logged(server: RagServer, message: str) -> int:
    return server.output.count(f'"message":"{message}"')


def test_new_builds_rollbacks_and_reloads_are_taken_up_under_load_without_a_failed_request(
    start_server: StartServer, owner: Owner
) -> None:
    first = owner.publish("6.50")
    server = start_server(workers=WORKERS, VECTOR_DB_PATH=owner.root)
    with no_visitor_notices(server) as load:
        assert {price for _, price in load.prices} == {"6.50"}

        second = owner.publish("7.25")
        published_at = time.monotonic()
        wait_until(lambda: logged(server, "new build is live") == WORKERS, 10, "every worker has the new build")
        assert time.monotonic() - published_at < TAKEN_UP_WITHIN_S
        taken_at = time.monotonic()
        wait_until(lambda: load.only("7.25", taken_at), 20, "only the new build answers")

        owner.rollback()
        assert builds.live_id(owner.root) == first
        wait_until(
            lambda: logged(server, "new build is live") == 2 * WORKERS, TAKEN_UP_WITHIN_S, "back in every worker"
        )
        taken_at = time.monotonic()
        wait_until(lambda: load.only("6.50", taken_at), 20, "only the old build answers")

        before = server.worker_pids()
        builds.make_live(owner.root, second)
        server.reload()
        wait_until(lambda: not set(before) & set(server.worker_pids()), 30, "all workers are new")
        wait_until(lambda: len(server.worker_pids()) == WORKERS, 30, "as many workers as before")
        taken_at = time.monotonic()
        wait_until(lambda: load.only("7.25", taken_at), 20, "the reloaded server has the live build")


def test_a_damaged_build_is_refused_with_its_reason_while_the_old_one_serves(
    start_server: StartServer, owner: Owner
) -> None:
    good = owner.publish("6.50")
    server = start_server(workers=2, VECTOR_DB_PATH=owner.root)
    bad = copy_of(owner.root, good)
    file = builds.folder_of(owner.root, bad) / "passages.jsonl"
    original = file.read_bytes()
    file.write_bytes(original.replace(b"6.50", b"6.51"))
    with no_visitor_notices(server) as load:
        builds.make_live(owner.root, bad)
        wait_until(lambda: logged(server, "build refused, the live one keeps serving") == 2, 10, "both workers refuse")
        ready = httpx.get(f"{server.base_url}/ready", trust_env=False, verify=False)
        assert ready.status_code == 200
        index = ready.json()["index"]
        assert (index["status"], index["build"]) == ("ok", good)
        assert index["refused"] == {"build": bad, "reason": "damaged"}
        assert str(owner.root) not in ready.text
        assert "passages.jsonl does not have the checksum" in server.output
        server.reload()
        wait_until(lambda: logged(server, "reload refused, the old workers keep serving"), 20, "the reload is refused")
        assert {price for _, price in load.prices} == {"6.50"}
        # A build that was being copied when it was named becomes whole: it is looked at again.
        file.write_bytes(original)
        wait_until(lambda: logged(server, "new build is live") == 2, 20, "the mended build is taken up")
    assert logged(server, "build refused, the live one keeps serving") == 2


def copy_of(root: Path, build_id: str) -> str:
    """The id of a newer build with the same content."""
    newer = f"{build_id[:-2]}{(int(build_id[-2]) + 1) % 10}Z"
    folder = builds.folder_of(root, newer)
    shutil.copytree(builds.folder_of(root, build_id), folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(build_id, newer))
    assert builds.verify(folder)["id"] == newer
    return newer


def test_builds_of_another_model_or_format_and_a_nonsense_name_are_refused(
    start_server: StartServer, owner: Owner, azure: AzureEmulator
) -> None:
    good = owner.publish("6.50")
    server = start_server(workers=1, VECTOR_DB_PATH=owner.root)

    def refused() -> dict[str, str]:
        index = httpx.get(f"{server.base_url}/ready", trust_env=False, verify=False).json()["index"]
        assert index["build"] == good
        found: dict[str, str] = index.get("refused", {})
        return found

    other = {**azure.environment, "AZURE_OPENAI_EMBEDDINGS_ENDPOINT": azure.embeddings_url_of("another-model")}
    assert build_index(owner.site, env=other, output=owner.root).returncode == 0
    foreign = builds.live_id(owner.root)
    expected = {"build": foreign, "reason": "another model or format"}
    wait_until(lambda: refused() == expected, 10, "another model is refused")
    assert "another-model" in server.output

    (owner.root / "CURRENT").write_text("../../../../etc/passwd\n")
    wait_until(lambda: refused() == {"build": "", "reason": "damaged"}, 10, "a name that is none is refused")
    (owner.root / "CURRENT").unlink()
    wait_until(lambda: refused() == {"build": "", "reason": "missing"}, 10, "no name is refused")
    builds.make_live(owner.root, "20200101T000000.000000Z")
    wait_until(lambda: refused().get("build", "").startswith("2020"), 10, "a build that is not there is refused")

    manifest = builds.folder_of(owner.root, foreign) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {builds.FORMAT}', '"format": 99'))
    builds.make_live(owner.root, foreign)
    wait_until(
        lambda: f"format 99, this version reads {builds.FORMAT}" in server.output, 10, "a newer format is refused"
    )
    assert (
        httpx.post(f"{server.base_url}/chat", json={"message": QUESTION}, trust_env=False, verify=False).status_code
        == 200
    )

    builds.make_live(owner.root, good)
    wait_until(lambda: refused() == {}, 10, "the good build needs no refusal")


def test_the_served_build_survives_its_own_removal(start_server: StartServer, owner: Owner) -> None:
    good = owner.publish("6.50")
    server = start_server(workers=1, VECTOR_DB_PATH=owner.root)
    shutil.rmtree(owner.root)
    answer = httpx.post(f"{server.base_url}/search", json={"query": QUESTION}, trust_env=False, verify=False)
    assert "6.50" in answer.json()["results"][0]["content"]
    assert httpx.get(f"{server.base_url}/ready", trust_env=False, verify=False).json()["index"]["build"] == good


def test_workers_share_the_memory_of_one_build(start_server: StartServer, owner: Owner) -> None:
    owner.publish("6.50")
    live = open_build(owner.root)
    server = start_server(workers=2, VECTOR_DB_PATH=owner.root)
    wait_until(lambda: logged(server, "worker is ready") == 2, 20, "both workers are ready")
    for pid in server.worker_pids():
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        mapped = {line.split("/")[-1]: line.split()[1] for line in maps if live.id in line}
        assert mapped.keys() >= {"vectors.faiss", "passages.jsonl", "passages.npy", "lexical_impacts.npy"}
        assert all("w" not in access or access.endswith("p") for access in mapped.values())


def test_a_killed_worker_is_replaced_and_serves_the_live_build(start_server: StartServer, owner: Owner) -> None:
    owner.publish("6.50")
    server = start_server(workers=2, VECTOR_DB_PATH=owner.root)
    owner.publish("7.25")
    wait_until(lambda: logged(server, "new build is live") == 2, 10, "both workers have the new build")
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.worker_pids() and len(server.worker_pids()) == 2, 20, "a new worker")
    wait_until(lambda: logged(server, "worker is ready") == 3, 20, "the new worker is ready")
    answers = Counter(
        "7.25" in httpx.post(f"{server.base_url}/search", json={"query": QUESTION}, trust_env=False, verify=False).text
        for _ in range(20)
    )
    assert answers == {True: 20}

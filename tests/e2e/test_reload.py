"""SIGHUP: new workers take over without a lost request, and only if they could."""

import os
import shutil
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.server import RagServer
from tests.support.waiting import wait_until

REFUSED = "reload refused, the old workers keep serving"


def still_ready(server: RagServer) -> bool:
    return httpx.get(f"{server.base_url}/ready", trust_env=False, timeout=10).status_code == 200


def with_all_workers(server: RagServer, count: int) -> list[int]:
    """Their ids, once every one of them serves."""
    wait_until(lambda: server.output.count("worker is ready") >= count, 30, "every worker is ready")
    return server.worker_pids()


def test_a_reload_replaces_every_worker(start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = set(server.worker_pids())
    server.reload()
    wait_until(lambda: len(now := set(server.worker_pids())) == 2 and not now & before, 30, "two new workers alone")
    assert still_ready(server)
    assert REFUSED not in server.output


def test_settings_that_cannot_work_do_not_take_the_running_server_down(start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = with_all_workers(server, 2)
    (server.folder / ".env").write_text("MAX_VECTOR_RESULTS=many\n", encoding="utf-8")
    server.reload()
    wait_until(lambda: REFUSED in server.output, 30, "the refusal is logged")
    assert "MAX_VECTOR_RESULTS='many'" in server.output
    assert server.worker_pids() == before
    assert still_ready(server)
    (server.folder / ".env").unlink()
    server.reload()
    wait_until(lambda: not set(server.worker_pids()) & set(before), 30, "a later reload that can work does")


def test_a_damaged_index_does_not_take_the_running_server_down(
    start_server: StartServer, site_build: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(site_build, tmp_path / "index")
    server = start_server(workers=2, VECTOR_DB_PATH=str(index))
    before = with_all_workers(server, 2)
    (index / "CURRENT").write_text("20200101T000000.000000Z\n", encoding="ascii")
    server.reload()
    wait_until(lambda: REFUSED in server.output, 30, "the refusal is logged")
    assert server.worker_pids() == before
    found = httpx.post(f"{server.base_url}/search", json={"query": "harbour", "k": 1}, trust_env=False, timeout=10)
    assert found.status_code == 200


def test_a_worker_that_replaces_a_dead_one_has_the_settings_of_the_others(start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = with_all_workers(server, 2)
    (server.folder / ".env").write_text("MAX_VECTOR_RESULTS=many\n", encoding="utf-8")
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: server.output.count("worker is ready") == 3, 30, "a third worker is ready")
    assert before[1] in server.worker_pids()
    assert still_ready(server)


@pytest.mark.parametrize("keep_alive", [False, True])
def test_a_reload_loses_no_request(start_server: StartServer, keep_alive: bool) -> None:
    server = start_server(workers=2)
    stop, answered, lost = threading.Event(), [0] * 8, list[str]()

    def visit(place: int) -> None:
        headers = {} if keep_alive else {"Connection": "close"}
        with httpx.Client(base_url=server.base_url, headers=headers, trust_env=False, timeout=20) as client:
            while not stop.is_set():
                try:
                    client.get("/").raise_for_status()
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                answered[place] += 1

    visitors = [threading.Thread(target=visit, args=[place]) for place in range(len(answered))]
    for visitor in visitors:
        visitor.start()
    try:
        for _ in range(2):
            before, so_far = set(server.worker_pids()), sum(answered)
            server.reload()
            wait_until(lambda old=before: not set(server.worker_pids()) & old, 40, "the old workers are gone")
            wait_until(lambda count=so_far: sum(answered) > count + 50, 20, "the new workers answer")
    finally:
        stop.set()
        for visitor in visitors:
            visitor.join()
    assert lost == []

"""The server and the indexer under test are the real ones, cleanly started and completely ended."""

import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, clean_environment, run_module
from tests.support.waiting import free_port, wait_until


def members_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, members_group, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if state != "Z" and int(members_group) == group:
                found.append(int(entry.name))
    return found


def test_nothing_of_the_machines_settings_reaches_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_CHAT_API_KEY", "from-the-machine")
    seen = clean_environment(tmp_path, {"SITE_NAME": "given"})
    assert "from-the-machine" not in seen.values()
    assert seen["SITE_NAME"] == "given"
    assert seen["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_server_that_cannot_start_shows_its_own_words(tmp_path: Path, azure: AzureEmulator) -> None:
    with pytest.raises(RuntimeError, match="WORKERS"):
        RagServer.start({**azure.environment, "WORKERS": "many"}, tmp_path)


def test_a_failed_command_is_returned_and_not_raised(tmp_path: Path) -> None:
    done = run_module("run_production.py", "--no-such-option", env={}, cwd=tmp_path)
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_a_condition_that_never_holds_says_what_was_awaited() -> None:
    with pytest.raises(AssertionError, match="the moon is full"):
        wait_until(lambda: False, timeout_s=0.05, message="the moon is full")


def test_a_free_port_can_be_listened_on() -> None:
    assert len({free_port() for _ in range(5)}) > 1


def test_a_stopped_server_leaves_no_process_behind(start_server: StartServer) -> None:
    server = start_server(workers=2)
    wait_until(lambda: len(server.worker_pids()) == 2, message="both workers run")
    before = server.worker_pids()
    server.reload()
    wait_until(lambda: not set(before) & set(server.worker_pids()) and server.worker_pids(), 30, "new workers")
    server.wait_ready()
    assert server.stop() == 0
    assert members_of_group(server.pid) == []


def test_the_shared_server_answers_a_fact_of_the_small_site(server: RagServer, azure: AzureEmulator) -> None:
    answer = httpx.post(f"{server.base_url}/chat", json={"message": "How long does the warranty last?"}, timeout=20)
    assert answer.status_code == 200
    assert "37 months" in answer.json()["response"]
    assert [seen["outcome"] for seen in azure.requests("chat")] == ["answered"]

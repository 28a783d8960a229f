"""A disk that is full, read-only or not ours: what visitors get meanwhile, and that all is well again afterwards."""

import contextlib
import os
import resource
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import apsw
import httpx
import pytest

from tests.conftest import StartServer
from tests.soak.load import LogTail
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, run_module
from tests.support.small_site import FACTS
from tests.support.waiting import free_port, wait_until

QUESTION = FACTS[0].question
WITHOUT_MEMORY = "memory unavailable: this conversation is not remembered"
DISK_BYTES = 1_500_000
LIMIT = 5


def may_mount() -> bool:
    """Root may, unless it is the root of a container without that right."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@contextlib.contextmanager
def mounted(*options: str, at: Path) -> Iterator[Path]:
    subprocess.run(["mount", *options, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


class SmallDisk:
    """A disk of its own, filled by another file to the last byte."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def use(self) -> AbstractContextManager[Path]:
        return mounted("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", at=self._folder)

    @contextlib.contextmanager
    def full(self, server: RagServer) -> Iterator[None]:
        hog = self._folder / "hog"
        with hog.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert os.statvfs(self._folder).f_bavail == 0
        yield
        hog.unlink()


class NoGrowth:
    """For those who may not mount: the server's processes may not write a byte beyond a file's first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def use(self) -> AbstractContextManager[Path]:
        return contextlib.nullcontext(self._folder)

    @contextlib.contextmanager
    def full(self, server: RagServer) -> Iterator[None]:
        pids = [server.pid, *server.worker_pids()]
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        yield
        for pid in {server.pid, *server.worker_pids()}:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


DISKS: list[Callable[[Path], SmallDisk | NoGrowth]] = [NoGrowth, *([SmallDisk] if may_mount() else [])]


def ask(server: RagServer, path: str, body: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{server.base_url}{path}", json=body, timeout=30, trust_env=False)


def chat(server: RagServer, session_id: str) -> str | None:
    """Asks, and must be answered; what the answer lacks."""
    answer = ask(server, "/chat", {"message": QUESTION, "session_id": session_id})
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"]
    lacks: str | None = answer.json()["degraded"]
    return lacks


def history(server: RagServer, session_id: str) -> httpx.Response:
    return httpx.get(f"{server.base_url}/sessions/{session_id}/history", timeout=30, trust_env=False)


def states(server: RagServer) -> tuple[int, str, set[str]]:
    """Status code, status, and the states of the two stores."""
    answer = httpx.get(f"{server.base_url}/ready", timeout=30, trust_env=False)
    ready = answer.json()
    return answer.status_code, ready["status"], {ready[part]["status"] for part in ("conversations", "rate_limits")}


def new_id() -> str:
    return f"test-disk-{secrets.token_hex(8)}"


@pytest.mark.parametrize("make_disk", DISKS)
def test_while_the_disk_is_full_chats_are_answered_without_memory_and_all_is_well_when_space_returns(
    start_server: StartServer, tmp_path: Path, make_disk: Callable[[Path], SmallDisk | NoGrowth]
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    disk = make_disk(folder)
    with disk.use():
        server = start_server(
            workers=1, STATE_DIR=folder, RATE_LIMIT_CHAT="10000/minute", RATE_LIMIT_SEARCH=f"{LIMIT}/minute"
        )
        before = new_id()
        assert [chat(server, before) for _ in range(3)] == [None] * 3
        known = history(server, before).json()["history"]
        with disk.full(server):
            # Space inside the files may last for some turns.
            wait_until(lambda: chat(server, new_id()) == WITHOUT_MEMORY, 20, "memory is missing, and it is said")
            assert [chat(server, before) for _ in range(5)] == [WITHOUT_MEMORY] * 5
            assert states(server) == (200, "degraded", {"unavailable"})
            passed = [ask(server, "/search", {"query": QUESTION}).status_code for _ in range(LIMIT + 3)]
            assert passed == [200] * LIMIT + [429] * 3
            read = history(server, before)
            assert read.status_code in (200, 503), "what cannot be read is said to be so, not to be empty"
            assert read.status_code == 503 or read.json()["history"] == known
            (worker,) = server.worker_pids()
            ready = LogTail(server, '"worker is ready"')
            if isinstance(disk, SmallDisk):
                # A new worker finds the full disk.
                os.kill(worker, signal.SIGKILL)
                wait_until(lambda: ready.count() == 1, 20, "a new worker in the place of the killed one")
                assert chat(server, before) == WITHOUT_MEMORY
        wait_until(lambda: chat(server, new_id()) is None, 10, "memory works again by itself")
        wait_until(lambda: states(server) == (200, "ready", {"ok"}), 10, "both stores work again")
        after = history(server, before).json()["history"]
        assert after[: len(known)] == known
        assert len(after) == len(known), "what was said to be not remembered is not"
        assert chat(server, before) is None
        assert len(history(server, before).json()["history"]) == len(known) + 2
        assert server.stop() == 0
        files = sorted(folder.glob("*.sqlite3"))
        assert {file.name for file in files} >= {"conversations.sqlite3", "rate_limits.sqlite3"}
        for file in files:
            connection = apsw.Connection(str(file))
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()
    assert "Traceback" not in server.output


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write there; where root may not mount, it is only watched that nobody does."""
    paths = [folder, *sorted(folder.rglob("*"))]
    before = [(path, path.stat()) for path in paths]
    with contextlib.ExitStack() as stack:
        if may_mount():
            stack.enter_context(mounted("-o", "bind,ro", str(folder), at=folder))
        for path, was in before if os.geteuid() else []:
            path.chmod(was.st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
            stack.callback(path.chmod, was.st_mode)
        yield
    after = [folder, *sorted(folder.rglob("*"))]
    assert [(path, path.stat().st_mtime_ns) for path in after] == [(path, was.st_mtime_ns) for path, was in before]


def test_a_read_only_index_is_served_and_left_as_it_is(
    start_server: StartServer, site_build: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(site_build, tmp_path / "index")
    with read_only(index):
        server = start_server(workers=1, VECTOR_DB_PATH=index)
        assert FACTS[0].words in ask(server, "/search", {"query": QUESTION}).text
        assert chat(server, new_id()) is None
        assert server.stop() == 0
    assert "Traceback" not in server.output


def test_a_state_folder_that_cannot_be_written_is_said_before_anything_starts(
    azure: AzureEmulator, site_build: Path, tmp_path: Path
) -> None:
    state = "/proc/state-of-nobody"  # nobody can make a folder there, root neither
    env = {**azure.environment, "VECTOR_DB_PATH": str(site_build), "STATE_DIR": state, "PORT": str(free_port())}
    done = run_module("run_production.py", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{state} cannot be written" in done.stdout
    assert "set STATE_DIR to a folder that this user may write to" in done.stdout
    assert "nothing was started" in done.stdout

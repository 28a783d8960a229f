"""The product and what it is measured against, started alike: so many workers, an address, and their processor time."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.server import RagServer, clean_environment
from tests.support.waiting import REPOSITORY, free_port, wait_until

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 60.0
WORKERS = 4


@dataclass(frozen=True)
class Running:
    """A server under measurement."""

    name: str
    url: str
    master: int

    def workers(self) -> list[int]:
        """The processes that answer."""
        return [pid for pid, parent in _parents() if parent == self.master]

    def cpu_s(self) -> float:
        """Processor time that the workers have used so far, in user and kernel mode."""
        return sum(cpu_s(pid) for pid in self.workers())


def cpu_s(pid: int) -> float:
    """Processor time of one process in seconds, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.contextmanager
def product(env: Mapping[str, str], folder: Path, *, workers: int = WORKERS) -> Iterator[Running]:
    """The server as an operator starts it: defaults, except that nobody is refused for asking often."""
    with RagServer.start({**env, "RATE_LIMIT_ENABLED": "false"}, folder, workers=workers) as server:
        yield Running("server", server.base_url, server.pid)


@contextlib.contextmanager
def floor(env: Mapping[str, str], folder: Path, *, workers: int = WORKERS) -> Iterator[Running]:
    """`benchmarks.floor` under the worker class that the server's own is derived from."""
    with application("floor", "benchmarks.floor:app", env, folder, workers=workers) as running:
        yield running


@contextlib.contextmanager
def application(
    name: str, where: str, env: Mapping[str, str], folder: Path, *, workers: int = WORKERS,
    python: str = sys.executable,
) -> Iterator[Running]:  # fmt: skip
    """Any ASGI application under gunicorn and uvicorn's worker, by `python`."""
    port = free_port()
    command = [
        python, "-m", "gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", str(workers),
        "--bind", f"127.0.0.1:{port}", "--backlog", "2048", "--keep-alive", "15", "--log-level", "warning",
        "--no-control-socket", where,
    ]  # fmt: skip
    env = clean_environment(folder, {"VECTOR_DB_PATH": str(folder / "vector_db"), **env})
    # Each interpreter finds its own programs first.
    env["PATH"] = f"{Path(python).parent}{os.pathsep}{env['PATH']}"
    with (folder / f"{name}.log").open("ab") as log, _ended(command, env, folder, log.fileno()) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url, process), START_TIMEOUT_S, f"{name} answers, see {log.name}", 0.05)
        yield Running(name, url, process.pid)


@contextlib.contextmanager
def _ended(command: Sequence[str], env: Mapping[str, str], folder: Path, log: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=folder, env={**env, "PYTHONPATH": str(REPOSITORY)}, stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=5.0, trust_env=False).status_code < 500
    return False


def settled(running: Running, patience_s: float = 10.0) -> None:
    """Wait until the workers have nothing left to do, so that one run's end does not count for the next."""
    last, since = running.cpu_s(), time.monotonic()

    def idle() -> bool:
        nonlocal last, since
        now = running.cpu_s()
        if now - last > 0.02 * (time.monotonic() - since):
            last, since = now, time.monotonic()
        return time.monotonic() - since > 0.5

    with contextlib.suppress(AssertionError):
        wait_until(idle, patience_s, interval_s=0.1)


def _parents() -> list[tuple[int, int]]:
    """(process, its parent) for every process that runs and is not a zombie."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    found.append((int(entry.name), int(parent)))
    return found

"""The real server and the real indexer, started as an operator starts them. Knows nothing of what they answer.

Both run with a clean environment (PATH, HOME and what the test gives), in a folder of their own, so that no `.env` and
no setting of the machine reaches them.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import httpx

from tests.support.waiting import REPOSITORY, free_port, wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
"""Longer than the server's own graceful time-out, so that a test sees how it ends by itself."""


def clean_environment(home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """What a process of the product sees: the running interpreter first on PATH, and `given`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    fixed = {"PATH": path, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
    return {**fixed, **given}


def run_module(
    module: str, *args: str, env: Mapping[str, str], cwd: Path, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """`python -m module args`, or `python file.py args` of the repository; output captured, never raises on failure."""
    what = [str(REPOSITORY / module)] if module.endswith(".py") else ["-m", module]
    return subprocess.run(
        [sys.executable, *what, *args], cwd=cwd, env=clean_environment(cwd, env), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def build_index(
    sources: Path | Sequence[Path | str], *, env: Mapping[str, str], output: Path | None, cwd: Path | None = None,
    extra_args: Sequence[str] = (), timeout_s: float = 120.0,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """`python -m indexer build …`. `env` holds the settings, which say where to; `output` wins."""
    names = [str(source) for source in ([sources] if isinstance(sources, Path) else sources)]
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        extra_args, cwd = ["--output", str(output), *extra_args], cwd or output.parent
    return run_module("indexer", "build", *names, *extra_args, env=env, cwd=cwd or Path.cwd(), timeout_s=timeout_s)


class RagServer:
    """`python run_production.py`, which becomes gunicorn, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path, log: Path) -> None:
        self.port = port
        self.folder = folder
        """Working folder: STATE_DIR and VECTOR_DB_PATH stand in it unless the test gave others."""
        self.base_url = f"http://127.0.0.1:{port}"
        self.exit_code: int | None = None
        self._process = process
        self._log = log

    @classmethod
    def start(
        cls, env: Mapping[str, str], folder: Path, *, workers: int = 4, args: Sequence[str] = (),
        port: int | None = None, wait: bool = True, timeout_s: float = START_TIMEOUT_S,
        open_files: tuple[int, int] | None = None,
    ) -> "RagServer":  # fmt: skip
        """Starts, and waits for `/ready` to say 200 (`wait=False`: returns at once). `env` wins over what is set here.

        `open_files` are the soft and the hard limit that the server begins with; None: those of the tests.

        RuntimeError with the server's output if it ends or does not get ready in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        ours = {
            "HOST": "127.0.0.1", "PORT": str(port), "WORKERS": str(workers),
            "STATE_DIR": str(folder / "state"), "VECTOR_DB_PATH": str(folder / "vector_db"),
            # A test that asks the same again asks the model again, unless it is about the cache.
            "ENABLE_CACHING": "false",
        }  # fmt: skip
        log = folder / f"server-{port}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "run_production.py"), *args],
                cwd=folder, env=clean_environment(folder, {**ours, **env}), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=open_files and partial(resource.setrlimit, resource.RLIMIT_NOFILE, open_files),
            )  # fmt: skip
        server = cls(process, int({**ours, **env}["PORT"]), folder, log)
        if wait:
            try:
                server.wait_ready(timeout_s)
            except BaseException:
                server.stop(patience_s=2.0)
                raise
        return server

    def __enter__(self) -> "RagServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """gunicorn's master: `run_production.py` becomes it."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything that was written to stdout and stderr so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def running(self) -> bool:
        self.exit_code = self._process.poll()
        return self.exit_code is None

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        last = "no answer"
        with httpx.Client(base_url=self.base_url, timeout=5.0, trust_env=False) as client:

            def ready() -> bool:
                nonlocal last
                if not self.running():
                    raise RuntimeError(f"the server ended with {self.exit_code}; it said:\n{self.output[-6000:]}")
                try:
                    answer = client.get("/ready")
                except httpx.TransportError as error:
                    last = repr(error)
                    return False
                last = f"{answer.status_code} {answer.text[:1000]}"
                return answer.status_code == 200

            try:
                wait_until(ready, timeout_s, "/ready is 200", interval_s=0.1)
            except AssertionError:
                raise RuntimeError(
                    f"not ready within {timeout_s:g} s; /ready: {last}; the server said:\n{self.output[-6000:]}"
                ) from None

    def worker_pids(self) -> list[int]:
        """The children of the master, in the order of their ids."""
        return sorted(pid for pid, parent in _parents() if parent == self.pid)

    def reload(self) -> None:
        """SIGHUP: new workers take over."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self, patience_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM to the master as a process manager sends it, SIGKILL to what is left of its group; the exit code."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self.kill()
        self.exit_code = self._process.wait()
        return self.exit_code

    def kill(self) -> None:
        """SIGKILL to the whole group, as a power cut looks."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def _parents() -> list[tuple[int, int]]:
    """(process, its parent) for every process that runs and is not a zombie."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name may hold spaces and brackets: the fields that follow start after the last one.
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if state != "Z":
                found.append((int(entry.name), int(parent)))
    return found

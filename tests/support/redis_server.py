"""A real redis-server of a test's own: it keeps nothing on disk, and can be frozen, killed and started again."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from tests.support.waiting import free_port, wait_until


class RedisServer:
    """One redis-server on loopback and on a socket in `folder`. Ends with the block, whatever happened to it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket_url = f"unix://{folder / 'redis.sock'}"
        self.client: Any = redis.Redis(port=self.port, decode_responses=True)
        """For looking at what is stored, beside the code under test."""
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        self.kill()

    def start(self) -> None:
        """Returns when it answers. RuntimeError where it is not installed."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is not installed; on Debian and Ubuntu: apt-get install redis-server")
        self._process = subprocess.Popen(
            [
                program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder),
                "--unixsocket", str(self._folder / "redis.sock"), "--save", "", "--appendonly", "no", *self._options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._answers, 10, "redis-server answers")

    def freeze(self) -> None:
        """It keeps its connections and accepts new ones, but answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Everything it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

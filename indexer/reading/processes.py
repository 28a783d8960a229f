"""Reading processes: asked one file at a time, and replaced when they die or hang. Knows no format.

A file may be hostile: a bomb of ZIP or zlib, a table that loops, a parser's own fault. In a process of its own it
can cost one skipped file, and never the build.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost."""

    seconds: int = 30
    memory_bytes: int = 1024 * 1024 * 1024
    file_bytes: int = 64 * 1024 * 1024

    def command(self) -> list[str]:
        """How a reading process is started."""
        limits = map(str, (self.seconds, self.memory_bytes, self.file_bytes))
        # Without the site module a process starts in half the time; the path below has its directories already.
        return [sys.executable, "-S", "-P", "-m", "indexer.reading.child", *limits]


class ReadingProcess:
    """One child and its pipes. `ask` starts it when it is needed; `close` ends it."""

    def __init__(self, *, command: Sequence[str], seconds: float) -> None:
        self._command = command
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, str | bool]) -> dict[str, Any]:
        """The child's answer; `{"skipped": reason}` where it hangs or dies over the request."""
        line = json.dumps(request).encode() + b"\n"
        child = self._child
        if child is None or child.poll() is not None:
            child = self._start()
        try:
            answer = self._exchange(child, line)
        except TimeoutError:
            self.close()
            return {"skipped": self._too_slow()}
        if answer is None:
            return {"skipped": self._death()}
        if answer.get("spent"):
            self.close()
        return answer

    def interrupt(self) -> None:
        """Kill the child under a thread that waits for its answer; that thread gets one at once."""
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Kill the child, if there is one, and wait for it."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        # Nothing of the parent's environment, in which keys may stand, is within reach of a parser.
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        self._child = subprocess.Popen(  # noqa: S603  # the command is ours; the file's name goes over the pipe
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={"PYTHONPATH": path, "PYTHONUTF8": "1"},
        )
        return self._child

    def _exchange(self, child: subprocess.Popen[bytes], line: bytes) -> dict[str, Any] | None:
        """One request and its answer; None where the child died, TimeoutError where it says nothing in time."""
        if child.stdin is None or child.stdout is None:
            raise ValueError("a reading process needs both pipes")
        try:
            child.stdin.write(line)
        except BrokenPipeError:
            return None
        deadline = time.monotonic() + self._seconds
        received = bytearray()
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        while not received.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise TimeoutError
            chunk = os.read(child.stdout.fileno(), 1 << 20)
            if not chunk:
                return None
            received += chunk
            if len(received) > ANSWER_LIMIT_BYTES:
                self.close()
                return {"skipped": f"holds more than {ANSWER_LIMIT_BYTES // 1024**2} MiB of text"}
        answer: dict[str, Any] = json.loads(received)
        return answer

    def _death(self) -> str:
        code = self._child.wait() if self._child is not None else 0
        self.close()
        if code == -signal.SIGXCPU:
            return self._too_slow()
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"its reader crashed ({name})"

    def _too_slow(self) -> str:
        return f"took more than {self._seconds:g} s to read"

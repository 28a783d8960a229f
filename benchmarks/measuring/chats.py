"""Whole answers under load, by wrk: one process in C, so that the load costs little beside what it measures."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.servers import Running

SCRIPT = Path(__file__).with_name("chat.lua")
WRK_THREADS = 2
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Chats:
    """What one run of load came to."""

    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Processor time of all workers for one answer."""
    failed: int
    """Answers other than 200, and connections that broke."""


def ask_with_wrk(running: Running, *, questions: Path, clients: int, seconds: float, key: str = "") -> Chats:
    """`clients` connections, each asks its next question when its answer has come, with `key` if there is one.

    `questions` is a file with one a line. RuntimeError where wrk fails.
    """
    command = [
        "wrk", "--threads", str(min(WRK_THREADS, clients)), "--connections", str(clients),
        "--duration", f"{seconds:.0f}s", "--timeout", "30s", "--script", str(SCRIPT), running.url,
        "--", str(questions), str(time.time_ns() % 10**9), *filter(None, [key]),
    ]  # fmt: skip
    before = running.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE_S, check=False)
    spent_s = running.cpu_s() - before
    if done.returncode:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return Chats(
        clients=clients,
        per_second=(told["answers"] - told["refused"]) / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        cpu_ms=1000 * spent_s / max(1, told["answers"]),
        failed=told["refused"] + told["broken"],
    )

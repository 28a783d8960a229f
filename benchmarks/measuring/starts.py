"""How long it takes to get ready, and to make an index: in seconds, from the command to its effect."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.measuring.servers import WORKERS
from tests.support.server import RagServer, build_index
from tests.support.waiting import wait_until

SITE = "https://bench.example"


def seconds_to_ready(env: Mapping[str, str], folder: Path) -> float:
    """From `python run_production.py` until `/ready` answers 200 on connections to as many workers as there are."""
    began = time.perf_counter()
    with RagServer.start(env, folder, workers=WORKERS, wait=False) as server:

        def ready() -> bool:
            try:
                return httpx.get(f"{server.base_url}/ready", timeout=5, trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, 60, "/ready is 200", interval_s=0.01)
        wait_until(lambda: server.output.count("worker is ready") >= WORKERS, 60, "all workers are ready", 0.01)
        return time.perf_counter() - began


@dataclass(frozen=True)
class Indexed:
    """One run of the indexer."""

    seconds: float
    """Of the whole process, its imports too."""
    calls: int
    """Of the embedding model."""


def index(pages: Path, env: Mapping[str, str], output: Path) -> Indexed:
    """`python -m indexer build`. RuntimeError where it fails."""
    began = time.perf_counter()
    done = build_index(pages, env=env, output=output, extra_args=("--site-url", SITE))
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"the indexer ended with {done.returncode}: {done.stderr}")
    told = re.search(r"in (\d+) embedding calls?", done.stdout)
    return Indexed(seconds, int(told[1]) if told else 0)

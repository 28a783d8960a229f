"""What a build costs and how fast it answers, from a thousand passages to a million: the real indexer, the real server.

Run: python benchmarks/scale.py [--million] [--passages N ...] [--dimensions D ...] [--folder FOLDER]
Texts and vectors are made up and pass through in blocks. Vectors are spread as those of a sentence model (MiniLM) were
found to be on two public sets: topics, which are half of the variance, differ in few directions; what differs within a
topic does in more; a question lies at a cosine of .5 to .6 from its passage. Without --million 1,000, 10,000 and
100,000 passages are measured, in a few minutes; a million takes a quarter of an hour and 20 GB of disk. Exit code 1
where a figure misses what is promised.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scale_data import Collection, Looked  # noqa: E402
from indexer.build import Summary, build  # noqa: E402
from rag.search import vectors as dense  # noqa: E402
from rag.search.backends.files import FileBackend  # noqa: E402
from rag.search.hybrid import open_build  # noqa: E402
from tests.support.azure import AzureEmulator  # noqa: E402
from tests.support.server import RagServer  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

QUESTIONS = 200
RECALL_QUESTIONS = 100
COLUMNS = "{:>9} {:>5} {:>8} {:>8} {:>8} {:>9} {:>8} {:>9} {:>7} {:>9} {:>7} {:>8} {:>8} {:>7} {:>10} {:>7}"

NAMES = """passages dims build_s build_MB disk_MB ready_s served_MB alone_MB own_MB p50_ms p99_ms cpu_p99 http_p99
recall index again_s"""
"""served_MB is the proportional memory of the server with four workers, alone_MB with one, own_MB what is private of
four; p50, p99 and the processor's p99 are of `Build.search`, http_p99 of /search, four connections' worth of workers in
turn; again_s is the same build once more."""

LEAST_RECALL = 0.98
LONGEST_SEARCH_S = 0.020
LONGEST_START_S = 3.0
MOST_SERVED_MB = 3_000
MOST_OF_ONE = 1.3
"""How much four workers may take of the memory of one, beside what three more take that have nothing to serve."""
MOST_BUILT_MB = 8_000


@dataclass
class Figures:
    """One line of the table; seconds and MB."""

    passages: int
    dimensions: int
    build_s: float = 0.0
    build_mb: float = 0.0
    disk_mb: float = 0.0
    ready_s: float = 0.0
    served_mb: float = 0.0
    alone_mb: float = 0.0
    idle_mb: float = 0.0
    """What one more worker costs that has next to nothing to serve."""
    private_mb: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    cpu_p99_s: float = 0.0
    """Of the processor: what the 99th would take on a machine that does nothing else."""
    served_p99_s: float = 0.0
    recall: float = 0.0
    index: str = ""
    rebuild_s: float = 0.0

    def missed(self) -> list[str]:
        limits = {
            "recall@10": self.recall < LEAST_RECALL,
            "p99": self.p99_s > LONGEST_SEARCH_S,
            "start to ready": self.ready_s > LONGEST_START_S,
            "memory of the server": self.served_mb > MOST_SERVED_MB,
            "memory against one worker": self.served_mb > MOST_OF_ONE * self.alone_mb + 3 * self.idle_mb,
            "memory of the build": self.build_mb > MOST_BUILT_MB,
        }
        return [f"{self.passages:,} x {self.dimensions}: {name}" for name, is_missed in limits.items() if is_missed]

    def line(self) -> str:
        return COLUMNS.format(
            f"{self.passages:,}", self.dimensions, f"{self.build_s:,.1f}", f"{self.build_mb:,.0f}",
            f"{self.disk_mb:,.0f}", f"{self.ready_s:.1f}", f"{self.served_mb:,.0f}", f"{self.alone_mb:,.0f}",
            f"{self.private_mb:,.0f}",
            f"{self.p50_s * 1e3:.1f}", f"{self.p99_s * 1e3:.1f}", f"{self.cpu_p99_s * 1e3:.1f}",
            f"{self.served_p99_s * 1e3:.1f}", f"{self.recall:.3f}", self.index, f"{self.rebuild_s:,.1f}",
        )  # fmt: skip


def built(root: Path, count: int, dimensions: int) -> tuple[Summary, float]:
    """Build in a process of its own, so that its memory can be told: the summary, and the peak in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_build, (root, count, dimensions))


def _build(root: Path, count: int, dimensions: int) -> tuple[Summary, float]:
    collection = Collection(count, dimensions)
    summary = asyncio.run(
        build(
            collection.documents(),
            backend=FileBackend(root),
            embedder=Looked(collection),
            clean=False,
            progress=lambda *_: None,
        )
    )
    return summary, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def searched(root: Path, count: int, dimensions: int) -> tuple[list[float], list[float], float]:
    """Seconds of each search, one at a time, on the clock and of the processor, and the mean recall@10 of the vectors.

    In a process of its own, so that nothing else is in its memory.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_search, (root, count, dimensions))


def _search(root: Path, count: int, dimensions: int) -> tuple[list[float], list[float], float]:
    collection, opened = Collection(count, dimensions), open_build(root)
    texts, questions = collection.questions(2 * QUESTIONS)
    seconds, computing = [], []
    gc.freeze()
    for text, question in zip(texts, questions, strict=True):
        began, began_computing = time.perf_counter(), time.process_time()
        opened.search(text, vector=question, k=5)
        seconds.append(time.perf_counter() - began)
        computing.append(time.process_time() - began_computing)
    first = questions[:RECALL_QUESTIONS]
    index = dense.opened(opened.folder, opened.manifest["index"])
    shares = [
        len(truth & _found(index, question)) / len(truth)
        for truth, question in zip(collection.nearest(first, 10), first, strict=True)
    ]
    return seconds[QUESTIONS:], computing[QUESTIONS:], float(np.mean(shares))


def _found(index: dense.Exact | dense.Approximate, question: np.ndarray) -> set[int]:
    if isinstance(index, dense.Exact):
        return set(np.argsort(-index.similarities(question))[:10].tolist())
    nearest = index.nearest(question, also=np.empty(0, dtype=np.int64))
    return set(nearest.rows[np.argsort(-nearest.similarities)[:10]].tolist())


def serve(figures: Figures, root: Path, folder: Path) -> None:
    """Start the server on the build, with four workers and with one, ask it questions, and look at its memory."""
    collection = Collection(figures.passages, figures.dimensions)
    texts, questions = collection.questions(2 * QUESTIONS)
    given = folder / "questions"
    given.mkdir()
    ids = [str(number) for number in range(len(texts))]
    (given / "queries.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in zip(ids, texts, strict=True))
    )
    (given / "corpus.jsonl").write_text("")
    np.savez(given / "vectors.npz", query_ids=ids, queries=questions, corpus_ids=ids[:0], corpus=questions[:0])
    with AzureEmulator.start(vectors=[given / "vectors.npz"]) as azure:
        settings = {**azure.environment, "VECTOR_DB_PATH": str(root), "RATE_LIMIT_ENABLED": "false"}
        began = time.perf_counter()
        with RagServer.start(settings, folder / "server", workers=4) as server:
            figures.ready_s = time.perf_counter() - began
            seconds = asked(server, texts * 2)
            figures.served_p99_s = float(np.quantile(seconds[QUESTIONS:], 0.99))
            figures.served_mb, figures.private_mb = memory_mb(server.pid)
        with RagServer.start(settings, folder / "alone", workers=1) as server:
            asked(server, texts)
            figures.alone_mb, _ = memory_mb(server.pid)


def asked(server: RagServer, texts: Sequence[str]) -> list[float]:
    """Seconds of each search; every fourth is the first on a connection, which another worker may take."""
    seconds = []
    for first in range(0, len(texts), 4):
        with httpx.Client(base_url=server.base_url, timeout=60, trust_env=False) as client:
            for text in texts[first : first + 4]:
                began = time.perf_counter()
                client.post("/search", json={"query": text}).raise_for_status()
                seconds.append(time.perf_counter() - began)
    return seconds


def _are_ready(server: RagServer, workers: int) -> bool:
    return server.output.count("worker is ready") >= workers


def idle_mb(folder: Path) -> float:
    """Proportional memory of one more worker that serves ten passages and was never asked."""
    root = folder / "vector_db"
    built(root, 10, 384)
    totals = []
    with AzureEmulator.start(dimension=384) as azure:
        settings = {**azure.environment, "VECTOR_DB_PATH": str(root)}
        for workers in (1, 4):
            with RagServer.start(settings, folder / str(workers), workers=workers) as server:
                wait_until(partial(_are_ready, server, workers), 60, "all workers are ready")
                totals.append(memory_mb(server.pid)[0])
    return (totals[1] - totals[0]) / 3


def memory_mb(master: int) -> tuple[float, float]:
    """Proportional and private memory of a process and its children together."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    totals = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for pid in [str(master), *children]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name = line.split(":")[0]
            if name in totals:
                totals[name] += int(line.split()[1])
    return totals["Pss"] / 1024, (totals["Private_Clean"] + totals["Private_Dirty"]) / 1024


def measured(count: int, dimensions: int, folder: Path, idle_mb: float) -> Figures:
    figures, root = Figures(count, dimensions, idle_mb=idle_mb), folder / "vector_db"
    summary, figures.build_mb = built(root, count, dimensions)
    figures.build_s = summary.seconds
    live = open_build(root)
    figures.disk_mb = sum(about["bytes"] for about in live.manifest["files"].values()) / 1e6
    index = live.manifest["index"]
    figures.index = index["type"] + (f" {index['probes']}/{index['lists']}" if "probes" in index else "")
    del live
    seconds, computing, figures.recall = searched(root, count, dimensions)
    figures.cpu_p99_s = float(np.quantile(computing, 0.99))
    figures.p50_s, figures.p99_s = (float(value) for value in np.quantile(seconds, (0.5, 0.99)))
    serve(figures, root, folder)
    if count <= 10_000:
        again, _ = built(root, count, dimensions)
        if again.embedded or not again.unchanged:
            raise AssertionError("a build of the same passages embedded or published something")
        figures.rebuild_s = again.seconds
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure builds from a thousand passages to a million.")
    parser.add_argument("--passages", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 1_536])
    parser.add_argument("--million", action="store_true", help="1,000,000 x 1,536 as well")
    parser.add_argument("--folder", type=Path, help="where builds are made; default: the temporary folder")
    given = parser.parse_args()
    sizes = [(count, dimensions) for dimensions in given.dimensions for count in given.passages]
    missed: list[str] = []
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as folder:
        idle = idle_mb(Path(folder))
    print(f"one more worker with next to nothing to serve: {idle:.0f} MB")
    print(COLUMNS.format(*NAMES.split()), flush=True)
    for count, dimensions in [*sizes, *([(1_000_000, 1_536)] if given.million else [])]:
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as folder:
            figures = measured(count, dimensions, Path(folder), idle)
        print(figures.line(), flush=True)
        missed += figures.missed()
    print("\n".join(["missed:", *missed]) if missed else "every figure keeps what is promised")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

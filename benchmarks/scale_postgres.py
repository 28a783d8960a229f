"""An index in PostgreSQL beside the same index in files: building, size, searching, and what is found.

Run: python benchmarks/scale_postgres.py [CORPORA] [--passages N] [--dimensions D] [--url URL] [--folder FOLDER]
The same made-up passages and vectors as benchmarks/scale.py, published to both by the real indexer and searched by
both, in one process, one question at a time; then nDCG@10 of both on the public sets of benchmarks/retrieval.py, where
CORPORA is there (../shared/corpora unless named). Without --url PostgreSQL is the tests' own, on the same machine, with
128 MB of shared buffers and what a commit writes synced to disk. Exit code 1 where it finds less than it has to.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.retrieval import SERVED, figures, with_vectors, write_documents  # noqa: E402
from benchmarks.retrieval_lab import CORPORA, Corpus, load  # noqa: E402
from benchmarks.scale_data import Collection, Looked  # noqa: E402
from indexer.build import build  # noqa: E402
from indexer.documents import Document  # noqa: E402
from indexer.passages.storable import passages_of  # noqa: E402
from indexer.reading import finding  # noqa: E402
from indexer.reading.files import read_all  # noqa: E402
from rag.deadline import Deadline  # noqa: E402
from rag.search.backends.files import FileBackend  # noqa: E402
from rag.search.backends.protocol import Backend  # noqa: E402
from rag.search.hybrid import Build  # noqa: E402
from rag.search.postgres.backend import PostgresBackend  # noqa: E402
from tests.support.postgres_server import PgvectorServer  # noqa: E402

QUESTIONS = 200
RECALL_QUESTIONS = 100
LEAST_RECALL = 0.98
MOST_LOST = 0.005
"""Of nDCG@10, beside files."""
COLUMNS = "{:<12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  {}"
NAMES = ["where", "build_s", "size_MB", "open_s", "p50_ms", "p99_ms", "recall", "index"]


@dataclass
class Figures:
    """One line of the table."""

    where: str
    build_s: float
    size_mb: float
    open_s: float
    p50_s: float
    p99_s: float
    recall: float
    index: str

    def line(self) -> str:
        return COLUMNS.format(
            self.where, f"{self.build_s:,.1f}", f"{self.size_mb:,.0f}", f"{self.open_s:.2f}",
            f"{self.p50_s * 1e3:.1f}", f"{self.p99_s * 1e3:.1f}", f"{self.recall:.3f}", self.index,
        )  # fmt: skip


def measured(where: str, backend: Backend, collection: Collection) -> Figures:
    summary = asyncio.run(
        build(
            collection.documents(), backend=backend, embedder=Looked(collection), clean=True, progress=lambda *_: None
        )
    )
    began = time.perf_counter()
    opened = backend.open()
    open_s = time.perf_counter() - began
    seconds, recall = searched(opened, collection)
    p50_s, p99_s = (float(value) for value in np.quantile(seconds, (0.5, 0.99)))
    about = opened.manifest
    size_mb = sum(part["bytes"] for part in about["files"].values()) / 1e6
    index = ", ".join(
        f"{name} {about['index'][name]}" for name in ("type", "probes", "ef_search") if name in about["index"]
    )
    return Figures(where, summary.seconds, size_mb, open_s, p50_s, p99_s, recall, index)


def searched(opened: Build, collection: Collection) -> tuple[list[float], float]:
    """Seconds of each search, once some have warmed up what there is to warm, and the mean recall@10 of the vectors."""
    texts, questions = collection.questions(2 * QUESTIONS)
    seconds = []
    gc.freeze()
    for text, question in zip(texts, questions, strict=True):
        began = time.perf_counter()
        opened.search(text, vector=question, k=5)
        seconds.append(time.perf_counter() - began)
    asked = questions[:RECALL_QUESTIONS]
    shares = []
    for truth, question in zip(collection.nearest(asked, 10), asked, strict=True):
        # As a search does it, by the room's own door: what the vectors alone say.
        nearest = opened._vectors.nearest(question, also=np.empty(0, dtype=np.int64))
        found = set(nearest.rows[np.argsort(-nearest.similarities)[:10]].tolist())
        shares.append(len(truth & found) / len(truth))
    return seconds[QUESTIONS:], float(np.mean(shares))


def ndcg(corpus: Corpus, opened: Build) -> float:
    """nDCG@10 of the set's questions."""
    rankings = [
        [hit.passage.source for hit in opened.search(question, vector=corpus.vectors[question_id], k=20)]
        for question_id, question in corpus.questions.items()
    ]
    return float(figures(corpus, rankings)[:, 0].mean())


class Known:
    """An embedder that looks up what belongs to each passage's document."""

    name = "minilm"
    dense_weight = 0.6

    def __init__(self, corpus: Corpus, documents: Sequence[Document]) -> None:
        self._by_text = {
            passage.indexed_text: corpus.vectors[corpus.ids[int(Path(document.source).stem)]]
            for document in documents
            for passage in passages_of(document)
        }

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        return np.stack([self._by_text[text] for text in texts])


def compared(corpus: Corpus, folder: Path, url: str) -> tuple[float, float]:
    """nDCG@10 with the index in files and in PostgreSQL, of the same passages with the same vectors."""
    files = finding.find([write_documents(corpus, folder / "documents")]).files
    documents = [one for one in read_all(files, site_url="") if isinstance(one, Document)]
    embedder = Known(corpus, documents)
    with closing(PostgresBackend(url)) as postgres:
        found = []
        for backend in (FileBackend(folder / "vector_db"), postgres):
            asyncio.run(
                build(documents, backend=backend, embedder=embedder, clean=True, progress=lambda *_: None)
            )  # fmt: skip
            found.append(ndcg(corpus, backend.open()))
    return found[0], found[1]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="An index in PostgreSQL beside the same one in files.")
    parser.add_argument("corpora", nargs="?", type=Path, default=CORPORA)
    parser.add_argument("--passages", type=int, default=100_000, help="0 measures the public sets alone")
    parser.add_argument("--dimensions", type=int, default=1_536)
    parser.add_argument("--url", help="a PostgreSQL with pgvector, whose builds this adds to")
    parser.add_argument("--folder", type=Path, help="where the files are made; default: the temporary folder")
    given = parser.parse_args(argv)
    faults: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-")))
        options = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB")
        server = None if given.url else stack.enter_context(PgvectorServer(*options))
        if given.passages:
            collection = Collection(given.passages, given.dimensions)
            postgres = PostgresBackend(given.url or server.empty_database())
            stack.callback(postgres.close)
            print(f"{given.passages:,} passages of {given.dimensions:,} dimensions")
            print(COLUMNS.format(*NAMES), flush=True)
            for where, backend in (("files", FileBackend(folder / "vector_db")), ("PostgreSQL", postgres)):
                one = measured(where, backend, collection)
                print(one.line(), flush=True)
                faults += [f"{where}: recall@10 {one.recall:.3f} is below {LEAST_RECALL}"] * (one.recall < LEAST_RECALL)
        for name in SERVED if given.corpora.is_dir() else ():
            corpus = with_vectors(load(name, given.corpora))
            in_files, in_postgres = compared(corpus, folder / name, given.url or server.empty_database())
            print(f"{name}: nDCG@10 {in_files:.4f} in files, {in_postgres:.4f} in PostgreSQL", flush=True)
            faults += [f"{name}: PostgreSQL loses more than {MOST_LOST}"] * (in_postgres < in_files - MOST_LOST)
    print("\n".join(faults) or "PostgreSQL finds what it has to")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

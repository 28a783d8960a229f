"""Sixty natural questions through the product's own search, with each embedder that needs no service.

Run: python benchmarks/natural_questions.py. The questions are in `benchmarks/questions`, their pages are this project's
docs and, where ../shared/corpora has them, FastAPI's. nDCG@10 by kind: paraphrases, typing errors, German; how many
have the right page first, and how many are refused as off-topic. Exit code 1 where a figure misses its floor.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.retrieval_lab import CORPORA  # noqa: E402
from indexer import evaluate  # noqa: E402
from indexer.build import build  # noqa: E402
from indexer.reading import finding  # noqa: E402
from indexer.reading.files import read_all  # noqa: E402
from rag.llm.embedded import LocalEmbedder  # noqa: E402
from rag.llm.local.sentences import SentenceEmbedder, missing_packages  # noqa: E402
from rag.search.backends.files import FileBackend  # noqa: E402
from rag.search.hybrid import Build, open_build  # noqa: E402

SITES = {
    "rag_server_docs": sorted((ROOT / "docs").glob("*.md")),
    "fastapi_docs": [CORPORA / "fastapi_docs"],
}
KINDS = {"p": "paraphrases", "t": "typing errors", "d": "German"}
FLOORS = {("letters", "rag_server_docs"): 0.6, ("local", "rag_server_docs"): 0.65, ("letters", "fastapi_docs"): 0.62,
          ("local", "fastapi_docs"): 0.76}  # fmt: skip

Embedder = LocalEmbedder | SentenceEmbedder


async def indexed(paths: Sequence[Path], root: Path, embedder: Embedder) -> Build:
    found = finding.find(paths, with_unpublished=False)
    await build(
        read_all(found.files, site_url=""), backend=FileBackend(root), embedder=embedder, clean=True,
        progress=lambda *_: None,
    )  # fmt: skip
    return open_build(root)


async def measured(name: str, site: str, embedder: Embedder, folder: Path) -> bool:
    began_s = time.perf_counter()
    live = await indexed(SITES[site], folder / f"{name}-{site}", embedder)
    built_s = time.perf_counter() - began_s
    questions = evaluate.read(ROOT / "benchmarks" / "questions" / f"{site}.jsonl")
    scores = await evaluate.measure(live, questions, embedder=embedder, progress=lambda *_: None)
    vectors = await embedder.embed([question.text for question in questions])
    refused = 0
    for question, vector in zip(questions, vectors, strict=True):
        hits = live.search(question.text, vector=vector, k=5)
        refused += not live.has_something_on(question.text, hits, by_words_alone=False)
    each = np.array([ndcg for ndcg, _, _ in scores.each])
    kinds = {
        said: each[[question.id[0] == kind for question in questions]].mean() for kind, said in KINDS.items()
    }  # fmt: skip
    first = sum(rank == 1 for _, _, rank in scores.each)
    figures = "   ".join(f"{said} {ndcg:.3f}" for said, ndcg in kinds.items())
    print(f"{name:<8} {site:<16} nDCG@10 {scores.ndcg_at_10:.3f}   {figures}", end="   ")
    print(f"right page first {first}, refused {refused} of {scores.questions}, indexed in {built_s:.0f} s")
    return scores.ndcg_at_10 >= FLOORS[name, site]


async def main() -> int:
    embedders: dict[str, Embedder] = {"letters": LocalEmbedder()}
    if missing := missing_packages():
        print(f"local    not measured: {', '.join(missing)} not installed")
    else:
        embedders["local"] = SentenceEmbedder.open()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for site, paths in SITES.items():
            if not all(path.exists() for path in paths):
                print(f"{site} is not there and is left out")
                continue
            for name, embedder in embedders.items():
                good = await measured(name, site, embedder, Path(folder)) and good
    print("every figure reaches its floor" if good else "a figure misses its floor")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))

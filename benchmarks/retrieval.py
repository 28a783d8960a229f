"""What the server's own /search finds, over a socket, on public questions with known answers; and what it refuses.

Run: python benchmarks/retrieval.py [CORPORA] [--questions N]; the folder is ../shared/corpora unless named.
Each passage of a set becomes a document, the real indexer builds from them, the emulator serves the set's MiniLM
vectors, and the real server answers; a passage counts by its document, however it was cut. Beside it, from the same
build: words alone, vectors alone, and reciprocal rank fusion. Exit code 1 where a figure misses its floor.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.retrieval_lab import CORPORA, METRICS, Corpus, load, reciprocal  # noqa: E402
from indexer.metrics import interval_95  # noqa: E402
from rag.search import fusion  # noqa: E402
from rag.search.hybrid import Build, open_build  # noqa: E402
from tests.support.azure import AzureEmulator  # noqa: E402
from tests.support.server import RagServer, build_index  # noqa: E402

K = 20
METRIC_NAMES = ("nDCG@10", "recall@5", "MRR@10")
FLOORS = {
    ("squad2_dev", "nDCG@10"): 0.92,
    ("anthropic_codebase", "nDCG@10"): 0.71,
    ("xquad/de", "recall@5"): 0.97,
    ("xquad/zh", "recall@5"): 0.98,
}
"""What a set's figure must reach: through /search, or by words alone where a set has no vectors."""
SERVED = ("squad2_dev", "anthropic_codebase")
BY_WORDS = ("xquad/en", "xquad/de", "xquad/zh")
MOST_WRONGLY_REFUSED = 0.01
SEARCH = "/search"

Figures = dict[str, np.ndarray]
"""For each way to rank the `METRICS` of each question, shape [questions, 3]."""


@dataclass(frozen=True)
class Served:
    """A set behind a running server."""

    corpus: Corpus
    url: str
    build: Build


def write_documents(corpus: Corpus, folder: Path) -> Path:
    """One file a passage, named by its place in the set: Markdown with front matter where it has a title, else text."""
    folder.mkdir(parents=True)
    for place, (title, text) in enumerate(corpus.passages):
        if title:
            (folder / f"{place}.md").write_text(f"---\ntitle: {json.dumps(title)}\n---\n\n{text}", encoding="utf-8")
        else:
            (folder / f"{place}.txt").write_text(text, encoding="utf-8")
    return folder


@contextlib.contextmanager
def served(corpus: Corpus, corpora: Path, folder: Path) -> Iterator[Served]:
    """Index the set with the real indexer, its vectors behind the emulator, and serve it with limits off."""
    with AzureEmulator.start(vectors=[corpora / corpus.name / "minilm_vectors.npz"]) as azure:
        output = folder / "vector_db"
        done = build_index(write_documents(corpus, folder / "documents"), env=azure.environment, output=output)
        if done.returncode:
            raise RuntimeError(f"the indexer failed:\n{done.stdout}\n{done.stderr}")
        settings = {**azure.environment, "VECTOR_DB_PATH": str(output), "RATE_LIMIT_ENABLED": "false"}
        with RagServer.start(settings, folder / "server", workers=1) as server:
            yield Served(corpus, server.base_url, open_build(output))


def asked_over_the_socket(one: Served) -> list[list[str]]:
    """The documents that /search names for each question, best first."""
    rankings = []
    with httpx.Client(base_url=one.url, timeout=30.0, trust_env=False) as client:
        for question in one.corpus.questions.values():
            answer = client.post("/search", json={"query": question, "k": K}).raise_for_status().json()
            if answer["degraded"]:
                raise RuntimeError(f"a degraded search measures nothing: {answer['degraded']}")
            rankings.append([result["metadata"]["source"] for result in answer["results"]])
    return rankings


def ranked_offline(
    one: Build, questions: Sequence[str], vectors: Sequence[np.ndarray] | None
) -> dict[str, list[list[str]]]:
    """The usual ways to rank, from the same build: documents for each question, best first."""
    sources = [passage.source for passage in one.passages()]
    words = [one.lexical.scores(one.lexical.words(question)) for question in questions]
    rows = {"words alone": [fusion.fuse(lexical=scores, dense=None)[0] for scores in words]}
    if vectors is not None:
        dense = [one.similarities(vector) for vector in vectors]
        rows["vectors alone"] = [fusion.fuse(lexical=None, dense=cosines)[0] for cosines in dense]
        both = zip(words, dense, strict=True)
        rows["RRF 60"] = [np.argsort(-(reciprocal(a) + reciprocal(b)), kind="stable")[: fusion.DEPTH] for a, b in both]
    return {way: [[sources[row] for row in found] for found in lists] for way, lists in rows.items()}


def figures(corpus: Corpus, rankings: Sequence[Sequence[str]]) -> np.ndarray:
    """`METRICS` of each question, shape [questions, 3]; a document counts where it is named first."""
    rows = []
    for question_id, ranking in zip(corpus.questions, rankings, strict=True):
        named = list(dict.fromkeys(corpus.ids[int(Path(source).stem)] for source in ranking))
        rows.append([metric(named, corpus.relevant[question_id]) for metric in METRICS])
    return np.array(rows)


def refused(one: Served, asked: Corpus) -> float:
    """The share of a set's questions that this site would call off-topic."""
    refusals = []
    for question_id, question in asked.questions.items():
        hits = one.build.search(question, vector=asked.vectors[question_id], k=K)
        refusals.append(not one.build.has_something_on(question, hits, by_words_alone=False))
    return float(np.mean(refusals))


def search_ms(one: Served) -> float:
    """Median milliseconds of one search without the question's vector, as the event loop spends them."""
    times = []
    for question_id, question in list(one.corpus.questions.items())[:200]:
        began = time.perf_counter()
        hits = one.build.search(question, vector=one.corpus.vectors[question_id], k=5)
        one.build.has_something_on(question, hits, by_words_alone=False)
        times.append((time.perf_counter() - began) * 1000)
    return float(np.median(times))


def measure(corpus: Corpus, corpora: Path, folder: Path, strangers: Corpus) -> tuple[Figures, dict[str, float]]:
    """A set's figures for each way to rank, `SEARCH` first; and what is refused, and milliseconds."""
    with served(corpus, corpora, folder) as one:
        rankings = {SEARCH: asked_over_the_socket(one)}
        vectors = [corpus.vectors[question_id] for question_id in corpus.questions]
        rankings |= ranked_offline(one.build, list(corpus.questions.values()), vectors)
        others = {
            "wrongly refused": refused(one, corpus), "off-topic refused": refused(one, strangers),
            "search ms": search_ms(one),
        }  # fmt: skip
    return {way: figures(corpus, found) for way, found in rankings.items()}, others


def measure_by_words(corpus: Corpus, folder: Path) -> Figures:
    """A set's figures by words alone, from a build with the embedded model."""
    output = folder / "vector_db"
    done = build_index(write_documents(corpus, folder / "documents"), env={"DEMO": "true"}, output=output)
    if done.returncode:
        raise RuntimeError(f"the indexer failed:\n{done.stdout}\n{done.stderr}")
    found = ranked_offline(open_build(output), list(corpus.questions.values()), None)
    return {way: figures(corpus, rankings) for way, rankings in found.items()}


def with_vectors(corpus: Corpus) -> Corpus:
    """The set with the questions that have a vector."""
    kept = {key: text for key, text in corpus.questions.items() if key in corpus.vectors}
    return replace(corpus, questions=kept)


def _table(corpus: Corpus, measured: Figures) -> list[str]:
    """The table of a set, and the figures that miss their floor."""
    print(f"\n{corpus.name}: {len(corpus.questions):,} questions, {len(corpus.ids):,} documents")
    print(f"  {'':<14} {'nDCG@10':>8} {'recall@5':>9} {'MRR@10':>8}")
    for way, found in measured.items():
        ndcg, recall, mrr = found.mean(axis=0)
        print(f"  {way:<14} {ndcg:>8.4f} {recall:>9.4f} {mrr:>8.4f}")
    first = next(iter(measured))
    if len(measured) > 1:
        best = max(list(measured)[1:], key=lambda way: measured[way][:, 0].mean())
        changes = (measured[first][:, 0] - measured[best][:, 0]).tolist()
        low, high = interval_95(changes)
        print(f"  {first} against {best}: {np.mean(changes):+.4f} nDCG@10, 95 % of the time {low:+.4f} to {high:+.4f}")
    faults = []
    for (name, metric), floor in FLOORS.items():
        if name == corpus.name:
            value = float(measured[first][:, METRIC_NAMES.index(metric)].mean())
            print(f"  {metric} {value:.4f} = {value / floor:.3f} of its floor {floor}")
            faults += [f"{name}: {metric} {value:.4f} is below {floor}"] if value < floor else []
    return faults


def main(argv: Sequence[str]) -> int:
    """Measure and print; 1 where a floor is missed."""
    parser = argparse.ArgumentParser(description="Retrieval through the server's own /search.")
    parser.add_argument("corpora", nargs="?", type=Path, default=CORPORA)
    parser.add_argument("--questions", type=int, help="ask that many of each set, evenly spread; default: all")
    options = parser.parse_args(argv)
    if not options.corpora.is_dir():
        print(f"No corpora in {options.corpora}: nothing is measured.")
        return 0
    faults: list[str] = []
    sets = {name: with_vectors(load(name, options.corpora, questions=options.questions)) for name in SERVED}
    for name, corpus in sets.items():
        (other,) = (known for known in SERVED if known != name)
        with tempfile.TemporaryDirectory() as folder:
            measured, others = measure(corpus, options.corpora, Path(folder), sets[other])
        faults += _table(corpus, measured)
        wrong = others["wrongly refused"]
        print(f"  refused: {wrong:.1%} of its own questions, {others['off-topic refused']:.1%} of those of {other}")
        print(f"  one search: {others['search ms']:.2f} ms without the question's vector")
        faults += [f"{name}: {wrong:.1%} wrongly refused"] if wrong > MOST_WRONGLY_REFUSED else []
    for name in BY_WORDS:
        corpus = load(name, options.corpora, questions=options.questions)
        with tempfile.TemporaryDirectory() as folder:
            faults += _table(corpus, measure_by_words(corpus, Path(folder)))
    print("\n" + ("\n".join(faults) if faults else "Every figure reaches its floor."))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""How well the index ranks, on the public corpora with known answers: nDCG@10, recall@5, MRR@10 for each way to rank.

Run: python -m benchmarks.retrieval_lab [CORPORA]; the folder is ../shared/corpora unless named. Needs no server and no
network. Where a set brings no vectors, the dense leg is the embedded model, also with a typing error in every question.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from indexer.metrics import mrr_at_10, ndcg_at_10, recall_at_5  # noqa: E402
from rag.llm.embedded import LocalEmbedder  # noqa: E402
from rag.search import bm25, fusion  # noqa: E402

CORPORA = ROOT.parent / "shared" / "corpora"
SETS = {"squad2_dev": "en", "anthropic_codebase": "en", "xquad/en": "en", "xquad/de": "de", "xquad/zh": "zh"}
METRICS = (ndcg_at_10, recall_at_5, mrr_at_10)
LEGS = ("lexical alone", "dense alone")

Way = Callable[[int], Sequence[int]]
"""From the number of a question to rows, best first."""


@dataclass(frozen=True)
class Corpus:
    """A set with known answers; only questions with a relevant passage."""

    name: str
    language: str
    ids: list[str]
    passages: list[tuple[str, str]]
    """Title and text."""
    questions: dict[str, str]
    relevant: dict[str, set[str]]
    vectors: dict[str, np.ndarray]
    """Of passages and of some questions, by id, float32, unit length; empty where the set has none."""


def load(name: str, folder: Path = CORPORA, *, questions: int | None = None) -> Corpus:
    """Read a set; `questions` takes that many, evenly spread."""
    documents = [json.loads(line) for line in (folder / name / "corpus.jsonl").open(encoding="utf-8")]
    relevant: dict[str, set[str]] = {}
    for line in (folder / name / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        question_id, document_id, score = line.split("\t")
        if int(score) > 0:
            relevant.setdefault(question_id, set()).add(document_id)
    questions_file = (folder / name / "queries.jsonl").open(encoding="utf-8")
    asked = {row["id"]: row["text"] for row in map(json.loads, questions_file)}
    vectors: dict[str, np.ndarray] = {}
    stored = folder / name / "minilm_vectors.npz"
    if stored.exists():
        with np.load(stored, allow_pickle=False) as arrays:
            for kind in ("corpus", "queries"):
                rows = arrays[kind].astype(np.float32)
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                id_name = "corpus_ids" if kind == "corpus" else "query_ids"
                vectors |= dict(zip(arrays[id_name].tolist(), rows, strict=True))
    known = [question_id for question_id in asked if question_id in relevant]
    if questions is not None and questions < len(known):
        with_vectors = [question_id for question_id in known if question_id in vectors] or known
        known = [with_vectors[i] for i in np.linspace(0, len(with_vectors) - 1, questions).astype(int)]
    return Corpus(
        name=name, language=SETS[name], ids=[row["id"] for row in documents],
        passages=[(row["title"], row["text"]) for row in documents],
        questions={key: asked[key] for key in known}, relevant=relevant, vectors=vectors,
    )  # fmt: skip


def misspelled(question: str) -> str:
    """One typing error in the middle of the longest word: two letters swapped, or one lost; the same every time."""
    words = "".join(letter if letter.isalpha() else " " for letter in question).split()
    longest = max(words, key=len, default="")
    middle = len(longest) // 2
    if len(longest) < 5:
        return question
    if len(longest) % 2:
        wrong = longest[:middle] + longest[middle + 1] + longest[middle] + longest[middle + 2 :]
    else:
        wrong = longest[:middle] + longest[middle + 1 :]
    return question.replace(longest, wrong, 1)


def open_lexical(corpus: Corpus, folder: Path) -> bm25.Lexical:
    part = bm25.write(folder, ((title, "", text, corpus.language) for title, text in corpus.passages))
    return bm25.Lexical.open(folder, part)


def lexical_scores(corpus: Corpus, questions: Sequence[str]) -> np.ndarray:
    """Shape [questions, passages]."""
    with tempfile.TemporaryDirectory() as folder:
        index = open_lexical(corpus, Path(folder))
        return np.array([index.scores(index.words(question)) for question in questions])


def letters_similarities(corpus: Corpus, questions: Sequence[str]) -> np.ndarray:
    """Cosines by the embedded model, shape [questions, passages]."""
    embedder = LocalEmbedder()
    passages = [f"{title}\n\n{text}" if title else text for title, text in corpus.passages]
    similarities: np.ndarray = asyncio.run(embedder.embed(questions)) @ asyncio.run(embedder.embed(passages)).T
    return similarities


def minilm_similarities(corpus: Corpus, question_ids: Sequence[str]) -> np.ndarray:
    passages = np.array([corpus.vectors[passage_id] for passage_id in corpus.ids])
    similarities: np.ndarray = np.array([corpus.vectors[question_id] for question_id in question_ids]) @ passages.T
    return similarities


def figures(corpus: Corpus, question_ids: Sequence[str], rank: Way) -> np.ndarray:
    """`METRICS` of each question, shape [questions, 3]; `rank` gives the best rows for a question's number."""
    rankings = [[corpus.ids[row] for row in rank(number)] for number in range(len(question_ids))]
    return np.array(
        [
            [metric(ranking, corpus.relevant[question_id]) for metric in METRICS]
            for ranking, question_id in zip(rankings, question_ids, strict=True)
        ]
    )


def rankings(words: np.ndarray, dense: np.ndarray, dense_weight: float) -> Mapping[str, Way]:
    """The ways to rank, by name; each gives the rows for a question's number."""
    return {
        "lexical alone": lambda i: fusion.fuse(lexical=words[i], dense=None)[0].tolist(),
        "dense alone": lambda i: fusion.fuse(lexical=None, dense=dense[i])[0].tolist(),
        "RRF 60": lambda i: _top(reciprocal(words[i]) + reciprocal(dense[i])),
        "min-max .5/.5": lambda i: _top(_min_max(words[i]) + _min_max(dense[i])),
        "ours": lambda i: fusion.fuse(lexical=words[i], dense=dense[i], dense_weight=dense_weight)[0].tolist(),
    }


def _top(scores: np.ndarray) -> list[int]:
    return [int(row) for row in np.argsort(-scores, kind="stable")[: fusion.DEPTH] if scores[row] > 0]


def reciprocal(scores: np.ndarray) -> np.ndarray:
    """Reciprocal rank fusion's share of one leg: Cormack, Clarke and Büttcher, SIGIR 2009, with k = 60."""
    shares = np.zeros(len(scores))
    best = np.argsort(-scores, kind="stable")[: fusion.DEPTH]
    shares[best] = 1 / (60 + np.arange(1, len(best) + 1))
    return shares


def _min_max(scores: np.ndarray) -> np.ndarray:
    floor = np.sort(scores)[-fusion.DEPTH] if len(scores) >= fusion.DEPTH else scores.min()
    above: np.ndarray = np.maximum(scores - floor, 0)
    return above / above.max() if above.max() > 0 else above


def _report(title: str, corpus: Corpus, question_ids: Sequence[str], ways: Mapping[str, Way]) -> None:
    print(f"\n{title}: {len(question_ids)} questions, {len(corpus.ids)} passages")
    results = {name: figures(corpus, question_ids, way) for name, way in ways.items()}
    for name, result in results.items():
        ndcg, recall, mrr = result.mean(axis=0)
        print(f"  {name:14s}  nDCG@10 {ndcg:.4f}  recall@5 {recall:.4f}  MRR@10 {mrr:.4f}")
    ours, better = results["ours"][:, 0], max((results[leg][:, 0] for leg in LEGS), key=np.mean)
    gain = ours - better
    draws = np.random.default_rng(0).integers(0, len(gain), (500, len(gain)))
    low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
    print(f"  ours / the better leg = {ours.mean() / better.mean():.3f}", end="")
    print(f"  (nDCG@10 {gain.mean():+.4f}, 95 % between {low:+.4f} and {high:+.4f})")


def main(folder: Path) -> None:
    if not folder.is_dir():
        print(f"No corpora in {folder}: nothing is measured.")
        return
    for name in SETS:
        began = time.perf_counter()
        corpus = load(name, folder)
        ids = list(corpus.questions)
        clean, wrong = list(corpus.questions.values()), [misspelled(text) for text in corpus.questions.values()]
        words = lexical_scores(corpus, clean)
        embedded = [number for number, question_id in enumerate(ids) if question_id in corpus.vectors]
        if embedded:
            chosen = [ids[number] for number in embedded]
            ways = rankings(words[embedded], minilm_similarities(corpus, chosen), fusion.DENSE_WEIGHT)
            _report(f"{name}, MiniLM", corpus, chosen, ways)
        weight = LocalEmbedder.dense_weight
        ways = rankings(words, letters_similarities(corpus, clean), weight)
        _report(f"{name}, embedded model", corpus, ids, ways)
        ways = rankings(lexical_scores(corpus, wrong), letters_similarities(corpus, wrong), weight)
        _report(f"{name}, embedded model, misspelled", corpus, ids, ways)
        print(f"  ({time.perf_counter() - began:.1f} s)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CORPORA)

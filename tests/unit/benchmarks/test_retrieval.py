"""The benchmark of retrieval, with few questions: through the real indexer, the real server and its own /search."""

from pathlib import Path

import pytest

from benchmarks import retrieval as bench
from benchmarks.retrieval_lab import load


@pytest.mark.parametrize(("name", "strangers", "ndcg"), [("anthropic_codebase", "squad2_dev", 0.71)])
def test_the_servers_own_search_finds_what_the_index_can(
    corpora: Path, tmp_path: Path, name: str, strangers: str, ndcg: float
) -> None:
    corpus = bench.with_vectors(load(name, corpora, questions=60))
    others = bench.with_vectors(load(strangers, corpora, questions=60))
    measured, about = bench.measure(corpus, corpora, tmp_path, others)
    mean = {way: found[:, 0].mean() for way, found in measured.items()}
    assert mean[bench.SEARCH] >= ndcg - 0.05
    assert mean[bench.SEARCH] >= max(mean["vectors alone"], mean["RRF 60"]) - 0.01
    assert about["wrongly refused"] <= 1 / 60
    assert about["off-topic refused"] >= 0.85


def test_german_words_alone_find_their_documents(corpora: Path, tmp_path: Path) -> None:
    corpus = load("xquad/de", corpora, questions=150)
    (found,) = bench.measure_by_words(corpus, tmp_path).values()
    assert found[:, 1].mean() >= 0.95

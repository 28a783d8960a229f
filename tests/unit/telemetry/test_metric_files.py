"""The figures of `indexer evaluate`, against values worked out by hand."""

import math

import pytest

from indexer.metrics import interval_95, mrr_at_10, ndcg_at_10, recall_at_5

TEN = [str(number) for number in range(1, 13)]


def test_the_right_document_at_the_top_is_perfect() -> None:
    assert [metric(["a", "b"], {"a"}) for metric in (ndcg_at_10, recall_at_5, mrr_at_10)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("rank", "ndcg", "recall", "mrr"), [
    (2, 1 / math.log2(3), 1.0, 0.5), (5, 1 / math.log2(6), 1.0, 0.2), (6, 1 / math.log2(7), 0.0, 1 / 6),
    (10, 1 / math.log2(11), 0.0, 0.1), (11, 0.0, 0.0, 0.0),
])  # fmt: skip
def test_one_right_document_counts_by_its_rank(rank: int, ndcg: float, recall: float, mrr: float) -> None:
    relevant = {str(rank)}
    assert ndcg_at_10(TEN, relevant) == pytest.approx(ndcg)
    assert recall_at_5(TEN, relevant) == recall
    assert mrr_at_10(TEN, relevant) == pytest.approx(mrr)


def test_with_several_right_documents_the_ideal_order_is_the_measure() -> None:
    assert ndcg_at_10(["a", "x", "b"], {"a", "b"}) == pytest.approx(1.5 / (1 + 1 / math.log2(3)))
    assert recall_at_5(["a", "x", "b"], {"a", "b", "c", "d"}) == 0.5
    assert ndcg_at_10(TEN[:10], set(TEN)) == 1.0


def test_passages_of_one_document_use_up_one_rank() -> None:
    assert mrr_at_10(["x", "x", "x", "a"], {"a"}) == 0.5
    assert ndcg_at_10(["a", "a"], {"a", "b"}) < 1.0


@pytest.mark.parametrize("metric", [ndcg_at_10, recall_at_5, mrr_at_10])
def test_nothing_found_or_nothing_relevant_is_zero(metric: type) -> None:
    assert metric([], {"a"}) == 0.0
    assert metric(["a"], set()) == 0.0


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few, many = interval_95([0.0, 0.5, 1.0] * 4), interval_95([0.0, 0.5, 1.0] * 60)
    assert few[0] < 0.5 < few[1]
    assert few[0] < many[0] < 0.5 < many[1] < few[1]


def test_an_interval_of_equal_differences_is_a_point() -> None:
    assert interval_95([0.25] * 5) == (0.25, 0.25)
    assert interval_95([0.1, -0.1, 0.2]) == interval_95([0.1, -0.1, 0.2])

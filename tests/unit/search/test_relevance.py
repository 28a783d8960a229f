"""What is refused as off-topic, on numbers, on the small site and on public questions."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval_lab as lab
from rag.search import fusion, relevance
from rag.search.relevance import is_on_topic, unrelated_similarity


def on_topic(similarity: float | None, coverage: float, unrelated: float | None = 0.0, **more: bool) -> bool:
    flags = {"in_spaceless_script": False, "is_foreign": False, **more}
    similarities = None if similarity is None else [similarity, -1.0]
    return is_on_topic(similarities=similarities, coverages=[coverage, 0.0], unrelated=unrelated, **flags)


def test_a_passage_counts_by_its_cosine_and_by_the_words_it_shares() -> None:
    assert on_topic(0.5, 0.0)
    assert on_topic(0.33, 0.3)
    assert not on_topic(0.33, 0.1)
    assert not on_topic(0.1, 0.3)


def test_words_that_speak_clearly_are_enough() -> None:
    assert on_topic(-0.2, 0.4)


def test_both_facts_have_to_be_of_one_passage() -> None:
    flags = {"in_spaceless_script": False, "is_foreign": False}
    assert not is_on_topic(similarities=[0.33, 0.0], coverages=[0.0, 0.3], unrelated=0.0, **flags)
    assert is_on_topic(similarities=[0.33, 0.0], coverages=[0.3, 0.0], unrelated=0.0, **flags)


@pytest.mark.parametrize(("similarity", "unrelated"), [(None, 0.0), (0.99, None)])
def test_without_a_cosine_that_tells_something_words_decide(similarity: float | None, unrelated: float | None) -> None:
    assert on_topic(similarity, 0.2, unrelated)
    assert not on_topic(similarity, 0.1, unrelated)
    assert on_topic(similarity, 0.12, unrelated, in_spaceless_script=True)


def test_a_foreign_question_is_not_blamed_for_sharing_no_word() -> None:
    assert not on_topic(0.25, 0.0)
    assert on_topic(0.25, 0.0, is_foreign=True)
    assert not on_topic(0.05, 0.0, is_foreign=True)


def test_nothing_found_is_off_topic() -> None:
    flags = {"in_spaceless_script": False, "is_foreign": False}
    assert not is_on_topic(similarities=[], coverages=[], unrelated=0.0, **flags)
    assert not is_on_topic(similarities=None, coverages=[], unrelated=None, **flags)


def directions(count: int, dimensions: int = 64) -> np.ndarray:
    vectors = np.random.default_rng(5).standard_normal((count, dimensions)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def in_a_cone(vectors: np.ndarray, cosine: float) -> np.ndarray:
    """The same vectors as a model would make them that gives all texts one direction in common."""
    shared = np.full((len(vectors), 1), np.sqrt(cosine / (1 - cosine)), dtype=np.float32)
    wider = np.hstack([vectors, shared])
    return np.asarray(wider / np.linalg.norm(wider, axis=1, keepdims=True))


def test_strangers_of_an_even_model_have_nothing_in_common() -> None:
    assert unrelated_similarity(directions(300), [str(row) for row in range(300)]) == 0.0


def test_what_a_model_gives_to_all_texts_is_measured() -> None:
    documents = [str(row) for row in range(300)]
    measured = unrelated_similarity(in_a_cone(directions(300), 0.75), documents)
    # The lowest hundredth of the pairs lies somewhat below the 0.75 that strangers have on average.
    assert 0.6 < measured < 0.75


def test_passages_of_one_document_say_nothing_about_strangers() -> None:
    vectors = np.tile(directions(1), (50, 1))
    assert unrelated_similarity(vectors, ["one.md"] * 50) == 0.0
    assert unrelated_similarity(vectors[:1], ["one.md"]) == 0.0


def test_the_measure_is_the_same_every_time() -> None:
    vectors, documents = in_a_cone(directions(80), 0.5), [str(row // 2) for row in range(80)]
    assert unrelated_similarity(vectors, documents) == unrelated_similarity(vectors, documents)


@pytest.mark.parametrize("cone", [0.0, 0.75])
@pytest.mark.parametrize(
    ("site", "elsewhere", "least_refused"),
    [("squad2_dev", "anthropic_codebase", 0.6), ("anthropic_codebase", "squad2_dev", 0.85)],
)
def test_public_questions_are_told_apart_also_where_the_model_has_a_cone(
    corpora: Path, tmp_path: Path, site: str, elsewhere: str, least_refused: float, cone: float
) -> None:
    corpus, strangers = lab.load(site, corpora, questions=200), lab.load(elsewhere, corpora, questions=200)
    index = lab.open_lexical(corpus, tmp_path)

    def seen(vectors: list[np.ndarray]) -> np.ndarray:
        return in_a_cone(np.array(vectors), cone) if cone else np.array(vectors)

    passages = seen([corpus.vectors[passage] for passage in corpus.ids])
    unrelated = unrelated_similarity(passages, [passage.split("#")[0].split("_")[0] for passage in corpus.ids])

    def refused(asked: lab.Corpus) -> float:
        cosines = seen([asked.vectors[question] for question in asked.questions]) @ passages.T
        refusals = []
        for row, question in enumerate(asked.questions.values()):
            words = index.words(question)
            best = fusion.fuse(lexical=index.scores(words), dense=cosines[row])[0][: relevance.CHECKED]
            refusals.append(
                not is_on_topic(
                    similarities=cosines[row][best].tolist(), coverages=index.coverage(words, best.tolist()),
                    unrelated=unrelated, in_spaceless_script=False, is_foreign=False,
                )
            )  # fmt: skip
        return float(np.mean(refusals))

    assert refused(corpus) <= 0.01
    assert refused(strangers) >= least_refused

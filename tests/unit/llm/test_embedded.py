"""The embedded model: deterministic, offline, forgiving of typing errors, and never a burden on the words."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval_lab as lab
from rag.llm import embedded
from rag.llm.embedded import LocalEmbedder
from tests.support.waiting import REPOSITORY


def embed(*texts: str) -> np.ndarray:
    return asyncio.run(LocalEmbedder().embed(texts))


def nearer(question: str, passages: tuple[str, str]) -> int:
    vectors = embed(question, *passages)
    return int((vectors[1:] @ vectors[0]).argmax())


def test_vectors_have_length_one_and_the_shape_that_is_promised() -> None:
    texts = ["How many vacation days?", "", "?!", "the", "黑豹队", "猫", "a", "x" * 5000, "\ud800"]
    vectors = embed(*texts)
    assert vectors.shape == (len(texts), LocalEmbedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("letter", ["x", "数"])
def test_of_words_of_thousands_of_letters_nothing_is_kept(letter: str) -> None:
    embed("vacation")
    kept = embedded._features.cache_info().currsize
    first = embed(letter * 4000)
    assert (embed(letter * 4000) == first).all()
    assert embedded._features.cache_info().currsize == kept


def test_no_texts_make_no_vectors() -> None:
    assert embed().shape == (0, LocalEmbedder.dimensions)


def test_a_text_has_the_same_vector_alone_and_among_many() -> None:
    texts = [f"passage {number} about vacation" for number in range(20)]
    assert (embed(*texts)[7] == embed(texts[7])[0]).all()


def test_another_process_makes_the_same_vector() -> None:
    program = (
        "import asyncio, sys; from rag.llm.embedded import LocalEmbedder;"
        "sys.stdout.buffer.write(asyncio.run(LocalEmbedder().embed(['Vacation days in Häuser 黑豹'])).tobytes())"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True).stdout
    assert other == embed("Vacation days in Häuser 黑豹").tobytes()


@pytest.mark.parametrize(("question", "right", "wrong"), [
    ("vacaton days", "Employees have 25 vacation days a year.", "Employees park their cars behind the house."),
    ("respons model", "The response model filters what is returned.", "The request body is read as JSON."),
    ("Kündigungen", "Die Kündigung ist schriftlich einzureichen.", "Der Urlaub beträgt dreißig Tage."),
    ("黑豹队", "黑豹队的防守只丢了308分", "维多利亚时代的建筑"),
])  # fmt: skip
def test_a_misspelled_or_inflected_question_lies_nearest_its_passage(question: str, right: str, wrong: str) -> None:
    assert nearer(question, (wrong, right)) == 1


def test_an_unrelated_question_is_less_similar_than_a_related_one() -> None:
    passage = embed("Refunds are paid within a month.")[0]
    related, unrelated = embed("When are refunds paid?", "Who won the cup?")
    assert related @ passage > 0.4 > 0.2 > unrelated @ passage


@pytest.mark.parametrize("name", list(lab.SETS))
def test_hybrid_search_with_it_is_as_good_as_words_and_better_on_typing_errors(corpora: Path, name: str) -> None:
    corpus = lab.load(name, corpora, questions=400)
    ids, questions = list(corpus.questions), list(corpus.questions.values())
    gains = []
    for texts in (questions, [lab.misspelled(question) for question in questions]):
        words = lab.lexical_scores(corpus, texts)
        ways = lab.rankings(words, lab.letters_similarities(corpus, texts), LocalEmbedder.dense_weight)
        ours, alone = (lab.figures(corpus, ids, ways[way])[:, 0].mean() for way in ("ours", "lexical alone"))
        gains.append(ours - alone)
    clean, misspelled = gains
    # One question in 400 that falls from the first place to the second costs .0009.
    assert clean >= -0.001
    assert misspelled >= 0.0

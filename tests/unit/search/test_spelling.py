"""Typing errors: what a misspelled word is taken for, and when it is left alone."""

import time
from pathlib import Path

import numpy as np
import pytest

from rag.errors import BuildDamaged
from rag.search import builds
from rag.search.hybrid import Build, open_build
from rag.search.spelling import vocabulary
from rag.search.spelling.correction import MOST_CORRECTED, correction, distance
from rag.search.spelling.vocabulary import Vocabulary
from rag.types import Passage
from tests.support import whole_build

TEXTS = (
    "The configuration of the deployment is authentication by a token.",
    "An optional parameter has a default; the key is a file, and a file with accuracy is kept.",
    "Kubernetes restarts the container. The Straße needs a door. Order a chess set.",
)


def words_of(folder: Path, *texts: str) -> Vocabulary:
    return Vocabulary.open(folder, vocabulary.write(folder, texts or TEXTS))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deployement", "deployment"), ("tokken", "token"), ("paramter", "parameter"), ("optinal", "optional"),
        ("defualt", "default"), ("kubernets", "kubernetes"), ("acurracy", "accuracy"), ("kye", "key"),
        ("wiht", "with"), ("authentification", "authentication"), ("konfiguration", None), ("tile", None),
        ("filee", "file"), ("keys", None), ("strase", "strasse"), ("x", None), ("", None), ("zzzzzzz", None),
    ],
)  # fmt: skip
def test_a_misspelled_word_is_taken_for_the_nearest(tmp_path: Path, typed: str, meant: str | None) -> None:
    assert correction(typed, words_of(tmp_path)) == meant


def test_of_equally_near_words_the_more_frequent_is_meant(tmp_path: Path) -> None:
    assert correction("moder", words_of(tmp_path, "model", "model", "modem")) == "model"
    assert correction("moder", words_of(tmp_path, "model", "modem", "modem")) == "modem"


@pytest.mark.parametrize(
    ("one", "other", "errors"),
    [
        ("", "", 0),
        ("key", "key", 0),
        ("kye", "key", 1),
        ("token", "tokken", 1),
        ("abc", "", 3),
        ("default", "defualt", 1),
    ],
)
def test_a_swap_is_one_error(one: str, other: str, errors: int) -> None:
    assert distance(one, other) == distance(other, one) == errors


def built(root: Path, *texts: str, language: str = "en") -> Build:
    passages = [
        Passage(text=text, title=f"Page {n}", headings=(), url=f"/{n}", anchor="", source=f"{n}.md", language=language)
        for n, text in enumerate(texts)
    ]
    vectors = np.eye(len(texts), 8, dtype=np.float32)
    with builds.writing(root) as staging:
        written = whole_build.write(staging, passages, vectors)
        about = {"model": "m", "dimensions": 8, "dense_weight": 0.05, "unrelated_similarity": None}
        builds.publish(root, staging, {**written, "documents": len(texts), "embedding": about})
    return open_build(root)


def test_a_misspelled_question_finds_its_page_and_is_on_topic(tmp_path: Path) -> None:
    build = built(tmp_path, *TEXTS)
    question = "how does the kubernets deployement work"
    found = build.search(question, vector=None, k=3)
    assert {hit.passage.url for hit in found[:2]} == {"/0", "/2"}
    assert build.has_something_on(question, found, by_words_alone=True)


def test_a_word_that_a_passage_has_is_not_corrected(tmp_path: Path) -> None:
    build = built(
        tmp_path, "The order of the chest is old.", "The chess set is new.", "The chest is closed, the chest."
    )
    assert [hit.passage.url for hit in build.search("chess", vector=None, k=1)] == ["/1"]


def test_the_words_of_another_language_are_left_alone(tmp_path: Path) -> None:
    build = built(tmp_path, "An order has a site and a date. The order is paid.")

    def is_on_topic(question: str) -> bool:
        return build.has_something_on(question, build.search(question, vector=None, k=1), by_words_alone=True)

    assert is_on_topic("what about the orderr?")
    assert not is_on_topic("Wie ist das mit der orderr?")


def test_a_question_whose_words_mostly_resemble_none_is_left_alone(tmp_path: Path) -> None:
    build = built(tmp_path, *TEXTS)
    assert build.by_words("kubernets").any()
    assert build._asked("Formulardaten kubernets empfangen") == build.lexical.words("Formulardaten kubernets empfangen")


def test_a_build_without_words_for_it_is_searched_as_before(tmp_path: Path) -> None:
    build = built(tmp_path, *TEXTS)
    old = {name: value for name, value in build.manifest.items() if name != "spelling"}
    assert Build(folder=build.folder, manifest=old).search("deployment", vector=None, k=1)


def test_damaged_words_are_refused(tmp_path: Path) -> None:
    part = vocabulary.write(tmp_path, TEXTS)
    with pytest.raises(BuildDamaged):
        Vocabulary.open(tmp_path, {**part, "words": 1})
    (tmp_path / "spelling_forms.npy").write_bytes(b"")
    with pytest.raises(BuildDamaged):
        Vocabulary.open(tmp_path, part)


def test_a_hostile_question_takes_no_time(tmp_path: Path) -> None:
    build = built(tmp_path, *TEXTS)
    question = " ".join(f"{a}{b}nfigurationnn" for a in "cdefghij" for b in "aeiouxyz")[:4_000]
    began_s = time.perf_counter()
    build.by_words(question)
    assert time.perf_counter() - began_s < 0.5
    assert len(question.split()) > 5 * MOST_CORRECTED


def test_no_words_at_all_are_a_vocabulary_too(tmp_path: Path) -> None:
    assert correction("anything", words_of(tmp_path, "…")) is None


def test_many_words_are_counted_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MOST_COUNTED", 50)
    rare = (f"{a}{b}rareword" for a in "abcdefghij" for b in "abcdefghij")
    found = words_of(tmp_path, "controller", "controller", *rare)
    assert correction("controler", found) == "controller"
    assert vocabulary.write(tmp_path, ())["words"] == 0

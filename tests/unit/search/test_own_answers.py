"""Which of the owner's answers a question gets, and that in doubt it gets none; and what synonyms find."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.search import builds
from rag.search.hybrid import Build, open_build
from rag.search.owner.answers import packed
from rag.search.owner.synonyms import Synonyms
from rag.text.terms import query_terms
from rag.types import Passage
from tests.support import whole_build

UNRELATED = 0.2
AXES = 6


def at(cosine: float, axis: int = 0, other: int = 5) -> np.ndarray:
    """A unit vector with this cosine to an axis, and the rest along another one."""
    vector = np.zeros(AXES, dtype=np.float32)
    vector[axis], vector[other] = cosine, np.sqrt(1 - cosine**2)
    return vector


def scaled(alike: float) -> float:
    """The cosine that is so much alike, where unrelated texts have `UNRELATED`."""
    return UNRELATED + alike * (1 - UNRELATED)


def entry(text: str, *questions: tuple[str, np.ndarray]) -> dict[str, Any]:
    page = {"text": "t", "title": "T", "url": "https://x.example/", "anchor": "", "source": "t.md", "language": "en"}
    return {
        "questions": [question for question, _ in questions], "vectors": [packed(vector) for _, vector in questions],
        "text": text, "pages": [page],
    }  # fmt: skip


ANSWERS = [
    entry("Hold the blue button.", ("How do I reset the controller?", at(1, 0)), ("Factory reset?", at(1, 1))),
    entry("After 90 days.", ("When do I calibrate the probe?", at(1, 2))),
]


def published(
    root: Path, *, texts: tuple[str, ...] = ("A page.",), unrelated: float | None = UNRELATED, **parts: Any
) -> Build:
    passages = [
        Passage(
            text=text, title="", headings=(), url=f"https://x.example/{row}", anchor="", source=f"{row}.md",
            language="en",
        )
        for row, text in enumerate(texts)
    ]  # fmt: skip
    vectors = np.stack([at(1, row % AXES) for row in range(len(texts))])
    with builds.writing(root) as staging:
        written = whole_build.write(staging, passages, vectors)
        embedding = {"model": "m", "dimensions": AXES, "dense_weight": 0.6, "unrelated_similarity": unrelated}
        builds.publish(root, staging, {**written, "documents": 1, "embedding": embedding, **parts})
    return open_build(root)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return published(tmp_path, answers=ANSWERS)


def text_for(build: Build, question: str, vector: np.ndarray | None) -> str | None:
    found = build.own_answers.match(question, vector)
    return found.text if found else None


def test_the_very_question_is_answered_without_a_vector(build: Build) -> None:
    assert text_for(build, "  how do i  RESET the controller", None) == "Hold the blue button."
    assert text_for(build, "factory reset", None) == "Hold the blue button."
    assert text_for(build, "How do I not reset the controller?", None) is None


def test_a_question_that_is_alike_enough_is_answered_and_one_below_is_not(build: Build) -> None:
    asked = "How can I reset my controller?"
    assert text_for(build, asked, at(scaled(0.81))) == "Hold the blue button."
    assert text_for(build, asked, at(scaled(0.79))) is None
    assert text_for(build, asked, None) is None


def test_two_answers_that_are_nearly_as_near_leave_the_question_to_the_search(tmp_path: Path) -> None:
    rivals = [entry("One.", ("Reset controller?", at(1))), entry("Two.", ("Reset the controller?", at(scaled(0.9))))]
    between = at(1) + 0.98 * at(scaled(0.9))
    between /= np.linalg.norm(between)
    assert text_for(published(tmp_path / "two", answers=rivals), "controller reset", between) is None
    # Two wordings of one answer are no rivals.
    both = [entry("One.", ("Reset controller?", at(1)), ("Reset the controller?", at(scaled(0.9))))]
    assert text_for(published(tmp_path / "one", answers=both), "controller reset", between) == "One."


@pytest.mark.parametrize(
    "other",
    [
        "How do I reset the heater?", "How do I never reset the controller?", "How don't I reset the controller?",
        "How do I reset the controller 2?", "What happens before I reset the controller?",
        "How do I calibrate the controller?", "Wie setze ich den Regler zurück?",
    ],
)  # fmt: skip
def test_however_near_another_word_in_its_place_is_another_question(build: Build, other: str) -> None:
    assert text_for(build, other, at(0.999)) is None


@pytest.mark.parametrize("same", ["Reset of the controller?", "How do I reset?", "Please, how is a controller reset?"])
def test_other_wordings_of_the_same_words_are_the_same_question(build: Build, same: str) -> None:
    assert text_for(build, same, at(0.99)) == "Hold the blue button."


def test_a_model_that_knows_no_meaning_answers_by_the_letter_alone(tmp_path: Path) -> None:
    build = published(tmp_path, unrelated=None, answers=ANSWERS)
    assert text_for(build, "How can I reset the controller?", at(1)) is None
    assert text_for(build, "How do I reset the controller?", at(1)) == "Hold the blue button."


def test_synonyms_make_two_wordings_one(tmp_path: Path) -> None:
    build = published(tmp_path, answers=ANSWERS, synonyms=[["controller", "regulator"]])
    assert text_for(build, "How do I reset the regulators?", at(0.99)) == "Hold the blue button."


def test_a_page_is_found_by_words_that_mean_the_same(tmp_path: Path) -> None:
    texts = ("Invoices are due in 14 days.", "The heater needs power.", "Read the service level agreement.")
    plain = published(tmp_path / "plain", texts=texts)
    build = published(tmp_path / "own", texts=texts, synonyms=[["invoice", "bill"], ["SLA", "service level agreement"]])
    for question, row in (("Where is my bill?", 0), ("What does the SLA say?", 2)):
        assert not plain.by_words(question).any()
        assert int(build.by_words(question).argmax()) == row
        hits = build.search(question, vector=None, k=1)
        assert hits[0].row == row
        assert build.has_something_on(question, hits, by_words_alone=True)


def test_phrases_and_words_stand_for_each_other_once() -> None:
    synonyms = Synonyms([["SLA", "service level agreement"]], ["en"])
    asked = [forms for forms in query_terms("service level agreements", ["en"]) if not forms[0].startswith("~")]
    assert synonyms.widened(asked) == [(form, "sla") for (form,) in asked]
    assert synonyms.widened([("level",)]) == [("level",)]

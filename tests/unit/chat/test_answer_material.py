"""What goes into a prompt, and what is offered where nothing does: budget, duplicates, the floor of a build."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rag.chat.prompt import SOURCES_BYTES, within_budget
from rag.chat.texts import load_texts
from rag.chat.wording.voice import OFFERED, Voice
from rag.search import builds
from rag.search.hybrid import Build, open_build
from rag.types import Hit, Passage
from tests.support import whole_build

VOICE = Voice(texts=load_texts(None), site_name="Brinewell", suggested_questions=("What does it cost?",))
NOTHING = "I could not find anything about this on Brinewell. Try other words, or ask about something else."
WARRANTY = "The warranty lasts three years from the day of delivery and covers the controller and both of its probes."


def passage(text: str, title: str = "Page", url: str = "https://x.example/p/", source: str = "p.md") -> Passage:
    return Passage(text=text, title=title, headings=(), url=url, anchor="", source=source, language="en")


def hit(text: str = "Text.", **more: str) -> Hit:
    return Hit(passage=passage(text, **more), score=1.0, similarity=0.5, row=0)


def test_passages_fill_the_budget_whole_and_in_order() -> None:
    large, small = hit("x" * (SOURCES_BYTES // 2)), hit("small")
    assert within_budget([large, large, small, small], "?") == [large, small, small]
    assert within_budget([small, large], "?") == [small, large]


def test_the_best_passage_is_kept_however_long_it_is() -> None:
    giant, small = hit("x" * (SOURCES_BYTES + 1)), hit("small")
    assert within_budget([giant, small], "?") == [giant]
    assert within_budget([], "?") == []


def test_a_character_of_three_bytes_takes_three() -> None:
    chinese = hit("水" * (SOURCES_BYTES // 4))
    assert within_budget([chinese, chinese], "?") == [chinese]


def test_where_nothing_fits_the_nearest_pages_and_questions_are_offered() -> None:
    pages = [hit(title=f"Page [{n}]", url=f"https://x.example/{n} (a)/") for n in (1, 1, 2, 3, 4)]
    said = VOICE.nothing_found("en", pages)
    assert said.startswith(f"{NOTHING}\n\nThese pages come closest:\n\n")
    links = [line for line in said.splitlines() if line.startswith("- [")]
    assert links == [f"- [Page ({n})](https://x.example/{n}%20%28a%29/)" for n in (1, 2, 3)]
    assert len(links) == OFFERED
    assert said.endswith("- What does it cost?")


def test_with_nothing_to_offer_the_sentence_stands_alone() -> None:
    voice = Voice(texts=load_texts(None), site_name="Brinewell")
    assert voice.nothing_found("en", []) == NOTHING
    assert voice.nothing_found("de", []).startswith("Dazu habe ich auf Brinewell nichts gefunden.")


def published(root: Path, texts: Sequence[str], vectors: np.ndarray, **embedding: float | None) -> Build:
    passages = [passage(text, title=f"Page {n}", source=f"{n}.md") for n, text in enumerate(texts)]
    about = {"model": "a-model", "dimensions": vectors.shape[1], "dense_weight": 0.6, **embedding}
    with builds.writing(root) as staging:
        written = whole_build.write(staging, passages, vectors.astype(np.float32))
        builds.publish(root, staging, {**written, "documents": len(texts), "embedding": about})
    return open_build(root)


def near(first: int, nearness: float) -> np.ndarray:
    """A vector at `nearness` of the axis `first`, the rest in a direction of its own."""
    vector = np.zeros(8)
    vector[first], vector[7] = nearness, np.sqrt(1 - nearness**2)
    return vector


def test_of_passages_that_say_the_same_only_the_best_is_found(tmp_path: Path) -> None:
    texts = [WARRANTY, WARRANTY.upper(), "The probes hang below the surface.", f"{WARRANTY} Error E42."]
    build = published(tmp_path, texts, np.stack([near(0, 0.99), near(0, 1.0), near(1, 1.0), near(0, 0.98)]))
    found = build.search("warranty", vector=near(0, 1.0).astype(np.float32), k=4)
    assert [hit.passage.text for hit in found] == [texts[1], texts[3], texts[2]]


def test_a_place_that_a_duplicate_leaves_is_filled_by_the_next(tmp_path: Path) -> None:
    texts = [WARRANTY, WARRANTY, "Invoices are due within two weeks.", "The heater needs power."]
    build = published(tmp_path, texts, np.stack([near(0, 1.0), near(0, 1.0), near(0, 0.6), near(1, 1.0)]))
    found = build.search("warranty", vector=near(0, 1.0).astype(np.float32), k=2)
    assert [hit.passage.text for hit in found] == [WARRANTY, texts[2]]


TEXTS = [WARRANTY, "The heater needs power.", "Invoices are due within two weeks."]


def judged(build: Build, question: str, nearness: float | None) -> bool:
    vector = None if nearness is None else near(0, nearness).astype(np.float32)
    hits = build.search(question, vector=vector, k=5)
    return build.has_something_on(question, hits, by_words_alone=nearness is None)


@pytest.mark.parametrize(
    ("question", "nearness", "is_on_topic"),
    [
        ("Who won the chess championship?", 0.05, False),
        ("Who won the chess championship?", None, False),
        ("Who won the chess championship?", 0.8, True),
        ("How long is the warranty on probes?", 0.05, True),
        ("How long is the warranty on probes?", None, True),
        ("What is this?", 0.05, True),
        ("Hello!", 0.05, True),
        ("Hello!", None, False),
        ("Wer gewann die Meisterschaft im Schach?", 0.05, False),
        ("Wie lange gilt die Garantie?", 0.3, True),
        ("保修期有多长?", 0.3, True),
    ],
)
def test_a_build_tells_off_topic_questions_from_others(
    tmp_path: Path, question: str, nearness: float | None, is_on_topic: bool
) -> None:
    vectors = np.stack([np.eye(8)[0], np.eye(8)[1], np.eye(8)[2]])
    assert judged(published(tmp_path, TEXTS, vectors, unrelated_similarity=0.0), question, nearness) is is_on_topic


def test_a_model_that_knows_only_spelling_is_judged_by_words(tmp_path: Path) -> None:
    build = published(tmp_path, TEXTS, np.eye(3, 8), unrelated_similarity=None)
    assert not judged(build, "Who won the chess championship?", 0.99)
    assert judged(build, "Which warranty is it?", 0.01)


def test_a_build_without_a_measure_refuses_nothing(tmp_path: Path) -> None:
    assert judged(published(tmp_path, TEXTS, np.eye(3, 8)), "Who won the chess championship?", 0.01)

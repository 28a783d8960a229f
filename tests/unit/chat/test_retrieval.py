"""From a question to passages: follow-ups, thresholds, large builds, and embeddings that cannot be had."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.chat import retrieval
from rag.chat.retrieval import WITHOUT_EMBEDDINGS, Retrieved, Retriever, search_query
from rag.deadline import Deadline
from rag.errors import ContentFiltered, UpstreamError, UpstreamTimeout
from rag.search import builds, hybrid
from rag.search.backends.files import FileBackend
from rag.search.live import LiveIndex
from rag.telemetry.logs import request_fields
from rag.telemetry.metrics import Metrics
from rag.types import Message, Passage
from tests.support import whole_build

TEXTS = ["The impeller is blocked by sand.", "The heater needs 24 volts.", "Invoices are due in 14 days."]


class FakeEmbedder:
    """Gives every text the same vector, or fails; remembers what it was asked."""

    name = "a-model"

    def __init__(self, outcome: np.ndarray | Exception) -> None:
        self.outcome = outcome
        self.asked: list[tuple[list[str], float]] = []

    def health(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        self.asked.append((list(texts), deadline.remaining_s))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return np.stack([self.outcome] * len(texts))


def axis(number: int, dimensions: int = 3) -> np.ndarray:
    return np.eye(dimensions, dtype=np.float32)[number]


@pytest.fixture
def index(tmp_path: Path) -> LiveIndex:
    passages = [
        Passage(text=text, title="T", headings=(), url=f"u{row}", anchor="", source=f"{row}.md", language="en")
        for row, text in enumerate(TEXTS)
    ]
    with builds.writing(tmp_path) as staging:
        written = whole_build.write(staging, passages, np.eye(3, dtype=np.float32))
        embedding = {"model": "a-model", "dimensions": 3, "dense_weight": 0.6}
        builds.publish(tmp_path, staging, {**written, "embedding": embedding})
    return LiveIndex(backend=FileBackend(tmp_path), model="a-model")


def search(index: LiveIndex, embedder: FakeEmbedder, query: str, threshold: float | None = None) -> Retrieved:
    async def run() -> Retrieved:
        retriever = Retriever(index=index, embedder=embedder, threshold=threshold, metrics=Metrics(folder=None))
        try:
            return await retriever.search(query, k=3, deadline=Deadline(10.0))
        finally:
            retriever.close()

    return asyncio.run(run())


def test_meaning_and_words_are_searched_together(index: LiveIndex) -> None:
    embedder = FakeEmbedder(axis(1))
    noted: dict[str, object] = {}
    token = request_fields.set(noted)
    found = search(index, embedder, "zzz")
    request_fields.reset(token)
    assert found.hits[0].passage.text == TEXTS[1]
    assert found.missing is None
    assert noted.keys() == {"embed_ms", "search_ms"}
    ((asked, remaining_s),) = embedder.asked
    assert asked == ["zzz"]
    assert 3.5 < remaining_s <= 10.0 * retrieval.EMBEDDING_SHARE


@pytest.mark.parametrize(
    "failure",
    [UpstreamError("down"), UpstreamTimeout("late"), ContentFiltered("refused"), np.ones(7, dtype=np.float32)],
    ids=["down", "late", "refused", "another dimension"],
)
def test_without_a_usable_vector_words_alone_are_searched_and_it_is_said(
    index: LiveIndex, failure: np.ndarray | Exception
) -> None:
    found = search(index, FakeEmbedder(failure), "When are invoices due?")
    assert [hit.passage.text for hit in found.hits] == [TEXTS[2]]
    assert found.missing == WITHOUT_EMBEDDINGS


def test_a_large_build_is_searched_in_a_thread_with_the_same_outcome(
    index: LiveIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = search(index, FakeEmbedder(axis(0)), "heater")
    monkeypatch.setattr(hybrid, "QUICK", 0)
    assert search(index, FakeEmbedder(axis(0)), "heater").hits == inline.hits


def test_a_large_build_is_searched_by_words_while_the_question_is_being_embedded(
    index: LiveIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = threading.Event()
    by_words = hybrid.Build.by_words

    def watched(build: hybrid.Build, question: str) -> np.ndarray:
        searched.set()
        return by_words(build, question)

    class Waiting(FakeEmbedder):
        async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
            assert await asyncio.to_thread(searched.wait, 10)
            return await super().embed(texts, deadline=deadline)

    monkeypatch.setattr(hybrid.Build, "by_words", watched)
    monkeypatch.setattr(hybrid, "QUICK", 0)
    assert search(index, Waiting(axis(1)), "heater").hits[0].passage.text == TEXTS[1]


def relevant(
    index: LiveIndex, threshold: float | None, retrieved: Retrieved, *, in_conversation: bool = False
) -> list[str]:
    retriever = Retriever(
        index=index, embedder=FakeEmbedder(axis(0)), threshold=threshold, metrics=Metrics(folder=None)
    )
    return [hit.passage.text for hit in retriever.relevant(retrieved, question="?", in_conversation=in_conversation)]


def test_the_floor_judges_what_opens_a_conversation_and_not_what_continues_it(index: LiveIndex) -> None:
    found = search(index, FakeEmbedder(axis(1)), "zzz")
    off_topic = Retrieved(hits=found.hits, on_topic=False)
    assert relevant(index, None, off_topic) == []
    assert len(relevant(index, None, off_topic, in_conversation=True)) == 3


def test_below_the_threshold_nothing_is_relevant(index: LiveIndex) -> None:
    found = search(index, FakeEmbedder(axis(1)), "zzz")
    assert relevant(index, 0.5, found) == [TEXTS[1]]
    assert relevant(index, 1.0, found) == [TEXTS[1]]
    assert len(relevant(index, None, found)) == 3
    assert relevant(index, 0.5, Retrieved(hits=[])) == []


def test_a_threshold_of_similarity_says_nothing_about_hits_by_words_alone(index: LiveIndex) -> None:
    found = search(index, FakeEmbedder(UpstreamError("down")), "When are invoices due?")
    assert relevant(index, 0.99, found) == [TEXTS[2]]


def said(*questions: str) -> list[Message]:
    return [turn for question in questions for turn in (Message("user", question), Message("assistant", "Because."))]


@pytest.mark.parametrize("question", ["How many of them?", "And what does it cost?", "Und was kostet das?", "Why?"])
def test_a_question_that_leans_on_the_one_before_is_searched_with_it(question: str) -> None:
    assert search_query(question, said("Which pumps are sold?")) == f"Which pumps are sold?\n{question}"


def test_a_question_that_stands_alone_is_searched_alone() -> None:
    question = "Which port does the REST API listen on?"
    assert search_query(question, said("Which pumps are sold?")) == question


def test_the_first_question_has_nothing_to_lean_on() -> None:
    assert search_query("How many?", []) == "How many?"
    assert search_query("How many?", [Message("assistant", "Welcome!")]) == "How many?"


def test_a_chain_of_follow_ups_reaches_back_to_what_they_are_about() -> None:
    history = said(
        "Which ports does the REST API use?", "How is the salinity probe calibrated?", "How often is it done?"
    )
    expected = "How is the salinity probe calibrated?\nHow often is it done?\nAnd why?"
    assert search_query("And why?", history) == expected

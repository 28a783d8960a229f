"""Questions with known answers: how the file is read, and that pages, not passages, are counted."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.evaluate import BelowBar, Question, Scores, measure, read, require
from rag.deadline import Deadline
from rag.errors import SourceUnreadable
from rag.search import builds
from rag.search.hybrid import Build, open_build
from rag.types import Passage
from tests.support import whole_build

PAGES = 15


class AxisEmbedder:
    """A question `q3` points at page 3."""

    name = "a-model"
    dense_weight = 1.0
    calls = 0

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        self.calls += 1
        return np.stack([np.eye(PAGES, dtype=np.float32)[int(text[1:])] for text in texts])


@pytest.fixture
def live(tmp_path: Path) -> Build:
    """Two passages a page; the second is nearly as near as the first."""
    passages, vectors = [], []
    for number in range(PAGES):
        for part in range(2):
            passages.append(
                Passage(
                    text=f"Words of part {part}",
                    title=f"Page {number}",
                    headings=(),
                    url=f"https://x.example/{number}/",
                    anchor=f"part-{part}",
                    source=f"{number}.md",
                    language="en",
                )
            )
            vector = np.eye(PAGES, dtype=np.float32)[number] + 0.1 * part * np.eye(PAGES, dtype=np.float32)[number - 1]
            vectors.append(vector / np.linalg.norm(vector))
    with builds.writing(tmp_path) as staging:
        written = whole_build.write(staging, passages, np.stack(vectors).astype(np.float32))
        embedding = {"model": "a-model", "dimensions": PAGES, "dense_weight": 1.0}
        builds.publish(tmp_path, staging, {**written, "embedding": embedding})
    return open_build(tmp_path)


def scores(live: Build, *questions: Question) -> Scores:
    return asyncio.run(measure(live, questions, embedder=AxisEmbedder(), progress=lambda *step: None))


def asked(text: str, *relevant: str) -> Question:
    return Question(id=text, text=text, relevant=frozenset(relevant))


@pytest.mark.parametrize("name", ["https://x.example/3/", "3.md", "https://x.example/3/#part-0"])
def test_a_page_is_known_by_address_or_source(live: Build, name: str) -> None:
    assert scores(live, asked("q3", name)) == Scores(1, 1.0, 1.0, 1.0, [])


def test_two_passages_of_one_page_are_one_page(live: Build) -> None:
    # The page before is next, with its passages on the places three and four: as a page it is the second.
    found = scores(live, asked("q3", "4.md"))
    assert found.mrr_at_10 == pytest.approx(1 / 2)


def test_a_page_that_is_not_there_is_named_as_missed(live: Build) -> None:
    found = scores(live, asked("q3", "3.md"), asked("q5", "nowhere.md"))
    assert found.unknown == ["nowhere.md"]
    assert (found.questions, found.ndcg_at_10, found.recall_at_5, found.mrr_at_10) == (2, 0.5, 0.5, 0.5)
    assert found.missed == ["q5"]


@pytest.mark.parametrize(
    "names",
    [
        ("3.md", "https://x.example/3/"),
        ("3.md", "https://x.example/3/#part-0"),
        ("https://x.example/3/", "https://x.example/3/#part-0", "https://x.example/3/#part-1"),
    ],
)
def test_a_page_that_is_named_twice_counts_once(live: Build, names: tuple[str, ...]) -> None:
    assert scores(live, asked("q3", *names)) == Scores(1, 1.0, 1.0, 1.0, [])


def test_two_passages_of_one_page_are_two_answers_where_they_are_named_as_such(live: Build) -> None:
    found = scores(live, asked("q3", "https://x.example/3/#part-0", "https://x.example/3/#part-1"))
    assert (found.ndcg_at_10, found.recall_at_5, found.missed) == (1.0, 1.0, [])


def test_pages_that_the_build_does_not_have_are_named(live: Build) -> None:
    found = scores(live, asked("q3", "3.md", "gone.md"), asked("q4", "4.md", "gone.md", "https://x.example/4/#old"))
    assert found.unknown == ["gone.md", "https://x.example/4/#old"]
    with pytest.raises(BelowBar, match=r"is below 1.0; not in the build: gone.md, https://x.example/4/#old$"):
        require(found, min_ndcg=1.0)


def test_many_questions_go_out_in_batches(live: Build) -> None:
    embedder = AxisEmbedder()
    questions = [asked(f"q{number % PAGES}", f"{number % PAGES}.md") for number in range(130)]
    told: list[tuple[str, int, int]] = []
    result = asyncio.run(measure(live, questions, embedder=embedder, progress=lambda *step: told.append(step)))
    assert embedder.calls == 3
    assert told[-1] == ("asking", 130, 130)
    assert (result.questions, result.ndcg_at_10) == (130, 1.0)


def test_a_file_of_questions_is_read_with_its_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    lines = [
        json.dumps({"id": "a", "question": "Größe?", "relevant": ["x.md", "y.md"]}),
        "",
        '{"question":"?","relevant":["z"]}',
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read(file) == [
        Question("a", "Größe?", frozenset({"x.md", "y.md"})), Question("3", "?", frozenset({"z"})),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", "null", '{"question": "x"}', '{"relevant": ["a"]}', '{"question": "x", "relevant": []}',
             '{"question": "x", "relevant": 5}', '{"question": "x", "relevant": "a.md"}', "\ufeff{}"],
)  # fmt: skip
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "x", "relevant": ["a"]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(SourceUnreadable, match="line 2"):
        read(file)


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n\n")
    with pytest.raises(SourceUnreadable, match="holds no questions"):
        read(file)

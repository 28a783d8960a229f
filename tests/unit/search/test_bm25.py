"""The lexical index: real files, ranking properties, and the figures that were chosen for."""

import math
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval_lab as lab
from rag.errors import BuildDamaged, BuildMismatch
from rag.search import bm25
from rag.search.bm25 import Lexical
from rag.text import terms
from tests.support.waiting import REPOSITORY

Entry = tuple[str, str, str, str]


def build(folder: Path, entries: Iterable[Entry]) -> Lexical:
    return Lexical.open(folder, bm25.write(folder, entries))


def english(*bodies: str) -> list[Entry]:
    return [("", "", body, "en") for body in bodies]


def scores(index: Lexical, question: str) -> list[float]:
    return index.scores(index.words(question)).tolist()


def best(index: Lexical, question: str) -> int:
    found = index.scores(index.words(question))
    assert found.max() > 0, "nothing was found"
    return int(found.argmax())


def test_a_word_scores_by_the_published_formula(tmp_path: Path) -> None:
    index = build(tmp_path, english("alpha alpha beta", "beta", "gamma delta"))
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    norm = bm25.K1 * (1 - bm25.B + bm25.B * 3 / 2)
    expected = idf * 2 * (bm25.K1 + 1) / (2 + norm)
    assert index.scores([("alpha",)]).tolist() == pytest.approx([expected, 0.0, 0.0], rel=1e-6)


def test_a_rare_word_outweighs_a_common_one(tmp_path: Path) -> None:
    index = build(tmp_path, english("tax zebra", *["tax return"] * 9, "tax"))
    assert best(index, "tax zebra") == 0


def test_the_shorter_of_two_passages_with_a_word_comes_first(tmp_path: Path) -> None:
    index = build(tmp_path, english("zebra " + "grass water sun " * 30, "zebra grass"))
    assert best(index, "zebra") == 1


def test_title_and_headings_are_searched(tmp_path: Path) -> None:
    entries = [("Refunds", "", "Within a month.", "en"), ("", "Shipping › Customs", "Ask us.", "en")]
    index = build(tmp_path, entries)
    assert (best(index, "refund"), best(index, "customs")) == (0, 1)


def test_an_inflected_german_question_finds_its_passage(tmp_path: Path) -> None:
    index = build(tmp_path, [("", "", "Das Haus am See.", "de"), ("", "", "Der Wald am Berg.", "de")])
    assert best(index, "Welche Häuser?") == 0


def test_part_of_a_german_compound_finds_the_whole(tmp_path: Path) -> None:
    entries = [("", "", "Berufsunfähigkeitsversicherung abschließen", "de"), ("", "", "Rechnung zahlen", "de")]
    index = build(tmp_path, entries)
    assert best(index, "Versicherungen") == 0


def test_a_misspelled_word_still_finds_its_passage(tmp_path: Path) -> None:
    index = build(tmp_path, english("How many vacation days do I get?", "Where do I park my car?"))
    assert best(index, "vacaton") == 0


def test_an_identifier_finds_its_passage_before_its_parts_do(tmp_path: Path) -> None:
    index = build(tmp_path, english("the model and its response", "declare response_model in the decorator"))
    assert best(index, "responseModel") == 1


def test_chinese_is_found_by_its_characters(tmp_path: Path) -> None:
    index = build(tmp_path, [("", "", "黑豹队的防守只丢了308分", "zh"), ("", "", "维多利亚时代的建筑", "zh")])
    assert (best(index, "黑豹队"), best(index, "建筑"), best(index, "豹")) == (0, 1, 0)


def test_each_language_of_a_mixed_index_is_asked_in_its_own_stems(tmp_path: Path) -> None:
    entries = [("", "", "Das Haus", "de"), ("", "", "Many vacations", "en"), ("", "", "plain words", "")]
    index = build(tmp_path, entries)
    assert index.languages == ("", "de", "en")
    assert (best(index, "Häuser"), best(index, "vacation"), best(index, "words")) == (0, 1, 2)


def test_two_forms_of_one_word_count_once(tmp_path: Path) -> None:
    index = build(tmp_path, english("cat", "dog", "cow"))
    once = index.scores([("cat",)])
    assert index.scores([("cat", "cat")]).tolist() == once.tolist()
    assert index.scores([("cat", "dog")])[0] == pytest.approx(once[0])


def test_an_unknown_word_changes_nothing(tmp_path: Path) -> None:
    index = build(tmp_path, english("alpha beta", "gamma"))
    assert index.scores([("alpha",), ("nowhere",)]).tolist() == index.scores([("alpha",)]).tolist()
    assert index.scores([("nowhere",)]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("question", ["", "?!", "\ud800"])
def test_an_empty_question_scores_nothing(tmp_path: Path, question: str) -> None:
    assert scores(build(tmp_path, english("alpha", "beta")), question) == [0.0, 0.0]


@pytest.mark.parametrize("entries", [[], [("", "", "", "")], [("", "", "!!", "en")]])
def test_an_index_without_words_opens_and_finds_nothing(tmp_path: Path, entries: list[Entry]) -> None:
    assert scores(build(tmp_path, entries), "alpha") == [0.0] * len(entries)


def test_the_same_passages_make_the_same_bytes(tmp_path: Path) -> None:
    entries = english("alpha beta", "Häuser und Straßen", "黑豹队")
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    parts = [bm25.write(folder, entries) for folder in folders]
    assert parts[0] == parts[1]
    files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]


def test_many_small_runs_make_the_same_index_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = english(*(f"word{number % 7} common thing{number}" for number in range(60)))
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    bm25.write(tmp_path / "one", entries)
    monkeypatch.setattr(bm25, "POSTINGS_PER_RUN", 50)
    bm25.write(tmp_path / "many", entries)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == sorted(f"lexical_{name}.npy" for name in (*bm25.FILES, bm25.LEFT_OUT)), (
        "the runs are not cleared away"
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_a_gram_in_most_passages_is_left_out_and_a_word_is_not(tmp_path: Path) -> None:
    index = build(tmp_path, english(*["banana"] * 300))
    assert not index.scores([("~anan",)]).any()
    assert index.scores([("banana",)]).all()


def test_the_arrays_are_mapped_and_cannot_be_written_to(tmp_path: Path) -> None:
    index = build(tmp_path, english("alpha", "beta"))
    for array in (index._hashes, index._starts, index._rows, index._impacts):
        assert isinstance(array.base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_pickle_in_place_of_an_array_is_refused(tmp_path: Path) -> None:
    part = bm25.write(tmp_path, english("alpha"))
    np.save(tmp_path / "lexical_rows.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BuildDamaged, match="lexical"):
        Lexical.open(tmp_path, part)


@pytest.mark.parametrize("name", ["hashes", "starts", "rows", "impacts"])
def test_a_missing_or_shortened_array_is_refused(tmp_path: Path, name: str) -> None:
    part = bm25.write(tmp_path, english("alpha beta", "gamma"))
    file = tmp_path / f"lexical_{name}.npy"
    np.save(file, np.load(file)[:-1], allow_pickle=False)
    with pytest.raises(BuildDamaged):
        Lexical.open(tmp_path, part)
    file.unlink()
    with pytest.raises(BuildDamaged):
        Lexical.open(tmp_path, part)


def test_an_index_of_another_analysis_is_refused_with_the_remedy(tmp_path: Path) -> None:
    part = bm25.write(tmp_path, english("alpha"))
    with pytest.raises(BuildMismatch, match="rebuild"):
        Lexical.open(tmp_path, {**part, "analysis_version": 0})


def test_threads_share_an_index_and_get_the_same_scores(tmp_path: Path) -> None:
    index = build(tmp_path, english(*(f"word{number % 11} thing{number}" for number in range(500))))
    questions = [f"word{number} thing{number}" for number in range(11)]
    alone = [scores(index, question) for question in questions]
    differing: list[str] = []

    def ask() -> None:
        for _ in range(20):
            differing.extend(q for q, expected in zip(questions, alone, strict=True) if scores(index, q) != expected)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []


FILLED = """
import random, string, sys
from pathlib import Path
from rag.llm import embedded
from rag.search import bm25
from rag.text import terms

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

draw, letters, index = random.Random(1), int(sys.argv[1]), bm25.Lexical.open(Path(sys.argv[2]), PART)
before = resident_mb()
for _ in range(int(sys.argv[3])):
    question = " ".join("".join(draw.choices(string.ascii_lowercase, k=letters)) for _ in range(4000 // (letters + 1)))
    index.scores(index.words(question))
print(resident_mb() - before)
"""


@pytest.mark.parametrize(("letters", "questions"), [(3999, 400), (terms.LONGEST_REMEMBERED, 140), (8, 60)])
def test_words_that_visitors_make_up_do_not_fill_the_memory(tmp_path: Path, letters: int, questions: int) -> None:
    part = bm25.write(tmp_path, english("alpha beta", "gamma"))
    command = [sys.executable, "-c", FILLED.replace("PART", repr(part)), str(letters), str(tmp_path), str(questions)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 120  # 78 with every cache full of words as long as are remembered


@pytest.mark.parametrize("long", ["x" * 4000, "数" * 4000, "a_" * 2000, "aB" * 2000])
def test_a_word_that_is_too_long_to_be_remembered_is_found_all_the_same(tmp_path: Path, long: str) -> None:
    index = build(tmp_path, english("alpha", f"beta {long}", "gamma"))
    assert best(index, long) == 1


@pytest.mark.parametrize(("name", "ndcg", "recall"), [
    ("squad2_dev", 0.89, 0.93), ("anthropic_codebase", 0.72, 0.80),
    ("xquad/en", 0.96, 0.98), ("xquad/de", 0.95, 0.97), ("xquad/zh", 0.96, 0.98),
])  # fmt: skip
def test_words_alone_find_what_they_found_when_tuned(corpora: Path, name: str, ndcg: float, recall: float) -> None:
    corpus = lab.load(name, corpora, questions=300)
    found = lab.lexical_scores(corpus, list(corpus.questions.values()))
    measured = lab.figures(corpus, list(corpus.questions), lambda i: np.argsort(-found[i], kind="stable")[:10].tolist())
    assert measured[:, 0].mean() >= ndcg
    assert measured[:, 1].mean() >= recall

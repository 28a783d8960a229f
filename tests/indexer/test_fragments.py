"""Deep links lead to the passage's own words, or are left out."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from indexer.documents import Block, Document, Section
from indexer.passages.chunking import passages
from indexer.passages.fragments import with_fragments
from indexer.reading import finding
from indexer.reading.files import read_all
from rag.types import Passage

FIRST = "The blue kettle boils a litre of water in three minutes."
SECOND = "Descale it once a month with two spoons of citric acid."


def cut(*texts: str, source: str = "kettle.md") -> list[Passage]:
    """Passages of a page with one section a text, each a passage of its own."""
    sections = tuple(Section((f"Part {n}",), f"part-{n}", (Block("paragraph", text),)) for n, text in enumerate(texts))
    document = Document(source, "https://site.example/kettle/", "Kettle", "en", sections)
    return with_fragments(document, passages(document, target_chars=1, limit_chars=1600))


def padded(text: str) -> str:
    """Long enough that the passage is not joined to its neighbour."""
    return text + " " + "More follows here about other things entirely. " * 6


def test_a_passage_is_linked_by_its_own_first_words() -> None:
    first, second = cut(padded(FIRST), padded(SECOND))
    assert unquote(first.fragment) == "The blue kettle boils a litre of water in three"
    assert first.citation_url.startswith("https://site.example/kettle/#part-0:~:text=The%20blue%20kettle")
    assert unquote(second.fragment).startswith("Descale it once a month")


def test_words_that_stand_twice_in_the_page_do_not_lead_anywhere() -> None:
    only_repeated = "Read the safety notes before use."
    first, _ = cut(only_repeated + " " + FIRST + " " + "x " * 100, only_repeated + " " + "y " * 100)
    assert unquote(first.fragment).startswith("The blue kettle")


def test_without_unique_words_the_link_goes_to_the_section() -> None:
    passage = cut("Yes.")[0]
    assert passage.fragment == ""
    assert passage.citation_url == "https://site.example/kettle/#part-0"


def test_marks_that_a_browser_does_not_show_are_left_out() -> None:
    passage = cut("Set `boil_time` to **three minutes** and wait for the click.")[0]
    assert unquote(passage.fragment) == "Set boil_time to three minutes and wait for the click"


def test_code_is_never_looked_for() -> None:
    passage = cut("```\nprint the whole thing out now please\n```")[0]
    assert passage.fragment == ""


def test_words_of_a_table_are_those_of_one_cell() -> None:
    passage = cut("| Kettle | What it does |\n|---|---|\n| blue | boils a litre of water | 3 |")[0]
    assert unquote(passage.fragment) == "boils a litre of water"


def test_signs_with_a_meaning_in_a_text_directive_are_encoded() -> None:
    passage = cut("First, a well-known kettle is filled with water.")[0]
    assert passage.fragment.startswith("First%2C%20a%20well%2Dknown%20kettle")


def test_chinese_is_linked_by_characters() -> None:
    passage = cut("蓝色水壶在三分钟内烧开一升水。每月除垢一次。")[0]
    assert unquote(passage.fragment).startswith("蓝色水壶在三分钟内")


@pytest.mark.parametrize("source", ["handbook.pdf", "table.csv", "letter.docx"])
def test_what_no_browser_shows_as_text_is_linked_without(source: str) -> None:
    assert cut(FIRST, source=source)[0].fragment == ""


def test_nearly_every_passage_of_real_documentation_has_a_deep_link(corpora: Path) -> None:
    found = []
    for document in read_all(finding.find([corpora / "fastapi_docs" / "tutorial"]).files, site_url=""):
        if isinstance(document, Document):
            found += with_fragments(document, passages(document))
    assert len(found) > 200
    assert sum(bool(passage.fragment) for passage in found) / len(found) > 0.95

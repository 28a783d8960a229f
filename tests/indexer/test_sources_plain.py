"""Plain text and CSV, and files that are none."""

from pathlib import Path

import pytest

from indexer.documents import Block
from rag.errors import SourceUnreadable
from tests.indexer.samples import read, read_file, text_of


def test_plain_text_is_paragraphs_and_lists(tmp_path: Path) -> None:
    document = read(tmp_path, "notes.txt", "First  line\nsecond\n\n \n- a\n  b\n- c\r\n\r\nLast\n")
    assert [tuple(block) for block in document.sections[0].blocks] == [
        ("paragraph", "First line\nsecond"),
        ("list", "- a\n  b\n- c"),
        ("paragraph", "Last"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_in_unicode_is_read_with_or_without_its_mark(tmp_path: Path, encoding: str) -> None:
    assert text_of(read(tmp_path, "notes.txt", "Größe 日本".encode(encoding))) == "Größe 日本"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b" \n\t\n", "empty file"),
        (b"Caf\xe9", r"not UTF-8 text \(byte 0xe9 at position 3\)"),
        (b"\xff\xfeab\x00", "not utf-16-le text"),
        (b"\x00\x01\x02" * 50, "not text"),
        (b"# Only\n\n## Headings\n", "only headings, no text"),
        (b"<!-- nothing -->\n", "nothing readable inside"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(SourceUnreadable, match=reason):
        read(tmp_path, "notes.md", content)


def test_a_file_that_is_gone_or_a_folder_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.md", tmp_path):
        with pytest.raises(SourceUnreadable, match=r"not a regular file|without extension"):
            read_file(path, source="x")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_row_is_a_section_of_its_own(tmp_path: Path, delimiter: str) -> None:
    rows = [["Name", "Price", ""], ["Tea, green", "3;50", "x"], ["", "", ""], ["Coffee", "", ""]]
    content = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    document = read(tmp_path, "price_list.csv", content)
    assert document.title == "Price list"
    assert [(section.anchor, section.blocks) for section in document.sections] == [
        ("row=2", (Block("row", "Name: Tea, green\nPrice: 3;50\nColumn 3: x"),)),
        ("row=4", (Block("row", "Name: Coffee"),)),
    ]


def test_rows_longer_than_the_header_and_line_breaks_in_cells_lose_nothing(tmp_path: Path) -> None:
    document = read(tmp_path, "a.csv", 'A,B\n1,"two\nlines",3\n')
    assert text_of(document) == "A: 1\nB: two lines\nColumn 3: 3"


@pytest.mark.parametrize(
    ("content", "title", "text"),
    [
        ("Report of 2025\n\nName,Age\nAnn,30\n", "Report of 2025", "Report of 2025\n\nName: Ann\nAge: 30"),
        ("Prices,,\nNet,,\nItem,Price,Unit\nTea,3,kg\n", "Prices", "Prices\n\nNet\n\nItem: Tea\nPrice: 3\nUnit: kg"),
        ("sep=;\nItem;Price\nTea;3\n", "A", "Item: Tea\nPrice: 3"),
    ],
)
def test_lines_above_a_table_are_no_header(tmp_path: Path, content: str, title: str, text: str) -> None:
    document = read(tmp_path, "a.csv", content)
    assert (document.title, text_of(document)) == (title, text)
    rows = content.strip().split("\n")
    assert document.sections[-1].anchor == f"row={len(rows)}"


@pytest.mark.parametrize(
    "content",
    [
        "Alice,30,Oslo\nBob,41,Rome\n",
        "Alice,ann@x.example\nBob,bob@x.example\n",
        "2026-01-02,Rain\n2026-01-03,Sun\n",
        "Tea,€ 3.50\nCoffee,€ 4.00\n",
    ],
)
def test_a_table_without_a_header_loses_no_row(tmp_path: Path, content: str) -> None:
    document = read(tmp_path, "a.csv", content)
    first = content.partition("\n")[0].split(",")
    assert [section.anchor for section in document.sections] == ["row=1", "row=2"]
    assert document.sections[0].blocks[0].text.split("\n")[:2] == [f"Column 1: {first[0]}", f"Column 2: {first[1]}"]


@pytest.mark.parametrize(
    "content", ["Country,2024,2025\nNorway,1,2\n", "Item,\nTea,3\n", ",Price\nTea,3\n", "A,B\n1,2\n", "No,1st\n1,2\n"]
)
def test_what_may_be_a_header_is_one(tmp_path: Path, content: str) -> None:
    assert [section.anchor for section in read(tmp_path, "a.csv", content).sections] == ["row=2"]


def test_a_table_of_one_column_is_a_table(tmp_path: Path) -> None:
    assert text_of(read(tmp_path, "a.csv", "Question\nWhy?\nHow?\n")) == "Question: Why?\n\nQuestion: How?"


def test_a_header_without_rows_has_nothing_readable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="nothing readable inside"):
        read(tmp_path, "a.csv", "A,B\n")

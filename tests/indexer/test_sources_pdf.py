"""PDF: pages, headings, and paragraphs from lines."""

from pathlib import Path

import pytest

from indexer.passages.chunking import passages
from rag.errors import SourceUnreadable
from tests.indexer.samples import (
    CORPORA,
    needs_corpora,
    paragraph,
    pdf_bytes,
    prose,
    protected_pdf_bytes,
    read,
    read_file,
    text_of,
)

FURNITURE = [
    "Leave must be agreed with your team at least two weeks ahead of time.",
    "Travel is booked by the office and paid by the company in advance.",
    "Security concerns everybody who opens the door of this building.",
    "Health insurance begins on the first day of every new contract.",
]


def test_every_page_is_a_section_with_its_number_as_anchor(tmp_path: Path) -> None:
    document = read(tmp_path, "a.pdf", pdf_bytes([paragraph("First page."), paragraph("Second page.")]))
    assert [(section.anchor, section.blocks[0].text) for section in document.sections] == [
        ("page=1", "First page."),
        ("page=2", "Second page."),
    ]


def test_lines_are_joined_to_paragraphs_and_gaps_part_them(tmp_path: Path) -> None:
    first, second = prose(300, "cat"), prose(200, "dog")
    page = [*paragraph(first, top=700), *paragraph(second, top=580)]
    document = read(tmp_path, "a.pdf", pdf_bytes([page]))
    assert [block.text for block in document.sections[0].blocks] == [first, second]


def test_a_word_divided_at_a_lines_end_is_put_together(tmp_path: Path) -> None:
    lines = [
        "The reimbursement of costs takes a week. A reimburse-",
        "ment is paid to your account, and the up-to-",
        "date",
        "list is on the site. Call 1-",
        "800-555 for up-to-date news and do so at any time.",
    ]
    page = [(11.0, 700.0 - 14 * place, line) for place, line in enumerate(lines)]
    text = text_of(read(tmp_path, "a.pdf", pdf_bytes([page]))).replace("\n", " ")
    assert "A reimbursement is paid" in text
    assert "the up-to-date list" in text
    assert "Call 1-800-555 for" in text


def test_headers_footers_and_page_numbers_are_left_out(tmp_path: Path) -> None:
    pages = [
        [(9.0, 760.0, f"Handbook, version {number}"), *paragraph(text), (9.0, 40.0, f"Page {number} of 4")]
        for number, text in enumerate(FURNITURE, 1)
    ]
    document = read(tmp_path, "a.pdf", pdf_bytes(pages))
    assert [block.text for section in document.sections for block in section.blocks] == FURNITURE


def test_larger_letters_are_headings_of_the_pages_that_follow(tmp_path: Path) -> None:
    page = [
        (20.0, 740.0, "Leave"),
        *paragraph(prose(400)),
        (15.0, 560.0, "Parental leave"),
        *paragraph(prose(300), top=530),
    ]
    document = read(tmp_path, "a.pdf", pdf_bytes([page, paragraph(prose(500, "next"))]))
    assert [(section.headings, section.anchor) for section in document.sections] == [
        ((), "page=1"),
        (("Parental leave",), "page=1"),
        (("Parental leave",), "page=2"),
    ]
    assert document.title == "Leave"


def test_letters_of_many_sizes_make_no_headings(tmp_path: Path) -> None:
    page = [
        (size, 700.0 - 30 * place, f"Line {place} of a poster, as large as it goes")
        for place, size in enumerate([20.0, 11.0, 24.0, 11.0, 18.0])
    ]
    (section,) = read(tmp_path, "a.pdf", pdf_bytes([page])).sections
    assert section.headings == ()


def test_the_files_own_contents_name_the_headings(tmp_path: Path) -> None:
    pages = [paragraph(prose(200)), [(11.0, 740.0, "2 Leave"), *paragraph(prose(200))], paragraph(prose(300, "end"))]
    content = pdf_bytes(pages, outline=[("Welcome", 0), ("2 Leave", 1)])
    assert [(part.headings, part.anchor) for part in read(tmp_path, "a.pdf", content).sections] == [
        (("Welcome",), "page=1"),
        (("2 Leave",), "page=2"),
        (("2 Leave",), "page=3"),
    ]


def test_lists_are_lists(tmp_path: Path) -> None:
    lines = [
        "You need:",
        "• a passport",
        "• two photographs, of which one is in colour and the other is",
        "not",
        "1. Sign",
    ]
    page = [(11.0, 700.0 - 14 * place, line) for place, line in enumerate(lines)]
    blocks = read(tmp_path, "a.pdf", pdf_bytes([page])).sections[0].blocks
    assert [tuple(block) for block in blocks] == [
        ("paragraph", "You need:"),
        ("list", "- a passport\n- two photographs, of which one is in colour and the other is not\n1. Sign"),
    ]


def test_a_sentence_that_goes_over_the_page_is_one(tmp_path: Path) -> None:
    pages = [paragraph("We post the policy on our"), paragraph("website every year. That is all.")]
    document = read(tmp_path, "a.pdf", pdf_bytes(pages))
    assert text_of(document) == "We post the policy on our website every year. That is all."


@pytest.mark.parametrize(
    ("stated", "title"),
    [("Annual report", "Annual report"), ("Microsoft Word - x.doc", "My file"), ("untitled", "My file")],
)
def test_a_title_is_believed_if_a_person_wrote_it(tmp_path: Path, stated: str, title: str) -> None:
    assert read(tmp_path, "my_file.pdf", pdf_bytes([paragraph("Text.")], title=stated)).title == title


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (protected_pdf_bytes("open sesame"), "^password-protected PDF$"),
        (pdf_bytes([[]]), r"^no text \(scanned pages\?\)$"),
        (b"this is not a PDF", "^broken PDF"),
        (pdf_bytes([paragraph("Text.")])[:120], "^broken PDF"),
    ],
)
def test_a_pdf_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(SourceUnreadable, match=reason):
        read(tmp_path, "a.pdf", content)


def test_a_pdf_that_needs_no_password_to_be_read_is_read(tmp_path: Path) -> None:
    assert text_of(read(tmp_path, "a.pdf", protected_pdf_bytes(""))) == "secret text"


@needs_corpora
def test_the_handbook_reads_like_a_text() -> None:
    path = CORPORA / "pdf" / "employee_handbook.pdf"
    document = read_file(path, source=path.name)
    assert document.title == "Contoso Electronics Employee Handbook"
    found = {passage.headings[-1]: passage for passage in passages(document) if passage.headings}
    assert {"Performance Reviews", "Workplace Safety", "Privacy", "Data Security"} <= set(found)
    assert found["Privacy"].anchor == "page=7"
    text = text_of(document)
    assert "We specialize in creating cutting-edge systems that are both reliable and efficient." in text
    assert "posting a revised policy on our website." in text
    assert "Compliance Hotline at 1-800-555-1212." in text
    assert "- Training – We provide our employees with safety training to ensure that they are aware of safety" in text

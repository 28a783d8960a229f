"""Documents cut into passages."""

import re
from random import Random

import pytest

from indexer.documents import Block, Document, Section, fenced, piped
from indexer.passages.chunking import passages
from indexer.passages.cutting import CODE_LIMIT_CHARS, sentences
from tests.indexer.samples import document_of, prose, section


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _lengths(document: Document) -> list[int]:
    return [len(passage.text) for passage in passages(document)]


def test_a_small_page_is_one_passage_with_all_that_is_known_of_it() -> None:
    (passage,) = passages(document_of(section("One.\n\nTwo.", "Part", anchor="part"), title="Page"))
    assert passage.text == "One.\n\nTwo."
    assert (passage.title, passage.headings, passage.anchor) == ("Page", ("Part",), "part")
    assert (passage.url, passage.source, passage.language) == ("https://example.org/page/", "page.md", "en")


def test_a_long_section_is_cut_between_paragraphs() -> None:
    text = "\n\n".join(prose(350, str(number)) for number in range(12))
    found = passages(document_of(section(text, "A")))
    assert "\n\n".join(passage.text for passage in found) == text
    assert all(800 <= len(passage.text) <= 1600 for passage in found)


def test_small_sections_are_merged_under_the_headings_they_share() -> None:
    document = document_of(
        section(prose(200, "a"), "Guide", "One", anchor="one"),
        section(prose(200, "b"), "Guide", "One", "Deep", anchor="deep"),
        section(prose(200, "c"), "Guide", "Two", anchor="two"),
    )
    (passage,) = passages(document)
    assert (passage.headings, passage.anchor) == (("Guide",), "one")
    lines = passage.text.split("\n\n")
    assert [line for line in lines if line.startswith("#")] == ["### One", "#### Deep", "### Two"]
    assert lines[0] == "### One"


def test_a_merged_passage_knows_its_sections_and_where_each_stands() -> None:
    document = document_of(
        section(prose(200, "a"), "Guide", "One", anchor="one"),
        section(prose(200, "b"), "Guide", "One", "Deep", anchor="deep"),
        section("", "Guide", "Two", anchor="two"),
        section(prose(200, "c"), "Guide", "Two", "Last", anchor="last"),
    )
    (passage,) = passages(document)
    one, deep, last = passage.sections
    assert (one.start, one.headings, one.anchor) == (0, ("Guide", "One"), "one")
    assert (deep.headings, deep.anchor) == (("Guide", "One", "Deep"), "deep")
    assert passage.text[deep.start : deep.end].startswith("### Deep\n\n") or passage.text[deep.start] == "#"
    # A heading with nothing below it leads to what follows.
    assert (last.headings, last.anchor) == (("Guide", "Two", "Last"), "last")
    assert passage.text[last.start :].split("\n")[0].endswith(" Two")
    assert "".join(passage.text[part.start : part.end] for part in passage.sections) == passage.text


@pytest.mark.parametrize("seed", range(30))
def test_sections_cover_a_passage_whatever_it_was_made_from(seed: int) -> None:
    random = Random(seed)
    path: list[str] = []
    made = []
    for number in range(12):
        path = [*path[: random.randint(0, 3)], f"Heading {number}"]
        text = prose(random.choice([40, 200, 900, 2500]), str(number)) if random.random() > 0.2 else ""
        made.append(section(text, *path, anchor=f"heading-{number}"))
    for passage in passages(document_of(*made)):
        assert passage.sections[0].start == 0
        assert "".join(passage.text[part.start : part.end] for part in passage.sections) == passage.text
        for part in passage.sections:
            number = part.anchor.removeprefix("heading-")
            said = re.findall(r"^[^#].*", passage.text[part.start : part.end], re.MULTILINE)
            assert part.headings[-1] == f"Heading {number}"
            assert all(f"the {number} and" in line or "the" not in line for line in said), (number, said)


def test_sections_of_the_same_heading_merge_without_repeating_it() -> None:
    first, second = section("One.", "Leave", anchor="page=1"), section("Two.", "Leave", anchor="page=2")
    (passage,) = passages(document_of(first, second))
    assert (passage.text, passage.headings, passage.anchor) == ("One.\n\nTwo.", ("Leave",), "page=1")


def test_sections_large_enough_stay_by_themselves() -> None:
    document = document_of(section(prose(900), "A"), section(prose(900), "B"))
    assert [passage.headings for passage in passages(document)] == [("A",), ("B",)]


def test_a_tiny_tail_joins_its_predecessor() -> None:
    text = f"{prose(820)}\n\n{prose(120, 'tail')}"
    assert len(passages(document_of(section(text, "A"), section(prose(1500), "B")))) == 2


def test_a_tiny_tail_without_room_stays_a_passage() -> None:
    document = document_of(section(prose(1598), "A"), section("Short.", "B"), section(prose(1598), "C"))
    assert [passage.headings for passage in passages(document)] == [("A",), ("B",), ("C",)]


def test_no_passage_is_only_a_heading_and_no_heading_is_lost() -> None:
    document = document_of(
        Section(("Empty one",), "e1", ()), section(prose(300), "Full"), Section(("Empty two",), "e2", ())
    )
    (passage,) = passages(document)
    assert "## Empty one" in passage.text
    assert "## Empty two" in passage.text
    assert passages(document_of(Section(("Alone",), "a", ()))) == []
    assert passages(document_of()) == []


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = prose(5000)
    found = passages(document_of(section(text)))
    assert all(600 <= len(passage.text) <= 1600 for passage in found)
    assert all(passage.text.endswith(".") for passage in found)
    assert " ".join(passage.text for passage in found) == text


def test_chinese_sentences_are_cut_without_spaces() -> None:
    text = "服务器用网站上的文字回答访问者的问题。" * 200
    found = passages(document_of(section(text)))
    assert len(found) > 2
    assert all(passage.text.endswith("。") and len(passage.text) <= 1600 for passage in found)
    assert "".join(passage.text for passage in found) == text


@pytest.mark.parametrize("text", ["x" * 5000, "word " * 1200, "one, two; " * 500])
def test_text_without_sentences_is_cut_all_the_same(text: str) -> None:
    found = passages(document_of(section(text.strip())))
    assert all(0 < len(passage.text) <= 1600 for passage in found)
    assert re.sub(r"\s", "", "".join(passage.text for passage in found)) == re.sub(r"\s", "", text)


def test_abbreviations_and_decimals_end_no_sentence() -> None:
    text = 'See e.g. Berlin, z. B. Bonn or Dr. Who. It costs 3.50 today. "Really?" she asked. Yes!'
    assert sentences(text) == [
        "See e.g. Berlin, z. B. Bonn or Dr. Who.",
        "It costs 3.50 today.",
        '"Really?" she asked.',
        "Yes!",
    ]


def test_code_is_kept_whole_up_to_its_limit() -> None:
    code = fenced("\n".join(f"line_{number} = {number}" for number in range(200)), "python")
    assert 1600 < len(code) < CODE_LIMIT_CHARS
    blocks = (Block("paragraph", prose(900)), Block("code", code), Block("paragraph", prose(900)))
    assert code in [passage.text for passage in passages(document_of(Section((), "", blocks)))]


def test_code_beyond_the_limit_is_cut_between_lines_and_every_piece_is_fenced() -> None:
    lines = [f"line_{number} = {number}" for number in range(1500)]
    found = passages(document_of(Section((), "", (Block("code", fenced("\n".join(lines), "python")),))))
    assert len(found) > 3
    assert all(len(passage.text) <= CODE_LIMIT_CHARS for passage in found)
    pieces = [passage.text.split("\n") for passage in found]
    assert all(piece[0] == "```python" and piece[-1] == "```" for piece in pieces)
    assert [line for piece in pieces for line in piece[1:-1]] == lines


def test_one_endless_line_of_code_is_cut() -> None:
    found = passages(document_of(Section((), "", (Block("code", fenced("x" * 20_000)),))))
    assert sum(passage.text.count("x") for passage in found) == 20_000
    assert max(len(passage.text) for passage in found) <= CODE_LIMIT_CHARS


def test_what_announces_code_stays_with_it() -> None:
    code = fenced("\n".join(f"line_{number} = {number}" for number in range(110)))
    blocks = (Block("paragraph", prose(760)), Block("paragraph", "Do it like this:"), Block("code", code))
    found = passages(document_of(Section((), "", blocks)))
    assert found[-1].text.startswith("Do it like this:\n\n```")


def test_a_title_that_is_no_heading_stays_with_its_text() -> None:
    text = f"{prose(780)}\n\nTraining and Education\n\n{prose(900, 'next')}"
    assert passages(document_of(section(text)))[-1].text.startswith("Training and Education\n\nThis sentence")


def test_a_table_is_cut_between_rows_and_repeats_its_header() -> None:
    rows = [["Name", "Use"], *([f"name {number}", f"what it is good for, {number}"] for number in range(150))]
    found = passages(document_of(Section(("T",), "t", (Block("table", piped(rows)),))))
    assert len(found) > 3
    assert all(passage.text.startswith("| Name | Use |\n| --- | --- |\n| name") for passage in found)
    assert all(len(passage.text) <= 1600 for passage in found)
    body = [line for passage in found for line in passage.text.split("\n")[2:]]
    assert body == piped(rows).split("\n")[2:]


def test_a_list_is_cut_between_items() -> None:
    lines = [f"- {prose(150, str(number))}" for number in range(40)]
    found = passages(document_of(Section((), "", (Block("list", "\n".join(lines)),))))
    assert [line for passage in found for line in passage.text.split("\n")] == lines
    assert all(600 <= len(passage.text) <= 1600 for passage in found[:-1])


def test_a_list_is_cut_between_items_of_the_outermost_level() -> None:
    items = [
        f"- {prose(100, str(number))}\n  - {prose(100, 'inner')}\n  - {prose(100, 'last')}" for number in range(20)
    ]
    found = passages(document_of(Section((), "", (Block("list", "\n".join(items)),))))
    assert len(found) > 3
    assert all(
        passage.text.startswith("- This") and passage.text.count("\n- ") * 2 + 2 == passage.text.count("\n  - ")
        for passage in found
    )


def test_every_row_is_a_passage_of_its_own() -> None:
    document = document_of(*(Section((), f"row={n}", (Block("row", f"Name: {n}"),)) for n in range(2, 6)))
    assert [(passage.text, passage.anchor) for passage in passages(document)] == [
        (f"Name: {n}", f"row={n}") for n in range(2, 6)
    ]


def test_a_long_row_is_cut_and_every_piece_names_it() -> None:
    fields = [f"Field {number}: {prose(300, str(number))}" for number in range(20)]
    row = Section((), "row=2", (Block("row", "\n".join(["Name: Tea", *fields])),))
    found = passages(document_of(row))
    assert len(found) > 2
    assert all(passage.text.startswith("Name: Tea\n") and len(passage.text) <= 1600 for passage in found)
    assert [line for passage in found for line in passage.text.split("\n")[1:]] == fields


def test_other_lengths_are_kept_too() -> None:
    document = document_of(section("\n\n".join(prose(180, str(n)) for n in range(30)), "A"))
    found = passages(document, target_chars=300, limit_chars=600)
    assert all(300 <= len(passage.text) <= 600 for passage in found)


def test_nothing_is_lost_or_doubled_and_the_same_comes_out_twice() -> None:
    parts = [section(prose(70 + 37 * n % 1900, f"w{n}"), f"H{n % 5}", f"S{n}") for n in range(60)]
    document = document_of(*parts)
    found = passages(document)
    assert found == passages(document)
    wanted = [word for part in parts for block in part.blocks for word in _words(block.text)]
    shown = [
        word
        for passage in found
        for line in passage.text.split("\n")
        if not line.startswith("#")
        for word in _words(line)
    ]
    assert shown == wanted
    assert max(_lengths(document)) <= 1600

"""What is quoted of a passage is whole Markdown, and the part of it that the question is about."""

import pytest
from markdown_it import MarkdownIt

from rag.llm.excerpts import LEFT_OUT, PROSE_CHARS, SOLID_CHARS, excerpt, is_table, sentences
from rag.types import Passage

FILLER = "The house stands on a hill above the river. "
HEADER = "| Name | Meaning |\n| --- | --- |"


def passage(text: str, *, title: str = "Shop", headings: tuple[str, ...] = (), language: str = "en") -> Passage:
    return Passage(
        text=text, title=title, headings=headings, url="/shop/", anchor="", source="shop.md", language=language
    )  # fmt: skip


def quoted(text: str, question: str, **about: str) -> str:
    return "\n\n".join(excerpt(passage(text, **about), question))  # type: ignore[arg-type]


def kinds(markdown: str) -> list[str]:
    """The outermost blocks, as a reader of Markdown sees them inside of a quote."""
    tokens = MarkdownIt("commonmark").enable("table").parse("\n".join(f"> {line}" for line in markdown.split("\n")))
    return [token.type.removesuffix("_open") for token in tokens if token.level == 1 and token.nesting >= 0]


def test_a_short_passage_is_quoted_as_it_is() -> None:
    text = "Goods come back\nwithin 30 days.\n\n- unused\n- with their receipt"
    assert quoted(text, "When can I return goods?") == text


def test_a_heading_is_never_glued_into_prose() -> None:
    text = f"## Opening hours\n\n{FILLER}\n\n### Returns\n\nGoods come back within 30 days.\n\n## Parking\n\n{FILLER}"
    found = quoted(text, "Can goods come back?")
    assert found == "**Returns**\n\nGoods come back within 30 days."


def test_a_heading_that_the_link_already_names_is_left_out() -> None:
    text = "## Returns\n\nGoods come back within 30 days."
    assert excerpt(passage(text, headings=("Returns",)), "returns") == ["Goods come back within 30 days."]


def test_the_section_whose_heading_has_the_words_wins() -> None:
    text = f"## Parking\n\n{FILLER}\n\n## Vouchers\n\nValid for three years.\n\n## Toys\n\n{FILLER}"
    assert quoted(text, "How long do vouchers last?").endswith("Valid for three years.")


def test_a_rare_word_counts_more_than_one_that_is_everywhere() -> None:
    text = "\n\n".join(
        [f"## A\n\nThe shop sells toys. {FILLER * 9}", f"## B\n\nThe shop sells tea. {FILLER * 9}", "## C\n\nA kettle."]
    )
    assert "A kettle." in quoted(text, "Does the shop have a kettle?")


def test_prose_is_cut_between_sentences_only() -> None:
    lines = [f"Sentence number {number} is about the {number}th house by the river." for number in range(40)]
    found = quoted(" ".join(lines), "What about the 30th house?")
    assert "about the 30th house" in found
    assert found.startswith(f"{LEFT_OUT} Sentence")
    assert all(sentence in lines for sentence in sentences(found.strip(f"{LEFT_OUT} ")))
    assert len(found) <= PROSE_CHARS + 4


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Use e.g. Redis. It is fast.", 2),
        ("Call `open. Then close.` on it. Done.", 2),
        ("See [the page. It is long](https://a.example/b.c). Done.", 2),
        ("**Stop. Now.** Go on.", 2),
        ("Version 3.11 is needed.", 1),
        ("他来了。她走了。", 2),
        ("Wirklich? Ja! Ärger gibt es nicht.", 3),
    ],
)
def test_a_sentence_does_not_end_inside_of_code_a_link_or_an_abbreviation(text: str, count: int) -> None:
    found = sentences(text)
    assert len(found) == count
    assert "".join(found).replace(" ", "") == text.replace(" ", "")


def test_a_list_is_cut_between_items_and_keeps_its_dashes() -> None:
    items = [f"- Item {number} is about the {number}th house\n  and its garden by the river." for number in range(30)]
    found = quoted("\n".join(items), "What about the 20th house?")
    assert kinds(found) == ["bullet_list"]
    assert items[20] in found
    assert found.endswith(f"\n- {LEFT_OUT}")
    listed = found.removesuffix(f"\n- {LEFT_OUT}")
    assert listed.count("- Item") == listed.count("and its garden by the river.")
    assert len(found) <= PROSE_CHARS + 80


def test_steps_stay_in_an_unbroken_order() -> None:
    steps = [f"{number}. Step {number} is about the {number}th house by the river." for number in range(1, 31)]
    found = quoted("\n".join(steps), "What about the 20th house?").split("\n")
    begin, end = steps.index(found[0]), steps.index(found[-2]) + 1
    assert found == [*steps[begin:end], f"{end + 1}. {LEFT_OUT}"]
    assert steps[19] in found


def test_a_table_keeps_its_header_and_first_the_rows_that_fit() -> None:
    rows = [f"| `name_{number}` | Colour number {number} of the kettle |" for number in range(60)]
    rows[50] = "| `vacation` | Days off |"
    found = quoted("\n".join([HEADER, *rows]), "How many days of vacation?")
    assert found.startswith(HEADER)
    assert kinds(found) == ["table", "paragraph"]
    assert is_table(found)
    kept = [row for row in found.split("\n") if row in rows]
    assert rows[50] in kept
    assert kept == sorted(kept, key=rows.index)
    assert len(kept) == found.count("\n") - 3


def test_code_stays_whole_up_to_its_limit() -> None:
    code = "```python\n" + "\n".join(f"kettle.boil({number})" for number in range(55)) + "\n```"
    assert PROSE_CHARS < len(code) < SOLID_CHARS
    assert quoted(f"Call it like this:\n\n{code}", "How do I call it?") == f"Call it like this:\n\n{code}"


@pytest.mark.parametrize("closing", ["\n```", ""])
def test_longer_code_is_cut_between_lines_and_its_fence_closed(closing: str) -> None:
    lines = [f"kettle.boil({number})" for number in range(200)]
    found = quoted("```python\n" + "\n".join(lines) + closing, "boil")
    assert kinds(found) == ["fence", "paragraph"]
    assert found.endswith(f"\n```\n\n{LEFT_OUT}")
    kept = found.split("\n")[1:-3]
    assert kept == lines[: len(kept)]
    assert len(found) <= SOLID_CHARS + 20


def test_an_empty_fence_is_never_quoted() -> None:
    assert quoted("```\n\n```\n\nA kettle.", "kettle") == "A kettle."


def test_code_is_not_quoted_without_what_announces_it() -> None:
    text = f"{FILLER * 4}\n\nIn nginx:\n\n```nginx\nallow kettle;\n```\n\nThe kettle boils."
    assert quoted(text, "kettle").index("In nginx:") < quoted(text, "kettle").index("```nginx")


def test_what_looks_like_a_heading_or_a_list_inside_of_code_is_code() -> None:
    text = "```sh\n# not a heading\n- not a list\n| a | b |\n| - | - |\n```"
    assert quoted(text, "heading") == text


def test_a_fence_inside_of_an_item_stays_with_its_item() -> None:
    text = "1. Write:\n\n   ```ini\n   - A=1\n   ```\n\n2. Restart."
    assert quoted(text, "restart") == text.replace("```\n\n2.", "```\n2.")


def test_a_word_without_end_is_cut_and_its_code_not_left_open() -> None:
    found = quoted("```json\n" + "x" * 5000 + "\n```", "json")
    assert kinds(found) == ["fence"]
    assert len(found) < SOLID_CHARS + 40


def test_a_passage_of_nothing_but_headings_has_no_excerpt() -> None:
    assert quoted("# A\n\n## B", "a") == ""


def test_plural_and_singular_meet_where_the_passage_has_no_known_language() -> None:
    text = f"## Parking\n\n{FILLER * 3}\n\n## More\n\nThese files are read."
    assert "These files are read." in quoted(text, "Which file can it read, and how does it do that?", language="")


def test_a_script_without_spaces_is_cut_and_matched_too() -> None:
    text = "店在山上。" * 120 + "退货期限为三十天。" + "店在山上。" * 120
    found = quoted(text, "退货期限", language="zh")
    assert "退货期限为三十天。" in found
    assert len(found) <= PROSE_CHARS + 130

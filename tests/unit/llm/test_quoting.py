"""Answers without a model: quotes under an honest opening, or plainly nothing."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from rag.chat.citations import Citations
from rag.chat.texts import load_texts
from rag.deadline import Deadline
from rag.llm.quoting import QUOTED, QuotingChat
from rag.types import Hit, Link, Missing, Passage, Prompt

SENTENCES = load_texts(None)["en"]
OPENING, MORE = SENTENCES["answer_demo"], f"#### {SENTENCES['moreQuotes']}"
CHAT = QuotingChat(degraded=Missing("no_model", "no model"), opening="answer_demo", found_by_words=True)


def hit(text: str, *, title: str = "Shop", url: str = "/shop/", language: str = "en", **more: str) -> Hit:
    fields = {"anchor": "", "source": "shop.md", **more}
    passage = Passage(text=text, title=title, headings=(), url=url, language=language, **fields)
    return Hit(passage=passage, score=1.0, similarity=0.5, row=0)


def answer(question: str, *hits: Hit) -> str:
    prompt = Prompt(question=question, messages=(), hits=hits, sentences=SENTENCES)
    return asyncio.run(CHAT.complete(prompt, deadline=Deadline(5))).text


def second(text: str) -> str:
    """The quote of a passage that is not the best one, without its link."""
    shown = answer("kettle?", hit("A kettle.", title="One", url="/1/"), hit(text))
    return shown.partition(f"{MORE}\n\n")[2].split("\n\n[Shop]")[0]


def test_every_quote_is_followed_by_its_link_and_number() -> None:
    text = answer("kettle?", hit("A kettle.", title="One", url="/1/"), hit("Two kettles.", title="Two", url="/2/"))
    assert text == f"{OPENING}\n\nA kettle.\n\n[One](/1/) [1]\n\n{MORE}\n\n> Two kettles.\n\n[Two](/2/) [2]"


def test_the_best_quote_reads_as_its_page_does() -> None:
    text = answer("kettle?", hit("A kettle:\n\n```sh\nboil\n```\n\n- red\n- blue\n\nIt boils."))
    assert text == f"{OPENING}\n\nA kettle:\n\n```sh\nboil\n```\n\n- red\n- blue\n\nIt boils.\n\n[Shop](/shop/) [1]"


def test_every_line_of_a_further_quote_is_inside_of_it() -> None:
    block = second("A kettle:\n\n```sh\nboil\n\ncool\n```\n\n- red\n- blue")
    assert block == "> A kettle:\n>\n> ```sh\n> boil\n>\n> cool\n> ```\n>\n> - red\n> - blue"


def test_a_table_stands_between_quotes_where_every_reader_shows_it() -> None:
    block = second("Kettles:\n\n| A | B |\n| - | - |\n| 1 | kettle |\n\nThey boil.")
    assert block == "> Kettles:\n\n| A | B |\n| - | - |\n| 1 | kettle |\n\n> They boil."


def test_what_follows_a_list_begins_a_quote_of_its_own() -> None:
    block = second("Kettles:\n\n- red\n- blue\n\nThey boil.\n\nThey cool.")
    assert block == "> Kettles:\n>\n> - red\n> - blue\n\n> They boil.\n>\n> They cool."


def test_a_link_survives_brackets_and_spaces() -> None:
    assert "[List (a)](/a%20b%29) [1]" in answer("kettle", hit("A kettle.", title="List [a]", url="/a b)"))


def test_a_streamed_answer_is_the_same() -> None:
    async def streamed(prompt: Prompt) -> list[str]:
        return [piece async for piece in CHAT.stream(prompt, deadline=Deadline(5))]

    prompt = Prompt(question="kettle?", messages=(), hits=(hit("A kettle.\n\nIt boils."),), sentences=SENTENCES)
    pieces = asyncio.run(streamed(prompt))
    assert "".join(pieces) == asyncio.run(CHAT.complete(prompt, deadline=Deadline(5))).text
    assert len(pieces) > 1


def test_a_word_that_no_quote_has_is_named_as_the_visitor_wrote_it() -> None:
    text = answer("Welche Größe hat der rote Kessel?", hit("Der Kessel ist rot.", language="de"))
    assert text.startswith(f"{OPENING} None of them mentions “Größe”.")


def test_several_missing_words_are_listed() -> None:
    text = answer(
        "kettle that boils litres, Saturn, Jupiter", hit("A kettle boils a litre quickly.\n\nIt is a litre's.")
    )
    assert "None of them mentions “Saturn”, “Jupiter”." in text


def test_a_passage_with_half_of_the_words_or_fewer_is_quoted_alone_as_what_comes_closest() -> None:
    text = answer("vacation days?", hit("A vacation.", url="/1/"), hit("All days.", url="/2/"))
    closest = "Nothing that I found fits your question well. What comes closest does not mention"
    assert text == f"{closest} “days”:\n\nA vacation.\n\n[Shop](/1/) [1]"
    assert answer("kettle Saturn Jupiter Venus", hit("A kettle.")).startswith(
        f"{closest} “Saturn”, “Jupiter”, “Venus”:\n\nA kettle."
    )


def test_a_heading_with_one_of_the_words_makes_a_passage_worth_quoting() -> None:
    assert answer("cost per day", hit("It is free.", title="Cost")).startswith(
        f"{OPENING} None of them mentions “day”."
    )


def test_the_passage_whose_heading_is_the_question_is_quoted_first() -> None:
    text = answer("Can it boil milk?", hit("It can boil milk and soup."), hit("It can.", title="Boil milk", url="/m/"))
    assert text.startswith(f"{OPENING}\n\nIt can.\n\n[Boil milk](/m/) [2]")


def test_a_passage_that_says_little_of_the_question_is_not_quoted_beside_one_that_says_it() -> None:
    best = hit("Put the kettle on the page.", title="Kettle on a page")
    assert MORE not in answer("Put the kettle on my page", best, hit("| Page | Backup |\n|---|---|\n| one | night |"))
    assert MORE in answer("Put the kettle on my page", best, hit("The kettle fits.", title="Page"))


def test_what_ranks_far_below_is_not_quoted_where_meaning_found_it() -> None:
    degraded = QuotingChat(degraded=Missing("model", "down"), opening="answer_outage", found_by_words=False)
    hits = (
        hit("We open at nine."),
        replace(hit("Our parrot sings."), score=0.4),
        replace(hit("Until five."), score=0.8),
    )
    prompt = Prompt(question="Wann öffnet ihr?", messages=(), hits=hits, sentences=SENTENCES)
    text = asyncio.run(degraded.complete(prompt, deadline=Deadline(5))).text
    assert "parrot" not in text
    assert "> Until five." in text


@pytest.mark.parametrize(
    "question",
    [
        "Wie kann ich einen anderen kettle wählen, oder ist das eine andere?",
        "How many types of kettle do you have, and what kinds of them?",
        "Quelle est la kettle pour nous?",
    ],
)
def test_function_words_of_no_language_are_named(question: str) -> None:
    assert "None of them" not in answer(question.replace("wählen, ", ""), hit("A kettle."))


@pytest.mark.parametrize(
    ("asked", "said", "language"),
    [
        ("file", "All files are read.", "en"),
        ("file", "All files are read.", ""),
        ("files", "One file.", ""),
        ("file", "```sh\nread_file --fast\n```", ""),
        ("file", "Give `--filename`.", "en"),
        ("file", "## Files\n\nRead.", "nl"),
        ("Größe", "Die Grosse und die GRÖSSE.", "de"),
        ("response_model", "The response has a model.", "en"),
        ("rate-limit", "RATE_LIMIT_CHAT", "en"),
    ],
)
def test_a_word_counts_as_mentioned_in_whatever_form(asked: str, said: str, language: str) -> None:
    assert "mentions" not in answer(f"What is the {asked} of kettles?", hit(f"A kettle.\n\n{said}", language=language))


def test_part_of_a_name_is_no_mention_of_it() -> None:
    assert "“OAuth”" in answer("Is there OAuth for the kettle?", hit("A kettle with api_auth."))


def test_where_no_word_is_found_nothing_is_quoted_and_at_most_three_pages_are_offered() -> None:
    pages = [hit("A kettle.", title=f"Page {number // 2}", url=f"/{number // 2}/") for number in range(10)]
    text = answer("How many vacation days do I get?", *pages)
    assert text.startswith("Nothing that I found fits your question: no passage mentions “vacation”, “days”")
    assert "kettle" not in text
    assert text.split("\n\n")[-1] == "- [Page 0](/0/)\n- [Page 1](/1/)\n- [Page 2](/2/)"


def test_a_passage_further_down_that_has_the_word_is_quoted_before_those_that_have_none() -> None:
    others = [hit("A kettle.", url=f"/{number}/") for number in range(QUOTED)]
    text = answer("vacation?", *others, hit("Vacation is in August.", title="Vacation", url="/vacation/"))
    assert text == f"{OPENING}\n\nVacation is in August.\n\n[Vacation](/vacation/) [4]"


@pytest.mark.parametrize("question", ["What is it?", "退货期限", "?"])
def test_a_question_without_a_word_to_look_for_is_answered_with_quotes(question: str) -> None:
    assert answer(question, hit("A kettle.")).startswith(f"{OPENING}\n\nA kettle.")


def test_what_was_found_by_meaning_is_quoted_even_where_it_shares_no_word() -> None:
    degraded = QuotingChat(degraded=Missing("model", "down"), opening="answer_demo", found_by_words=False)
    prompt = Prompt(question="Wann öffnet ihr?", messages=(), hits=(hit("We open at nine."),), sentences=SENTENCES)
    text = asyncio.run(degraded.complete(prompt, deadline=Deadline(5))).text
    assert text == f"{OPENING}\n\nWe open at nine.\n\n[Shop](/shop/) [1]"


def test_what_stands_above_further_quotes_is_in_the_visitors_language_and_folded_by_the_chat() -> None:
    german = load_texts(None)["de"]
    hits = (hit("A kettle.", title="One", url="/1/"), hit("Two kettles.", title="Two", url="/2/"))
    prompt = Prompt(question="kettle", messages=(), hits=hits, sentences=german)
    assert f"#### {german['moreQuotes']}\n\n> " in asyncio.run(CHAT.complete(prompt, deadline=Deadline(5))).text
    source = (Path(__file__).parents[3] / "widget" / "src" / "turn.js").read_text("utf-8")
    assert 'this.#t("moreQuotes")' in source


def test_links_within_the_best_quote_lead_where_they_lead_on_its_page() -> None:
    said = "A kettle: see care. Then boil.\n\n```\nsee care\n```"
    care = Link(said.index("care"), said.index("care") + 4, "/care/#b (c)")
    one = hit(said)
    text = answer("kettle?", replace(one, passage=replace(one.passage, links=(care,))))
    assert "A kettle: see [care](/care/#b%20%28c%29). Then boil.\n\n```\nsee care\n```" in text
    checked = Citations([replace(one, passage=replace(one.passage, links=(replace(care, url="https://x.example/c"),)))])
    assert checked.feed("[care](https://x.example/c) [why](https://evil.example/)") + checked.end() == (
        "[care](https://x.example/c) why"
    )

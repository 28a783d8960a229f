"""A citation leads to the section that says it, opened at the words that say it."""

import time
from urllib.parse import unquote

import pytest

from rag.chat.citation_marks import marks
from rag.text.citing import Citation, citations, cited_at, led_to, own_text, quoted_at
from rag.types import Hit, Passage, Section

BOIL = "The blue kettle boils a litre of water in three minutes. It clicks when it is done."
CLEAN = "Descale it once a month with citric acid. Never use vinegar on the seal."
CODE = "```sh\nkettle --descale\n```"


def passage(*texts: tuple[str, str]) -> Passage:
    """A passage of sections: the heading and the text of each. Its phrases are the first four words of a sentence."""
    text, sections = "", []
    for number, (heading, said) in enumerate(texts):
        start = len(text)
        text += f"## {heading}\n\n{said}\n\n"
        phrases = []
        for sentence in said.split(". ") if "```" not in said else ():
            begin = text.index(sentence, start)
            phrases.append((begin, begin + len(" ".join(sentence.split()[:4]))))
        sections.append(Section(start, len(text), ("Kettle", heading), f"part-{number}", tuple(phrases)))
    return Passage(
        text=text, title="Shop", headings=("Kettle",), url="https://shop.example/kettle/", anchor="part-0",
        source="kettle.md", language="en", fragment="first", sections=tuple(sections),
    )  # fmt: skip


KETTLE = passage(("Boiling", BOIL), ("Cleaning", CLEAN), ("By program", CODE))


def opened_at(found: Passage) -> tuple[str, str]:
    address, _, words = found.citation_url.partition(":~:text=")
    return address.partition("#")[2], unquote(words)


@pytest.mark.parametrize(
    ("said", "anchor", "words"),
    [
        ("You can boil a litre within three minutes", "part-0", "The blue kettle boils"),
        ("A click tells that it is done", "part-0", "It clicks when it"),
        ("Citric acid descales it every month", "part-1", "Descale it once a"),
        ("Vinegar would harm the seal", "part-1", "Never use vinegar on"),
    ],
)
def test_a_sentence_leads_to_the_section_and_the_words_that_share_most_with_it(
    said: str, anchor: str, words: str
) -> None:
    assert opened_at(led_to(KETTLE, said)) == (anchor, words)


def test_a_link_shows_the_heading_of_its_section() -> None:
    assert led_to(KETTLE, "citric acid").heading_path == "Shop › Kettle › Cleaning"


def test_a_heading_counts_as_what_its_section_says() -> None:
    assert opened_at(led_to(KETTLE, "cleaning"))[0] == "part-1"


def test_a_section_without_words_that_can_be_found_is_led_to_by_its_anchor_alone() -> None:
    assert led_to(KETTLE, "the program").citation_url == "https://shop.example/kettle/#part-2"


def test_a_sentence_that_says_little_is_helped_by_the_question() -> None:
    assert opened_at(led_to(KETTLE, "Yes, it does.", question="May I use vinegar?"))[0] == "part-1"


def test_where_nothing_is_shared_the_first_section_is_meant() -> None:
    assert opened_at(led_to(KETTLE, "Saturn has rings"))[0] == "part-0"


def test_a_language_without_spaces_is_compared_by_pairs_of_characters() -> None:
    chinese = passage(("甲", "蓝色水壶在三分钟内烧开一升水。"), ("乙", "每月用柠檬酸除垢一次。"))
    assert opened_at(led_to(chinese, "柠檬酸可以除垢"))[0] == "part-1"


@pytest.mark.parametrize("letters", ["İ" * 30, "ß" * 30, "🌊" * 30])
def test_letters_of_another_length_in_lower_case_move_no_link(letters: str) -> None:
    odd = passage(("Boiling", f"{letters} {BOIL}"), ("Cleaning", CLEAN))
    assert opened_at(led_to(odd, "never use vinegar")) == ("part-1", "Never use vinegar on")


def test_a_passage_of_an_older_build_stays_as_it_is() -> None:
    old = Passage(text=BOIL, title="Shop", headings=(), url="/k/", anchor="a", source="k.md", language="en")
    assert led_to(old, "kettle") is quoted_at(old, "kettle") is old
    assert own_text(old) == BOIL


def test_a_quote_leads_to_its_own_first_words_and_never_beside_them() -> None:
    assert opened_at(quoted_at(KETTLE, "> … It clicks when it is done.")) == ("part-0", "It clicks when it")
    assert opened_at(quoted_at(KETTLE, f"**By program**\n\n{CODE}")) == ("part-2", "")


def test_the_section_that_a_link_leads_to_has_its_own_text() -> None:
    assert own_text(led_to(KETTLE, "citric acid")) == CLEAN
    assert own_text(KETTLE) == KETTLE.text


def cites(answer: str, *, quoted: bool = False) -> list[tuple[int, str]]:
    return [(one.number, one.words.strip()) for one in citations(answer, marks(answer), quoted=quoted)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It boils. It clicks loudly then [1]. Vinegar is not allowed [2].",
         [(1, "It clicks loudly then"), (2, "Vinegar is not allowed")]),
        ("It boils in three minutes. [1]", [(1, "It boils in three minutes.")]),
        ("It boils in three minutes [1][2], and clicks.",
         [(1, "It boils in three minutes"), (2, "It boils in three minutes")]),
        ("- Boils in three minutes [1]\n- Uses citric acid [2]",
         [(1, "- Boils in three minutes"), (2, "Uses citric acid")]),
        ("[1] says that it boils.\nMore.", [(1, "says that it boils.")]),
        ("It boils quite fast. Yes [1].", [(1, "It boils quite fast. Yes")]),
        ("每月除垢一次。用柠檬酸[1]。", [(1, "用柠檬酸")]),
        ("", []),
    ],
)  # fmt: skip
def test_a_citation_stands_behind_the_sentence_before_it(answer: str, expected: list[tuple[int, str]]) -> None:
    assert [(number, words.removeprefix("- ").strip()) for number, words in cites(answer)] == [
        (number, words.removeprefix("- ")) for number, words in expected
    ]


def test_a_quote_is_all_that_stands_before_its_number() -> None:
    assert cites("> It boils.\n>\n> It clicks.\n\n[Shop](/k/) [1]", quoted=True) == [
        (1, "> It boils.\n>\n> It clicks.\n\nShop")
    ]


def test_links_within_a_quote_hide_none_of_its_words() -> None:
    [one] = citations("The [blue kettle](/b/#c) boils [it](https://x.example/) [1]", [(57, 60, 1)], quoted=True)
    assert opened_at(quoted_at(KETTLE, one.words)) == ("part-0", "The blue kettle boils")


def test_a_source_leads_where_it_is_cited_first_and_the_others_where_the_question_is() -> None:
    hits = [Hit(KETTLE, 1.0, 0.5, row) for row in range(3)]
    found = [Citation(0, 3, 1, "vinegar and the seal"), Citation(5, 8, 1, "three minutes")]
    linked = cited_at(hits, found, question="Descale it monthly?", quoted=False)
    assert [opened_at(hit.passage)[1] for hit in linked] == ["Never use vinegar on", *["Descale it once a"] * 2]
    assert [(hit.score, hit.similarity, hit.row) for hit in linked] == [(1.0, 0.5, row) for row in range(3)]


def test_a_question_leads_to_the_section_that_is_headed_like_it() -> None:
    assert opened_at(led_to(KETTLE, "", question="How do I call the program?")) == ("part-2", "")
    assert opened_at(led_to(KETTLE, "", question="Saturn?"))[0] == "part-0"
    assert led_to(KETTLE, "") is KETTLE


@pytest.mark.parametrize(
    "hostile", ["\n" * 20_000, "\n " * 20_000, "# " * 20_000, "." * 40_000, "a" * 40_000, "[1]" * 9_000]
)
def test_no_answer_takes_long(hostile: str) -> None:
    began = time.process_time()
    for one in citations(hostile, marks(hostile)):
        led_to(KETTLE, one.words)
    own_text(led_to(passage(("One", hostile), ("Two", BOIL)), "kettle"))
    assert time.process_time() - began < 2

"""What an answer cites and links to is checked, however the pieces are cut."""

import random

import pytest

from rag.citations import LINK_REMOVED, Citations
from rag.models import Hit, Passage

PAGES = 3
ATOMS = [
    "[", "]", "(", ")", "1", "2", "9", " ", "`", "``", "```", "\n", "\n\n", "!", "<", ">", "http", "https://",
    "evil.example", "https://site.example/p1", "a", ":", ",", "javascript:", "[1]", "[3]", "word", "](",
]  # fmt: skip
"""What answers are made of where it gets difficult."""


def hits() -> list[Hit]:
    def passage(page: int) -> Passage:
        return Passage(
            text="See https://partner.example/guide for more.", title="T", headings=(), anchor="part",
            url=f"https://site.example/p{page}", source=f"p{page}.md", language="en",
        )  # fmt: skip

    return [Hit(passage(page), 1.0, 0.5, page) for page in range(PAGES)]


def checked(answer: str) -> tuple[str, list[int]]:
    citations = Citations(hits())
    return citations.feed(answer) + citations.end(), citations.order


@pytest.mark.parametrize(
    ("answer", "shown", "order"),
    [
        ("First [3], then [1].", "First [1], then [2].", [2, 0]),
        ("Again [2] and [2].", "Again [1] and [1].", [1]),
        ("Both [2, 3] and [3][1].", "Both [1][2] and [2][3].", [1, 2, 0]),
        ("Nothing has the number [9] here [0].", "Nothing has the number here.", []),
        ("Half of it [1, 9].", "Half of it [1].", [0]),
        ("`items[1]` and\n```\nrow[7]\n```\nare code [2]", "`items[1]` and\n```\nrow[7]\n```\nare code [1]", [1]),
    ],
)
def test_citations_are_counted_in_order_and_invented_ones_go(answer: str, shown: str, order: list[int]) -> None:
    assert checked(answer) == (shown, order)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("[page](https://site.example/p1#part)", "[page](https://site.example/p1#part)"),
        ("[guide](https://partner.example/guide)", "[guide](https://partner.example/guide)"),
        ("See https://partner.example/guide.", "See https://partner.example/guide."),
        ("[offer](https://evil.example/a?b=(c))", "offer"),
        ("[click](javascript:alert(1))", "click"),
        ("[data](data:text/html,x)", "data"),
        ("![pixel](https://evil.example/i.png?q=secret)", "pixel"),
        ("![own](https://site.example/p1)", "own"),
        ("Go to https://evil.example/abc.", f"Go to {LINK_REMOVED}."),
        ("<https://evil.example>", LINK_REMOVED),
        ("[a]: javascript:alert(1)\nText", "Text"),
        ("[see [1]](https://evil.example)", "see [1]"),
        ("<a href='https://evil.example'>x</a>", f"<a href='{LINK_REMOVED}'>x</a>"),
        ("`curl https://evil.example`", "`curl https://evil.example`"),
    ],
)
def test_links_lead_only_where_the_passages_do(answer: str, shown: str) -> None:
    assert checked(answer)[0] == shown


def test_the_result_does_not_depend_on_how_the_stream_was_cut() -> None:
    choose = random.Random(20)
    for _ in range(1500):
        answer = "".join(choose.choice(ATOMS) for _ in range(choose.randint(1, 14)))
        whole = checked(answer)
        for _ in range(4):
            citations, shown, at = Citations(hits()), "", 0
            while at < len(answer):
                step = choose.randint(1, 4)
                shown += citations.feed(answer[at : at + step])
                at += step
            assert (shown + citations.end(), citations.order) == whole, answer


def test_plain_text_is_not_held_back() -> None:
    citations = Citations(hits())
    assert citations.feed("An answer without") == "An answer without"
    assert citations.feed(" anything to check") == " anything to check"


def test_a_citation_split_over_tokens_waits_for_its_end() -> None:
    citations = Citations(hits())
    assert [citations.feed(piece) for piece in ("It says so [", "3", "]", ".")] == ["It says so", "", "", " [1]."]


def test_an_unfinished_link_does_not_hold_the_answer_forever() -> None:
    citations = Citations(hits())
    shown = citations.feed("[" + "a" * 5_000)
    assert shown.startswith("[aaa")


def test_uncited_passages_follow_the_cited_ones() -> None:
    found = hits()
    citations = Citations(found)
    citations.feed("Only [3].")
    citations.end()
    assert [hit.row for hit in citations.sorted(found)] == [2, 0, 1]

"""What an answer cites and links to is checked, however the pieces are cut."""

import random
import re
import time

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rag.chat.citation_marks import marks
from rag.chat.citations import LINK_REMOVED, Citations
from rag.types import Hit, Passage

PAGES = 3
ATOMS = [
    "[", "]", "(", ")", "1", "2", "9", " ", "`", "``", "```", "\n", "\n\n", "!", "<", ">", "http", "https://",
    "evil.example", "https://site.example/p1", "a", ":", ",", "javascript:", "[1]", "[3]", "word", "](", "\\", "~~~",
    "\n```\n", "\n    ", "    ", "\n- ", "\n> ", "1. ", "|", "=", "'", '"', "www.", "ww", "[9]", " [9]",
    "//evil.example", "[x](https://site.example/p1)", '<a href="//evil.example">', "<!-- ", "<div>\n", "[w](x)",
    "[x](https://evil.example)", "\n[x]: ", "````", "*",
    "\t", "\u2028", "&#116;", "&colon;", "\\:", "ht", "tps", "~~", "\r", '"onclick=', "](//evil.example", "<https://",
    "[`x`](https://evil.example)", "| `a|b` ", "dict://evil.example", "\n[x]:\n", "<details>", "\n   ```\n",
    "\n> ```\n", ".", "#", "$", "#$https://evil.example/a", "http://localhost:1/", "x[1]", "<img src=", "//", "@",
    "<br>",
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
        ("Nothing has the number [9] here.", "Nothing has the number here.", []),
        ("An array is [1, 9], or [0].", "An array is [1, 9], or [0].", []),
        ("Take `items[0]`, items[0], m[1] and row_[2] [1].", "Take `items[0]`, items[0], m[1] and row_[2] [1].", [0]),
        ("It is \\([0, 1]\\) then", "It is \\([0, 1]\\) then", []),
        ("`items[1]` and\n```\nrow[7]\n```\nare code [2]", "`items[1]` and\n```\nrow[7]\n```\nare code [1]", [1]),
        ("1. So:\n   ```\n   row[7]\n   ```\n2. Then [2]", "1. So:\n   ```\n   row[7]\n   ```\n2. Then [1]", [1]),
        ("> ```\n> row[7]\n> ```\n\nAbove [2]", "> ```\n> row[7]\n> ```\n\nAbove [1]", [1]),
        ("~~~py\nrow[7]\n~~~\nAbove [2]", "~~~py\nrow[7]\n~~~\nAbove [1]", [1]),
        ("````md\n```\nrow[7]\n```\n````\nAbove [2]", "````md\n```\nrow[7]\n```\n````\nAbove [1]", [1]),
        ("So:\n\n    row[7]\n\nAbove [2]", "So:\n\n    row[7]\n\nAbove [1]", [1]),
        ("- So:\n\n    and also [3]", "- So:\n\n    and also [1]", [2]),
        ("Put ``` on a line of its own [3].", "Put ``` on a line of its own [1].", [2]),
        ("It works![3] Does it![9]", "It works![1] Does it!", [2]),
        ("``x `y[9]` z`` and `a[1] || b` [2]", "``x `y[9]` z`` and `a[1] || b` [1]", [1]),
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
        ("![own](https://site.example/p1)", "[own](https://site.example/p1)"),
        ("Go to https://evil.example/abc.", f"Go to {LINK_REMOVED}."),
        ("<https://evil.example>", LINK_REMOVED),
        ("[a]: javascript:alert(1)\nText", "[a] : javascript:alert(1)\nText"),
        ("[see [1]](https://evil.example)", "see [1]"),
        ("<a href='https://evil.example'>x</a>", f"< a href='{LINK_REMOVED}'>x< /a>"),
        ("`curl https://evil.example`", "`curl https:// evil.example`"),
        ("```\ncurl https://evil.example\n```", "```\ncurl https:// evil.example\n```"),
        ("Type ``` first, [x](https://evil.example)", "Type ``` first, x"),
        ("- use ` as a mark, [x](https://evil.example)\n- and ` too", "- use ` as a mark, x\n- and ` too"),
        ("a ` b [x](https://evil.example)\n \nc ` d", "a ` b x\n \nc ` d"),
        ("| ` | [x](https://evil.example) | ` |", "| ` | x | ` |"),
        ("\\` [x](https://evil.example) `", "\\` x `"),
        ("~~~\nhttps://evil.example\n~~~", f"~~~\n{LINK_REMOVED}\n~~~"),
        ("So:\n\n    curl https://evil.example", f"So:\n\n    curl {LINK_REMOVED}"),
        ("Go to www.evil.example/a, or WWW.partner.example", f"Go to {LINK_REMOVED}, or {LINK_REMOVED}"),
        ("ftp://evil.example/a", LINK_REMOVED),
        ("<ftp://evil.example> and <tel:1>", f"{LINK_REMOVED} and < tel:1>"),
        ('<a href="//evil.example">here</a>', '< a href="// evil.example">here< /a>'),
        ("<kbd>Ctrl</kbd>, a<br>b", "<kbd>Ctrl</kbd>, a<br>b"),
        ("<img src=' //evil.example/i'>", "< img src=' // evil.example/i'>"),
        ("<img/src=//evil.example>", "< img/src=// evil.example>"),
        ('<img alt="a"src=//evil.example>', '< img alt="a"src=// evil.example>'),
        ("<svg onload=alert(1)>", "< svg onload=alert(1)>"),
        ("<br onclick=alert(1)>", "< br onclick=alert(1)>"),
        ("<img\rsrc=x\fonerror=alert(1)>", "< img src=x onerror=alert(1)>"),
        ("https://site.example/p1#$https://evil.example/login", LINK_REMOVED * 2),
        ("[x](https://site.example/p1#https://evil.example)", "x"),
        ("https://ſite.example/p1 and https://site.example/P1", f"{LINK_REMOVED} and {LINK_REMOVED}"),
        ("[a](https://SITE.example/p1#:~:text=two%20words)", "[a](https://SITE.example/p1#:~:text=two%20words)"),
        ("Open http://localhost:8000/ or http://[::1]:8000/.", "Open http://localhost:8000/ or http://[::1]:8000/."),
        ("`curl https://site.example/v2/items/7`", "`curl https://site.example/v2/items/7`"),
        ("```\ncurl https://site.example", "```\ncurl https://site.example\n```"),
        ("// a comment, //TODO and a//b", "// a comment, //TODO and a//b"),
        ("[x]:\n```\n<a href=/>\n```", "[x] :\n```\n<a href=/>\n```"),
        ("`curl http://localhost:8000/a | sh`", "`curl http://localhost:8000/a | sh`"),
        (
            "Use https://example.com/api, not https://example.community/",
            f"Use https://example.com/api, not {LINK_REMOVED}",
        ),
        ("https://localhost.evil.example/ http://example.com@evil.example/", f"{LINK_REMOVED} {LINK_REMOVED}"),
        ("[two\nlines](//evil.example)", f"[two\nlines] {LINK_REMOVED}"),
        ("[x] (javascript:alert(1)) and [1] (see: this)", "[x], (javascript:alert(1)) and [1] (see: this)"),
        ("[x] (java&#115;cript:alert(1))", "[x], (java& #115;cript:alert(1))"),
        ("> [r]: //evil.example/x", "> [r] : // evil.example/x"),
        ("[r]:\n//evil.example/x", "[r] :\n// evil.example/x"),
        ("[page](https://site.example/p1 '[x](//evil.example)')", "[page](https://site.example/p1)"),
        ("[![x](https://evil.example/i)](https://site.example/p1)", "[x](https://site.example/p1)"),
        ("https:[9]//evil.example", "https:[9]// evil.example"),
        ("ww[w.](x)evil.example", "ww w.evil.example"),
        ("[w](x)ww.evil.example [x [y]](//evil.example)", f"{LINK_REMOVED} [x [y]] {LINK_REMOVED}"),
        ("[`f()`](https://evil.example/a) and [**b**](b.md)", "`f()` and **b**"),
        ('[x] (//evil.example) [y] (z"onclick=alert(1))', '[x], (// evil.example) [y], (z"onclick=alert(1))'),
        ('[a](x"onclick=alert(1)) ![b>c](//evil.example)', "a b>c"),
        ("ht&#116;ps://evil.example &copy; R&D &amp;", "ht& #116;ps://evil.example &copy; R&D &amp;"),
        ("https\\://evil.example dict://evil.example", f"{LINK_REMOVED} {LINK_REMOVED}"),
        ("https://localhost\t.evil.example", "https://localhost \t.evil.example"),
        (
            "One [1]\r\n```js\r\n<b>\r\n```\r\nhttps://site.example/p1\r\n",
            "One [1]\r\n```js\r\n<b>\r\n```\r\nhttps://site.example/p1\r\n",
        ),
        ("https://site.example/p1。それは", "https://site.example/p1 。それは"),
        ("https://localhost。evil.example", "https://localhost 。evil.example"),
        ("| `a|b` `<img>` |\n`<b>`", "| `a|b` `< img>` |\n`< b>`"),
        ("<details>\n```\n<img>\n```", "<details>\n```\n< img>\n```"),
        ("~~~\u2028```\n<img>\n~~~", "~~~ ```\n< img>\n~~~"),
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


def test_no_reader_of_markdown_finds_a_link_that_the_passages_do_not_have() -> None:
    reader, choose, own = MarkdownIt("commonmark"), random.Random(7), (
        "https://site.example/p1", "https://partner.exa", "http://localhost:1"
    )  # fmt: skip
    found = 0

    def addresses(tokens: list[Token]) -> list[str]:
        here = [str(token.attrs[name]) for token in tokens for name in ("href", "src") if name in token.attrs]
        return here + [one for token in tokens if token.children for one in addresses(token.children)]

    for _ in range(3000):
        answer = "".join(choose.choice(ATOMS) for _ in range(choose.randint(1, 16)))
        shown, _ = checked(answer)
        for address in addresses(reader.parse(shown)):
            found += 1
            # What is neither, such as a path, leads to a page of the same site.
            elsewhere = re.match(r"//|(?:https?|ftp|javascript):/?/?[\w%]", address)
            assert elsewhere is None or address.startswith(own), (answer, shown)
    assert found > 50


@pytest.mark.parametrize(
    "unit", [" ", "\t", "[", "[1]", "[a](", "](", "!", "<", "<a b=c ", "`", "`` ` ", "h", "\n", "> "]
)
def test_an_answer_of_four_times_the_length_takes_about_four_times_as_long(unit: str) -> None:
    def seconds(length: int) -> float:
        citations, answer = Citations(hits()), unit * (length // len(unit)) + "x"
        began = time.process_time()
        citations.feed(answer)
        citations.end()
        return time.process_time() - began

    few, many = (min(seconds(length) for _ in range(3)) for length in (10_000, 40_000))
    assert many < 9 * few + 0.02


def test_marks_are_found_where_the_prose_cites_and_nowhere_else() -> None:
    answer = "Put ``` there [1], `x[2]`, [a [2]](https://site.example/p1) or [3](u).\n\n```\ny[2]\n```\n\nEnd [2]."
    assert [(answer[start:end], number) for start, end, number in marks(answer)] == [("[1]", 1), ("[2]", 2), ("[2]", 2)]


def test_plain_text_is_not_held_back() -> None:
    citations = Citations(hits())
    assert citations.feed("An answer without") == "An answer without"
    assert citations.feed(" anything to check") == " anything to check"


def test_a_citation_split_over_tokens_waits_for_its_end() -> None:
    citations = Citations(hits())
    assert [citations.feed(piece) for piece in ("It says so [", "3", "]", ".")] == ["It says so", "", " ", "[1]."]


def test_an_unfinished_link_does_not_hold_the_answer_forever() -> None:
    citations = Citations(hits())
    shown = citations.feed("[" + "a" * 5_000)
    assert shown.startswith("[aaa")


LONG = 2_100


@pytest.mark.parametrize(
    ("answer", "never"),
    [
        ("[x]:" + " " * LONG + "javascript:alert(1)", "]: "),
        ("[x]" + " " * LONG + "(javascript:alert(1))", "] "),
        ("[x] [9]" + " " * LONG + "(javascript:alert(1))", "[x]  "),
        ("[x](javascript:" + "a" * LONG + ")", "]("),
        ("https://localhost" + ")" * LONG + ".evil.example", "localhost)"),
        ("```" + "a" * LONG + "`\n<img src=x onerror=alert(1)>", "<img"),
        ("```" + "a" * LONG + '"onclick=alert(1)', "```a"),
        ("`" + "a" * LONG + "`<img src=x onerror=alert(1)>`", "<img"),
    ],
)
def test_what_does_not_end_in_time_does_not_come_alive_later(answer: str, never: str) -> None:
    citations = Citations(hits())
    shown = "".join(citations.feed(answer[at : at + 300]) for at in range(0, len(answer), 300)) + citations.end()
    assert never not in shown


def test_uncited_passages_follow_the_cited_ones() -> None:
    found = hits()
    citations = Citations(found)
    citations.feed("Only [3].")
    citations.end()
    assert [hit.row for hit in citations.sorted(found)] == [2, 0, 1]

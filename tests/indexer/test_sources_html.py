"""HTML: the page's own words."""

from pathlib import Path

import pytest

from indexer.documents import Block, Document
from rag.errors import SourceUnreadable
from tests.indexer.samples import read, text_of


def _page(tmp_path: Path, body: str, head: str = "") -> Document:
    return read(
        tmp_path, "page.html", f"<!doctype html><html lang='en-GB'><head>{head}</head><body>{body}</body></html>"
    )


def _blocks(tmp_path: Path, body: str) -> list[Block]:
    return [block for section in _page(tmp_path, body).sections for block in section.blocks]


@pytest.mark.parametrize(
    "noise",
    [
        "<nav>noise</nav>",
        "<header>noise</header>",
        "<footer>noise</footer>",
        "<aside>noise</aside>",
        "<script>noise</script>",
        "<style>noise</style>",
        "<noscript>noise</noscript>",
        "<template><p>noise</p></template>",
        "<form><label>noise</label></form>",
        "<svg><text>noise</text></svg>",
        "<div hidden class='mobile-menu'>noise</div>",
        "<div aria-hidden='true' id='search-results'>noise</div>",
        "<span aria-hidden='true'>noise</span>",
        "<div role='dialog'>noise</div>",
        "<button>noise</button>",
        "<button aria-expanded='false' aria-controls='the-navigation'>noise</button>",
        "<form class='newsletter'><p>noise, which is long enough to look like a sentence</p></form>",
        "<div id='cookie-banner'><p>noise</p></div>",
        "<div class='gdpr-Consent'>noise</div>",
        "<div role='navigation'>noise</div>",
        "<ol class='breadcrumbs'><li>noise</li></ol>",
        "<!-- noise -->",
    ],
)
@pytest.mark.parametrize("wrapping", ["<main>{}</main>", "<article>{}</article>", "<div>{}</div>"])
def test_what_is_not_the_pages_own_is_left_out(tmp_path: Path, noise: str, wrapping: str) -> None:
    assert text_of(_page(tmp_path, wrapping.format(f"{noise}<p>Words.</p>{noise}"))) == "Words."


@pytest.mark.parametrize("main", ["<main>{}</main>", "<article>{}</article>", "<div role='main'>{}</div>"])
def test_the_main_element_is_all_that_counts(tmp_path: Path, main: str) -> None:
    assert text_of(_page(tmp_path, "<div>around</div>" + main.format("<p>Words.</p>") + "<p>below</p>")) == "Words."


def test_several_articles_are_all_read(tmp_path: Path) -> None:
    assert text_of(_page(tmp_path, "<article><p>One.</p></article><article><p>Two.</p></article>")) == "One.\n\nTwo."


def test_a_page_within_one_form_or_under_a_header_with_its_title_is_not_lost(tmp_path: Path) -> None:
    document = _page(tmp_path, "<form><header><h1>Name</h1></header><main><p>Words.</p></main></form>")
    assert text_of(document) == "Words."
    document = _page(tmp_path, "<form><header><h1>Name</h1></header><p>Words.</p></form>")
    assert (document.title, text_of(document)) == ("Name", "Words.")


# Until somebody clicks, the answers of accordions and tabs are hidden in one of these ways; on every visitor's page
# they are text once they are looked for, and so they are here.
@pytest.mark.parametrize(
    "panel",
    [
        "<div hidden>The battery lasts nine hours.</div>",
        "<div hidden='until-found'>The battery lasts nine hours.</div>",
        "<div class='collapse' aria-hidden='true'>The battery lasts nine hours.</div>",
        "<section role='tabpanel' style='color: red; display:none'>The battery lasts nine hours.</section>",
        "<div style='visibility: hidden'>The battery lasts nine hours.</div>",
        "<details><p>The battery lasts nine hours.</p></details>",
    ],
)
def test_what_opens_with_a_click_is_text(tmp_path: Path, panel: str) -> None:
    document = _page(tmp_path, f"<main><h1>Phone</h1><h2>How long?</h2>{panel}</main>")
    assert text_of(document) == "The battery lasts nine hours."


def test_the_questions_of_accordions_are_headings(tmp_path: Path) -> None:
    def item(number: int, question: str, answer: str, attributes: str) -> str:
        return (
            f"<div class='accordion-item'><h2 class='accordion-header'><button type='button' {attributes}>{question}"
            f"</button></h2><div id='c{number}' class='accordion-collapse collapse'>{answer}</div></div>"
        )

    bootstrap = item(1, "How long is the warranty?", "Five years.", "data-bs-toggle='collapse' data-bs-target='#c1'")
    plain = item(2, "Do you ship abroad?", "To forty countries.", "class='accordion-button collapsed'")
    document = _page(tmp_path, f"<main><h1>FAQ</h1>{bootstrap}{plain}</main>")
    assert [(section.headings[-1:], section.blocks[0].text) for section in document.sections] == [
        (("How long is the warranty?",), "Five years."),
        (("Do you ship abroad?",), "To forty countries."),
    ]


@pytest.mark.parametrize(
    "question",
    [
        "<button class='accordion'>How long?</button>",
        "<button aria-expanded='false' aria-controls='answer'>How long?</button>",
        "<button data-toggle='collapse' data-target='#answer'>How long?</button>",
        "<dl><dt><button>How long?</button></dt></dl>",
    ],
)
def test_a_button_that_opens_an_answer_is_its_question(tmp_path: Path, question: str) -> None:
    text = text_of(_page(tmp_path, f"<main>{question}<div id='answer' hidden>Nine hours.</div></main>"))
    assert text.removeprefix("- ") == "How long?\n\nNine hours."


def test_a_button_beside_a_headings_words_is_no_part_of_them(tmp_path: Path) -> None:
    document = _page(tmp_path, "<main><h2>Install<button class='copy'>Copy link</button></h2><p>Words.</p></main>")
    assert document.sections[0].headings == ("Install",)


def test_the_label_of_a_tab_stands_on_its_panel(tmp_path: Path) -> None:
    tabs = (
        "<div role='tablist'><button role='tab' aria-controls='a'>Linux &amp; BSD</button>"
        "<a role='tab' href='#b'>Windows</a></div>"
        "<div role='tabpanel' id='a'>Run apt.</div><div role='tabpanel' id='b' hidden><p>Run winget.</p></div>"
    )
    text = text_of(_page(tmp_path, f"<main>{tabs}</main>"))
    assert text == "Linux & BSD\n\nRun apt.\n\nWindows\n\nRun winget."


def test_a_cookie_policy_is_no_cookie_banner(tmp_path: Path) -> None:
    policy = "<p>We set a cookie to remember you.</p>" * 100
    assert "remember" in text_of(_page(tmp_path, f"<div class='cookie-notice'>{policy}</div>"))


@pytest.mark.parametrize(
    "banner",
    [
        "<div id='cookie-banner'><p>We value you.</p></div>",
        "<div class='CookieConsent'>We value you.</div>",
        "<div id='onetrust-consent-sdk'>We value you.</div>",
        "<div class='cookie-bar'>We value you.<button>Accept all</button></div>",
        "<section id='cookies'>We value you.<a href='#'>Alle akzeptieren</a></section>",
    ],
)
def test_a_cookie_banner_is_left_out(tmp_path: Path, banner: str) -> None:
    assert text_of(_page(tmp_path, f"{banner}<p>Words.</p>")) == "Words."


@pytest.mark.parametrize("name", ["product chocolate-cookie", "cookies", "consent-form-info", "gdpr", "cookie-policy"])
def test_what_is_only_called_cookie_or_consent_is_text(tmp_path: Path, name: str) -> None:
    section = f"<section class='{name}'><h2>Chocolate</h2><p>Costs two euros.</p><a href='/order'>Order</a></section>"
    assert "Costs two euros." in text_of(_page(tmp_path, f"<main>{section}</main>"))


def test_the_header_of_an_article_or_a_section_keeps_its_heading_and_first_words(tmp_path: Path) -> None:
    article = "<article><header><h2>Why Oslo</h2><p>Rents are lower.</p></header><p>More.</p></article>"
    for body in (article, f"<header><h1>Blog</h1></header>{article}{article.replace('Oslo', 'Bergen')}"):
        document = _page(tmp_path, body)
        assert any(section.headings[-1:] == ("Why Oslo",) for section in document.sections)
        assert text_of(document).startswith("Rents are lower.\n\nMore.")


def test_the_header_of_a_page_without_another_title_is_its_title(tmp_path: Path) -> None:
    document = _page(tmp_path, "<header><nav>Home</nav><h2>Shipping</h2></header><div><p>Daily at noon.</p></div>")
    assert [section.headings for section in document.sections] == [("Shipping",)]


def test_the_footer_of_a_part_is_text_and_that_of_the_page_is_not(tmp_path: Path) -> None:
    quotation = "<blockquote><p>To be.</p><footer>William Shakespeare</footer></blockquote>"
    assert (
        text_of(_page(tmp_path, f"<main>{quotation}<footer>Share</footer></main>")) == "To be.\n\nWilliam Shakespeare"
    )


def test_a_form_that_explains_something_keeps_its_words_and_not_its_fields(tmp_path: Path) -> None:
    form = (
        "<form><fieldset><legend>Parcel</legend><label>Weight</label><input><select><option>kg</option></select>"
        "<p>Parcels above thirty kilograms are refused.</p><p>Required</p></fieldset><button>Send</button></form>"
    )
    text = text_of(_page(tmp_path, f"<main>{form}</main>"))
    assert text == "Parcel\n\nParcels above thirty kilograms are refused.\n\nRequired"


def test_a_note_in_an_aside_is_text(tmp_path: Path) -> None:
    assert text_of(_page(tmp_path, "<main><aside class='admonition tip'><p>Mind.</p></aside></main>")) == "Mind."


def test_headings_carry_their_own_id_or_that_of_the_section_around_them(tmp_path: Path) -> None:
    document = _page(
        tmp_path,
        "<main><h1>Top</h1><p>a</p><section id='wrap'><h2>Wrapped</h2><p>b</p><h3>Deep</h3><p>c</p></section>"
        "<h2 id='own'>Own<a class='headerlink' href='#own'>¶</a></h2><p>d</p>"
        "<h2><a name='old'></a>Old</h2><p>e</p></main>",
    )
    assert [(section.headings, section.anchor) for section in document.sections] == [
        ((), ""),
        (("Wrapped",), "wrap"),
        (("Wrapped", "Deep"), "wrap"),
        (("Own",), "own"),
        (("Old",), "old"),
    ]


def test_code_is_whole_and_knows_its_language(tmp_path: Path) -> None:
    pre = "<div class='highlight-python'><div><pre><span>if</span> a &lt; b:\n    go()\n</pre></div></div>"
    assert _blocks(tmp_path, pre) == [Block("code", "```python\nif a < b:\n    go()\n```")]
    assert _blocks(tmp_path, "<pre><code class='language-sh hljs'>ls<br>pwd</code></pre>") == [
        Block("code", "```sh\nls\npwd\n```")
    ]


def test_line_numbers_beside_a_listing_are_left_out(tmp_path: Path) -> None:
    row = "<tr><td class='linenos'><pre>1\n2</pre></td><td class='code'><pre>a\nb</pre></td></tr>"
    assert _blocks(tmp_path, f"<table class='highlighttable'>{row}</table>") == [Block("code", "```\na\nb\n```")]


def test_a_table_is_pipes(tmp_path: Path) -> None:
    table = (
        "<table><caption>Prices</caption><thead><tr><th>Plan<th>Euro</tr></thead>"
        "<tr><td>Basic<br>small<td>5 | 6<tr><td colspan=2><code>x</code></table>"
    )
    assert _blocks(tmp_path, table) == [
        Block("paragraph", "Prices"),
        Block("table", "| Plan | Euro |\n| --- | --- |\n| Basic small | 5 \\| 6 |\n| `x` |  |"),
    ]


def test_a_table_that_only_places_things_is_read_as_text(tmp_path: Path) -> None:
    assert _blocks(tmp_path, "<table><tr><td><h2>A</h2><p>One.</p></td><td><p>Two.</p></td></tr></table>") == [
        Block("paragraph", "One."),
        Block("paragraph", "Two."),
    ]


def test_lists_and_definitions(tmp_path: Path) -> None:
    body = (
        "<ul><li>a<ul><li>b</li></ul></li><li><p>c</p><pre>x</pre></li></ul><ol start=3><li>d</li><li>e</li></ol>"
        "<dl><dt>Term</dt><dt>Other</dt><dd>Meaning</dd></dl>"
    )
    assert [block.text for block in _blocks(tmp_path, body)] == [
        "- a\n  - b\n- c",
        "```\nx\n```",
        "3. d\n4. e",
        "- Term, Other: Meaning",
    ]


def test_inline_elements_flow_and_blocks_part(tmp_path: Path) -> None:
    body = "a <b>b</b>, <code>c()</code> &amp;\n <a href='x'>d</a><img alt='e'><br>f<div>g</div>h<p>i"
    assert [block.text for block in _blocks(tmp_path, body)] == ["a b, `c()` & de\nf", "g", "h", "i"]


@pytest.mark.parametrize(
    ("head", "url"),
    [
        ("<link rel='canonical' href='https://x.example/a'>", "https://x.example/a"),
        ("<meta name='url' content='https://x.example/b'>", "https://x.example/b"),
        ("<meta property='og:url' content='https://x.example/c'>", "https://x.example/c"),
        ("<link rel=canonical href='javascript:alert(1)'>", "https://example.org/docs/page.html"),
        ("<link rel=canonical href='/relative'>", "https://example.org/docs/page.html"),
    ],
)
def test_the_address_that_a_page_states(tmp_path: Path, head: str, url: str) -> None:
    assert _page(tmp_path, "<p>Words.</p>", head).url == url


@pytest.mark.parametrize(
    ("head", "body", "title"),
    [
        ("<title>Start | Example</title>", "<h1>Start</h1>", "Start"),
        ("<title>Example – Start</title>", "<h1>Start</h1>", "Start"),
        ("<title>Start - Example</title><meta property='og:site_name' content='Example'>", "", "Start"),
        ("<title>Tea | Coffee</title>", "<h1>Drinks</h1>", "Tea | Coffee"),
        ("", "<h1>Only <i>here</i></h1>", "Only here"),
        ("", "", "Page"),
    ],
)
def test_a_title_loses_the_sites_name_only_where_that_is_sure(tmp_path: Path, head: str, body: str, title: str) -> None:
    assert _page(tmp_path, f"{body}<p>Words.</p>", head).title == title


def test_the_language_is_the_pages_own(tmp_path: Path) -> None:
    assert _page(tmp_path, "<p>Der die das und ist nicht ein</p>").language == "en"


def test_the_encoding_that_a_page_states_is_used(tmp_path: Path) -> None:
    latin = "<meta charset='iso-8859-1'><p>Café “ok” €</p>".encode("cp1252")
    assert text_of(read(tmp_path, "a.html", latin)) == "Café “ok” €"
    assert text_of(read(tmp_path, "b.html", "<p>日本</p>".encode("utf-16"))) == "日本"
    japanese = "<meta http-equiv='Content-Type' content='text/html; charset=Shift_JIS'><p>日本</p>".encode("shift_jis")
    assert text_of(read(tmp_path, "c.html", japanese)) == "日本"


def test_an_encoding_that_nobody_stated_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"not UTF-8 text \(byte 0xe9 at position 6\)"):
        read(tmp_path, "page.html", b"<p>Caf\xe9</p>")


def test_a_page_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="nested too deeply"):
        read(tmp_path, "page.html", "<div>" * 5000 + "x")


def test_a_page_of_scripts_alone_has_nothing_readable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="nothing readable inside"):
        _page(tmp_path, "<div id=root></div><script>app()</script>")

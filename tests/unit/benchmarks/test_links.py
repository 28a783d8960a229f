"""The benchmark of links, with few questions: each linked page is opened, and the words are where the link says."""

from pathlib import Path

import pytest

from benchmarks import links as bench


@pytest.mark.parametrize("name", ["fastapi_docs", "xquad/de"])
def test_links_open_at_the_words_that_were_quoted_found_and_cited(corpora: Path, tmp_path: Path, name: str) -> None:
    tallies = bench.measure(name, corpora, tmp_path, questions=40)
    for kind, tally in tallies.items():
        assert tally.links >= 40, kind
        assert tally.with_words / tally.links > 0.95, tally.wrong
        assert tally.words >= (bench.CITED_FLOOR if kind == "cited sentences" else bench.FLOOR), tally.wrong
        assert tally.headings >= bench.FLOOR, tally.wrong


PAGE = """# Kettle {#kettle}

The blue kettle boils <abbr title="much">a litre</abbr> of
water. Read the notes.

## Clean `it`

| Part | What to do |
|---|---|
| Seal | Read the notes. |
"""


def test_a_page_is_read_as_a_browser_shows_it() -> None:
    page = bench.page_of(PAGE)
    assert [(block.anchor, block.heading) for block in page][0::4] == [("kettle", "Kettle"), ("clean-it", "Clean it")]
    assert page[1].text == "the blue kettle boils a litre of water. read the notes."
    assert len(bench.places("Read the notes", page)) == 2
    assert len(bench.places("boils a litre of water", page)) == 1
    assert bench.places("notes. Clean it", page) == bench.places("boil a litre", page) == []


@pytest.mark.parametrize(
    ("url", "said", "right"),
    [
        ("https://site.example/#kettle:~:text=boils%20a%20litre", "the blue kettle boils a litre", (1, 1)),
        ("https://site.example/#kettle:~:text=boils%20a%20litre", "read the notes.", (0, 1)),
        ("https://site.example/#clean-it:~:text=boils%20a%20litre", "the blue kettle boils a litre", (1, 0)),
        ("https://site.example/#kettle:~:text=Read%20the%20notes", "read the notes.", (0, 1)),
        ("https://site.example/#clean-it", "read the notes.", (0, 1)),
        ("https://site.example/#nowhere", "read the notes.", (0, 0)),
    ],
)
def test_a_link_beside_the_words_is_counted_as_wrong(url: str, said: str, right: tuple[int, int]) -> None:
    tally = bench.Tally()
    title = "Shop › Clean it" if "clean-it" in url else "Kettle"
    tally.add(url, title, bench.page_of(PAGE), [said])
    assert (tally.right_words, tally.own_heading) == right

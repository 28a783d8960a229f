"""Links within a page: their words stand in a passage, and they lead where the site has the page."""

import time
from pathlib import Path

import pytest

from indexer.documents import PageLink
from indexer.passages.chunking import passages
from indexer.passages.links import with_links
from indexer.reading.document import read
from rag.errors import SourceUnreadable
from rag.types import Passage

SITE = "https://site.example"


def linked(folder: Path, text: str, *, site_url: str = SITE, source: str = "guide/care.md") -> list[tuple[str, str]]:
    """The words that are linked in the passages of a page, each with its address."""
    page = folder / source
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    document = read(page, source=source, site_url=site_url, limit_bytes=10_000_000)
    found = with_links(document.links, passages(document))
    return [(one.text[link.start : link.end], link.url) for one in found for link in one.links]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "guide").mkdir()
    (tmp_path / "prices.md").write_text("# Prices\n\nIt costs.")
    (tmp_path / "guide" / "index.md").write_text("# Guide\n\nRead.")
    (tmp_path / "guide" / "own.md").write_text("---\nslug: /elsewhere/\n---\n\nIt has an address of its own.")
    (tmp_path / "guide" / "draft.md").write_text("---\ndraft: true\n---\n\nNot yet.")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("https://other.example/a?b=c#d", "https://other.example/a?b=c#d"),
        ("../prices.md", f"{SITE}/prices/"),
        ("../prices.md#per-month", f"{SITE}/prices/#per-month"),
        ("./index.md", f"{SITE}/guide/"),
        ("#seal", f"{SITE}/guide/care/#seal"),
        ("own.md", f"{SITE}/elsewhere/"),
        ("<../prices.md>", f"{SITE}/prices/"),
    ],
)
def test_a_link_leads_to_the_address_of_its_page(site: Path, target: str, address: str) -> None:
    assert linked(site, f"# Care\n\nFirst see [the page]({target}), then go on.") == [("the page", address)]


@pytest.mark.parametrize(
    "target",
    [
        "missing.md", "draft.md", "../../outside.md", "/prices/", "//evil.example/", "javascript:alert(1)",
        "data:text/html,x", "mailto:a@b.example", "https://user@evil.example/", "picture.png", "http://[", "",
    ],
)  # fmt: skip
def test_a_link_that_leads_nowhere_for_certain_stays_words(site: Path, target: str) -> None:
    (site.parent / "outside.md").write_text("# Outside\n\nSecret.")
    assert linked(site, f"# Care\n\nFirst see [the page]({target}), then go on.") == []


def test_without_the_sites_address_only_whole_addresses_lead_anywhere(site: Path) -> None:
    text = "See [prices](../prices.md) and [others](https://other.example/)."
    assert linked(site, text, site_url="") == [("others", "https://other.example/")]


def test_a_link_out_of_the_folder_through_a_symbolic_link_is_not_read(site: Path) -> None:
    outside = site.parent / "outside.md"
    outside.write_text("# Outside\n\nSecret.")
    (site / "guide" / "sly.md").symlink_to(outside)
    assert linked(site, "See [sly](sly.md).") == []


def test_the_same_words_are_told_apart_by_what_stands_around_them(site: Path) -> None:
    text = (
        "# Care\n\nHere is not there. Click here and see [here](https://x.example/1).\n\n- Not [here](https://x.example/2)\n"
        "- **Nor [`here`](https://x.example/3)**, ![here](https://x.example/i.png)\n\n"
        "| A | B |\n|---|---|\n| here | go [here](https://x.example/4) now |\n\n"
        "`[here](https://x.example/5)` is code.\n\n```\n[here](https://x.example/6)\n```\n"
    )
    found = linked(site, text)
    assert found == [
        ("here", "https://x.example/1"), ("here", "https://x.example/2"), ("`here`", "https://x.example/3"),
        ("here", "https://x.example/4"),
    ]  # fmt: skip
    document = read(site / "guide/care.md", source="guide/care.md", site_url=SITE, limit_bytes=10_000)
    (passage,) = with_links(document.links, passages(document))
    assert [passage.text[link.start - 4 : link.start] for link in passage.links] == ["see ", "Not ", "Nor ", " go "]


def test_links_side_by_side_are_all_found(site: Path) -> None:
    text = "PR [#1](https://x.example/1) by [@a](https://x.example/a), [#2](https://x.example/2) by [@a](https://x.example/b)."
    assert linked(site, text) == [
        ("#1", "https://x.example/1"), ("@a", "https://x.example/a"), ("#2", "https://x.example/2"),
        ("@a", "https://x.example/b"),
    ]  # fmt: skip


def test_a_link_goes_over_a_line_and_a_definition_says_where_to(site: Path) -> None:
    text = "See [the\nlong page](https://x.example/1) and [its part][part].\n\n[part]: https://x.example/2"
    assert linked(site, text) == [("the long page", "https://x.example/1"), ("its part", "https://x.example/2")]


def test_a_link_never_changes_what_is_indexed(site: Path) -> None:
    page = site / "guide" / "care.md"
    page.write_text("See [prices](../prices.md).")
    document = read(page, source="guide/care.md", site_url=SITE, limit_bytes=10_000)
    plain = passages(document)
    assert [one.indexed_text for one in with_links(document.links, plain)] == [one.indexed_text for one in plain]


def test_a_page_of_links_alone_takes_no_minutes() -> None:
    many = [PageLink("nowhere ", "word", "", f"https://x.example/{number}") for number in range(20_000)]
    one = Passage(text="x " * 700, title="", headings=(), url="", anchor="", source="a.md", language="")
    began = time.process_time()
    assert with_links(many, [one] * 5_000) == [one] * 5_000
    assert time.process_time() - began < 10


def test_an_unreadable_page_that_is_linked_harms_nothing(site: Path) -> None:
    (site / "guide" / "binary.md").write_bytes(b"\x00\x01" * 100)
    (site / "guide" / "folder.md").mkdir()
    found = linked(site, "See [one](binary.md) and [two](folder.md) and [three](../prices.md).")
    assert ("three", f"{SITE}/prices/") in found
    with pytest.raises(SourceUnreadable):
        read(site / "guide" / "binary.md", source="guide/binary.md", site_url=SITE, limit_bytes=10_000)

"""Where a page is, and what it is called."""

import os
from pathlib import Path

import pytest

from indexer.reading.addresses import page_url
from tests.indexer.samples import read

SITE = "https://example.org/docs"


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("tutorial/response-model.md", f"{SITE}/tutorial/response-model/"),
        ("guide.mdx", f"{SITE}/guide/"),
        ("index.md", f"{SITE}/"),
        ("README.md", f"{SITE}/"),
        ("tutorial/index.mdx", f"{SITE}/tutorial/"),
        ("tutorial/readme.md", f"{SITE}/tutorial/"),
        ("tutorial/_index.md", f"{SITE}/tutorial/"),
        ("about/index.html", f"{SITE}/about/"),
        ("about/team.html", f"{SITE}/about/team.html"),
        ("handbook.pdf", f"{SITE}/handbook.pdf"),
        ("index.txt", f"{SITE}/index.txt"),
        ("prices 2024/über#1.csv", f"{SITE}/prices%202024/%C3%BCber%231.csv"),
        ("v1.2/notes.md", f"{SITE}/v1.2/notes/"),
        (os.fsdecode(b"caf\xe9/men\xfc.html"), f"{SITE}/caf%E9/men%FC.html"),
    ],
)
def test_an_address_follows_from_the_path(source: str, url: str) -> None:
    assert page_url(source, site_url=SITE, stated="") == url
    assert page_url(source, site_url=SITE + "/", stated="") == url


@pytest.mark.parametrize("stated", ["./\ud800", "/\ud800", "https://x.example/\ud800"])
def test_half_a_character_in_an_address_is_replaced(stated: str) -> None:
    assert page_url(os.fsdecode(b"caf\xe9/page.md"), site_url=SITE, stated=stated).endswith("/%EF%BF%BD")


def test_without_a_site_the_source_is_the_address() -> None:
    assert page_url("a b/page.md", site_url="", stated="") == "a b/page.md"
    assert page_url("a/page.md", site_url="", stated="/guide/") == "a/page.md"


@pytest.mark.parametrize(
    ("stated", "url"),
    [
        ("https://other.example/x#part", "https://other.example/x"),
        ("/guide/", f"{SITE}/guide/"),
        ("guide/start", f"{SITE}/guide/start"),
        ("./start", f"{SITE}/tutorial/start"),
        ("/ü", f"{SITE}/%C3%BC"),
        ("/", f"{SITE}/"),
    ],
)
def test_what_a_document_states_wins(stated: str, url: str) -> None:
    assert page_url("tutorial/page.md", site_url=SITE, stated=stated) == url


@pytest.mark.parametrize(
    "stated",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://example.org/x",
        "//evil.example/x",
        "https://user:password@example.org/",
        'https://example.org/"onclick=x',
        "https:///nowhere",
        "https://[broken",
        "../../etc/passwd",
        "/:categories/:title/",
        "/{{ page.slug }}/",
    ],
)
def test_an_address_that_is_no_page_is_ignored(stated: str) -> None:
    assert page_url("page.md", site_url=SITE, stated=stated) == f"{SITE}/page/"


def test_front_matter_gives_address_title_and_language(tmp_path: Path) -> None:
    document = read(
        tmp_path, "page.md", "---\ntitle: 'The: Title'\npermalink: /p/\nlang: de-AT\n---\n# Other\n\nText.\n"
    )
    assert (document.url, document.title, document.language) == (f"{SITE}/p/", "The: Title", "de")
    assert document.sections[0].headings == ("Other",)


def test_a_slug_replaces_the_last_part_of_the_path(tmp_path: Path) -> None:
    assert read(tmp_path, "blog/long-name.md", "---\nslug: short\n---\nText.\n").url == f"{SITE}/blog/short"
    assert read(tmp_path, "blog/page.md", "---\nslug: /top\n---\nText.\n").url == f"{SITE}/top"


def test_broken_front_matter_still_gives_its_lines(tmp_path: Path) -> None:
    document = read(tmp_path, "page.md", "---\ntitle: Mine: yours\ntags: [a, b\nurl: https://x.example/y\n---\nText.\n")
    assert (document.title, document.url) == ("Mine: yours", "https://x.example/y")
    assert [block.text for block in document.sections[0].blocks] == ["Text."]


def test_a_rule_at_the_top_is_no_front_matter(tmp_path: Path) -> None:
    document = read(tmp_path, "page.md", "---\n\nFirst words\n\n---\n\nMore.\n")
    assert [block.text for block in document.sections[0].blocks] == ["First words", "More."]


def test_the_first_heading_is_the_title_and_not_repeated_as_heading(tmp_path: Path) -> None:
    document = read(tmp_path, "page.md", "# `Big` **Title** { #big }\n\nText.\n\n## Part\n\nMore.\n")
    assert document.title == "Big Title"
    assert [(part.headings, part.anchor) for part in document.sections] == [((), "big"), (("Part",), "part")]


@pytest.mark.parametrize(
    ("name", "title"),
    [("employee_handbook.txt", "Employee handbook"), ("tutorial/index.txt", "Tutorial"), ("README.txt", "README")],
)
def test_the_name_of_the_file_is_the_last_resort_for_a_title(tmp_path: Path, name: str, title: str) -> None:
    assert read(tmp_path, name, "Just text.").title == title

"""What a site does not publish, or keeps out of its search, is not indexed unless that is asked for."""

from pathlib import Path

import pytest

from indexer.documents import Document, Skipped
from indexer.formats.robots_tag import is_noindex
from indexer.reading.files import read_all
from indexer.reading.finding import find
from rag.errors import SourceUnreadable
from rag.search.hybrid import open_build
from tests.indexer.samples import read
from tests.support.server import run_module

NOINDEX = '<html><head><meta name="Robots" content="{}"></head><body><p>Thanks for your order.</p></body></html>'


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ("draft: true", "(draft: true)"),
        ("Draft: yes", "(draft: true)"),
        ('draft: "true"', "(draft: true)"),
        ("draft: true\ntags: [broken", "(draft: true)"),
        ("published: false", "(published: false)"),
        ("unlisted: true", "(unlisted: true)"),
        ("headless: true", "(headless: true)"),
        ("permalink: false", "(permalink: false)"),
        ("permalink: /404.html", "addresses that do not exist"),
        ("noindex: true", "(noindex: true)"),
        ("robots: noindex, nofollow", "(robots: noindex)"),
        ("robots: [noindex]", "(robots: noindex)"),
        ("pagefind: false", "(pagefind: false)"),
        ("search: false", "(search: false)"),
        ("search:\n  exclude: true", "(search: exclude: true)"),
        ("build:\n  render: never", "(build: render: never)"),
        ("publishDate: 2999-01-02", "not published before 2999-01-02"),
        ("expiryDate: 2001-02-03T04:05:06Z", "not published after 2001-02-03"),
    ],
)
@pytest.mark.parametrize("name", ["page.md", "page.mdx", "page.html"])
def test_a_page_that_its_front_matter_withholds_is_refused(tmp_path: Path, name: str, stated: str, reason: str) -> None:
    with pytest.raises(SourceUnreadable) as refused:
        read(tmp_path, name, f"---\ntitle: Salaries\n{stated}\n---\n\n<p>Nobody should read this yet.</p>\n")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "stated",
    [
        "draft: false", "published: true", "published: 2020-01-01", "unlisted: false", "search:\n  boost: 2",
        "robots: all", "robots: max-image-preview:none", "publishDate: 2001-01-01", "expiryDate: 2999-01-01",
        "date: 2999-01-01", "draft:", "publishDate: soon", "sitemap: false", "permalink: /about/404-errors/",
    ],
)  # fmt: skip
def test_a_page_that_is_published_is_read(tmp_path: Path, stated: str) -> None:
    assert read(tmp_path, "page.md", f"---\ntitle: Hours\n{stated}\n---\n\nOpen from nine to six.\n").title == "Hours"


@pytest.mark.parametrize(
    "stated", ["draft = true", "title = 'a'\n[build]\nrender = 'never'", "draft = true\nbroken = ["]
)
def test_toml_withholds_as_yaml_does(tmp_path: Path, stated: str) -> None:
    with pytest.raises(SourceUnreadable, match="withheld by its front matter"):
        read(tmp_path, "page.md", f"+++\n{stated}\n+++\n\nNobody should read this yet.\n")


@pytest.mark.parametrize(("tag", "refused"), [
    ("noindex", True), ("NOINDEX, nofollow", True), ("follow noindex", True), ("none", True), ("index,follow", False),
    ("noimageindex", False), ("max-image-preview:none", False), ("googlebot: noindex", False), ("", False),
])  # fmt: skip
def test_a_robots_tag_says_whether_its_page_may_be_found(tmp_path: Path, tag: str, refused: bool) -> None:
    assert is_noindex(tag) is refused
    if refused:
        with pytest.raises(SourceUnreadable, match="noindex"):
            read(tmp_path, "page.html", NOINDEX.format(tag))
    else:
        assert read(tmp_path, "page.html", NOINDEX.format(tag)).sections


def _site(folder: Path) -> Path:
    words = "Words of this page.\n"
    pages = {
        "index.md": words,
        "_drafts/plan.md": words,
        "_posts/2026-01-02-news.md": words,
        "404.html": "<p>There is nothing here.</p>",
        "de/404.md": words,
        "de/500.md": words,
        "errors/404.md": words,
        "node_modules/pad/README.md": words,
        "tools/env/lib/notes.txt": words,
        "_layouts/page.html": "<p>{{ content }}</p>",
        "_sources/index.rst.txt": words,
        "late.md": f"---\ndraft: true\n---\n{words}",
        "thanks.html": NOINDEX.format("noindex"),
    }
    for name, text in pages.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "site/tools/env/pyvenv.cfg").touch()
    return folder / "site"


def test_what_belongs_to_no_site_is_passed_by_with_its_reason(tmp_path: Path) -> None:
    found = find([_site(tmp_path)])
    published = {"index.md", "de/500.md", "_posts/2026-01-02-news.md", "errors/404.md", "late.md", "thanks.html"}
    assert {file.source for file in found.files} == published
    assert {skipped.source: skipped.reason for skipped in found.skipped} == {
        "_drafts/plan.md": "a draft (in _drafts)",
        "404.html": "the page for addresses that do not exist",
        "de/404.md": "the page for addresses that do not exist",
        "node_modules/": "packages of others",
        "tools/env/": "packages of others",
        "_layouts/": "parts that pages are made of",
        "_sources/": "what pages were made from",
    }


def test_a_collection_that_is_numbered_has_all_its_numbers(tmp_path: Path) -> None:
    for number in range(402, 407):
        (tmp_path / f"{number}.md").write_text("Words.")
    assert len(find([tmp_path]).files) == 5


def test_a_folder_of_drafts_or_a_404_page_that_is_named_is_read(tmp_path: Path) -> None:
    site = _site(tmp_path)
    found = find([site / "_drafts", site / "404.html"])
    assert {file.source for file in found.files} == {"plan.md", "404.html"}
    assert found.skipped == []


def test_the_unpublished_is_read_where_that_is_asked_for(tmp_path: Path) -> None:
    found = find([_site(tmp_path)], with_unpublished=True)
    outcomes = list(read_all(found.files, site_url="", with_unpublished=True))
    assert {"_drafts/plan.md", "late.md", "thanks.html"} <= {o.source for o in outcomes if isinstance(o, Document)}
    assert [outcome for outcome in outcomes if isinstance(outcome, Skipped)] == []


def test_a_build_names_what_it_left_out(tmp_path: Path) -> None:
    _site(tmp_path)
    done = run_module("indexer", "build", "site", "--output", "db", env={"DEMO": "true"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "skipped    9" in done.stdout
    assert "late.md: withheld by its front matter (draft: true)" in done.stdout
    sources = {passage.source for passage in open_build(tmp_path / "db").passages()}
    assert sources == {"index.md", "de/500.md", "_posts/2026-01-02-news.md", "errors/404.md"}
    with_all = run_module(
        "indexer", "build", "site", "--output", "db", "--with-unpublished", env={"DEMO": "true"}, cwd=tmp_path
    )
    assert with_all.returncode == 0, with_all.stderr
    sources = {passage.source for passage in open_build(tmp_path / "db").passages()}
    assert {"_drafts/plan.md", "late.md", "thanks.html"} < sources

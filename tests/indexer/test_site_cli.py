"""`python -m indexer build https://…` as an owner runs it: a real process, a real site on loopback, no key."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.search import builds
from rag.search.hybrid import open_build
from tests.indexer.loopback import Loopback, html, page, serving, sitemap
from tests.support.server import run_module


@pytest.fixture
def site() -> Iterator[Loopback]:
    with serving() as running:
        running.pages |= {
            "/sitemap.xml": page(sitemap(f"{running.url}/hours/", f"{running.url}/gone"), "text/xml"),
            "/hours/": html("Opening hours", "The shop is open from nine to six, Monday to Saturday."),
        }
        yield running


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"DEMO": "true"}
    return run_module("indexer", "build", "--output", str(folder / "db"), *arguments, env=env, cwd=folder)


def test_a_running_site_is_indexed_beside_files(site: Loopback, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Words in a file.")
    done = build(tmp_path, "notes.txt", f"{site.url}/sitemap.xml", "--allow-private-addresses", "--delay", "0")
    assert done.returncode == 0, done.stderr
    assert f"{site.url}/gone: HTTP 404" in done.stdout
    urls = {passage.url for passage in open_build(tmp_path / "db").passages()}
    assert urls == {f"{site.url}/hours/", "notes.txt"}
    again = build(tmp_path, "notes.txt", f"{site.url}/sitemap.xml", "--allow-private-addresses", "--delay", "0")
    assert "0 embedded in 0 embedding calls, 2 reused" in again.stdout
    assert "unchanged, still live" in again.stdout


def test_a_site_on_this_machine_is_refused_unless_it_is_allowed(site: Loopback, tmp_path: Path) -> None:
    done = build(tmp_path, f"{site.url}/sitemap.xml")
    assert done.returncode == 1
    assert "127.0.0.1 is at the private address 127.0.0.1; --allow-private-addresses" in done.stderr
    assert site.asked == []
    assert builds.kept_ids(tmp_path / "db") == []


def crawl(site: Loopback, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return build(folder, *arguments, f"{site.url}/sitemap.xml", "--allow-private-addresses", "--delay", "0")


@pytest.fixture
def crawled(site: Loopback, tmp_path: Path) -> str:
    """The id of a build of a site with twelve pages."""
    site.pages |= {f"/{number}": html(f"Page {number}", f"Words of page {number}.") for number in range(12)}
    addresses = [f"{site.url}/{number}" for number in range(12)]
    site.pages["/sitemap.xml"] = page(sitemap(*addresses), "text/xml")
    assert crawl(site, tmp_path).returncode == 0
    return builds.live_id(tmp_path / "db")


def test_a_crawl_that_is_turned_away_does_not_shrink_the_index(site: Loopback, crawled: str, tmp_path: Path) -> None:
    for status in (403, 404, 429):
        site.pages |= {f"/{number}": page("", status=status, headers={"Retry-After": "0"}) for number in range(2, 12)}
        done = crawl(site, tmp_path)
        assert (done.returncode, builds.live_id(tmp_path / "db")) == (1, crawled), done.stdout
        assert f"HTTP {status}" in done.stderr


def test_a_crawl_that_is_turned_away_from_a_quarter_is_not_published_unless_that_is_wanted(
    site: Loopback, crawled: str, tmp_path: Path
) -> None:
    for number in range(3):
        site.pages[f"/{number}"] = page("", status=403)
    done = crawl(site, tmp_path)
    assert done.returncode == 1
    assert "3 of the 12 live pages could not be fetched\n  HTTP 403: 3 of them" in done.stderr
    assert "run it again with --yes" in done.stderr
    assert builds.live_id(tmp_path / "db") == crawled
    assert crawl(site, tmp_path, "--yes").returncode == 0
    assert builds.live_id(tmp_path / "db") != crawled


def test_a_few_pages_may_go_without_a_question(site: Loopback, crawled: str, tmp_path: Path) -> None:
    for number in range(2):
        site.pages[f"/{number}"] = page("", status=404)
    assert crawl(site, tmp_path).returncode == 0
    assert builds.live_id(tmp_path / "db") != crawled


def test_a_site_of_which_hardly_anything_is_found_is_not_published(
    site: Loopback, crawled: str, tmp_path: Path
) -> None:
    site.pages["/sitemap.xml"] = page(sitemap(*(f"{site.url}/{number}" for number in range(5))), "text/xml")
    done = crawl(site, tmp_path)
    assert (done.returncode, builds.live_id(tmp_path / "db")) == (1, crawled)
    assert "5 pages were found where 12 are live" in done.stderr


def test_a_site_that_gives_nothing_is_not_replaced_by_the_files_beside_it(
    site: Loopback, crawled: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("Words in a file.")
    site.pages["/sitemap.xml"] = page("", status=403)
    done = crawl(site, tmp_path, "notes.txt")
    assert (done.returncode, builds.live_id(tmp_path / "db")) == (1, crawled)
    assert "0 pages were found where 12 are live" in done.stderr
    assert crawl(site, tmp_path, "--clean", "notes.txt").returncode == 0


@pytest.mark.parametrize("option", [["--max-pages", "0"], ["--delay", "-1"], ["--max-bytes", "many"]])
def test_a_limit_that_is_none_is_named(tmp_path: Path, option: list[str]) -> None:
    done = build(tmp_path, "https://shop.example/", *option)
    assert done.returncode == 2
    assert option[0] in done.stderr

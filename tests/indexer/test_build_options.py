"""Options of `python -m indexer build`, and what its summary says of files that are left out."""

import subprocess
from pathlib import Path

import pytest

from rag.search.hybrid import open_build
from tests.support.server import run_module


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module("indexer", "build", "site", "--output", "db", *arguments, env={"DEMO": "true"}, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.md", "LICENSE.txt", "news/one.md", "news/old/two.md"):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Words of {name}.\n")
    return tmp_path


def sources_of(folder: Path) -> set[str]:
    return {passage.source for passage in open_build(folder / "db").passages()}


def test_what_is_excluded_is_left_out_and_a_pattern_without_effect_is_named(folder: Path) -> None:
    done = build(folder, "--exclude", "LICENSE*", "--exclude", "news/*", "--exclude", "drafts/*")
    assert done.returncode == 0
    assert sources_of(folder) == {"a.md"}
    assert "--exclude drafts/* matched nothing" in done.stderr
    assert "--exclude news/* matched nothing" not in done.stderr


def test_files_of_other_types_are_counted_by_extension(folder: Path) -> None:
    for name in ("b.rst", "c.RST", "d.xlsx", "news/e.rst", "Makefile", ".hidden.rst"):
        (folder / "site" / name).touch()
    done = build(folder)
    assert "other      3 .rst, 1 without extension, 1 .xlsx: not types that can be read" in done.stdout.splitlines()


def test_a_folder_of_known_types_has_no_line_on_others(folder: Path) -> None:
    assert "\nother" not in build(folder).stdout


@pytest.mark.parametrize("site_url", ["www.example.com", "ftp://example.com", "https://", "//example.com", "docs"])
def test_an_address_of_the_site_that_is_none_is_refused_as_in_the_settings(folder: Path, site_url: str) -> None:
    done = build(folder, "--site-url", site_url)
    assert done.returncode == 2
    assert f"{site_url}: allowed is an address such as https://www.example.com/docs" in done.stderr


@pytest.mark.parametrize(
    ("site_url", "url"),
    [("https://example.com/docs/", "https://example.com/docs/a/"), ("/docs", "/docs/a/"), ("", "a.md")],
)
def test_the_address_of_the_site_stands_before_every_page(folder: Path, site_url: str, url: str) -> None:
    assert build(folder, "--site-url", site_url).returncode == 0
    assert url in {passage.url for passage in open_build(folder / "db").passages()}

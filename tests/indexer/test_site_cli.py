"""`python -m indexer build https://…` as an owner runs it: a real process, a real site on loopback, no key."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag import builds
from rag.vector_db import open_build
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


@pytest.mark.parametrize("option", [["--max-pages", "0"], ["--delay", "-1"], ["--max-bytes", "many"]])
def test_a_limit_that_is_none_is_named(tmp_path: Path, option: list[str]) -> None:
    done = build(tmp_path, "https://shop.example/", *option)
    assert done.returncode == 2
    assert option[0] in done.stderr

"""The built file in the repository: what its source makes, small enough, and every case has a test."""

import gzip
import json
import re
import subprocess
from pathlib import Path

from tests.widget.conftest import BUILT, HERE, WIDGET, Runner

GZIP_LIMIT_BYTES = 24_000


def test_the_built_file_is_what_the_source_makes(node_modules: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "widget.js"
    subprocess.run(["node", "build.mjs", "--out", str(fresh)], cwd=node_modules.parent, check=True, timeout=60)
    assert fresh.read_bytes() == BUILT.read_bytes(), "widget.js is stale; run: npm run build (in widget/)"


def test_the_built_file_is_at_most_24_kb_packed() -> None:
    assert len(gzip.compress(BUILT.read_bytes(), 9)) <= GZIP_LIMIT_BYTES


def test_nothing_in_the_source_parses_html() -> None:
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function")
    found = {path.name: forbidden.findall(path.read_text("utf-8")) for path in (WIDGET / "src").iterdir()}
    assert found
    assert not any(found.values()), found


def test_the_lock_file_names_no_download_address() -> None:
    lock = json.loads((WIDGET / "package-lock.json").read_text("utf-8"))
    assert all("resolved" not in package for package in lock["packages"].values())


def test_every_case_is_run_by_a_test(runner: Runner) -> None:
    claimed = {
        name
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def test_(\w+)", path.read_text("utf-8"), re.M)
    }
    assert runner.cases <= claimed, runner.cases - claimed

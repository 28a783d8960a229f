"""One Chromium for all cases of the widget: a Node process runs them by name and says what went wrong.

A test's name is its case's name in the `cases_*.mjs` files; this file knows none of them.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import REPOSITORY

HERE = Path(__file__).parent
WIDGET = REPOSITORY / "widget"
BUILT = REPOSITORY / "rag" / "http" / "static" / "widget.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

InBrowser = Callable[..., None]


class Runner:
    """The Node process: one line in, one line out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.cases: set[str] = set(self._read()["cases"])

    def run(self, case: str, given: dict[str, Any]) -> str | None:
        """What went wrong, or None."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"case": case, "given": given}) + "\n")
        self._process.stdin.flush()
        return self._read()["error"]  # type: ignore[no-any-return]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the browser's runner ended with {self._process.wait()}; its words stand above", pytrace=False)
        return json.loads(line)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The widget's packages, as its lock file names them; fetched once."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("the widget's tests need Node 18 or newer; on Debian and Ubuntu: sudo apt-get install nodejs npm")
    folder = WIDGET / "node_modules"
    if not (folder / ".package-lock.json").is_file():
        done = subprocess.run([npm, "ci"], cwd=WIDGET, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.fail(f"npm ci in widget/ ended with {done.returncode}:\n{done.stderr[-2000:]}", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def runner(node_modules: Path) -> Iterator[Runner]:
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.fail("the widget's tests need Chromium; on Debian and Ubuntu: sudo apt-get install chromium")
    command = ["node", str(HERE / "runner.mjs"), str(node_modules.parent), str(BUILT), chromium]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


@pytest.fixture
def in_browser(runner: Runner, request: pytest.FixtureRequest) -> InBrowser:
    """`in_browser(base_url=…)` runs the case that has the test's name; keyword arguments reach it as `given`."""

    def run(case: str = "", **given: Any) -> None:
        fault = runner.run(case or request.node.originalname.removeprefix("test_"), given)
        if fault:
            pytest.fail(fault, pytrace=False)

    return run

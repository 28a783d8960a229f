"""`make test` asks once more what failed, and never forgives what concerns the whole run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NOT_FORGIVEN
from tests.support.waiting import REPOSITORY

RUNS = "tests/support_checks/failing_runs.py"


def run(what: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", *options, "-o", f"cache_dir={folder}", f"{RUNS}::{what}"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("what", "words"),
    [("TestLeak", "leaked: body of GET /somewhere"), ("TestSharedServer", "RuntimeError: a server does not stop")],
)
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_what_fails_the_run_as_a_whole_has_a_status_of_its_own(
    tmp_path: Path, what: str, words: str, options: tuple[str, ...]
) -> None:
    done = run(what, tmp_path, *options)
    assert done.returncode == NOT_FORGIVEN, done.stdout
    assert "FAILED the run as a whole" in done.stdout
    assert words in done.stdout


def test_a_test_that_fails_by_itself_has_the_usual_status(tmp_path: Path) -> None:
    assert run("TestOfItsOwn", tmp_path).returncode == 1


def make_test(folder: Path, *statuses: int) -> tuple[int, str, int]:
    """Status and output of `make test` whose runs of pytest end like this, and how many runs there were."""
    shutil.copy(REPOSITORY / "Makefile", folder)
    program = folder / "bin" / "python"
    program.parent.mkdir()
    cases = "".join(f"  {number}) exit {status} ;;\n" for number, status in enumerate(statuses, start=1))
    (folder / "failed").write_text('{\n  "tests/a.py::test_one[x]": true,\n  "tests/b.py": true\n}')
    program.write_text(
        "#!/bin/sh\necho run >> runs\nmkdir -p .pytest_cache/v/cache\ncp failed .pytest_cache/v/cache/lastfailed\n"
        f"case $(wc -l < runs | tr -d ' ') in\n{cases}esac\n"
    )
    program.chmod(0o755)
    command = ["make", "-o", "check", "-o", "programs", "test", "BIN=bin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, len((folder / "runs").read_text().splitlines())


def test_a_test_that_passes_the_second_time_is_named_before_and_after(tmp_path: Path) -> None:
    status, said, runs = make_test(tmp_path, 1, 0)
    assert (status, runs) == (0, 2)
    named = "\n  tests/a.py::test_one[x]\n  tests/b.py\n"
    assert f"· failed:{named}" in said
    assert f"· passed, these only the second time:{named}" in said


def test_a_test_that_fails_twice_is_broken(tmp_path: Path) -> None:
    status, said, runs = make_test(tmp_path, 1, 1)
    assert (status != 0, runs) == (True, 2)
    assert "· passed" not in said


@pytest.mark.parametrize("status", [NOT_FORGIVEN, 2, 3, 4, 5])
def test_a_run_that_failed_as_a_whole_is_not_repeated(tmp_path: Path, status: int) -> None:
    made, said, runs = make_test(tmp_path, status, 0)
    assert (made != 0, runs) == (True, 1)
    assert "once more" not in said


def test_a_run_without_a_fault_is_enough(tmp_path: Path) -> None:
    assert make_test(tmp_path, 0) == (0, "", 1)

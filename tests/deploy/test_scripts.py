"""Shell scripts and the Dockerfile, as their linters see them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import REPOSITORY

SCRIPTS = sorted([*REPOSITORY.glob("deploy/*.sh"), *REPOSITORY.glob("tests/deploy/*.sh")])


def linted(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    assert linted("shellcheck", str(script)) == (0, "")
    assert script.stat().st_mode & 0o111, "it is called by its name"


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    assert linted(hadolint, "--no-color", "Dockerfile") == (0, "")


def test_both_scripts_explain_themselves() -> None:
    for script in ("deploy/deploy.sh", "deploy/install-vm.sh"):
        code, said = linted(str(REPOSITORY / script), "--help")
        assert (code, script in said) == (0, True)
        code, said = linted(str(REPOSITORY / script))
        assert (code, script in said) == (1, True)


def test_a_mistyped_option_changes_nothing() -> None:
    code, said = linted(str(REPOSITORY / "deploy/deploy.sh"), "systemd", "--wiat", "3")
    assert (code, "unknown option --wiat" in said) == (1, True)
    code, said = linted(str(REPOSITORY / "deploy/deploy.sh"), "systemd", "--wait", "soon")
    assert (code, "whole numbers" in said) == (1, True)

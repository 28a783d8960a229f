"""deploy.sh with real releases and the real server; systemctl and docker are stand-ins that start and stop it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PostgresServer
from tests.support.waiting import REPOSITORY, free_port

VENV = Path(sys.executable).parent.parent
PARTS = ("rag", "indexer", "docs", "rag_server.py", "run_production.py", "gunicorn.conf.py", "requirements-prod.lock",
         "requirements-otel.lock", "requirements-postgres.lock", "requirements-entra.lock",
         "requirements-local.lock")  # fmt: skip
WAIT_S = 12
"""How long a version gets to be ready; a broken one costs all of it."""

START = """
stop() {{
  [ -f {folder}/pid ] || return 0
  kill -TERM "$(cat {folder}/pid)" 2>/dev/null
  while kill -0 "$(cat {folder}/pid)" 2>/dev/null; do sleep 0.1; done
}}
start() {{ # start CODE
  stop
  (cd {folder} && exec setsid env -i PATH="$PATH" {settings} {python} "$1/run_production.py") \
    >>{folder}/log 2>&1 </dev/null &
  echo $! >{folder}/pid
}}
"""
SYSTEMCTL = """#!/bin/bash
echo "$*" >>{folder}/calls
{start}
# As systemd does after five failed starts: what did not stay up is not started again before its counter is reset.
case $1 in
  reset-failed) touch {folder}/reset ;;
  restart)
    if [ -f {folder}/pid ] && ! kill -0 "$(cat {folder}/pid)" 2>/dev/null && [ ! -f {folder}/reset ]; then
      echo "Start request repeated too quickly." >&2
      exit 1
    fi
    rm -f {folder}/reset
    start "$(readlink -f {folder}/opt/rag-server)" ;;
esac
"""
DOCKER = """#!/bin/bash
# An image is a file with the path of its code; what runs is the one that is tagged latest.
echo "$*" >>{folder}/calls
images={folder}/images
{start}
case "$*" in
  "build --tag rag-server:candidate "*) echo "${{@: -1}}" >$images/candidate ;;
  "image inspect rag-server:"*) [ -f "$images/${{3#rag-server:}}" ] ;;
  "tag rag-server:"*) cp "$images/${{2#rag-server:}}" "$images/${{3#rag-server:}}" ;;
  *" config --quiet") ;;
  *" run --rm --no-deps -T rag-server "*)
    env -i PATH="$PATH" {settings} {python} "$(cat $images/latest)/run_production.py" --check --running ;;
  *" up --detach --no-build") start "$(cat $images/latest)" ;;
  *) echo "unexpected: $*" >&2; exit 64 ;;
esac
"""


class Machine:
    """A folder that stands for a machine: settings, an index, and programs that start the real server."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        shown = {**settings, "PORT": str(self.port), "HOST": "127.0.0.1", "WORKERS": "1"}
        lines = "".join(f"{name}={value}\n" for name, value in shown.items())
        for path in (folder / "etc" / "rag-server.env", folder / ".env"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(lines, encoding="utf-8")
        (folder / "images").mkdir()
        (folder / "bin").mkdir()
        start = START.format(
            folder=folder, python=sys.executable, settings=" ".join(f"'{k}={v}'" for k, v in shown.items())
        )
        for name, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER)):
            program = folder / "bin" / name
            settings_line = " ".join(f"'{k}={v}'" for k, v in shown.items())
            program.write_text(
                text.format(folder=folder, start=start, python=sys.executable, settings=settings_line), encoding="utf-8"
            )
            program.chmod(0o755)

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [str(REPOSITORY / "deploy" / "deploy.sh"), "--wait", str(WAIT_S), "--root", str(self.folder),
             "--venv", str(VENV), *arguments],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def serves(self) -> str:
        """The version that answers."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5, trust_env=False)
        return str(answer.json()["version"])

    def calls(self) -> list[str]:
        """What the stand-ins were asked for since the last look."""
        path = self.folder / "calls"
        found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def releases(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "opt/rag-server-releases").glob("*Z"))

    def stop(self) -> None:
        pid = self.folder / "pid"
        if pid.exists():
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                return


@pytest.fixture
def machine(tmp_path: Path, azure: AzureEmulator, site_build: Path) -> Iterator[Machine]:
    folder = tmp_path / "machine"
    state = folder / "var" / "lib" / "rag-server"
    state.mkdir(parents=True)
    made = Machine(folder, {**azure.environment, "VECTOR_DB_PATH": str(site_build), "STATE_DIR": str(state)})
    yield made
    made.stop()


def version(folder: Path, number: str, *, append: tuple[str, str] | None = None) -> Path:
    """The code as a version of that number; `append` spoils a file."""
    source = folder / f"version-{number}"
    for part in PARTS:
        if (REPOSITORY / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "images")
            shutil.copytree(REPOSITORY / part, source / part, ignore=ignored)
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / part, source / part)
    page = source / "rag" / "http" / "site.py"
    text = page.read_text(encoding="utf-8")
    assert 'VERSION = "0.1.0"' in text
    page.write_text(text.replace('VERSION = "0.1.0"', f'VERSION = "{number}"'), encoding="utf-8")
    if append is not None:
        with (source / append[0]).open("a", encoding="utf-8") as file:
            file.write(append[1])
    return source


def test_a_release_brings_the_schema_of_its_database_along(machine: Machine, tmp_path: Path) -> None:
    with PostgresServer() as postgres:
        url = postgres.empty_database()
        with (machine.folder / "etc" / "rag-server.env").open("a", encoding="utf-8") as settings:
            settings.write(f"DATABASE_URL={url}\n")
        done = machine.deploy("systemd", str(version(tmp_path, "1.0.0")))
        assert (done.returncode, "applied 0001_state" in done.stdout) == (0, True), done.stdout + done.stderr
    away = machine.deploy("systemd", str(version(tmp_path, "1.0.1")))
    assert (away.returncode, "check DATABASE_URL" in away.stderr) == (1, True)
    assert machine.serves() == "1.0.0"


STARTS_NEVER = ("rag_server.py", '\nraise RuntimeError("broken on purpose")\n')
FAILS_THE_CHECKS = ("rag/ops/preflight.py", '\nraise RuntimeError("broken on purpose")\n')


@pytest.mark.parametrize("mode", ["systemd", "compose"])
def test_a_broken_version_is_replaced_by_the_one_before_it(machine: Machine, tmp_path: Path, mode: str) -> None:
    good = machine.deploy(mode, str(version(tmp_path, "1.0.0")))
    assert good.returncode == 0, good.stdout + good.stderr
    assert machine.serves() == "1.0.0"
    machine.calls()

    unsound = machine.deploy(mode, str(version(tmp_path, "1.0.1", append=FAILS_THE_CHECKS)))
    assert unsound.returncode == 1
    assert "the checks failed" in unsound.stderr
    assert not any("restart" in call or " up " in call for call in machine.calls()), "the old version was disturbed"
    assert machine.serves() == "1.0.0"

    broken = machine.deploy(mode, str(version(tmp_path, "1.0.2", append=STARTS_NEVER)))
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "serves again" in broken.stderr
    assert machine.serves() == "1.0.0"

    better = machine.deploy(mode, str(version(tmp_path, "1.1.0")))
    assert better.returncode == 0, better.stdout + better.stderr
    assert machine.serves() == "1.1.0"

    back = machine.deploy("rollback", mode)
    assert back.returncode == 0, back.stdout + back.stderr
    assert machine.serves() == "1.0.0"


def test_a_first_version_that_is_broken_says_that_nothing_serves(machine: Machine, tmp_path: Path) -> None:
    done = machine.deploy("systemd", "--wait", "3", str(version(tmp_path, "1.0.0", append=STARTS_NEVER)))
    assert done.returncode == 2
    assert "there is no version to return to" in done.stderr


def test_rolling_back_without_an_earlier_version_changes_nothing(machine: Machine) -> None:
    for mode in ("systemd", "compose"):
        done = machine.deploy("rollback", mode)
        assert (done.returncode, "before this one is kept" in done.stderr) == (1, True)
    assert not any("restart" in call or " up " in call for call in machine.calls())


def test_only_the_newest_releases_are_kept_and_those_in_use(machine: Machine, tmp_path: Path) -> None:
    source = version(tmp_path, "1.0.0")
    for _ in range(5):
        assert machine.deploy("place", str(source)).returncode == 0
    placed = machine.releases()
    assert len(placed) == 5
    done = machine.deploy("systemd", "--keep", "2", str(source))
    assert done.returncode == 0, done.stdout + done.stderr
    kept = machine.releases()
    assert kept[:-1] == placed[-1:], "the one before this one is kept, and the new one"
    live = machine.folder / "opt" / "rag-server"
    assert live.readlink().name == kept[-1]
    assert (machine.folder / "opt/rag-server-releases/previous").readlink().name == placed[-1]


def test_a_release_whose_packages_cannot_be_installed_is_not_placed(machine: Machine, tmp_path: Path) -> None:
    source = version(tmp_path, "1.0.0")
    (tmp_path / "nothing").mkdir()
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "nothing")}
    for mode in ("place", "systemd"):
        done = subprocess.run(
            [str(REPOSITORY / "deploy/deploy.sh"), mode, "--root", str(machine.folder), str(source)],
            env={**os.environ, **nowhere}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, "no release was made" in done.stderr) == (1, True), done.stdout + done.stderr
        assert machine.releases() == []
        assert not (machine.folder / "opt/rag-server").is_symlink()


def test_a_folder_that_is_no_version_is_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = machine.deploy("systemd", str(tmp_path / "empty"))
    assert (done.returncode, "holds no rag" in done.stderr) == (1, True)
    assert machine.releases() == []

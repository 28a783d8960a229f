"""The units as systemd judges them, and the script that installs them, below a folder of the test's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.arguments import parsed
from rag.ops import backup
from tests.support.waiting import REPOSITORY

UNITS = sorted((REPOSITORY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
TIMERS = [unit for unit in UNITS if unit.suffix == ".timer"]
MOST_EXPOSURE = 1.5
INSTALLER = str(REPOSITORY / "deploy" / "install-vm.sh")
VENV = str(Path(sys.executable).parent.parent)


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def text_of(name: str) -> str:
    return (REPOSITORY / "systemd" / name).read_text(encoding="utf-8")


def values(name: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text_of(name).replace("\\\n", ""), re.MULTILINE)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_is_exposed_no_more_than_promised(unit: Path) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit), LC_ALL="C.UTF-8")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    for other in UNITS:
        copy = other.read_text(encoding="utf-8").replace("/opt/rag-server/.venv/bin/python ", f"{sys.executable} ")
        (tmp_path / other.name).write_text(copy, encoding="utf-8")
    done = run("systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("timer", TIMERS, ids=lambda unit: unit.name)
def test_every_timer_has_its_service_and_a_time_that_systemd_reads(timer: Path) -> None:
    assert timer.with_suffix(".service") in SERVICES
    for when in values(timer.name, "OnCalendar"):
        assert run("systemd-analyze", "calendar", when).returncode == 0


def test_the_services_share_user_settings_and_folders() -> None:
    for key in ("User", "Group", "WorkingDirectory"):
        assert len({tuple(values(unit.name, key)) for unit in SERVICES}) == 1, key
    for unit in SERVICES:
        assert "/etc/rag-server.env" in values(unit.name, "EnvironmentFile")
        assert values(unit.name, "StateDirectory")[0].split()[0] == "rag-server"


def test_the_units_run_commands_that_exist() -> None:
    [indexing] = values("rag-index.service", "ExecStart")
    filled = indexing.replace("$SOURCES", "/srv/site /srv/more").replace(
        "$OPTIONS", "--questions /srv/questions.jsonl --min-ndcg 0.8"
    )
    options = parsed(filled.partition("-m indexer ")[2].split())
    assert [str(source) for source in options.sources] == ["/srv/site", "/srv/more"]
    assert options.min_ndcg == 0.8
    [saving] = values("rag-backup.service", "ExecStart")
    saved = backup._arguments(saving.partition("-m rag.backup ")[2].split())
    assert str(saved.folder) == "/var/lib/" + values("rag-backup.service", "StateDirectory")[0].split()[1]


def publishes(tmp_path: Path, verify: int) -> list[str]:
    """What the index service does after a build, where `verify` ends with that code."""
    calls, programs = tmp_path / "calls", tmp_path / "bin"
    programs.mkdir(parents=True)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{calls}\ncase "$*" in *verify) exit {verify} ;; esac\n')
    python.chmod(0o755)
    [command] = values("rag-index.service", "ExecStartPost")
    script = command.partition('"')[2].rpartition('"')[0].replace("/opt/rag-server/.venv/bin", str(programs))
    done = run("/bin/sh", "-c", script)
    return [*calls.read_text().splitlines(), str(done.returncode)]


def test_a_build_that_cannot_be_read_back_is_rolled_back(tmp_path: Path) -> None:
    assert publishes(tmp_path / "sound", 0) == ["-m indexer verify", "0"]
    assert publishes(tmp_path / "damaged", 1) == ["-m indexer verify", "-m indexer rollback", "1"]


def files_below(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and "rag-server-releases" not in path.parts
    }


def install(root: Path) -> subprocess.CompletedProcess[str]:
    done = run(INSTALLER, "install", "--root", str(root), "--venv", VENV)
    assert done.returncode == 0, done.stderr
    return done


def test_the_installer_lays_out_what_the_units_name(tmp_path: Path) -> None:
    install(tmp_path)
    assert {unit.name for unit in (tmp_path / "etc/systemd/system").iterdir()} == {unit.name for unit in UNITS}
    live = tmp_path / "opt" / "rag-server"
    assert live.is_symlink()
    for needed in ("run_production.py", ".venv/bin/python", "rag/ops/backup.py", "indexer/__main__.py", "docs"):
        assert (live / needed).exists(), needed
    assert (tmp_path / "etc/rag-server.env").read_bytes() == (REPOSITORY / ".env.example").read_bytes()
    assert {oct((tmp_path / f"etc/{name}").stat().st_mode)[-3:] for name in ("rag-server.env", "rag-index.env")} == {
        "640"
    }
    assert (tmp_path / "var/lib/rag-server/vector_db").is_dir()


def test_installing_again_keeps_settings_release_and_state(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "etc/rag-server.env").write_text("SITE_NAME=mine\n")
    (tmp_path / "etc/systemd/system/rag-server.service").write_text("an older unit")
    (tmp_path / "var/lib/rag-server/conversations.sqlite3").write_text("said")
    release = (tmp_path / "opt/rag-server").readlink()
    install(tmp_path)
    assert (tmp_path / "etc/rag-server.env").read_text() == "SITE_NAME=mine\n"
    assert (tmp_path / "etc/systemd/system/rag-server.service").read_text() == text_of("rag-server.service")
    assert (tmp_path / "var/lib/rag-server/conversations.sqlite3").read_text() == "said"
    assert (tmp_path / "opt/rag-server").readlink() == release


def test_uninstalling_keeps_what_is_the_operators_and_purging_nothing(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "var/lib/rag-server/conversations.sqlite3").write_text("said")
    assert run(INSTALLER, "uninstall", "--root", str(tmp_path)).returncode == 0
    kept = {"etc/rag-server.env", "etc/rag-index.env", "var/lib/rag-server/conversations.sqlite3"}
    assert files_below(tmp_path).keys() == kept
    assert not any((tmp_path / "opt").iterdir())
    install(tmp_path)
    for _ in range(2):
        assert run(INSTALLER, "uninstall", "--purge", "--root", str(tmp_path)).returncode == 0
        assert files_below(tmp_path) == {}
        assert not any((tmp_path / "opt").iterdir())


def test_a_folder_in_the_place_of_the_link_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "opt/rag-server").mkdir(parents=True)
    done = run(INSTALLER, "install", "--root", str(tmp_path), "--venv", VENV)
    assert (done.returncode, "move it aside" in done.stderr) == (1, True)
    assert not (tmp_path / "etc/systemd").exists()

"""The shared SQLite file and its steady time, with real files and, where processes must agree, real processes."""

import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from rag.errors import StateUnavailable
from rag.stores.sqlite.file import Clocks, StateFile
from tests.support.waiting import REPOSITORY

DAY_S = 86_400.0
NOTES = ("CREATE TABLE notes (at REAL, text TEXT)",)


@dataclass
class Hands:
    """Clocks whose hands a test moves."""

    wall: float = 1_800_000_000.0
    monotonic: float = 500.0

    def clocks(self, boot_id: str = "first boot") -> Clocks:
        return Clocks(wall_s=lambda: self.wall, monotonic_s=lambda: self.monotonic, boot_id=boot_id)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def open_notes(path: Path, clocks: Clocks, migrations: tuple[str, ...] = NOTES) -> StateFile:
    return StateFile(
        path=path,
        migrations=migrations,
        newest_sql="SELECT max(at) FROM notes",
        synchronous="NORMAL",
        busy_timeout_ms=100,
        clocks=clocks,
    )


def note(file: StateFile, text: str = "") -> None:
    with file.transaction() as connection:
        connection.execute("INSERT INTO notes (at, text) VALUES (?, ?)", (file.now_s(), text))


def test_new_files_and_new_folders_are_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "notes.sqlite3"
    before = os.umask(0)
    try:
        file = open_notes(path, Hands().clocks())
        note(file)
    finally:
        os.umask(before)
    found = [path.parent.parent, *path.parent.parent.rglob("*")]
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in found}
    assert modes == {
        "state": 0o700,
        "deep": 0o700,
        "notes.sqlite3": 0o600,
        "notes.sqlite3-wal": 0o600,
        "notes.sqlite3-shm": 0o600,
    }


def test_an_older_schema_is_brought_up_to_date_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite3"
    old = open_notes(path, Hands().clocks())
    note(old, "kept")
    old.close()
    new = open_notes(path, Hands().clocks(), (*NOTES, "ALTER TABLE notes ADD COLUMN author TEXT DEFAULT 'nobody'"))
    assert new.read("SELECT text, author FROM notes") == [("kept", "nobody")]
    assert new.read("PRAGMA user_version") == [(2,)]


def test_a_migration_that_fails_leaves_the_older_schema(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite3"
    old = open_notes(path, Hands().clocks())
    note(old, "kept")
    broken = open_notes(path, Hands().clocks(), (*NOTES, "CREATE TABLE extra (x); CREATE TABLE notes (x)"))
    with pytest.raises(StateUnavailable):
        broken.now_s()
    assert old.read("SELECT text FROM notes") == [("kept",)]
    assert old.read("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'") == [(0,)]


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite3"
    newer = open_notes(path, Hands().clocks(), (*NOTES, "CREATE TABLE extra (x)"))
    note(newer)
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StateUnavailable) as refused:
        note(open_notes(path, Hands().clocks()))
    assert str(path) in str(refused.value)
    assert "schema version 2, this release knows 1" in str(refused.value)
    assert "run the newer release again" in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_jump_of_the_wall_clock_does_not_move_steady_time(tmp_path: Path, jump_s: float) -> None:
    hands = Hands()
    file = open_notes(tmp_path / "notes.sqlite3", hands.clocks())
    started_at = file.now_s()
    assert started_at == pytest.approx(hands.wall, abs=1e-6)
    hands.wall += jump_s
    hands.pass_time(10)
    file.checkpoint()
    assert file.now_s() - started_at == pytest.approx(10, abs=1e-6)
    assert file.to_wall_s(file.now_s() - 3) == pytest.approx(hands.wall - 3, abs=1e-6)


def test_everyone_on_one_boot_reads_the_very_same_time(tmp_path: Path) -> None:
    hands = Hands(monotonic=0.1)
    early = open_notes(tmp_path / "notes.sqlite3", hands.clocks())
    early.now_s()
    hands.pass_time(1234.567)
    early.checkpoint()
    hands.wall -= DAY_S
    late = open_notes(tmp_path / "notes.sqlite3", hands.clocks())
    assert late.now_s() == early.now_s()


def test_after_a_reboot_time_goes_on_by_what_the_wall_clock_says(tmp_path: Path) -> None:
    hands = Hands()
    file = open_notes(tmp_path / "notes.sqlite3", hands.clocks())
    before = file.now_s()
    hands.wall += DAY_S  # set by hand, long before the reboot: no time that passed
    hands.pass_time(100)
    file.close()
    hands.wall += 60
    hands.monotonic = 5.0
    rebooted = open_notes(tmp_path / "notes.sqlite3", hands.clocks("second boot"))
    assert rebooted.now_s() - before == pytest.approx(160, abs=1e-6)


def test_after_a_reboot_with_the_wall_clock_behind_time_is_never_earlier_than_what_is_stored(tmp_path: Path) -> None:
    hands = Hands()
    file = open_notes(tmp_path / "notes.sqlite3", hands.clocks())
    file.now_s()
    hands.pass_time(100)
    note(file)
    written_at = file.now_s()
    hands.wall -= DAY_S  # the power fails, nothing is saved, and the machine has no clock of its own
    hands.monotonic = 5.0
    rebooted = open_notes(tmp_path / "notes.sqlite3", hands.clocks("second boot"))
    assert rebooted.now_s() == pytest.approx(written_at, abs=1e-6)


def test_after_a_reboot_with_the_wall_clock_behind_time_goes_on_from_where_it_was_saved(tmp_path: Path) -> None:
    hands = Hands()
    file = open_notes(tmp_path / "notes.sqlite3", hands.clocks())
    before = file.now_s()
    hands.pass_time(100)
    file.close()
    hands.wall -= DAY_S
    hands.monotonic = 5.0
    rebooted = open_notes(tmp_path / "notes.sqlite3", hands.clocks("second boot"))
    assert rebooted.now_s() - before == pytest.approx(100, abs=1e-6)


def test_a_block_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    file = open_notes(tmp_path / "notes.sqlite3", Hands().clocks())

    def write_and_fail() -> None:
        with file.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES (1, 'half')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    note(file, "whole")
    assert file.read("SELECT text FROM notes") == [("whole",)]


def test_a_locked_file_is_unavailable_and_works_again_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite3"
    file = open_notes(path, Hands().clocks())
    note(file, "before")
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateUnavailable, match="another process holds it locked"):
        note(file, "refused")
    other.execute("ROLLBACK")
    note(file, "after")
    assert file.read("SELECT text FROM notes") == [("before",), ("after",)]


@pytest.mark.parametrize(
    ("content", "remedy"),
    [(b"certainly no database " * 500, "move the file aside"), (None, "check the file and its disk")],
)
def test_what_is_no_database_is_unavailable_with_a_remedy(tmp_path: Path, content: bytes | None, remedy: str) -> None:
    path = tmp_path / "notes.sqlite3"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(StateUnavailable, match=remedy) as refused:
        note(open_notes(path, Hands().clocks()))
    assert str(path) in str(refused.value)


def test_a_deleted_file_is_let_go_so_that_all_meet_on_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite3"
    one, two = open_notes(path, Hands().clocks()), open_notes(path, Hands().clocks())
    note(one, "gone")
    note(two, "gone")
    for leftover in tmp_path.iterdir():
        leftover.unlink()
    one.check()
    two.check()
    note(one, "met")
    assert two.read("SELECT text FROM notes") == [("met",)]


def test_processes_that_create_files_at_once_agree_on_schema_and_time(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"notes-{number}.sqlite3") for number in range(30)]
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, *paths],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        offsets = {worker.communicate(timeout=30)[0].strip() for worker in workers}
    finally:
        for worker in workers:
            worker.kill()
    assert len(offsets) == 1
    for path in paths:
        assert open_notes(Path(path), Clocks.system()).read("SELECT count(*) FROM notes") == [(6,)]


def test_the_systems_clocks_agree_with_the_wall_and_name_one_boot(tmp_path: Path) -> None:
    file = open_notes(tmp_path / "notes.sqlite3", Clocks.system())
    assert file.now_s() == pytest.approx(time.time(), abs=5)
    assert Clocks.system().boot_id == Clocks.system().boot_id != ""


def create_and_tell_the_offsets(paths: list[str]) -> None:
    clocks = Clocks.system()
    print("ready", flush=True)
    sys.stdin.readline()
    frozen = Clocks(wall_s=clocks.wall_s, monotonic_s=lambda: 0.0, boot_id=clocks.boot_id)
    offsets = []
    for path in paths:
        file = StateFile(
            path=Path(path),
            migrations=NOTES,
            newest_sql="SELECT max(at) FROM notes",
            synchronous="NORMAL",
            busy_timeout_ms=5_000,
            clocks=frozen,
        )
        note(file)
        offsets.append(file.now_s())
    print(offsets, flush=True)


if __name__ == "__main__":
    create_and_tell_the_offsets(sys.argv[1:])

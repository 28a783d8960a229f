"""`python -m rag.keys`: what it prints, what it keeps, and that two at once lose nothing."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rag.access.key_ring import KeyRing, read_keys
from rag.ops.keys import main
from tests.support.waiting import REPOSITORY


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("API_KEYS_FILE", raising=False)
    return tmp_path / "state" / "keys.jsonl"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0, capsys.readouterr().err
    return capsys.readouterr().out.strip()


def in_force(file: Path, key: str) -> frozenset[str]:
    found = KeyRing(given=(), file=file).find(key)
    return found.scopes if found else frozenset()


def test_a_new_key_is_printed_once_and_alone_and_only_its_hash_is_kept(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = run(capsys, "new", "shop", "--scopes", "chat,ingest", "--expires", "90d")
    assert re.fullmatch(r"rag_\w{8}_\w{49}", key)
    assert in_force(file, key) == {"chat", "ingest"}
    text = file.read_text("utf-8")
    assert key[13:] not in text
    assert json.loads(text)["id"] == key[4:12]
    assert read_keys(file)[0].expires_at == pytest.approx(time.time() + 90 * 86_400, abs=5)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["keys.jsonl"]
    listed = run(capsys, "list")
    assert key[13:] not in listed
    assert re.search(rf"shop +{key[4:12]} +chat,ingest +20", listed)


def test_rotation_lets_the_old_key_live_for_its_grace_and_no_longer(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = run(capsys, "new", "shop", "--scopes", "search")
    new = run(capsys, "rotate", "shop", "--grace", "2h")
    assert in_force(file, old) == in_force(file, new) == {"search"}
    later = time.time() + 7201
    monkeypatch.setattr(time, "time", lambda: later)
    assert (in_force(file, old), in_force(file, new)) == (frozenset(), {"search"})


def test_rotating_twice_neither_prolongs_an_old_key_nor_keeps_one_that_ended(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(capsys, "new", "shop", "--expires", "5h")
    second = run(capsys, "rotate", "shop", "--grace", "1h")
    run(capsys, "rotate", "shop", "--grace", "24h")
    ends = [key.expires_at for key in read_keys(file)]
    assert ends == [pytest.approx(time.time() + hours * 3600, abs=5) for hours in (1, 5, 5)]
    run(capsys, "rotate", "shop", "--grace", "0h")
    run(capsys, "rotate", "shop", "--grace", "1h")
    assert len(read_keys(file)) == 2
    assert not in_force(file, first)
    assert not in_force(file, second)


def test_revoking_ends_every_key_of_a_name_and_no_other(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone, also_gone, kept = run(capsys, "new", "shop"), run(capsys, "rotate", "shop"), run(capsys, "new", "shop2")
    assert run(capsys, "revoke", "shop") == ""
    assert [bool(in_force(file, key)) for key in (gone, also_gone, kept)] == [False, False, True]
    assert file.exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("new", "shop"), "there is a key shop already"),
        (("rotate", "other"), "there is no key other"),
        (("revoke", "other"), "there is no key other"),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_why(
    argv: tuple[str, ...], said: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "new", "shop")
    before = file.read_bytes()
    assert main(argv) == 1
    assert said in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "argv",
    [
        ("new", "a shop"), ("new", "shop", "--scopes", "all"), ("new", "shop", "--expires", "2020-01-01"),
        ("new", "shop", "--expires", "soon"), ("rotate", "shop", "--grace", "2027-01-01"), ("new", "x" * 65), (),
        ("new", "--", "-shop"), ("new", "shop\n"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_read_says_what_is_allowed(
    argv: tuple[str, ...], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert not file.exists()


def test_a_damaged_file_is_not_written_over(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.parent.mkdir()
    file.write_text("who put this here", "utf-8")
    assert main(["new", "shop"]) == 1
    said = capsys.readouterr()
    assert (said.out, "line 1 is no key; nothing was changed" in said.err) == ("", True)
    assert file.read_text("utf-8") == "who put this here"


def test_a_folder_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").write_text("a file", "utf-8")
    assert main(["new", "shop"]) == 1
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert "state" in said


def test_an_empty_list_says_how_to_make_a_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "python -m rag.keys new" in run(capsys, "list")
    assert not file.exists()


def test_twelve_commands_at_once_lose_no_key(file: Path) -> None:
    def new(number: int) -> str:
        command = [sys.executable, "-m", "rag.keys", "new", f"shop-{number}", "--file", str(file)]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(new, range(12)))
    assert all(in_force(file, key) for key in keys)


def test_what_root_writes_the_servers_user_can_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file.parent.mkdir(mode=0o700)
    os.chown(file.parent, 1234, 1234)
    run(capsys, "new", "shop")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1234)
    os.chown(file, 4321, 4321)
    run(capsys, "rotate", "shop")
    assert file.stat().st_uid == 4321

"""Builds on disk: complete or absent, refused with a reason when they are not sound, kept, and brought back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag.errors import BuildDamaged, BuildMismatch, BuildMissing, IndexUnavailable
from rag.search import builds
from tests.support.waiting import REPOSITORY


def publish(root: Path, content: str = "words") -> str:
    """The id of a build with two small files."""
    with builds.writing(root) as staging:
        (staging / "one.bin").write_bytes(content.encode())
        (staging / "two.bin").write_bytes(b"\x00" * 100)
        return builds.publish(root, staging, {"passages": 1})


def manifest_of(root: Path, build_id: str) -> Path:
    return builds.folder_of(root, build_id) / "manifest.json"


def test_a_published_build_is_live_and_complete(tmp_path: Path) -> None:
    build_id = publish(tmp_path)
    assert builds.live_id(tmp_path) == build_id
    assert (tmp_path / "CURRENT").read_text() == f"{build_id}\n"
    manifest = builds.verify(builds.folder_of(tmp_path, build_id))
    assert (manifest["format"], manifest["id"], manifest["passages"]) == (builds.FORMAT, build_id, 1)
    assert manifest["files"].keys() == {"one.bin", "two.bin"}
    assert manifest["files"]["two.bin"]["bytes"] == 100
    assert len(manifest["files"]["two.bin"]["sha256"]) == 64


def test_no_build_is_a_build_missing_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BuildMissing, match="python -m indexer build"):
        builds.live_id(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "latest", "20261120T071707Z", "x" * 10_000, "\x00"])
def test_a_name_that_is_none_is_refused_before_any_file_is_touched(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    (tmp_path / "CURRENT").write_text(name)
    with pytest.raises(BuildDamaged, match="names no build"):
        builds.live_id(tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "CURRENT").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IndexUnavailable):
        builds.live_id(tmp_path)


def test_a_truncated_file_is_refused_by_its_size(tmp_path: Path) -> None:
    folder = builds.folder_of(tmp_path, publish(tmp_path))
    os.truncate(folder / "two.bin", 99)
    with pytest.raises(BuildDamaged, match=r"two\.bin has 99 bytes instead of 100"):
        builds.read_manifest(folder)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    folder = builds.folder_of(tmp_path, publish(tmp_path))
    (folder / "one.bin").unlink()
    with pytest.raises(BuildDamaged, match=r"one\.bin has None bytes"):
        builds.read_manifest(folder)


def test_a_folder_in_a_files_place_is_refused(tmp_path: Path) -> None:
    folder = builds.folder_of(tmp_path, publish(tmp_path))
    (folder / "one.bin").unlink()
    (folder / "one.bin").mkdir()
    with pytest.raises(BuildDamaged, match=r"one\.bin"):
        builds.verify(folder)


@pytest.mark.parametrize("place", [0, 50, 99])
def test_one_flipped_bit_is_refused_by_its_checksum(tmp_path: Path, place: int) -> None:
    folder = builds.folder_of(tmp_path, publish(tmp_path))
    content = bytearray((folder / "two.bin").read_bytes())
    content[place] ^= 0x10
    (folder / "two.bin").write_bytes(content)
    assert builds.read_manifest(folder)
    with pytest.raises(BuildDamaged, match=r"two\.bin does not have the checksum.*rollback"):
        builds.verify(folder)


def test_a_newer_format_is_a_mismatch_and_not_damage(tmp_path: Path) -> None:
    build_id = publish(tmp_path)
    file = manifest_of(tmp_path, build_id)
    file.write_text(file.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(BuildMismatch, match="format 3, this version reads 2; build again, or upgrade"):
        builds.read_manifest(file.parent)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"7", b'"text"', b"{}", b'{"format": 1}', b'{"format": 1, "files": []}',
        b'{"format": 1, "files": {"one.bin": 5}}', b'{"format": 1, "files": {"one.bin": {}}}', b"\xff\xfe", b"\x00" * 9,
        b'{"format": 1, "files": {"one.bin": {"bytes": "many"}}}', b"[" * 5_000, b'{"format": [1], "files": {}}',
    ],
)  # fmt: skip
def test_a_manifest_of_any_wrong_form_is_refused_and_never_a_crash(tmp_path: Path, content: bytes) -> None:
    file = manifest_of(tmp_path, publish(tmp_path))
    file.write_bytes(content)
    with pytest.raises((BuildDamaged, BuildMismatch)):
        builds.verify(file.parent)


def test_a_manifest_without_a_checksum_does_not_vouch_for_its_file(tmp_path: Path) -> None:
    file = manifest_of(tmp_path, publish(tmp_path))
    manifest = json.loads(file.read_bytes())
    del manifest["files"]["one.bin"]["sha256"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(BuildDamaged, match=r"one\.bin"):
        builds.verify(file.parent)


def test_the_last_three_builds_are_kept(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(5)]
    assert builds.kept_ids(tmp_path) == ids[:1:-1]
    assert {path.name for path in (tmp_path / "builds").iterdir()} == set(ids[2:])


def test_the_build_that_was_live_outlives_newer_ones_that_were_not(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]
    builds.rollback(tmp_path, ids[0])
    newest = publish(tmp_path, "next")
    assert builds.kept_ids(tmp_path) == [newest, ids[2], ids[0]]
    assert builds.verify(builds.folder_of(tmp_path, ids[0]))


def test_rollback_goes_back_one_by_one_and_ends_with_a_reason(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]
    assert builds.rollback(tmp_path) == ids[1] == builds.live_id(tmp_path)
    assert builds.rollback(tmp_path) == ids[0] == builds.live_id(tmp_path)
    with pytest.raises(BuildMissing, match="no build before the live one"):
        builds.rollback(tmp_path)
    assert builds.rollback(tmp_path, ids[2]) == builds.live_id(tmp_path)


def test_rollback_never_returns_to_a_build_that_was_rolled_back_from(tmp_path: Path) -> None:
    first, bad = publish(tmp_path, "first"), publish(tmp_path, "bad")
    assert builds.rollback(tmp_path) == first
    publish(tmp_path, "mended")
    assert builds.rollback(tmp_path) == first == builds.live_id(tmp_path)
    with pytest.raises(BuildMissing, match=bad):
        builds.rollback(tmp_path)


def test_rollback_after_a_named_one_returns_to_what_was_live_before_it(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]
    builds.rollback(tmp_path, ids[0])
    builds.rollback(tmp_path, ids[2])
    assert builds.rollback(tmp_path) == ids[0]


def test_the_builds_that_were_live_are_kept_before_one_that_was_rolled_back_from(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]
    builds.rollback(tmp_path)
    mended = publish(tmp_path, "mended")
    assert builds.kept_ids(tmp_path) == [mended, ids[1], ids[0]]
    assert [builds.rollback(tmp_path), builds.rollback(tmp_path)] == [ids[1], ids[0]]


@pytest.mark.parametrize("history", [None, "", "nonsense\n", "\x00\xff"])
def test_a_folder_without_a_record_rolls_back_by_age(tmp_path: Path, history: str | None) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]
    (tmp_path / "HISTORY").unlink()
    if history is not None:
        (tmp_path / "HISTORY").write_bytes(history.encode("latin-1"))
    assert builds.rollback(tmp_path) == ids[1] == builds.live_id(tmp_path)


def test_a_program_that_knows_no_record_may_change_what_is_live(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]
    (tmp_path / "CURRENT").write_text(f"{ids[1]}\n")
    assert builds.rollback(tmp_path) == ids[0]
    (tmp_path / "CURRENT").write_text(f"{ids[2]}\n")
    assert builds.rollback(tmp_path) == ids[0]


def test_a_rollback_is_remembered_by_the_time_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(3)]

    def cut(*_: object) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(builds.history, "write", cut)
        with pytest.raises(OSError, match="power"):
            builds.rollback(tmp_path)
    assert builds.live_id(tmp_path) == ids[1]
    assert builds.rollback(tmp_path) == ids[0]


@pytest.mark.parametrize("current", [None, "nonsense"])
def test_rollback_without_a_readable_name_takes_the_newest_build(tmp_path: Path, current: str | None) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(2)]
    (tmp_path / "CURRENT").unlink()
    if current:
        (tmp_path / "CURRENT").write_text(current)
    assert builds.rollback(tmp_path) == ids[1] == builds.live_id(tmp_path)


def test_rollback_to_a_damaged_build_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    ids = [publish(tmp_path, str(number)) for number in range(2)]
    (builds.folder_of(tmp_path, ids[0]) / "one.bin").write_bytes(b"X")
    with pytest.raises(BuildDamaged):
        builds.rollback(tmp_path)
    assert builds.live_id(tmp_path) == ids[1]


@pytest.mark.parametrize("named", ["../builds", "20200101T000000.000000Z", ""])
def test_rollback_to_a_build_that_is_not_kept_names_those_that_are(tmp_path: Path, named: str) -> None:
    build_id = publish(tmp_path)
    with pytest.raises(BuildMissing, match=build_id):
        builds.rollback(tmp_path, named)


def test_a_failed_build_leaves_nothing_but_the_live_one(tmp_path: Path) -> None:
    build_id = publish(tmp_path)

    def give_up() -> None:
        with builds.writing(tmp_path) as staging:
            (staging / "half.bin").write_bytes(b"half")
            raise RuntimeError("gave up")

    with pytest.raises(RuntimeError, match="gave up"):
        give_up()
    assert builds.live_id(tmp_path) == build_id
    assert [path.name for path in (tmp_path / "builds").iterdir()] == [build_id]


def test_what_an_interrupted_build_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    stale = tmp_path / "builds" / ".staging-20200101T000000.000000Z"
    stale.mkdir(parents=True)
    (stale / "half.bin").write_bytes(b"half")
    assert builds.kept_ids(tmp_path) == []
    publish(tmp_path)
    assert not stale.exists()


def test_one_process_builds_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rag.search import builds\n"
        f"with builds.writing(Path({str(tmp_path)!r})): print('in', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(BlockingIOError), builds.writing(tmp_path):
            pass
        other.kill()
        other.wait()
        # The lock dies with its process, however that ended.
        assert publish(tmp_path) == builds.live_id(tmp_path)


def test_rollbacks_beside_publishers_never_leave_a_name_without_its_build(tmp_path: Path) -> None:
    for number in range(3):
        publish(tmp_path, str(number))
    code = (
        "import sys; from pathlib import Path; from rag.search import builds; from rag.errors import BuildMissing\n"
        f"root = Path({str(tmp_path)!r})\n"
        "for _ in range(150):\n"
        "    try: builds.rollback(root, builds.kept_ids(root)[-1])\n"
        "    except BuildMissing: pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE) as other:
        number = 0
        while other.poll() is None:
            number += 1
            publish(tmp_path, f"build {number}")
            assert builds.live_id(tmp_path) in builds.kept_ids(tmp_path)
        assert other.stderr is not None
        assert (other.returncode, other.stderr.read().decode()) == (0, "")
    assert number > 3
    assert len(builds.kept_ids(tmp_path)) <= builds.KEPT


def test_nothing_of_ours_can_unpickle() -> None:
    ours = [*(REPOSITORY / "rag").rglob("*.py"), *(REPOSITORY / "indexer").rglob("*.py")]
    assert len(ours) > 40
    for file in ours:
        text = file.read_text(encoding="utf-8")
        assert "import pickle" not in text
        assert "allow_pickle=True" not in text
        assert text.count("np.load(") == text.count("allow_pickle=False") - text.count("np.save("), file

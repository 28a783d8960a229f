"""Archives of what the server keeps: real SQLite files, real builds, the real command line."""

import asyncio
import io
import re
import shutil
import stat
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import apsw
import orjson
import pytest

from rag.documents.library import Library
from rag.documents.receiving import receiving
from rag.documents.records import Record
from rag.errors import BuildDamaged, BuildMissing
from rag.ops import backup_archive
from rag.ops.backup_archive import BackupRefused, archives, create, prune, restore, verify
from rag.search import builds
from rag.search.hot import generation
from rag.search.hot.generation import Added
from rag.stores.protocols import Feedback
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.feedback import SqliteFeedback
from rag.stores.sqlite.file import Clocks
from rag.types import Message
from tests.support.server import run_module

SAID = [Message("user", "When are you open?"), Message("assistant", "From nine \udc80 to six.")]
THUMB = Feedback(rating="down", reason="too short", question="When?", answer="Nine.")


async def remember(state: Path, session: str, thumb: Feedback | None = None) -> None:
    conversations = SqliteConversations(path=state / "conversations.sqlite3", clocks=Clocks.system())
    await conversations.append(session, SAID)
    await conversations.close()
    if thumb is not None:
        thumbs = SqliteFeedback(path=state / "feedback.sqlite3", clocks=Clocks.system())
        await thumbs.add(thumb, session_id=session)
        await thumbs.close()


async def remembered(state: Path, session: str) -> tuple[list[Message], list[Feedback]]:
    conversations = SqliteConversations(path=state / "conversations.sqlite3", clocks=Clocks.system())
    history = await conversations.history(session)
    await conversations.close()
    thumbs = SqliteFeedback(path=state / "feedback.sqlite3", clocks=Clocks.system())
    newest = await thumbs.newest(10)
    await thumbs.close()
    return history, newest


def publish(root: Path, text: bytes) -> str:
    with builds.writing(root) as staging:
        (staging / "passages.bin").write_bytes(text)
        return builds.publish(root, staging, {"passages": 1})


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Path]:
    """(state, index) of a server that has been used."""
    state, index = tmp_path / "state", tmp_path / "vector_db"
    asyncio.run(remember(state, "example-session-0001", THUMB))
    publish(index, b"an earlier build")
    publish(index, b"the live build" * 1000)
    return state, index


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def altered(archive: Path, change: dict[str, bytes | None]) -> Path:
    """The archive with members replaced, taken out (None) or added."""
    spoilt = archive.with_name(archive.name.replace("rag-server-2", "rag-server-3"))
    with tarfile.open(archive) as old, tarfile.open(spoilt, "w:gz") as new:
        contents = {member.name: old.extractfile(member).read() for member in old}  # type: ignore[union-attr]
        for name, content in {**contents, **change}.items():
            if content is not None:
                about = tarfile.TarInfo(name)
                about.size = len(content)
                new.addfile(about, io.BytesIO(content))
    return spoilt


def test_what_comes_back_is_what_was_kept(kept: tuple[Path, Path], tmp_path: Path) -> None:
    state, index = kept
    archive = create(state_dir=state, index=index, target=tmp_path / "backups")
    back = tmp_path / "elsewhere"
    restore(archive, state_dir=back / "state", index=back / "vector_db")
    history, [thumb] = asyncio.run(remembered(back / "state", "example-session-0001"))
    assert history == SAID
    assert (thumb.rating, thumb.reason, thumb.question, thumb.answer) == ("down", "too short", "When?", "Nine.")
    live = builds.live_id(back / "vector_db")
    assert live == builds.live_id(index)
    assert builds.kept_ids(back / "vector_db") == [live]
    assert files_in(builds.folder_of(back / "vector_db", live)) == files_in(builds.folder_of(index, live))


def test_nothing_that_was_deleted_gets_into_an_archive(tmp_path: Path) -> None:
    state = tmp_path / "state"
    asyncio.run(remember(state, "example-session-0001"))
    with closing(apsw.Connection(str(state / "conversations.sqlite3"))) as careless:
        # As a file may be that an earlier version, or another tool, has written.
        careless.execute("PRAGMA secure_delete = OFF")
        careless.execute("CREATE TABLE notes (text); INSERT INTO notes VALUES (?)", ("a secret " * 1000,))
        careless.execute("DELETE FROM notes")
        archive = create(state_dir=state, index=None, target=tmp_path / "backups")
    assert b"secret" in b"".join(files_in(state).values())
    verify(archive, into=tmp_path / "opened")
    assert b"secret" not in b"".join(files_in(tmp_path / "opened").values())


def test_a_state_file_with_a_spoilt_page_is_not_taken_for_a_backup(tmp_path: Path) -> None:
    state = tmp_path / "state"
    asyncio.run(remember(state, "example-session-0001"))
    file = state / "conversations.sqlite3"
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(BackupRefused, match=r"is damaged: .*; restore it from an earlier backup"):
        create(state_dir=state, index=None, target=tmp_path / "backups")
    assert archives(tmp_path / "backups") == []


def test_a_copy_is_one_moment_of_a_file_that_is_being_written(tmp_path: Path) -> None:
    state = tmp_path / "state"
    asyncio.run(remember(state, "example-session-0001"))
    writer = apsw.Connection(str(state / "conversations.sqlite3"))
    writer.execute("CREATE TABLE pairs (side TEXT, number INTEGER)")
    stop, written = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with writer:
                writer.execute("INSERT INTO pairs VALUES ('left', ?)", (number,))
                writer.execute("INSERT INTO pairs VALUES ('right', ?)", (number,))
            if number == 200:
                written.set()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert written.wait(30)
        made = [create(state_dir=state, index=None, target=tmp_path / "backups") for _ in range(5)]
    finally:
        stop.set()
        writing.join()
    seen = []
    for number, archive in enumerate(made):
        back = tmp_path / f"back-{number}"
        restore(archive, state_dir=back, index=None)
        assert [path.name for path in back.iterdir()] == ["conversations.sqlite3"]
        copy = apsw.Connection(str(back / "conversations.sqlite3"))
        rows = dict(copy.execute("SELECT side, count(*) FROM pairs GROUP BY side").fetchall())
        assert rows["left"] == rows["right"] >= 200
        seen.append(rows["left"])
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_archives_and_what_is_restored_are_private(kept: tuple[Path, Path], tmp_path: Path) -> None:
    archive = create(state_dir=kept[0], index=kept[1], target=tmp_path / "backups")
    restore(archive, state_dir=tmp_path / "back", index=None)
    private = [archive, *(tmp_path / "back").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (archive.parent, tmp_path / "back")} == {0o700}


def test_nothing_but_the_archive_is_left_in_the_folder(kept: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "backups"
    (target / ".writing-interrupted").mkdir(parents=True)
    archive = create(state_dir=kept[0], index=kept[1], target=target)
    assert {path.name for path in target.iterdir()} == {archive.name, ".lock"}


def test_rate_limits_are_left_out_unless_asked_for(kept: tuple[Path, Path], tmp_path: Path) -> None:
    apsw.Connection(str(kept[0] / "rate_limits.sqlite3")).execute("CREATE TABLE hits (key TEXT)")
    usual = create(state_dir=kept[0], index=None, target=tmp_path / "backups")
    assert set(verify(usual)["files"]) == {"state/conversations.sqlite3", "state/feedback.sqlite3"}
    names = (*backup_archive.STATE_FILES, backup_archive.RATE_LIMITS)
    more = create(state_dir=kept[0], index=None, target=tmp_path / "backups", names=names)
    assert set(verify(more)["files"]) == {f"state/{name}" for name in names}


def test_retention_keeps_the_newest_and_touches_no_other_file(kept: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "backups"
    made = [create(state_dir=kept[0], index=None, target=target) for _ in range(4)]
    (target / "rag-server-mine.tar.gz").write_text("not ours")
    assert prune(target, keep=2) == [made[1], made[0]]
    assert archives(target) == [made[3], made[2]]
    assert (target / "rag-server-mine.tar.gz").exists()


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_a_byte_that_changed_is_noticed_and_nothing_is_put_back(
    kept: tuple[Path, Path], tmp_path: Path, at: float
) -> None:
    archive = create(state_dir=kept[0], index=kept[1], target=tmp_path / "backups")
    content = bytearray(archive.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(BackupRefused, match="is damaged"):
        restore(archive, state_dir=tmp_path / "back", index=tmp_path / "back_index")
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "back_index").exists()


def test_an_archive_that_was_cut_off_is_refused(kept: tuple[Path, Path], tmp_path: Path) -> None:
    archive = create(state_dir=kept[0], index=kept[1], target=tmp_path / "backups")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(BackupRefused, match="is damaged"):
        verify(archive)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state/feedback.sqlite3": b"another"}, "checksum"),
        ({"state/feedback.sqlite3": None}, "is missing"),
        ({"state/../../escaped": b"x"}, "does not belong there"),
        ({"manifest.json": None}, "does not begin with a manifest"),
        ({"manifest.json": b'{"format": 1, "files": {"../escaped": {"bytes": 1, "sha256": ""}}}'}, "does not belong"),
        ({"manifest.json": b'{"format": 2, "files": {}}'}, "format 2, this version reads 1; upgrade first"),
        ({"manifest.json": b"[]"}, "is damaged: TypeError"),
    ],
)
def test_an_archive_that_was_altered_is_refused(
    kept: tuple[Path, Path], tmp_path: Path, change: dict[str, bytes | None], reason: str
) -> None:
    spoilt = altered(create(state_dir=kept[0], index=kept[1], target=tmp_path / "backups"), change)
    with pytest.raises(BackupRefused, match=reason):
        restore(spoilt, state_dir=tmp_path / "back", index=tmp_path / "back_index")
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.rglob("escaped"))


def test_a_restore_overwrites_nothing(kept: tuple[Path, Path], tmp_path: Path) -> None:
    state, index = kept
    archive = create(state_dir=state, index=index, target=tmp_path / "backups")
    before = files_in(index)
    with pytest.raises(BackupRefused, match=r"already holds conversations\.sqlite3; stop the server and move"):
        restore(archive, state_dir=state, index=tmp_path / "free")
    with pytest.raises(BackupRefused, match="already holds CURRENT"):
        restore(archive, state_dir=tmp_path / "free", index=index)
    assert not (tmp_path / "free").exists()
    assert files_in(index) == before


def test_a_write_ahead_log_that_was_left_behind_is_not_mixed_with_a_restored_file(
    kept: tuple[Path, Path], tmp_path: Path
) -> None:
    archive = create(state_dir=kept[0], index=None, target=tmp_path / "backups")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "conversations.sqlite3-wal").write_bytes(b"of another file")
    with pytest.raises(BackupRefused, match=r"already holds conversations\.sqlite3-wal"):
        restore(archive, state_dir=tmp_path / "back", index=None)


def test_a_damaged_index_is_not_taken_for_a_backup(kept: tuple[Path, Path], tmp_path: Path) -> None:
    state, index = kept
    passages = builds.folder_of(index, builds.live_id(index)) / "passages.bin"
    content = passages.read_bytes()
    passages.write_bytes(b"X" + content[1:])
    with pytest.raises(BuildDamaged, match="checksum"):
        create(state_dir=state, index=index, target=tmp_path / "backups")
    passages.unlink()
    with pytest.raises(BuildDamaged):
        create(state_dir=state, index=index, target=tmp_path / "backups")
    with pytest.raises(BuildMissing):
        create(state_dir=state, index=tmp_path / "nowhere", target=tmp_path / "backups")
    assert archives(tmp_path / "backups") == []


def test_a_file_that_is_no_database_is_refused(kept: tuple[Path, Path], tmp_path: Path) -> None:
    (kept[0] / "feedback.sqlite3").write_bytes(b"certainly no database " * 500)
    with pytest.raises(BackupRefused, match=r"feedback.sqlite3 cannot be copied: NotADBError"):
        create(state_dir=kept[0], index=None, target=tmp_path / "backups")


def test_the_version_of_a_schema_travels_with_its_file_so_that_an_upgrade_finds_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    asyncio.run(remember(state, "example-session-0001", THUMB))
    archive = create(state_dir=state, index=None, target=tmp_path / "backups")
    restore(archive, state_dir=tmp_path / "back", index=None)
    versions = [
        apsw.Connection(str(folder / "feedback.sqlite3")).pragma("user_version")
        for folder in (state, tmp_path / "back")
    ]
    assert versions[0] == versions[1] >= 1


def test_the_command_line_makes_lists_checks_and_puts_back(kept: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"STATE_DIR": str(kept[0]), "VECTOR_DB_PATH": str(kept[1])}

    def run(*arguments: str) -> tuple[int, str, str]:
        done = run_module("rag.backup", *arguments, env=settings, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    assert run("list") == (0, "no archive in backups; run: python -m rag.backup create\n", "")
    assert run("verify") == (1, "", "no archive in backups; run: python -m rag.backup create\n")
    code, said, _ = run("create", "--keep", "1")
    described = r"backups/rag-server-\S+\.tar\.gz: conversations, feedback, index \S+Z, \d+\.\d MB"
    assert code == 0
    assert re.fullmatch(rf"{described}, \d+\.\d s\n", said)
    code, said, _ = run("create", "--keep", "1")
    assert code == 0
    assert re.search(r"removed backups/rag-server-\S+, older than the 1 newest", said)
    code, said, _ = run("verify")
    assert (code, bool(re.fullmatch(rf"{described}: every checksum is right\n", said))) == (0, True)
    code, said, _ = run("list")
    assert (code, bool(re.fullmatch(rf"{described}\n", said))) == (0, True)
    code, _, fault = run("restore")
    assert (code, "already holds" in fault) == (1, True)
    code, said, _ = run("restore", "--state-dir", "back", "--only", "state")
    assert code == 0
    assert re.fullmatch(rf"{described}\nput back into back, \d+\.\d s\n", said)
    assert asyncio.run(remembered(tmp_path / "back", "example-session-0001"))[0] == SAID
    code, _, fault = run("create", "--keep", "0")
    assert (code, "--keep: 0: allowed is a whole number, 1 or more" in fault) == (2, True)
    (tmp_path / "folder").mkdir()
    assert run("verify", "folder") == (1, "", "folder cannot be read: is a directory\n")
    assert run("verify", "nowhere") == (1, "", "there is no nowhere\n")
    (tmp_path / "taken").write_text("a file where the folder should be")
    assert run("create", "--folder", "taken") == (1, "", "taken: file exists\n")


def test_a_backup_without_an_index_says_how_it_is_made(kept: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"STATE_DIR": str(kept[0]), "VECTOR_DB_PATH": str(tmp_path / "nowhere")}
    done = run_module("rag.backup", "create", env=settings, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no build in" in done.stderr
    assert "no archive was made: --without-index makes one of the rest" in done.stderr
    assert run_module("rag.backup", "create", "--without-index", env=settings, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("gone", "shared", "warned"),
    [
        ((), {}, ""),
        (("feedback.sqlite3",), {}, "WITHOUT feedback.sqlite3: "),
        (("conversations.sqlite3", "feedback.sqlite3"), {}, "WITHOUT conversations.sqlite3 and feedback.sqlite3: "),
        (
            ("conversations.sqlite3",),
            {"REDIS_URL": "redis://127.0.0.1/0"},
            "conversations are in Redis: back that up too",
        ),
        (
            ("conversations.sqlite3", "feedback.sqlite3"),
            {"DATABASE_URL": "postgresql://127.0.0.1/rag"},
            "conversations, feedback and all else are in PostgreSQL: back that up too, with pg_dump",
        ),
        ((), {"VECTOR_DB_URL": "postgresql://127.0.0.1/rag"}, "the index is in PostgreSQL: it can be built again"),
    ],
)
def test_a_backup_says_which_state_it_has_not_found(
    kept: tuple[Path, Path], tmp_path: Path, gone: tuple[str, ...], shared: dict[str, str], warned: str
) -> None:
    for name in gone:
        (kept[0] / name).unlink()
    settings = {"STATE_DIR": str(kept[0]), "VECTOR_DB_PATH": str(kept[1]), **shared}
    done = run_module("rag.backup", "create", env=settings, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith(warned)
    assert bool(done.stderr) is bool(warned)
    assert ("not in " + str(kept[0]) in done.stderr) is warned.startswith("WITHOUT")


def test_a_second_backup_waits_its_turn(kept: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"STATE_DIR": str(kept[0]), "VECTOR_DB_PATH": str(kept[1])}
    (tmp_path / "backups").mkdir()
    with backup_archive._alone(tmp_path / "backups"):
        done = run_module("rag.backup", "create", env=settings, cwd=tmp_path)
    assert (done.returncode, "another backup is running in backups" in done.stderr) == (1, True)


def test_the_manifest_is_the_first_member_and_says_when(kept: tuple[Path, Path], tmp_path: Path) -> None:
    archive = create(state_dir=kept[0], index=kept[1], target=tmp_path / "backups")
    with tarfile.open(archive) as opened:
        first = opened.next()
        assert first is not None
        assert first.name == "manifest.json"
        manifest = orjson.loads(opened.extractfile(first).read())  # type: ignore[union-attr]
    assert manifest == verify(archive)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest["created_at"])


def test_documents_beside_the_build_are_kept_and_put_back(tmp_path: Path) -> None:
    index, back = tmp_path / "vector_db", tmp_path / "back"
    publish(index, b"the live build")
    with generation.adding(index) as staging:
        (staging / "passages.bin").write_bytes(b"added")
        segment = generation.seal(index, staging, {"passages": 1})
        generation.change(index, lambda _: [Added("one", "one.md", "00", "2026", segment, 0, 1)])
    archive = create(state_dir=tmp_path / "none", index=index, target=tmp_path / "backups")
    assert restore(archive, state_dir=None, index=back) == verify(archive)
    assert generation.read(back) == generation.read(index)
    kept = {name: content for name, content in files_in(index).items() if not name.startswith(".")}
    assert {name: content for name, content in files_in(back).items() if not name.startswith(".")} == kept
    with pytest.raises(BackupRefused, match="already holds"):
        restore(archive, state_dir=None, index=back)
    shutil.rmtree(generation.folder_of(index, segment))
    with pytest.raises(BuildDamaged):
        create(state_dir=tmp_path / "none", index=index, target=tmp_path / "backups")


def test_uploads_are_kept_and_put_back(kept: tuple[Path, Path], tmp_path: Path) -> None:
    state, index = kept
    library = Library(state / "documents")

    def upload(name: str, content: bytes) -> Record:
        with receiving(library.folder, limit_bytes=1000) as places:
            file = places.begin(name)
            file.write(content)
            return library.put([file.whole()])[0]

    live, waiting = upload("live.md", b"read already"), upload("waiting.md", b"not yet")
    library.mark(live, "live", passages=1)
    library.discard(upload("removed.md", b"nobody's any more").id)
    archive = create(state_dir=state, index=index, target=tmp_path / "backups")
    assert "documents" in run_module("rag.backup", "list", env={"DEMO": "true"}, cwd=tmp_path).stdout
    restore(archive, state_dir=tmp_path / "back", index=None)
    assert not any(b"nobody's any more" in content for content in files_in(tmp_path / "back").values())
    back = Library(tmp_path / "back" / "documents")
    assert back.records() == library.records()
    assert back.original(live).read_bytes() == b"read already"
    assert [record.name for record in back.waiting()] == ["waiting.md"]
    assert stat.S_IMODE(back.original(waiting).stat().st_mode) == 0o600
    with pytest.raises(BackupRefused, match="already holds"):
        restore(archive, state_dir=tmp_path / "back", index=None)

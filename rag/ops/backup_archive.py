"""Writes, checks and puts back one archive of everything that the server keeps, while it runs.

One archive holds conversations, feedback and the live build of the index, with a manifest of checksums in front.
Conversations and feedback are copied row by row: one moment of each file, whoever writes meanwhile.
It must not know what is in the files, nor anything of HTTP and models; of the server it needs nothing running.

    rag-server-<UTC time>.tar.gz
        manifest.json           format, when, and size and SHA-256 of every other member
        state/<name>.sqlite3    one file, without a write-ahead log beside it
    state/documents.tar     what was uploaded, where something was
        index/<build>/<file>    the live build
    index/GENERATION        what was added beside it, where something was, with index/segments/<segment>/<file>
"""

import fcntl
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import apsw
import orjson

from rag import durable
from rag.documents import copying as documents
from rag.errors import BuildDamaged, RagError
from rag.search.hot import copying

FORMAT = 1
"""Rises when the archive changes its meaning; another one is refused."""
CONVERSATIONS = "conversations.sqlite3"
FEEDBACK = "feedback.sqlite3"
STATE_FILES = (CONVERSATIONS, FEEDBACK)
DOCUMENTS = "documents.tar"
"""What was uploaded, in one file: originals may be thousands."""
RATE_LIMITS = "rate_limits.sqlite3"
"""Minutes old at most, and worthless an hour later: only kept where it is asked for."""

_ARCHIVE = re.compile(r"rag-server-\d{8}T\d{6}\.\d{6}Z\.tar\.gz")
_STATE_MEMBER = re.compile(r"state/(?:[a-z_]+\.sqlite3|documents\.tar)")
_INDEX_MEMBER = re.compile(f"index/{copying.NAME}")
_CHUNK_BYTES = 1 << 20
_COMPRESSION = 3
"""Vectors do not shrink, texts do at the lowest levels already."""


class BackupRefused(RagError):
    """A backup that cannot be made, trusted or put back; `str(error)` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive that is being written."""

    name: str
    content: IO[bytes]
    bytes: int
    sha256: str


def create(*, state_dir: Path, index: Path | None, target: Path, names: Sequence[str] = STATE_FILES) -> Path:
    """Write one archive into `target` and return it. `index` None leaves the index out.

    State files that do not exist yet are left out. The archive appears under its name when it is whole and on disk.
    Raises `BackupRefused`, `IndexUnavailable`, `OSError`; `BlockingIOError` while another backup runs there.
    """
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(target), ExitStack() as stack:
        for left in target.glob(".writing-*"):
            shutil.rmtree(left)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".writing-", dir=target)))
        members = [_member(f"state/{name}", _copied(state_dir / name, work / name), stack)
                   for name in names if (state_dir / name).exists()]  # fmt: skip
        if documents.write(state_dir / "documents", work / DOCUMENTS):
            members.append(_member(f"state/{DOCUMENTS}", (work / DOCUMENTS).open("rb"), stack))
        members += _live_index(index, stack) if index is not None else []
        if not members:
            raise BackupRefused(f"there is nothing to back up in {state_dir}; set STATE_DIR as the server has it")
        now = datetime.now(UTC)
        files = {member.name: {"bytes": member.bytes, "sha256": member.sha256} for member in members}
        manifest = {"format": FORMAT, "created_at": now.isoformat(timespec="seconds"), "files": files}
        unfinished = work / "archive"
        with unfinished.open("xb") as file:
            unfinished.chmod(0o600)
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_COMPRESSION) as archive:
                head = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
                _add(archive, "manifest.json", io.BytesIO(head), len(head), now)
                for member in members:
                    _add(archive, member.name, member.content, member.bytes, now)
            file.flush()
            os.fsync(file.fileno())
        whole = target / f"rag-server-{now:%Y%m%dT%H%M%S.%fZ}.tar.gz"
        unfinished.rename(whole)
        durable.sync(target)
        return whole


def archives(folder: Path) -> list[Path]:
    """The archives in a folder, newest first."""
    found = [path for path in folder.iterdir() if _ARCHIVE.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.name, reverse=True)


def prune(folder: Path, *, keep: int) -> list[Path]:
    """Remove all but the `keep` newest archives; return what was removed. Other files are nobody's business."""
    gone = archives(folder)[keep:]
    for path in gone:
        path.unlink()
    return gone


def verify(archive: Path, *, into: Path | None = None) -> dict[str, Any]:
    """The manifest, after every checksum was computed again; with `into`, the members are written there on the way.

    Raises `BackupRefused` for an archive that is not what was written.
    """
    try:
        with tarfile.open(archive, "r:gz") as opened:
            members = iter(opened)
            manifest = _manifest(archive, opened, next(members, None))
            wanted = dict(manifest["files"])
            for member in members:
                about = wanted.pop(member.name, None)
                content = opened.extractfile(member) if about and member.isreg() else None
                if content is None:
                    raise _damaged(archive, f"{member.name!r} does not belong there")
                found = _written(content, into / member.name if into else None)
                if found != (about["bytes"], about["sha256"]):
                    raise _damaged(archive, f"{member.name} does not have the checksum of the manifest")
    except FileNotFoundError:
        raise BackupRefused(f"there is no {archive}") from None
    except (PermissionError, IsADirectoryError) as error:
        raise BackupRefused(f"{archive} cannot be read: {str(error.strerror).lower()}") from None
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(archive, type(error).__name__) from error
    if wanted:
        raise _damaged(archive, f"{', '.join(sorted(wanted))} is missing")
    return manifest


def restore(archive: Path, *, state_dir: Path | None, index: Path | None) -> dict[str, Any]:
    """Put back what `archive` holds, after checking all of it; return its manifest. None leaves that part out.

    Nothing is ever overwritten: a place that is taken is refused before anything is written. The server must be
    stopped. Raises `BackupRefused`, `OSError`.
    """
    manifest = verify(archive)
    held = {name.partition("/")[0] for name in manifest["files"]}
    places = {part: place for part, place in (("state", state_dir), ("index", index)) if place and part in held}
    if not places:
        raise BackupRefused(f"{archive} holds no {'state' if index is None else 'index'}; nothing was put back")
    if "state" in places:
        names = [name.removeprefix("state/") + tail for name in manifest["files"] for tail in ("", "-wal", "-shm")]
        _refuse_taken(places["state"], [*names, *(["documents"] if f"state/{DOCUMENTS}" in manifest["files"] else [])])
    if "index" in places:
        _refuse_taken(places["index"], copying.TAKEN)
    for part, folder in places.items():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if part == "state" else 0o755)
        # Inside its own folder, so that each file arrives at its place by a rename.
        with tempfile.TemporaryDirectory(prefix=".restoring-", dir=folder) as work:
            verify(archive, into=Path(work))
            put_back = _put_back_state if part == "state" else copying.put_back
            put_back(Path(work) / part, folder)
    return manifest


def _put_back_state(staged: Path, folder: Path) -> None:
    for file in staged.glob("*.sqlite3"):
        file.rename(folder / file.name)
    if (staged / DOCUMENTS).exists():
        documents.put_back(staged / DOCUMENTS, folder / "documents")
    durable.sync(folder)


def _copied(source: Path, copy: Path) -> IO[bytes]:
    """A sound copy of a SQLite file that others may be writing: its rows, and nothing that was deleted from it."""
    try:
        with closing(apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)) as live:
            live.set_busy_timeout(10_000)
            copy.touch(mode=0o600)
            # Row by row, in one read transaction, which no writer waits for. A copy of the pages would hold what stands
            # in the free ones too.
            live.execute("VACUUM INTO ?", (str(copy),))
            with closing(apsw.Connection(str(copy))) as copied:
                if (found := copied.execute("PRAGMA integrity_check").get) != "ok":
                    raise apsw.CorruptError(found)
    except apsw.CorruptError as error:
        raise BackupRefused(f"{source} is damaged: {error}; restore it from an earlier backup") from error
    except apsw.Error as error:
        raise BackupRefused(f"{source} cannot be copied: {type(error).__name__}: {error}") from error
    return copy.open("rb")


def _live_index(root: Path, stack: ExitStack) -> list[Member]:
    members = []
    for held in copying.opened(root):
        member = _member(f"index/{held.name}", held.content, stack)
        if held.sha256 not in (None, member.sha256):
            raise BuildDamaged(f"{root}: {held.name} does not have its checksum; run: python -m indexer verify")
        members.append(member)
    return members


def _member(name: str, content: IO[bytes], stack: ExitStack) -> Member:
    stack.enter_context(content)
    sha256 = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    size = content.tell()
    content.seek(0)
    return Member(name, content, size, sha256)


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int, now: datetime) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode, about.mtime = size, 0o600, int(now.timestamp())
    archive.addfile(about, content)


def _manifest(archive: Path, opened: tarfile.TarFile, first: tarfile.TarInfo | None) -> dict[str, Any]:
    content = opened.extractfile(first) if first and first.name == "manifest.json" and first.isreg() else None
    if content is None:
        raise _damaged(archive, "it does not begin with a manifest")
    manifest: dict[str, Any] = orjson.loads(content.read())
    if manifest["format"] != FORMAT:
        raise BackupRefused(f"{archive}: format {manifest['format']}, this version reads {FORMAT}; upgrade first")
    for name in manifest["files"]:
        # A name decides where a file is put: only those that we write ourselves.
        if not _STATE_MEMBER.fullmatch(name) and not _INDEX_MEMBER.fullmatch(name):
            raise _damaged(archive, f"{name!r} does not belong there")
    return manifest


def _written(content: IO[bytes], path: Path | None) -> tuple[int, str]:
    """Size and SHA-256 of what was read, and written to `path` and synced where there is one."""
    if path is None:
        return _passed_on(content, None)
    mode = 0o600 if path.suffix in (".sqlite3", ".tar") else 0o644
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            found = _passed_on(content, file)
            file.flush()
            os.fsync(file.fileno())
            return found
    except OSError as error:
        raise BackupRefused(f"{path} cannot be written: {error.strerror}; nothing was put in place") from error


def _passed_on(content: IO[bytes], file: IO[bytes] | None) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    while chunk := content.read(_CHUNK_BYTES):
        size += len(chunk)
        digest.update(chunk)
        if file is not None:
            file.write(chunk)
    return size, digest.hexdigest()


def _damaged(archive: Path, reason: str) -> BackupRefused:
    return BackupRefused(f"{archive} is damaged: {reason}; take another one, see: python -m rag.backup list")


def _refuse_taken(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).exists():
            raise BackupRefused(f"{folder} already holds {name}; stop the server and move the folder aside")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield

"""Builds on disk: named, checked, published by one rename, kept, and brought back.

    vector_db/CURRENT                    the id of the live build
    vector_db/HISTORY                    the ids of those that were live before, and its own
    vector_db/builds/<id>/manifest.json  format, model, counts, and the SHA-256 of every file beside it
    vector_db/builds/.staging-<id>/      a build that is being written, or that was interrupted
    vector_db/verified/<id>.json         which files of a large build had the right checksums

A build is complete or absent. Knows files and checksums; what is inside the files is `vector_db`'s business.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from rag import durable
from rag.errors import BuildDamaged, BuildMismatch, BuildMissing
from rag.search import history

FORMAT = 2
"""Rises when the files of a build change their meaning; a server refuses a format that it does not know. The second
says of each passage which sections are in it.
"""
READABLE = (1, FORMAT)
KEPT = 3
"""Builds kept beside each other: the live one and what `rollback` can return to."""
LARGE_BYTES = 512 * 1024 * 1024
"""From here on reading a build through takes longer than its server may take to start: a quarter of a second per
worker at this size, with the processor's help for SHA-256."""
ID = re.compile(r"\d{8}T\d{6}\.\d{6}Z")


def live_id(root: Path) -> str:
    """The id in `CURRENT`. Raises `BuildMissing`."""
    try:
        build_id = (root / "CURRENT").read_text("ascii").strip()
    except (OSError, ValueError):
        raise BuildMissing(f"no build in {root}; run: python -m indexer build SOURCE") from None
    if not ID.fullmatch(build_id):
        raise BuildDamaged(f"{root / 'CURRENT'} names no build; run: python -m indexer rollback")
    return build_id


def kept_ids(root: Path) -> list[str]:
    """Ids of the complete builds, newest first."""
    folder = root / "builds"
    names = [path.name for path in folder.iterdir() if ID.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(names, reverse=True)


def folder_of(root: Path, build_id: str) -> Path:
    return root / "builds" / build_id


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, with every file beside it in its full size. Raises `BuildDamaged` or `BuildMismatch`."""
    try:
        manifest = orjson.loads((folder / "manifest.json").read_bytes())
        build_format, files = manifest["format"], manifest["files"]
        if build_format in READABLE:
            sizes = {name: int(about["bytes"]) for name, about in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildDamaged(f"{folder}: no readable manifest ({type(error).__name__}); {_REMEDY}") from None
    if build_format not in READABLE:
        raise BuildMismatch(f"{folder}: format {build_format}, this version reads {FORMAT}; build again, or upgrade")
    for name, size in sizes.items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            found = None
        if found != size:
            raise BuildDamaged(f"{folder}: {name} has {found} bytes instead of {size}; {_REMEDY}")
    return dict(manifest)


def verify(folder: Path, *, anew: bool = False) -> dict[str, Any]:
    """The manifest, once every file was found to have its checksum. Raises as `read_manifest` does.

    A build below `LARGE_BYTES` is read through every time. A larger one is read by the first that asks, and again
    whenever one of its files is no longer the very file that was read then; with `anew` in any case.
    """
    manifest = read_manifest(folder)
    is_large = sum(int(about["bytes"]) for about in manifest["files"].values()) >= LARGE_BYTES
    if not is_large:
        _read_through(folder, manifest)
        return manifest
    with _one_reader(folder):
        if anew or not _is_marked(folder, manifest):
            before = _identities(folder, manifest)
            _read_through(folder, manifest)
            _mark(folder, before)
    return manifest


def _read_through(folder: Path, manifest: dict[str, Any]) -> None:
    for name, about in manifest["files"].items():
        try:
            intact = _sha256(folder / name) == about.get("sha256")
        except OSError as error:
            raise BuildDamaged(f"{folder}: {name} cannot be read ({type(error).__name__}); {_REMEDY}") from None
        if not intact:
            raise BuildDamaged(f"{folder}: {name} does not have the checksum of the manifest; {_REMEDY}")


_REMEDY = "run: python -m indexer build SOURCE, or: python -m indexer rollback"


def _identities(folder: Path, manifest: dict[str, Any]) -> dict[str, list[Any]]:
    """What changes when a file is written, replaced, or copied elsewhere, beside the checksum it should have."""
    identities: dict[str, list[Any]] = {}
    for name, about in manifest["files"].items():
        try:
            found = (folder / name).stat()
        except OSError:
            raise BuildDamaged(f"{folder}: {name} cannot be read; {_REMEDY}") from None
        identities[name] = [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, about.get("sha256")]
    return identities


def _mark_of(folder: Path) -> Path:
    return folder.parent.parent / "verified" / f"{folder.name}.json"


def _is_marked(folder: Path, manifest: dict[str, Any]) -> bool:
    try:
        return bool(orjson.loads(_mark_of(folder).read_bytes()) == _identities(folder, manifest))
    except (OSError, ValueError):
        return False


def _mark(folder: Path, identities: dict[str, list[Any]]) -> None:
    mark = _mark_of(folder)
    # A server that may only read goes without: it reads everything again, unless whoever may write verifies once.
    with suppress(OSError):
        mark.parent.mkdir(exist_ok=True)
        kept = set(kept_ids(folder.parent.parent))
        for other in mark.parent.iterdir():
            if other.stem not in kept:
                other.unlink(missing_ok=True)
        aside = mark.with_name(f"{mark.name}.{os.getpid()}")
        durable.write(aside, orjson.dumps(identities))
        aside.rename(mark)


@contextmanager
def _one_reader(folder: Path) -> Iterator[None]:
    """One process at a time, so that of several workers one reads gigabytes and the others its mark."""
    try:
        lock = (folder.parent.parent / ".verifying.lock").open("w")
    except OSError:
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def writing(root: Path) -> Iterator[Path]:
    """A staging folder for a new build, by one process at a time; whatever is left of it afterwards is removed.

    Raises `BlockingIOError` while another process is building.
    """
    (root / "builds").mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under the lock nobody else is writing, so staging folders here were left by an interrupted build.
        for stale in (root / "builds").glob(".staging-*"):
            shutil.rmtree(stale)
        staging = root / "builds" / f".staging-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def publish(root: Path, staging: Path, manifest: dict[str, Any]) -> str:
    """Complete the build in `staging` and make it live; return its id. Older builds beyond `KEPT` are removed.

    Every byte is on disk before the name is, and `CURRENT` changes last: whoever looks, after a power cut too, finds
    the old build or the new one.
    """
    build_id = staging.name.removeprefix(".staging-")
    files = seal(staging, manifest)
    with _naming(root):
        staging.rename(folder_of(root, build_id))
        durable.sync(root / "builds")
        make_live(root, build_id)
        # What a rollback returns to first: after one, the build that was live is not the newest.
        order = _order(root)
        never = [kept_id for kept_id in reversed(kept_ids(root)) if kept_id not in order]
        for old in [*never, *order][:-KEPT]:
            # Under another name first: half a build must never look like a whole one.
            removed = root / "builds" / f".staging-{old}"
            folder_of(root, old).rename(removed)
            shutil.rmtree(removed)
    if sum(path.stat().st_size for path in folder_of(root, build_id).iterdir()) >= LARGE_BYTES:
        # Its bytes went through our hands a moment ago: nobody needs to read them once more.
        _mark(folder_of(root, build_id), _identities(folder_of(root, build_id), {"files": files}))
    return build_id


def seal(staging: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Add the manifest, and put all of `staging` on disk; return what is said of each file."""
    files = {}
    for path in sorted(staging.iterdir()):
        durable.sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    about = {
        "format": FORMAT,
        "id": staging.name.removeprefix(".staging-"),
        "created_at": datetime.now(UTC).isoformat(),
    }
    durable.write(
        staging / "manifest.json", orjson.dumps({**about, **manifest, "files": files}, option=orjson.OPT_INDENT_2)
    )
    durable.sync(staging)
    return files


@contextmanager
def _naming(root: Path) -> Iterator[None]:
    """One process at a time: a rollback must not name a build that a publisher is about to remove."""
    with (root / ".naming.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _live_id(root: Path) -> str | None:
    try:
        return live_id(root)
    except (BuildMissing, BuildDamaged):
        return None


def _order(root: Path) -> list[str]:
    """Kept builds in the order in which they went live, the live one last; see `live_order`."""
    return history.read(root, live=_live_id(root), kept=kept_ids(root))


def make_live(root: Path, build_id: str) -> None:
    """Name `build_id` in `CURRENT`, by one rename."""
    order = _order(root)
    durable.replace(root / "CURRENT", f"{build_id}\n".encode())
    # After the name: a record that a power cut leaves behind follows the name, never the other way round.
    history.write(root, history.after(order, build_id))


def rollback(root: Path, build_id: str | None = None) -> str:
    """Make `build_id`, or else the build that was live before the live one, live, after checking it; return its id.

    Raises `BuildMissing` where there is none to return to, `BuildDamaged` for one that is not sound.
    """
    if not kept_ids(root):
        raise BuildMissing(f"no build is kept in {root}; run: python -m indexer build SOURCE")
    with _naming(root):
        return _rollback(root, build_id)


def _rollback(root: Path, build_id: str | None) -> str:
    kept = kept_ids(root)
    if build_id is None:
        live, order = _live_id(root), _order(root)
        # Where nothing is live any more, it is the one that was.
        earlier = [kept_id for kept_id in order if kept_id != live]
        if not earlier:
            others = ", ".join(kept_id for kept_id in kept if kept_id != live) or "none"
            raise BuildMissing(
                f"no build before the live one is kept in {root}; others are: {others}; name one: rollback BUILD"
            )
        build_id = earlier[-1]
    elif build_id not in kept:
        raise BuildMissing(f"no build {build_id} in {root}; kept are: {', '.join(kept) or 'none'}")
    verify(folder_of(root, build_id), anew=True)
    make_live(root, build_id)
    return build_id


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The command line of backups: `python -m rag.backup create | list | verify | restore`.

Reads from the settings where state and index are; what an archive is stands in `backup_archive`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag.errors import ConfigError, IndexUnavailable, RagError
from rag.ops.backup_archive import (
    CONVERSATIONS,
    FEEDBACK,
    RATE_LIMITS,
    STATE_FILES,
    BackupRefused,
    archives,
    create,
    prune,
    restore,
    verify,
)
from rag.settings import Settings

KEPT = 14
"""Archives that stay in a folder: two weeks of a daily timer."""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rag.backup", description="Backups, while the server runs.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, meaning: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.add_argument(
            "--folder", type=Path, default=Path("backups"), metavar="FOLDER", help="the archives; default: backups"
        )
        return added

    making = command("create", "write an archive of conversations, feedback and the live index")
    making.add_argument("--keep", type=_at_least_one, default=KEPT, metavar="N", help=f"newest kept; default {KEPT}")
    making.add_argument("--without-index", action="store_true", help="conversations and feedback only")
    making.add_argument(
        "--with-rate-limits", action="store_true", help="what visitors have used up of their limits too"
    )
    command("list", "the archives, newest first")
    checking = command("verify", "compute every checksum of an archive again")
    checking.add_argument("archive", nargs="?", type=Path, metavar="ARCHIVE", help="default: the newest one")
    restoring = command("restore", "put an archive back into empty places; the server must be stopped")
    restoring.add_argument("archive", nargs="?", type=Path, metavar="ARCHIVE", help="default: the newest one")
    restoring.add_argument("--state-dir", type=Path, metavar="FOLDER", help="default: STATE_DIR")
    restoring.add_argument("--index", type=Path, metavar="FOLDER", help="default: VECTOR_DB_PATH")
    restoring.add_argument("--only", choices=("state", "index"), help="put back this part alone")
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: allowed is a whole number, 1 or more")
    return number


def _create(options: argparse.Namespace, settings: Settings) -> int:
    started_s = time.monotonic()
    try:
        made = create(
            state_dir=settings.state_dir,
            index=None if options.without_index or settings.vector_db_url else settings.vector_db_path,
            target=options.folder,
            names=(*STATE_FILES, RATE_LIMITS) if options.with_rate_limits else STATE_FILES,
        )
    except IndexUnavailable as error:
        raise BackupRefused(f"{error}; no archive was made: --without-index makes one of the rest") from error
    manifest = verify(made)
    print(f"{_described(made, manifest)}, {time.monotonic() - started_s:.1f} s")
    for line in _missing(manifest, settings):
        print(line, file=sys.stderr)
    for gone in prune(options.folder, keep=options.keep):
        print(f"removed {gone}, older than the {options.keep} newest")
    return 0


def _missing(manifest: dict[str, Any], settings: Settings) -> list[str]:
    """What a reader of the archive would look for and not find, in sentences."""
    lines = []
    elsewhere = {CONVERSATIONS} if settings.redis_url or settings.database_url else set[str]()
    elsewhere |= {FEEDBACK} if settings.database_url else set()
    expected = [name for name in STATE_FILES if name not in elsewhere]
    absent = [name for name in expected if f"state/{name}" not in manifest["files"]]
    if absent:
        lines.append(
            f"WITHOUT {' and '.join(absent)}: not in {settings.state_dir.absolute()}. If the server keeps its state "
            "elsewhere, set STATE_DIR as it has it; with Docker Compose run this in the container (docs/recovery.md)"
        )
    if settings.database_url:
        lines.append(
            "conversations, feedback and all else are in PostgreSQL: back that up too, with pg_dump (docs/recovery.md)"
        )
    elif settings.redis_url:
        lines.append("conversations are in Redis: back that up too")
    if settings.vector_db_url:
        lines.append("the index is in PostgreSQL: it can be built again, or kept with pg_dump (docs/recovery.md)")
    return lines


def _list(options: argparse.Namespace) -> int:
    found = archives(options.folder)
    for archive in found:
        try:
            print(_described(archive, verify(archive)))
        except BackupRefused as error:
            print(error)
    if not found:
        print(f"no archive in {options.folder}; run: python -m rag.backup create")
    return 0


def _restore(options: argparse.Namespace, settings: Settings) -> int:
    archive = _chosen(options)
    state_dir = None if options.only == "index" else options.state_dir or settings.state_dir
    index = None if options.only == "state" else options.index or settings.vector_db_path
    started_s = time.monotonic()
    manifest = restore(archive, state_dir=state_dir, index=index)
    places = " and ".join(str(place) for place in (state_dir, index) if place is not None)
    print(f"{_described(archive, manifest)}\nput back into {places}, {time.monotonic() - started_s:.1f} s")
    return 0


def _chosen(options: argparse.Namespace) -> Path:
    if options.archive is not None:
        return Path(options.archive)
    if found := archives(options.folder):
        return found[0]
    raise BackupRefused(f"no archive in {options.folder}; run: python -m rag.backup create")


def _described(archive: Path, manifest: dict[str, Any]) -> str:
    names = [Path(name) for name in manifest["files"]]
    parts = [name.stem for name in names if name.parts[0] == "state"]
    parts += sorted({f"index {name.parts[1]}" for name in names if len(name.parts) == 3 and name.parts[0] == "index"})
    parts += ["added documents"] if "index/GENERATION" in manifest["files"] else []
    return f"{archive}: {', '.join(parts)}, {archive.stat().st_size / 1e6:.1f} MB"


def main(argv: Sequence[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 with one clear sentence when it could not."""
    options = _arguments(argv)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        match options.command:
            case "create":
                return _create(options, Settings.from_environment())
            case "list":
                return _list(options)
            case "verify":
                archive = _chosen(options)
                print(f"{_described(archive, verify(archive))}: every checksum is right")
                return 0
            case _:
                return _restore(options, Settings.from_environment())
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
    except BlockingIOError:
        print(f"another backup is running in {options.folder}; wait for it, or stop it", file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or options.folder}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
    except RagError as error:
        print(str(error), file=sys.stderr)
    return 1

"""The command line of API keys: `python -m rag.keys new | list | rotate | revoke`.

Writes the file of keys, which holds their hashes, and prints a new key once. Running servers read it by themselves.
"""

import argparse
import contextlib
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag import api_keys
from rag.access.key_ring import read_keys
from rag.api_keys import ApiKey
from rag.errors import ConfigError, RagError
from rag.settings import Settings


class KeyRefused(RagError):
    """What was asked for cannot be done; `str(error)` says why."""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rag.keys", description="API keys, while the server runs.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, meaning: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.add_argument("--file", type=Path, metavar="FILE", help="default: API_KEYS_FILE")
        if name != "list":
            added.add_argument("name", metavar="NAME", type=_checked(api_keys.checked_name))
        return added

    making = command("new", "make a key, and print it: it is kept nowhere")
    making.add_argument(
        "--scopes", type=_checked(api_keys.parsed_scopes), default=api_keys.VISITORS_SCOPES, metavar="SCOPES",
        help=f"out of {', '.join(api_keys.SCOPES)}, comma-separated; default: chat,search",
    )  # fmt: skip
    command("list", "every key: name, id, scopes, when it was made and when it ends")
    rotating = command("rotate", "make another key of the same name and scopes, and let the old one end")
    rotating.add_argument("--grace", type=_checked(api_keys.span_s), default="24h", metavar="SPAN",
                          help="how long the old one still works, such as 24h or 7d; default: 24h")  # fmt: skip
    for one in (making, rotating):
        one.add_argument("--expires", type=_checked(_moment_to_come), metavar="WHEN",
                         help="2027-01-01 or 90d; default: never, or as before")  # fmt: skip
    command("revoke", "let every key of that name end now")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 with one clear sentence when it could not."""
    options = _arguments(argv)
    try:
        file = options.file or Settings.from_environment().keys_file
        if options.command == "list":
            _list(read_keys(file))
        else:
            with _changing(file) as keys:
                printed = _change(options, keys)
            # Only now that it is on the disk: nobody should hold a key that is known to no server.
            if printed:
                where = f"its hash is in {file.absolute()}, where the server has to look"
                print(f"The key, which is not shown again; {where}:", file=sys.stderr)
                print(printed)
        return 0
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or options.file}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
    except ValueError as error:
        print(f"{file}: {error}; nothing was changed", file=sys.stderr)
    except RagError as error:
        print(str(error), file=sys.stderr)
    return 1


def _change(options: argparse.Namespace, keys: list[ApiKey]) -> str:
    """Change `keys` as it was asked for; returns the new key, if one was made. Raises `KeyRefused`."""
    named = [key for key in keys if key.name == options.name]
    if options.command == "new" and named:
        raise KeyRefused(f"there is a key {options.name} already; rotate or revoke it, or choose another name")
    if options.command != "new" and not named:
        raise KeyRefused(f"there is no key {options.name}; see: python -m rag.keys list")
    if options.command == "revoke":
        keys[:] = [key for key in keys if key.name != options.name]
        print(f"{options.name} is revoked; running servers know within 5 seconds", file=sys.stderr)
        return ""
    scopes: frozenset[str]
    expires_at: float | None
    scopes, expires_at = named[-1].scopes if named else options.scopes, options.expires
    if options.command == "rotate":
        newest = named[-1]
        if expires_at is None and newest.expires_at is not None:
            if newest.expired():
                raise KeyRefused(f"{options.name} has ended; say when the new key does: --expires 90d")
            expires_at = newest.expires_at
        ends_at = time.time() + options.grace
        # One that ends sooner anyway gains nothing by being rotated.
        keys[:] = [replace(key, expires_at=min(ends_at, key.expires_at or ends_at)) if key in named else key
                   for key in keys if key not in named or not key.expired()]  # fmt: skip
    key = api_keys.new_key()
    made = ApiKey.of(key, name=options.name, scopes=scopes, expires_at=expires_at)
    keys.append(replace(made, created_at=time.time()))
    return key


def _list(keys: Sequence[ApiKey]) -> None:
    if not keys:
        print("no keys; make one: python -m rag.keys new NAME --scopes chat,search")
        return
    rows = [("NAME", "ID", "SCOPES", "CREATED", "EXPIRES")]
    for key in keys:
        created, expires = api_keys.shown_moment(key.created_at), api_keys.shown_moment(key.expires_at)
        ended = " (ended)" if key.expired() else ""
        scopes = ",".join(api_keys.in_order(key.scopes))
        rows.append((key.name, key.id, scopes, created or "-", (expires or "never") + ended))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextlib.contextmanager
def _changing(file: Path) -> Iterator[list[ApiKey]]:
    """The keys, to be changed in place by one process at a time; written when the block ends, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(file)
        yield keys
        _write(file, "".join(json.dumps(key.as_line()) + "\n" for key in keys))
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(file: Path, content: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # readable by its owner alone
    try:
        with open(handle, "w", encoding="utf-8") as written:
            if os.geteuid() == 0:
                # The server's user has to read what root writes.
                owner = (file if file.exists() else file.parent).stat()
                os.fchown(written.fileno(), owner.st_uid, owner.st_gid)
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of argparse's, which itself would not say what is allowed."""

    def checked(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: allowed is {error}") from None

    return checked


def _moment_to_come(text: str) -> float:
    with contextlib.suppress(ValueError):
        return time.time() + api_keys.span_s(text)
    if (at := api_keys.moment(text)) <= time.time():
        raise ValueError("a moment that has not passed")
    return at

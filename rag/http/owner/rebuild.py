"""Builds the index again as it was built last, in a process of its own, beside a server that goes on.

A build remembers the command that made it. One rebuild runs at a time, in whichever worker it was asked for: the child
holds a lock for as long as it lives, and every worker reads what it has said from one file. The gate of the build, if
it has one, decides whether the new one goes live.
"""

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import orjson

from rag.errors import Conflict
from rag.search.live import LiveIndex

LOG = "rebuild.log"
SHOWN_BYTES = 4_000
_ENDED = "· ended with "
_CHILD = f"""import json, os, subprocess, sys
os.environ.update(json.load(sys.stdin))
print('{_ENDED}' + str(subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)), flush=True)
"""
"""Runs the command in its arguments and says how it ended. Variables come by a pipe: a database's address holds a
password, and everybody on the machine sees arguments."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a rebuild is doing, or what became of the last one."""

    state: Literal["never", "running", "done", "failed"]
    said: str
    """The last lines of its output."""


def start(index: LiveIndex, *, state_dir: Path) -> None:
    """Raises `Conflict` where one runs already, or the live build does not say how it was made."""
    made: dict[str, Any] | None = index.build.manifest.get("made_with")
    if made is None:
        detail = "The live build does not say how it was made. Build once by hand: python -m indexer build SOURCE"
        raise Conflict(detail=detail)
    lock = os.open(state_dir / "rebuild.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(detail="A rebuild is running already.") from None
        arguments, variables = index.backend.output()
        command = [sys.executable, "-m", "indexer", "build", *made["arguments"], *arguments]
        with (state_dir / LOG).open("wb") as log:
            # A child of its own session: a worker that is replaced takes nothing down with it.
            child = subprocess.Popen(  # noqa: S603 - the command stands in the manifest, which the operator's build wrote
                [sys.executable, "-c", _CHILD, *command], cwd=made["folder"], stdin=subprocess.PIPE,
                stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock], start_new_session=True,
            )  # fmt: skip
        with cast("IO[bytes]", child.stdin) as told:
            told.write(orjson.dumps(dict(variables)))
    finally:
        os.close(lock)


def progress(*, state_dir: Path) -> Progress:
    try:
        said = (state_dir / LOG).read_bytes()[-SHOWN_BYTES:].decode("utf-8", "replace")
    except OSError:
        return Progress("never", "")
    lines = said.replace("\r", "\n").rstrip().splitlines()
    if lines and lines[-1].startswith(_ENDED):
        state: Literal["done", "failed"] = "done" if lines[-1] == f"{_ENDED}0" else "failed"
        return Progress(state, "\n".join(lines[:-1]))
    return Progress("running" if _is_held(state_dir / "rebuild.lock") else "failed", "\n".join(lines))


def _is_held(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False

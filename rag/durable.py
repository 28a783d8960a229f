"""Bytes that are on disk before anything names them: a power cut leaves the old file or the new one, whole."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write the file, and wait until its bytes are on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file, by one rename; by one process at a time."""
    settle(stage(path, content), path)


def stage(path: Path, content: bytes) -> Path:
    """Write what is to take the file's place beside it, where it is no use yet; nothing is left of what fails."""
    aside = path.with_name(f".{path.name}.new")
    try:
        write(aside, content)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return aside


def settle(aside: Path, path: Path) -> None:
    """The rename alone, which needs no room on the disk."""
    aside.rename(path)
    sync(path.parent)

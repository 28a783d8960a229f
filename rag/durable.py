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
    aside = path.with_name(f".{path.name}.new")
    write(aside, content)
    aside.rename(path)
    sync(path.parent)

"""Arrays on disk, mapped into memory. Knows no build, and none of the files by name."""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

_HEADER = Lock()
"""numpy reads a header with Python's own parser, which in 3.11 may fail where two threads parse at once ("AST
constructor recursion depth mismatch")."""


def mapped(path: Path) -> "np.memmap[Any, Any]":
    """The array in a .npy file, read-only. Raises OSError, and ValueError for what is none or holds objects."""
    with _HEADER:
        array: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array

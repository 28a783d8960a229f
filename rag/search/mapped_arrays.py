"""Arrays on disk, mapped into memory. Knows no build, and none of the files by name."""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

_HEADER = Lock()
"""numpy reads a header with Python's own parser, which in 3.11 may fail where two threads parse at once ("AST
constructor recursion depth mismatch")."""


def mapped(path: Path) -> "np.memmap[Any, Any]":
    """The array in a .npy file, read-only. Raises OSError, and ValueError for what is none or holds objects."""
    with _HEADER:
        array: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def mapped_list(path: Path, kind: type) -> NDArray[Any]:
    """The same for an array of one dimension that holds `kind`; ValueError for another one."""
    values = mapped(path)
    if values.dtype != kind or values.ndim != 1:
        raise ValueError(f"{path.name} holds {values.dtype} in {values.ndim} dimensions")
    # A plain view of the same mapping: numpy's memmap subclass doubles the price of every slice.
    return np.asarray(values)


def writable_list(path: Path, kind: type, length: int) -> NDArray[Any]:
    """A new file's array of one dimension, to be filled in place."""
    if not length:
        # Nothing cannot be mapped.
        np.save(path, np.empty(0, dtype=kind), allow_pickle=False)
        return np.empty(0, dtype=kind)
    return open_memmap(path, mode="w+", dtype=kind, shape=(length,))

"""The files in which each worker counts for itself, so that any of them can tell the sum.

A worker's files outlive it. The master adds what a dead worker counted to one file of the retired and removes the rest:
counters keep their values, and the folder does not grow with every reload. One lock keeps a reader from seeing a worker
twice, or not at all, meanwhile. Knows the form of prometheus-client's files, not what is counted.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it, with a name that nobody can guess
"""Where files are memory. On a disk a worker could stand still while the disk writes back what was counted."""

LOCK_PATIENCE_S = 1.0
"""How long the master waits for readers; a worker that was stopped while reading must not stop the master."""

_PREFIX = "rag-server-metrics-"
_RETIRED = "retired"


def open_folder(state_dir: Path) -> Path:
    """An empty folder for the workers of this master, in memory where that is possible, else in `state_dir`.

    It is this process's until it ends; what earlier ones left behind is removed. Raises `OSError`.
    """
    parent = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else state_dir
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    # Under another name until it is held, or a server that starts at the same moment could take it for a left one.
    unheld = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    owner = os.open(unheld / "owner", os.O_RDWR | os.O_CREAT, 0o600)
    # Never closed: master and workers hold it together, the last of them lets go of it by ending.
    fcntl.flock(owner, fcntl.LOCK_EX)
    return unheld.rename(unheld.with_name(unheld.name[1:]))


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        owner = os.open(folder / "owner", os.O_RDWR)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(owner)


@contextmanager
def reading(folder: Path) -> Iterator[list[str]]:
    """The files to read; none of them changes hands while the block runs. Blocks for milliseconds, not for ever."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        # A file that its worker is just creating is empty for a moment.
        yield [str(path) for path in sorted(folder.glob("*.db")) if path.stat().st_size]
    finally:
        os.close(lock)


def retire(folder: Path, *, alive: Collection[int]) -> None:
    """Take over what workers counted that are not among the `alive` process ids. Called by the master alone.

    A file that cannot be read is dropped; where readers hold the lock for too long, the next call does the work.
    """
    dead = [path for path in folder.glob("*.db") if _process_of(path) not in (*map(str, alive), _RETIRED)]
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not dead or not _locked(lock):
            return
        for path in dead:
            kind = path.stem.rpartition("_")[0]
            if not kind.startswith("gauge"):
                _add(path, folder / f"{kind}_{_RETIRED}.db")
            path.unlink()
    finally:
        os.close(lock)


def _process_of(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _locked(lock: int) -> bool:
    give_up_at = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.005)


def _add(source: Path, target: Path) -> None:
    # Imported late: the library decides at its first import whether counts are shared, by a variable that is set late.
    from prometheus_client.mmap_dict import MmapedDict

    try:
        counted = list(MmapedDict.read_all_values_from_file(str(source)))  # type: ignore[no-untyped-call]
    except Exception:
        log.exception("counts of a dead worker are lost", extra={"file": source.name})
        return
    sums = MmapedDict(str(target))  # type: ignore[no-untyped-call]
    try:
        for key, value, _, _ in counted:
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    finally:
        sums.close()  # type: ignore[no-untyped-call]

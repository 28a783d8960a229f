"""How much memory this process takes, as the kernel counts it."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def in_bytes() -> int:
    """The process's proportional share, or where the kernel does not count that, all that is resident."""
    try:
        for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        log.debug("the kernel does not tell shared memory apart")
    return _resident_bytes()


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096
    except OSError:
        return 0

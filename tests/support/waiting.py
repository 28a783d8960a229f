"""Free ports, and waiting for conditions. Knows nothing of the product."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A loopback TCP port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    condition: Callable[[], Found], timeout_s: float = 10.0, message: str = "", interval_s: float = 0.02
) -> Found:
    """The first truthy value of `condition()`, asked again every `interval_s`; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {message or condition}; last value {found!r}")
        time.sleep(interval_s)

"""What is known of an uploaded document. Knows no disk."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ID = re.compile(r"[0-9a-f]{16}")
Status = Literal["queued", "reading", "embedding", "live", "failed", "removed"]
FAILURES = ("unreadable", "broke_off", "budget")
"""Why documents fail: the file itself, processes that died over it, or more text than a day may cost."""


@dataclass(frozen=True, slots=True)
class Record:
    """A document as it is known, whatever became of it."""

    id: str
    name: str
    version: int
    """Rises with each file of that name."""
    bytes: int
    sha256: str
    status: Status
    reason: str | None
    """Why it failed, or why it waits; in words for a person."""
    passages: int | None
    updated_at: str
    tries: int = 0
    """How often a process began to work on it."""
    arrived_at_s: float = 0.0
    """When this version came, in seconds since 1970."""
    failure: str = ""
    """One of `FAILURES`, where it failed."""

    @property
    def extension(self) -> str:
        return Path(self.name).suffix.lower()

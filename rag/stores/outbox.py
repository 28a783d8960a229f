"""What every outbox promises: a message that has to reach somebody is kept until it did. Knows no store."""

from dataclasses import dataclass
from typing import Final, Protocol

KEPT_ONCE_S: Final = 400 * 86_400.0
"""How long it is known what was put once."""
MOST_MESSAGES: Final = 10_000
"""Beyond them none is taken: nobody can fill the disk."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is due."""

    id: str
    channel: str
    payload: bytes
    age_s: float
    tries: int
    """How often it was tried before."""


class Outbox(Protocol):
    """Each method raises StateUnavailable when the store does not answer."""

    async def put(self, messages: list[tuple[str, str, bytes]], *, once: str = "") -> bool:
        """Takes all of these (id, channel, payload); False where there is no more room, or where some were put under
        the name `once` before, by whichever process.
        """

    async def was_put(self, once: str) -> bool:
        """Whether messages were put under this name."""

    async def next_due(self, *, lease_s: float) -> Waiting | None:
        """One that is due, for this process alone for `lease_s`; None where none is."""

    async def remove(self, identity: str) -> None: ...

    async def later(self, identity: str, *, after_s: float) -> None:
        """It was tried in vain, and is due again then."""

    async def count(self) -> int: ...

    async def close(self) -> None: ...

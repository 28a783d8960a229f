"""What every store of conversations promises: who said what, under an id that opens it.

The stores are `sqlite_conversations`, for one machine, and `redis_conversations`, for several. Knows neither.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict

from rag.types import Message

DELETION_KNOWN_S = 1800.0
"""How long a deletion is known: longer than any answer may be on its way."""


class ConversationStats(TypedDict):
    """Counts of what has not expired."""

    sessions: int
    messages: int
    oldest: str | None
    """When the oldest conversation began, ISO 8601 in UTC."""


class Conversations(Protocol):
    """What every store of conversations does. Each method raises StateUnavailable when the store does not answer."""

    async def history(self, session_id: str) -> list[Message]:
        """The remembered messages, oldest first; none where the id is unknown or expired."""

    async def append(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> None:
        """Remembers all of these messages or none; the conversation counts as used now.

        None where the conversation was deleted, by whichever process, within the last `asked_s_ago` seconds: an answer
        that was on its way then must not bring it back.
        """

    async def restore(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> list[Message]:
        """Remembers what a client claims was said, where nothing is known; returns what is remembered then.

        None where the conversation was deleted within the last `asked_s_ago` seconds.
        """

    async def delete(self, session_id: str) -> None:
        """Forgets a conversation; one that is unknown is no error."""

    async def count(self) -> int:
        """How many conversations are remembered; cheap, however much was said in them."""

    async def stats(self) -> ConversationStats: ...

    async def prune_if_due(self, interval_s: float) -> int | None:
        """Removes expired conversations once per interval, whichever process comes first.

        Returns how many it removed; None where it was another's turn, or too early.
        """

    async def check(self) -> None:
        """Raises StateUnavailable where nothing can be remembered now."""

    async def close(self) -> None: ...

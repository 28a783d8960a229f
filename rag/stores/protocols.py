"""What every store promises: of conversations, who said what, under an id that opens it; of spending, what was spent;
of answers, which ones are kept.

For one machine the stores are SQLite files, for several a Redis or a PostgreSQL. Knows none of them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypedDict

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


FEEDBACK_KEPT: Final = 10_000
"""Entries; beyond them the oldest go, so that nobody can fill the disk with thumbs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One visitor's word on one answer."""

    rating: Literal["up", "down"]
    reason: str
    question: str
    answer: str
    given_at: str = ""
    """ISO 8601 in UTC; set by the store."""


def feedback_hash(*parts: str) -> bytes:
    """Names a conversation, or one answer of it, among the feedback: not as among the conversations."""
    return hashlib.sha256("\0".join(("feedback", *parts)).encode("utf-8", "surrogatepass")).digest()


class FeedbackStore(Protocol):
    """What every store of feedback does. Each method raises StateUnavailable when the store does not answer."""

    async def add(self, feedback: Feedback, *, session_id: str) -> None:
        """Keeps it in place of what was said of the same answer in the same conversation."""

    async def forget(self, session_id: str) -> None:
        """Removes all that was said in this conversation."""

    async def disliked(self, session_id: str) -> int:
        """How many answers of this conversation got a thumb down."""

    async def newest(self, limit: int) -> list[Feedback]:
        """At most `limit` entries, newest first."""

    async def close(self) -> None: ...


DAY_S: Final = 86_400
SITE: Final = "site"
"""The subject that every call counts against; the others are visitors and keys."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a call may cost at most, of what one subject may spend in a day."""

    subject: str
    amount: int
    cap: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call did cost, by subject, in place of what is held for it."""

    id: str
    amounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Spent:
    """What the site spent on one day."""

    day: str
    """ISO 8601, in UTC."""
    amount: int


class Spending(Protocol):
    """What every store of spending does. A day is a day in UTC, by a clock that cannot jump.

    Each method raises StateUnavailable when the store does not answer.
    """

    async def reserve(
        self, identity: str, claims: Sequence[Claim], *, hold_s: float, settled: Sequence[Settlement]
    ) -> str | None:
        """Puts all of the claims aside, under this id, or none. Writes what was `settled` first, in the same step.

        Returns the subject that has not that much left; None where all have.

        What is held for longer than `hold_s` counts as spent: who held it is gone, and cannot say that it was not.
        """

    async def settle(self, settled: Sequence[Settlement]) -> None: ...

    async def spent(self, subject: str) -> int:
        """Today, with what is put aside."""

    async def first_to_announce(self, what: str) -> bool:
        """Whether nobody has said this yet today, in any process."""

    async def days(self, count: int) -> list[Spent]:
        """What the site spent on each of the last `count` days on which it did, oldest first."""

    async def close(self) -> None: ...


KEPT_FROM: Final = 2
"""The time a question is asked from which on its answer is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of a question that was asked just now."""

    value: bytes | None = None
    """The answer that is kept."""
    may_keep: bool = False
    """The one who looked is the one to ask and to keep; others wait until it has, or lets go."""
    is_asked: bool = False
    """Somebody else is asking it."""


class Answers(Protocol):
    """What every store of answers does. Each method raises StateUnavailable when the store does not answer."""

    async def look(self, key: str, *, lease_s: float) -> Look:
        """Counts one more who asks. Who may keep the answer has `lease_s` seconds to do so."""

    async def keep(self, key: str, value: bytes) -> None:
        """Nothing, where the answer was evicted meanwhile."""

    async def free(self, key: str) -> None:
        """The one to keep the answer has none: the next one may ask."""

    async def evict(self, key: str) -> None:
        """Forgets the answer, and keeps none under this key for as long as answers live."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedQuestion:
    """One question, without who asked it."""

    question: str
    words: str
    """The question without what does not count; equal ones are the same question."""
    outcome: str
    language: str
    page: str = ""
    """The path of the page that the visitor was on."""
    similarity: float | None = None
    """Cosine of the best passage."""
    seconds: float = 0.0
    tokens: int = 0
    build: str = ""
    vector: bytes | None = None
    """The question's, float16."""
    about: bytes | None = None
    """Names one question of one conversation; None where there is none to go on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFilter:
    """Which questions are wanted."""

    days: int
    outcome: str = ""
    language: str = ""
    page: str = ""
    gaps: bool = False
    """Only those that were not answered, or whose answer was disliked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionGroup:
    """The same question, however often it was asked."""

    question: str
    count: int
    last_at: str
    """ISO 8601 in UTC, to the minute."""
    unanswered: int
    disliked: int
    language: str
    page: str
    similarity: float | None
    outcome: str
    build: str
    """The latest one that it was asked of."""
    reason: str
    """What one of those said who disliked the answer."""
    vector: bytes | None


@dataclass(frozen=True, slots=True)
class Day:
    """Figures of one day in UTC."""

    day: str
    figures: Mapping[str, int]
    degraded_minutes: int


FIGURES_KEPT_DAYS: Final = 400


class QuestionStore(Protocol):
    """What every store of questions does. Each method raises StateUnavailable when the store does not answer."""

    async def write(
        self, entries: Sequence[LoggedQuestion], *, figures: Mapping[str, int], cited: Mapping[str, int], degraded: bool
    ) -> None:
        """Adds questions, and figures to those of today. `cited` counts pages; `degraded`: this minute was one in which
        an answer had to do without something.
        """

    async def dislike(self, entry: LoggedQuestion, *, reason: str) -> None:
        """Marks the question that `entry.about` names; adds it where it is not kept."""

    async def forget(self, abouts: Sequence[bytes]) -> None: ...

    async def groups(self, wanted: QuestionFilter, *, limit: int) -> list[QuestionGroup]:
        """The most frequent ones first."""

    async def days(self, count: int) -> list[Day]:
        """The last `count` days on which anything was asked, oldest first."""

    async def cited(self, count: int) -> dict[str, int]:
        """How often pages were cited in the last `count` days, the most cited first."""

    async def close(self) -> None: ...

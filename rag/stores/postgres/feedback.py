"""What visitors thought of an answer, for all servers that share one PostgreSQL; otherwise as in `sqlite.feedback`."""

from datetime import UTC
from typing import Final

from rag.stores.postgres.link import Database, from_bytes, to_bytes
from rag.stores.protocols import FEEDBACK_KEPT, Feedback, feedback_hash

_ADD: Final = """
WITH added AS (
    INSERT INTO rag.feedback (given_at, rating, reason, question, answer, session, about)
    VALUES (clock_timestamp(), %s, %s, %s, %s, %s, %s)
    ON CONFLICT (about) DO UPDATE SET
        number = DEFAULT, given_at = excluded.given_at, rating = excluded.rating, reason = excluded.reason
    RETURNING number
)
DELETE FROM rag.feedback USING added WHERE feedback.number <= added.number - %s
"""
_NEWEST: Final = "SELECT rating, reason, question, answer, given_at FROM rag.feedback ORDER BY number DESC LIMIT %s"


class PostgresFeedback:
    """`Database` is the caller's to close."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def add(self, feedback: Feedback, *, session_id: str) -> None:
        words = (feedback.reason, feedback.question, feedback.answer)
        about = feedback_hash(session_id, feedback.question, feedback.answer)
        values = (feedback.rating, *map(to_bytes, words), feedback_hash(session_id), about, FEEDBACK_KEPT)
        await self._database.rows(_ADD, values)

    async def forget(self, session_id: str) -> None:
        await self._database.rows("DELETE FROM rag.feedback WHERE session = %s", (feedback_hash(session_id),))

    async def disliked(self, session_id: str) -> int:
        counted = "SELECT count(*) FROM rag.feedback WHERE session = %s AND rating = 'down'"
        return int((await self._database.rows(counted, (feedback_hash(session_id),)))[0][0])

    async def newest(self, limit: int) -> list[Feedback]:
        return [
            Feedback(
                rating=rating, reason=from_bytes(reason), question=from_bytes(question), answer=from_bytes(answer),
                given_at=given_at.astimezone(UTC).isoformat(timespec="seconds"),
            )
            for rating, reason, question, answer, given_at in await self._database.rows(_NEWEST, (limit,))
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to do: the database is shared."""

"""What visitors thought of an answer: a thumb, a reason, and the turn it is about, in one SQLite file.

Kept beside the conversations but longer than they are, because an owner reads it next week; so it holds the question
and the answer themselves. Only who has a conversation's id finds its rows, for the id is kept as a hash. So a thumb
that is given again replaces the one before, and a conversation that is deleted takes its thumbs along.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rag.stores.protocols import FEEDBACK_KEPT, Feedback, feedback_hash
from rag.stores.sqlite.file import Clocks, StateFile

NEWEST_SQL = "SELECT max(given_at) FROM feedback"
MIGRATIONS = (
    """
    CREATE TABLE feedback (
        number INTEGER PRIMARY KEY,
        given_at REAL NOT NULL,
        rating TEXT NOT NULL,
        reason TEXT NOT NULL,
        question TEXT NOT NULL,
        answer TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE feedback ADD COLUMN session BLOB;
    ALTER TABLE feedback ADD COLUMN about BLOB;  -- a session's answer; none in rows of the first version
    CREATE INDEX feedback_by_session ON feedback (session);
    CREATE UNIQUE INDEX feedback_by_answer ON feedback (about);
    """,
)


class SqliteFeedback:
    """Every method raises `StateUnavailable` when the file does not answer; none blocks the event loop."""

    def __init__(self, *, path: Path, clocks: Clocks) -> None:
        self._file = StateFile(
            path=path, migrations=MIGRATIONS, newest_sql=NEWEST_SQL,
            synchronous="NORMAL", busy_timeout_ms=2_000, clocks=clocks, overwrites_deleted=True,
        )  # fmt: skip
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feedback")

    async def add(self, feedback: Feedback, *, session_id: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._add, feedback, session_id)

    async def forget(self, session_id: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._forget, session_id)

    async def disliked(self, session_id: str) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._disliked, session_id)

    async def newest(self, limit: int) -> list[Feedback]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._newest, limit)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    def _add(self, feedback: Feedback, session_id: str) -> None:
        said = (feedback.rating, feedback.reason, feedback.question, feedback.answer)
        about = feedback_hash(session_id, feedback.question, feedback.answer)
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM feedback WHERE about = ?", (about,))
            connection.execute(
                "INSERT INTO feedback (given_at, rating, reason, question, answer, session, about) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (self._file.now_s(), *said, feedback_hash(session_id), about),
            )
            connection.execute(
                "DELETE FROM feedback WHERE number <= ?", (connection.last_insert_rowid() - FEEDBACK_KEPT,)
            )

    def _forget(self, session_id: str) -> None:
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM feedback WHERE session = ?", (feedback_hash(session_id),))
        self._file.empty_log()

    def _disliked(self, session_id: str) -> int:
        counted = "SELECT count(*) FROM feedback WHERE session = ? AND rating = 'down'"
        return int(self._file.read(counted, (feedback_hash(session_id),))[0][0])

    def _newest(self, limit: int) -> list[Feedback]:
        rows = self._file.read(
            "SELECT rating, reason, question, answer, given_at FROM feedback ORDER BY number DESC LIMIT ?", (limit,)
        )
        return [
            Feedback(rating=rating, reason=reason, question=question, answer=answer, given_at=self._shown(given_at))
            for rating, reason, question, answer, given_at in rows
        ]

    def _shown(self, steady_s: float) -> str:
        return datetime.fromtimestamp(self._file.to_wall_s(steady_s), UTC).isoformat(timespec="seconds")

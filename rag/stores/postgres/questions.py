"""What visitors asked, without who asked, and figures of each day, for all servers that share one PostgreSQL.

What it means stands in `sqlite.questions`; what writes is one function of the schema, `migrations/0002_owner.sql`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rag.stores.postgres.link import OWNERS_TIMEOUT_S, Database, from_bytes, to_bytes
from rag.stores.protocols import DAY_S, FIGURES_KEPT_DAYS, Day, LoggedQuestion, QuestionFilter, QuestionGroup

_LOG: Final = """
SELECT rag.log_questions(
    %s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::bytea[], %s::float8[], %s::float8[], %s::integer[],
    %s::text[], %s::bytea[], %s::bytea[], %s::jsonb, %s::bytea[], %s::integer[], %s, %s, %s
)
"""
# The latest may have been asked elsewhere: what was filtered by is what is told.
_GROUPS: Final = """
WITH asked AS (
    SELECT words, count(*) AS times, max(at) AS last_at, max(outcome) AS outcome,
        count(*) FILTER (WHERE outcome IN ('nothing_found', 'uncited', 'quoted')) AS unanswered,
        count(*) FILTER (WHERE rating = 'down') AS disliked
    FROM rag.questions
    WHERE at >= to_timestamp((rag.today() - %(days)s + 1) * 86400.0)
        AND (NOT %(gaps)s OR outcome IN ('nothing_found', 'uncited', 'quoted') OR rating = 'down')
        AND (%(outcome)s::text = '' OR outcome = %(outcome)s)
        AND (%(language)s::text = '' OR language = %(language)s)
        AND (%(page)s::bytea = '' OR page = %(page)s)
    GROUP BY words ORDER BY times DESC, last_at DESC LIMIT %(limit)s
)
SELECT question, times, last_at, unanswered, disliked, language, page, similarity, asked.outcome, build, reason, vector
FROM asked
CROSS JOIN LATERAL (
    SELECT question, language, page, similarity, build FROM rag.questions
    WHERE questions.words = asked.words ORDER BY at DESC LIMIT 1
) AS latest
LEFT JOIN LATERAL (
    SELECT reason FROM rag.questions
    WHERE questions.words = asked.words AND rating = 'down' AND disliked > 0 ORDER BY reason DESC LIMIT 1
) AS disliked_for ON true
LEFT JOIN rag.question_vectors ON question_vectors.words = asked.words
ORDER BY times DESC, last_at DESC
"""
_FIGURES: Final = "SELECT day, what, amount FROM rag.figures WHERE day > rag.today() - %s ORDER BY day"
_DEGRADED: Final = (
    "SELECT minute / 1440, count(*) FROM rag.degraded WHERE minute >= (rag.today() - %s + 1) * 1440::bigint GROUP BY 1"
)
_CITED: Final = (
    "SELECT url, sum(times)::bigint FROM rag.cited WHERE day > rag.today() - %s GROUP BY url ORDER BY 2 DESC"
)


class PostgresQuestions:
    """Questions are kept for `days` days. `Database` is the caller's to close."""

    def __init__(self, *, database: Database, days: float) -> None:
        self._database = database
        self._days = float(days)

    async def write(
        self, entries: Sequence[LoggedQuestion], *, figures: Mapping[str, int], cited: Mapping[str, int], degraded: bool
    ) -> None:
        rows = [
            (
                to_bytes(one.question), hashed(one.words), one.outcome, one.language, to_bytes(one.page),
                one.similarity, one.seconds, one.tokens, one.build, one.about, one.vector,
            )
            for one in entries
        ]  # fmt: skip
        columns = [[row[place] for row in rows] for place in range(11)]
        counted = json.dumps({what: amount for what, amount in figures.items() if amount})
        urls = [to_bytes(url) for url in cited]
        values = (*columns, counted, urls, list(cited.values()), degraded, self._days, FIGURES_KEPT_DAYS)
        await self._database.rows(_LOG, values)

    async def dislike(self, entry: LoggedQuestion, *, reason: str) -> None:
        asked = (to_bytes(entry.question), hashed(entry.words), entry.outcome, entry.language)
        await self._database.rows(
            "SELECT rag.dislike_question(%s, %s, %s, %s, %s, %s)", (entry.about, to_bytes(reason), *asked)
        )

    async def forget(self, abouts: Sequence[bytes]) -> None:
        await self._database.rows("SELECT rag.forget_questions(%s::bytea[])", (list(abouts),))

    async def groups(self, wanted: QuestionFilter, *, limit: int) -> list[QuestionGroup]:
        given: dict[str, Any] = {
            "days": wanted.days, "gaps": wanted.gaps, "outcome": wanted.outcome, "language": wanted.language,
            "page": to_bytes(wanted.page), "limit": limit,
        }  # fmt: skip
        return [
            QuestionGroup(
                question=from_bytes(question), count=count, unanswered=unanswered, disliked=disliked,
                last_at=last_at.astimezone(UTC).isoformat(timespec="minutes"),
                language=wanted.language or language, page=wanted.page or from_bytes(page), similarity=similarity,
                outcome=outcome, build=build, reason=from_bytes(reason or b""), vector=vector,
            )
            for question, count, last_at, unanswered, disliked, language, page, similarity, outcome, build, reason,
            vector in await self._database.rows(_GROUPS, given, timeout_s=OWNERS_TIMEOUT_S)
        ]  # fmt: skip

    async def days(self, count: int) -> list[Day]:
        found: dict[int, dict[str, int]] = {}
        for day, what, amount in await self._database.rows(_FIGURES, (count,)):
            found.setdefault(day, {})[what] = amount
        minutes = dict(await self._database.rows(_DEGRADED, (count,)))
        return [
            Day(datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat(), figures, minutes.get(day, 0))
            for day, figures in found.items()
        ]

    async def cited(self, count: int) -> dict[str, int]:
        return {
            from_bytes(url): times
            for url, times in await self._database.rows(_CITED, (count,), timeout_s=OWNERS_TIMEOUT_S)
        }

    async def close(self) -> None:
        """Nothing to do: the database is shared."""


def hashed(words: str) -> bytes:
    """Equal ones are the same question."""
    return hashlib.sha256(to_bytes(words)).digest()

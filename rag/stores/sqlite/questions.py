"""What visitors asked, without who asked, and figures of each day, in one SQLite file.

questions    one row a question that is kept
figures      sums by day: how many questions, what became of them, tokens, times
cited        how often an answer of a day cited a page
degraded     the minutes in which an answer had to do without something
vectors      of each different question that is kept, the vector
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rag.stores.protocols import DAY_S, FIGURES_KEPT_DAYS, Day, LoggedQuestion, QuestionFilter, QuestionGroup
from rag.stores.sqlite.file import Clocks, StateFile

_Result = TypeVar("_Result")

NEWEST_SQL = "SELECT max(at) FROM questions"
MIGRATIONS = (
    """
    CREATE TABLE questions (
        number INTEGER PRIMARY KEY,
        day INTEGER NOT NULL,       -- days since 1970 in UTC
        at REAL NOT NULL,           -- to the minute
        question TEXT NOT NULL,
        words TEXT NOT NULL,        -- the question without what does not count; equal ones are one question
        outcome TEXT NOT NULL,
        language TEXT NOT NULL,
        page TEXT NOT NULL,
        similarity REAL,
        seconds REAL NOT NULL,
        tokens INTEGER NOT NULL,
        build TEXT NOT NULL,
        rating TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        vector BLOB,                -- of the first version; see the table below
        about BLOB                  -- one question of one conversation
    );
    CREATE INDEX questions_by_words ON questions (words, day, outcome, rating);
    CREATE INDEX questions_by_day ON questions (day);
    CREATE INDEX questions_about ON questions (about) WHERE about IS NOT NULL;
    CREATE TABLE figures (day INTEGER NOT NULL, what TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (day, what))
        WITHOUT ROWID;
    CREATE TABLE cited (day INTEGER NOT NULL, url TEXT NOT NULL, times INTEGER NOT NULL, PRIMARY KEY (day, url))
        WITHOUT ROWID;
    CREATE TABLE degraded (minute INTEGER PRIMARY KEY);
    CREATE TABLE pruning (one INTEGER PRIMARY KEY CHECK (one = 1), day INTEGER NOT NULL);
    INSERT INTO pruning VALUES (1, 0);
    """,
    # Vectors aside, and an index with all that questions are counted by: whoever groups a million reads no row.
    """
    DROP INDEX questions_by_words;
    CREATE INDEX questions_to_count ON questions (words, at, outcome, rating, language, page);
    CREATE TABLE vectors (words TEXT PRIMARY KEY, vector BLOB NOT NULL);
    INSERT OR IGNORE INTO vectors SELECT words, vector FROM questions WHERE vector IS NOT NULL;
    UPDATE questions SET vector = NULL WHERE vector IS NOT NULL;
    """,
)
_INSERT = """
INSERT INTO questions
    (day, at, question, words, outcome, language, page, similarity, seconds, tokens, build, about)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_GROUPS = """
SELECT words, count(*), max(at), sum(outcome IN ('nothing_found', 'uncited', 'quoted')), sum(rating = 'down'),
       max(outcome)
FROM questions WHERE {where} GROUP BY words ORDER BY count(*) DESC, max(at) DESC LIMIT ?
"""
_LATEST = "SELECT question, language, page, similarity, build FROM questions WHERE words = ? ORDER BY at DESC LIMIT 1"
_REASON = "SELECT max(reason) FROM questions WHERE words = ? AND rating = 'down'"
_VECTOR = "SELECT vector FROM vectors WHERE words = ?"
_ORPHANED = (
    "DELETE FROM vectors WHERE {which} NOT EXISTS (SELECT 1 FROM questions WHERE questions.words = vectors.words)"
)


class SqliteQuestions:
    """One thread of each process owns the connection. Questions are kept for `days` days."""

    def __init__(self, *, path: Path, clocks: Clocks, days: float) -> None:
        self._file = StateFile(
            path=path, migrations=MIGRATIONS, newest_sql=NEWEST_SQL,
            synchronous="NORMAL", busy_timeout_ms=2_000, clocks=clocks, overwrites_deleted=True,
        )  # fmt: skip
        self._days = days
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="questions")

    async def write(
        self, entries: Sequence[LoggedQuestion], *, figures: Mapping[str, int], cited: Mapping[str, int], degraded: bool
    ) -> None:
        await self._in_thread(lambda: self._write(entries, figures, cited, degraded))

    async def dislike(self, entry: LoggedQuestion, *, reason: str) -> None:
        await self._in_thread(lambda: self._dislike(entry, reason))

    async def forget(self, abouts: Sequence[bytes]) -> None:
        await self._in_thread(lambda: self._forget(abouts))

    async def groups(self, wanted: QuestionFilter, *, limit: int) -> list[QuestionGroup]:
        return await self._in_thread(lambda: self._groups(wanted, limit))

    async def days(self, count: int) -> list[Day]:
        return await self._in_thread(lambda: self._figures(count))

    async def cited(self, count: int) -> dict[str, int]:
        return await self._in_thread(lambda: self._cited(count))

    async def close(self) -> None:
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write(
        self, entries: Sequence[LoggedQuestion], figures: Mapping[str, int], cited: Mapping[str, int], degraded: bool
    ) -> None:
        with self._file.transaction() as connection:
            now = self._file.now_s()
            day, minute = int(now // DAY_S), int(now // 60)
            connection.executemany(_INSERT, [_row(entry, day, minute * 60.0) for entry in entries])
            connection.executemany(
                # One model's is as good as another of its; another model's has mostly another length.
                "INSERT INTO vectors VALUES (?, ?) ON CONFLICT (words) DO UPDATE SET vector = excluded.vector "
                "WHERE length(vector) <> length(excluded.vector)",
                [(entry.words, entry.vector) for entry in entries if entry.vector is not None],
            )
            connection.executemany(
                "INSERT INTO figures VALUES (?, ?, ?) "
                "ON CONFLICT (day, what) DO UPDATE SET amount = amount + excluded.amount",
                [(day, what, amount) for what, amount in figures.items() if amount],
            )
            connection.executemany(
                "INSERT INTO cited VALUES (?, ?, ?) "
                "ON CONFLICT (day, url) DO UPDATE SET times = times + excluded.times",
                [(day, url, times) for url, times in cited.items()],
            )
            if degraded:
                connection.execute("INSERT INTO degraded VALUES (?) ON CONFLICT DO NOTHING", (minute,))
            connection.execute("UPDATE pruning SET day = ? WHERE day < ?", (day, day))
            if connection.changes():
                connection.execute("DELETE FROM questions WHERE day <= ?", (day - self._days,))
                connection.execute(_ORPHANED.format(which=""))
                connection.execute("DELETE FROM figures WHERE day <= ?", (day - FIGURES_KEPT_DAYS,))
                connection.execute("DELETE FROM cited WHERE day <= ?", (day - FIGURES_KEPT_DAYS,))
                connection.execute("DELETE FROM degraded WHERE minute <= ?", ((day - FIGURES_KEPT_DAYS) * 1440,))

    def _dislike(self, entry: LoggedQuestion, reason: str) -> None:
        with self._file.transaction() as connection:
            marked = "UPDATE questions SET rating = 'down', reason = ? WHERE about = ?"
            connection.execute(marked, (reason, entry.about))
            if not connection.changes():
                now = self._file.now_s()
                connection.execute(_INSERT, _row(entry, int(now // DAY_S), now // 60 * 60.0))
                connection.execute(marked, (reason, entry.about))

    def _forget(self, abouts: Sequence[bytes]) -> None:
        with self._file.transaction() as connection:
            for about in abouts:
                gone = "DELETE FROM questions WHERE about = ? RETURNING words"
                words = [(one,) for (one,) in connection.execute(gone, (about,)).fetchall()]
                connection.executemany(_ORPHANED.format(which="words = ? AND"), words)
        self._file.empty_log()

    def _groups(self, wanted: QuestionFilter, limit: int) -> list[QuestionGroup]:
        first = (int(self._file.now_s() // DAY_S) - wanted.days + 1) * DAY_S
        conditions: list[tuple[str, Any]] = [("at >= ?", first)]
        if wanted.gaps:
            conditions.append(("(outcome IN ('nothing_found', 'uncited', 'quoted') OR rating = ?)", "down"))
        conditions += [(f"{name} = ?", value) for name, value in (
            ("outcome", wanted.outcome), ("language", wanted.language), ("page", wanted.page),
        ) if value]  # fmt: skip
        where = " AND ".join(condition for condition, _ in conditions)
        rows = self._file.read(_GROUPS.format(where=where), (*(value for _, value in conditions), limit))
        found = [self._group(*row) for row in rows]
        # The latest may have been asked elsewhere.
        return [
            replace(one, page=wanted.page or one.page, language=wanted.language or one.language) for one in found
        ]  # fmt: skip

    def _group(self, words: str, count: int, at: float, unanswered: int, disliked: int, outcome: str) -> QuestionGroup:
        question, language, page, similarity, build = self._file.read(_LATEST, (words,))[0]
        vector = self._file.read(_VECTOR, (words,))
        return QuestionGroup(
            question=question, count=count, last_at=self._date(at), unanswered=unanswered, disliked=disliked,
            language=language, page=page, similarity=similarity, outcome=outcome, build=build,
            reason=self._file.read(_REASON, (words,))[0][0] if disliked else "",
            vector=vector[0][0] if vector else None,
        )  # fmt: skip

    def _figures(self, count: int) -> list[Day]:
        first = int(self._file.now_s() // DAY_S) - count
        found: dict[int, dict[str, int]] = {}
        for day, what, amount in self._file.read("SELECT day, what, amount FROM figures WHERE day > ?", (first,)):
            found.setdefault(day, {})[what] = amount
        minutes = dict(
            self._file.read(
                "SELECT minute / 1440, count(*) FROM degraded WHERE minute / 1440 > ? GROUP BY minute / 1440", (first,)
            )
        )
        return [
            Day(datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat(), figures, minutes.get(day, 0))
            for day, figures in sorted(found.items())
        ]

    def _cited(self, count: int) -> dict[str, int]:
        first = int(self._file.now_s() // DAY_S) - count
        return dict(
            self._file.read("SELECT url, sum(times) FROM cited WHERE day > ? GROUP BY url ORDER BY 2 DESC", (first,))
        )

    def _date(self, steady_s: float) -> str:
        return datetime.fromtimestamp(self._file.to_wall_s(steady_s), UTC).isoformat(timespec="minutes")


def _row(entry: LoggedQuestion, day: int, at: float) -> tuple[Any, ...]:
    return (
        day, at, entry.question, entry.words, entry.outcome, entry.language, entry.page, entry.similarity,
        entry.seconds, entry.tokens, entry.build, entry.about,
    )  # fmt: skip

"""Brings the SQLite files of one machine over into PostgreSQL, and compares afterwards.

What the database has already stays as it is there, so that an import that broke off is simply begun again. Hits of
limits are not brought over: they begin anew.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from rag.stores.outbox import KEPT_ONCE_S, MOST_MESSAGES
from rag.stores.postgres.link import connected, to_bytes
from rag.stores.postgres.outbox import PUT
from rag.stores.postgres.questions import hashed
from rag.stores.protocols import feedback_hash
from rag.stores.sqlite import conversations, feedback, outbox, questions, spending
from rag.stores.sqlite.file import Clocks, StateFile

_AT_ONCE: Final = 200
_SESSIONS: Final = """
SELECT number, id_hash, started_at, used_at, (SELECT max(position) FROM messages WHERE session = number)
FROM sessions WHERE number > ? AND used_at >= ? ORDER BY number LIMIT ?
"""
_SAID: Final = "SELECT position, role, content FROM messages WHERE session = ? ORDER BY position"
_ADD_SESSIONS: Final = """
INSERT INTO rag.conversations
SELECT * FROM unnest(%s::bytea[], %s::timestamptz[], %s::timestamptz[], %s::integer[]) AS given (id)
WHERE NOT EXISTS (SELECT FROM rag.deletions WHERE deletions.id = given.id)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_ADD_MESSAGES: Final = (
    "INSERT INTO rag.messages SELECT * FROM unnest(%s::bytea[], %s::integer[], %s::text[], %s::bytea[])"
)
_COMPARED: Final = "SELECT role, content FROM rag.messages WHERE conversation = %s ORDER BY position"
_ADD_FEEDBACK: Final = """
INSERT INTO rag.feedback (given_at, rating, reason, question, answer, session, about)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (about) DO NOTHING
"""
_SPENT: Final = """
SELECT day, subject, sum(amount) FROM
(SELECT day, subject, spent AS amount FROM spending UNION ALL SELECT day, subject, amount FROM held)
GROUP BY day, subject
"""

_ASKED: Final = """
SELECT number, at, question, words, outcome, language, page, similarity, seconds, tokens, build, rating, reason, about
FROM questions WHERE number > ? ORDER BY number LIMIT ?
"""
_COPY_ASKED: Final = """
COPY asked (at, question, words, outcome, language, page, similarity, seconds, tokens, build, rating, reason, about)
FROM STDIN
"""
_ADD_ASKED: Final = """
INSERT INTO rag.questions
    (at, question, words, outcome, language, page, similarity, seconds, tokens, build, rating, reason, about)
SELECT at, question, words, outcome, language, page, similarity, seconds, tokens, build, rating, reason, about
FROM asked WHERE NOT EXISTS (SELECT FROM rag.questions WHERE questions.about = asked.about)
"""
_SAME_ASKED: Final = """
SELECT count(*) FROM asked
WHERE EXISTS (SELECT FROM rag.questions WHERE questions.about = asked.about AND questions.words = asked.words)
"""
_VECTORS: Final = "SELECT rowid, words, vector FROM vectors WHERE rowid > ? ORDER BY rowid LIMIT ?"
_ADD_VECTOR: Final = "INSERT INTO rag.question_vectors VALUES (%s, %s) ON CONFLICT DO NOTHING"
_BESIDE: Final[tuple[tuple[str, LiteralString, Callable[..., tuple[Any, ...]]], ...]] = (
    (
        "SELECT day, what, amount FROM figures", "INSERT INTO rag.figures VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        lambda *row: row,
    ),
    (
        "SELECT day, url, times FROM cited", "INSERT INTO rag.cited VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        lambda day, url, times: (day, to_bytes(url), times),
    ),
    (
        "SELECT minute FROM degraded", "INSERT INTO rag.degraded VALUES (%s) ON CONFLICT DO NOTHING",
        lambda *row: row,
    ),
)  # fmt: skip

Connection = psycopg.Connection[Any]


def bring_over(state_dir: Path, *, url: str, timeout_s: float) -> Iterator[tuple[str, str]]:
    """Kind and what became of it, one after the other. `timeout_s`: conversations idle for longer stay where they are.

    The server of these files must be stopped. Raises StateUnavailable.
    """
    with connected(url) as connection:
        kinds: tuple[tuple[str, Any, Callable[[StateFile], str]], ...] = (
            ("conversations", conversations, lambda file: _conversations(file, connection, timeout_s)),
            ("feedback", feedback, lambda file: _feedback(file, connection)),
            ("spending", spending, lambda file: _spending(file, connection)),
            ("questions", questions, lambda file: _questions(file, connection)),
            ("outbox", outbox, lambda file: _outbox(file, connection)),
        )
        for name, module, bring in kinds:
            path = state_dir / f"{name}.sqlite3"
            if not path.exists():
                yield name, f"there is no {path}"
                continue
            file = StateFile(
                path=path, migrations=module.MIGRATIONS, newest_sql=module.NEWEST_SQL, synchronous="NORMAL",
                busy_timeout_ms=2_000, clocks=Clocks.system(),
            )  # fmt: skip
            try:
                yield name, bring(file)
            finally:
                file.close()


def _batches(file: StateFile, select: str, *values: float) -> Iterator[list[tuple[Any, ...]]]:
    """What does not fit into memory at once; the first column is a row's number."""
    last = -1
    while rows := file.read(select, (last, *values, _AT_ONCE)):
        yield rows
        last = rows[-1][0]


def _conversations(file: StateFile, connection: Connection, timeout_s: float) -> str:
    brought = equal = total = 0
    earliest = file.now_s() - timeout_s
    for rows in _batches(file, _SESSIONS, earliest):
        ids = [id_hash for _, id_hash, *_ in rows]
        began, used = [[_moment(file, row[place]) for row in rows] for place in (2, 3)]
        with connection.transaction():
            values = (ids, began, used, [newest or 0 for *_, newest in rows])
            added = {id_hash for (id_hash,) in connection.execute(_ADD_SESSIONS, values)}
            said = [
                (id_hash, *message)
                for number, id_hash, *_ in rows if id_hash in added
                for message in file.read(_SAID, (number,))
            ]  # fmt: skip
            if said:
                connection.execute(_ADD_MESSAGES, [list(column) for column in zip(*said, strict=True)])
        brought += len(added)
    for rows in _batches(file, _SESSIONS, earliest):
        for number, id_hash, *_ in rows:
            there = connection.execute(_COMPARED, (id_hash,)).fetchall()
            equal += there == [(role, content) for _, role, content in file.read(_SAID, (number,))]
        total += len(rows)
    return _told(brought, equal, total)


def _feedback(file: StateFile, connection: Connection) -> str:
    rows = file.read("SELECT given_at, rating, reason, question, answer, session, about FROM feedback ORDER BY number")
    values = []
    for number, (given_at, rating, *words, session, about) in zip(count(), rows, strict=False):
        said = [text.encode("utf-8", "surrogatepass") for text in words]
        # A row of the first version does not say whose it is.
        about = about or feedback_hash(f"{number} {given_at}", *words)
        values.append((_moment(file, given_at), rating, *said, session, about))
    before = _number(connection, "SELECT count(*) FROM rag.feedback")
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_ADD_FEEDBACK, values)
    after = _number(connection, "SELECT count(*) FROM rag.feedback")
    abouts = [row[-1] for row in values]
    equal = _number(connection, "SELECT count(*) FROM rag.feedback WHERE about = ANY(%s::bytea[])", (abouts,))
    return _told(after - before, equal, len(values))


def _spending(file: StateFile, connection: Connection) -> str:
    rows = file.read(_SPENT)
    brought = equal = 0
    with connection.transaction():
        for row in rows:
            brought += connection.execute(
                "INSERT INTO rag.spending VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", row
            ).rowcount
    for row in rows:
        equal += _number(
            connection, "SELECT count(*) FROM rag.spending WHERE day = %s AND subject = %s AND spent = %s", row
        )
    return _told(brought, equal, len(rows))


def _questions(file: StateFile, connection: Connection) -> str:
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE asked (LIKE rag.questions) ON COMMIT DROP")
        connection.execute("ALTER TABLE asked DROP COLUMN number")
        with connection.cursor().copy(_COPY_ASKED) as copied:
            for number, at, question, words, *told, rating, reason, about in chain.from_iterable(
                _batches(file, _ASKED)
            ):
                outcome, language, page, *figures = told
                # What has no name gets one of its row, by which another import knows it.
                about = about or hashed(f"{number} {at} {question}")
                given = (outcome, language, to_bytes(page), *figures, rating, to_bytes(reason), about)
                copied.write_row((_moment(file, at), to_bytes(question), hashed(words), *given))
        brought = connection.execute(_ADD_ASKED).rowcount
        total = _number(connection, "SELECT count(*) FROM asked")
        equal = _number(connection, _SAME_ASKED)
        with connection.cursor() as cursor:
            for batch in _batches(file, _VECTORS):
                cursor.executemany(_ADD_VECTOR, [(hashed(words), vector) for _, words, vector in batch])
            for select, insert, stored in _BESIDE:
                cursor.executemany(insert, [stored(*row) for row in file.read(select)])
    return _told(brought, equal, total)


def _outbox(file: StateFile, connection: Connection) -> str:
    """A message goes on as a new one, once, also where it was delivered before another import."""
    rows = file.read("SELECT id, channel, payload FROM outbox ORDER BY put_at")
    brought = equal = 0
    for what, put_at in file.read("SELECT what, put_at FROM put_once"):
        connection.execute(
            "INSERT INTO rag.put_once VALUES (%s, %s) ON CONFLICT DO NOTHING", (what, _moment(file, put_at))
        )
    for identity, channel, payload in rows:
        once = f"imported {identity}"
        put = (PUT, ([identity], [channel], [payload], once, MOST_MESSAGES, KEPT_ONCE_S))
        brought += _number(connection, *put)
        equal += _number(connection, "SELECT count(*) FROM rag.put_once WHERE what = %s", (once,))
    return _told(brought, equal, len(rows))


def _told(brought: int, equal: int, total: int) -> str:
    differ = f", {total - equal} differ from the file: the database's own are kept" if equal < total else ""
    return f"{total} in the file, {brought} brought over now; compared: {equal} equal{differ}"


def _number(connection: Connection, statement: Any, values: Sequence[Any] = ()) -> int:
    [(number,)] = connection.execute(statement, values or None).fetchall()
    return int(number)


def _moment(file: StateFile, steady_s: float) -> datetime:
    return datetime.fromtimestamp(file.to_wall_s(steady_s), UTC)

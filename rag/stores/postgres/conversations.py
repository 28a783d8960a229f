"""Remembers who said what, for all servers that share one PostgreSQL.

The same promises as the SQLite file of one machine, with the database's clock in place of the machine's. It must not
know of HTTP, of models, or of what is said. The id of a conversation is never stored, only its SHA-256. What writes is
one function of the schema, `migrations/0001_state.sql`, and so one statement.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC
from typing import Any, LiteralString

from rag.stores.postgres.link import Database, from_bytes, to_bytes
from rag.stores.protocols import DELETION_KNOWN_S, ConversationStats
from rag.types import Message

_WRITE = "SELECT * FROM rag.write_messages(%s, %s::text[], %s::bytea[], %s, %s, %s, %s, %s)"
_HISTORY = """
SELECT role, content FROM rag.messages JOIN rag.conversations ON id = conversation
WHERE id = %s AND used_at >= now() - make_interval(secs => %s) ORDER BY position
"""
_COUNT = "SELECT count(*) FROM rag.conversations WHERE used_at >= now() - make_interval(secs => %s)"
_STATS = """
WITH living AS (SELECT id, began_at FROM rag.conversations WHERE used_at >= now() - make_interval(secs => %s))
SELECT (SELECT count(*) FROM living), (SELECT count(*) FROM rag.messages JOIN living ON id = conversation),
       (SELECT min(began_at) FROM living)
"""
_TAKE_TURN = """
WITH old AS (DELETE FROM rag.deletions WHERE deleted_at < now() - make_interval(secs => %s))
UPDATE rag.pruning SET pruned_at = now() WHERE pruned_at <= now() - make_interval(secs => %s) RETURNING true
"""
_SWEEP = """
WITH swept AS (
    DELETE FROM rag.conversations WHERE id IN (
        SELECT id FROM rag.conversations WHERE used_at < now() - make_interval(secs => %s)
        LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM swept
"""
# The newest in use that fit stay, the idlest go.
_CUT = """
WITH sized AS (SELECT conversation, sum(octet_length(content)) AS bytes FROM rag.messages GROUP BY conversation),
ordered AS (
    SELECT id, sum(bytes) OVER (ORDER BY used_at DESC, id) AS bytes
    FROM rag.conversations JOIN sized ON id = conversation
),
cut AS (DELETE FROM rag.conversations WHERE id IN (SELECT id FROM ordered WHERE bytes > %s) RETURNING 1)
SELECT count(*) FROM cut
"""
_SWEPT_AT_ONCE = 200


class PostgresConversations:
    """Only the newest `max_messages` of a conversation stay; it expires when nothing was appended for `timeout_s`.

    Beyond `max_sessions` those unused for the longest time go, and beyond `max_bytes` of what was said they do whenever
    it is pruned: to add up at every write would read all of it. `Database` is the caller's to close.
    """

    def __init__(
        self, *, database: Database, max_messages: int = 20, timeout_s: float = 24 * 3600,
        max_sessions: int | None = None, max_bytes: int = 1024**3,
    ) -> None:  # fmt: skip
        self._database = database
        self._max_messages = max_messages
        self._timeout_s = timeout_s
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes

    async def history(self, session_id: str) -> list[Message]:
        return _messages(await self._database.rows(_HISTORY, (_hash(session_id), self._timeout_s)))

    async def append(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> None:
        await self._write(session_id, messages, False, asked_s_ago)

    async def restore(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> list[Message]:
        return _messages(await self._write(session_id, messages, True, asked_s_ago))

    async def delete(self, session_id: str) -> None:
        await self._database.rows("SELECT rag.delete_conversation(%s, %s)", (_hash(session_id), DELETION_KNOWN_S))

    async def count(self) -> int:
        return int(await self._number(_COUNT, self._timeout_s))

    async def stats(self) -> ConversationStats:
        [(sessions, messages, began_at)] = await self._database.rows(_STATS, (self._timeout_s,))
        oldest = None if began_at is None else began_at.astimezone(UTC).isoformat(timespec="seconds")
        return {"sessions": sessions, "messages": messages, "oldest": oldest}

    async def prune_if_due(self, interval_s: float) -> int | None:
        if not await self._database.rows(_TAKE_TURN, (DELETION_KNOWN_S, interval_s)):
            return None
        removed = 0
        while batch := await self._number(_SWEEP, self._timeout_s, _SWEPT_AT_ONCE):
            removed += batch
        return removed + await self._number(_CUT, self._max_bytes)

    async def check(self) -> None:
        await self._database.check()

    async def close(self) -> None:
        """Nothing to do: the database is shared."""

    async def _number(self, statement: LiteralString, *values: float) -> int:
        [(number,)] = await self._database.rows(statement, values)
        return int(number)

    async def _write(
        self, session_id: str, messages: Sequence[Message], only_unknown: bool, asked_s_ago: float
    ) -> list[tuple[Any, ...]]:
        newest = messages[-self._max_messages :]
        roles = [message.stored_role for message in newest]
        contents = [to_bytes(message.content) for message in newest]
        bounds = (float(asked_s_ago), float(self._timeout_s), self._max_messages, self._max_sessions)
        return await self._database.rows(_WRITE, (_hash(session_id), roles, contents, only_unknown, *bounds))


def _hash(session_id: str) -> bytes:
    return hashlib.sha256(to_bytes(session_id)).digest()


def _messages(rows: Sequence[tuple[Any, ...]]) -> list[Message]:
    return [Message.stored(role, from_bytes(content)) for role, content in rows]

"""Remembers who said what, for all worker processes of one machine, in one SQLite file.

It must not know of HTTP, of models, or of what is said: a conversation is a list of messages under an id. The id itself
is never stored, only its SHA-256, so that a stolen file opens no conversation on the server.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import apsw

from rag.errors import StateUnavailable
from rag.stores.protocols import DELETION_KNOWN_S, ConversationStats
from rag.stores.sqlite.file import Clocks, StateFile
from rag.types import Message

_Result = TypeVar("_Result")

NEWEST_SQL = "SELECT max(used_at) FROM sessions"
MIGRATIONS = (
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY,
        id_hash BLOB NOT NULL UNIQUE,
        started_at REAL NOT NULL,
        used_at REAL NOT NULL
    );
    CREATE INDEX sessions_by_use ON sessions (used_at);
    CREATE TABLE messages (
        session INTEGER NOT NULL REFERENCES sessions (number) ON DELETE CASCADE,
        position INTEGER NOT NULL,  -- counts up without gaps: only the oldest of a session are ever removed
        role TEXT NOT NULL,
        content BLOB NOT NULL,      -- UTF-8; a blob, because lone surrogates and NULs have to come back as they were
        PRIMARY KEY (session, position)
    ) WITHOUT ROWID;
    CREATE TABLE pruning (one INTEGER PRIMARY KEY CHECK (one = 1), pruned_at REAL NOT NULL);
    INSERT INTO pruning VALUES (1, 0);
    """,
    """
    CREATE TABLE deletions (id_hash BLOB PRIMARY KEY, deleted_at REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX deletions_by_time ON deletions (deleted_at);
    """,
    """
    CREATE TABLE total (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
    INSERT INTO total SELECT 1, coalesce(sum(length(content)), 0) FROM messages;
    CREATE TRIGGER message_comes AFTER INSERT ON messages
        BEGIN UPDATE total SET bytes = bytes + length(NEW.content); END;
    CREATE TRIGGER message_goes AFTER DELETE ON messages
        BEGIN UPDATE total SET bytes = bytes - length(OLD.content); END;
    """,
)

WIPE_AFTER_S = 1.0
"""How long what was deleted may stay readable in the file's log, where no other process is using it just then."""

_PRUNED_AT_ONCE = 200
"""Sessions a transaction of the pruning removes: it holds the write lock for milliseconds, visitors wait no longer."""


class SqliteConversations:
    """Conversations in one SQLite file. One thread of each process owns the connection; a call is one hop to it.

    Only the newest `max_messages` of a conversation stay, and it expires when nothing was appended for `timeout_s`:
    from then on it is invisible, pruned or not. Beyond `max_sessions`, or `max_bytes` of what was said, those
    unused for the longest time go.
    A call that is cancelled has happened as a whole or not at all.
    """

    def __init__(
        self,
        *,
        path: Path,
        clocks: Clocks,
        max_messages: int = 20,
        timeout_s: float = 24 * 3600,
        max_sessions: int | None = None,
        max_bytes: int = 1024**3,
        busy_timeout_ms: int = 2_000,
    ) -> None:
        self._file = StateFile(
            path=path,
            migrations=MIGRATIONS,
            newest_sql=NEWEST_SQL,
            synchronous="NORMAL",
            busy_timeout_ms=busy_timeout_ms,
            clocks=clocks,
            overwrites_deleted=True,
        )
        self._max_messages = max_messages
        self._timeout_s = timeout_s
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="conversations")
        self._closed = False
        self._is_in_log = False
        """Whether something that was deleted can still be read in the file's log."""
        self._wiping: asyncio.Task[None] | None = None

    async def history(self, session_id: str) -> list[Message]:
        return await self._in_thread(lambda: self._history(_hash(session_id)))

    async def append(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> None:
        rows = _rows(messages)
        await self._in_thread(lambda: self._append(_hash(session_id), rows, asked_s_ago))

    async def restore(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> list[Message]:
        rows = _rows(messages)
        return await self._in_thread(lambda: self._restore(_hash(session_id), rows, asked_s_ago))

    async def delete(self, session_id: str) -> None:
        await self._in_thread(lambda: self._delete(_hash(session_id)))
        self._wipe_soon()

    async def count(self) -> int:
        return await self._in_thread(self._count)

    async def stats(self) -> ConversationStats:
        return await self._in_thread(self._stats)

    async def prune_if_due(self, interval_s: float) -> int | None:
        if not await self._in_thread(lambda: self._take_turn_to_prune(interval_s)):
            return None
        removed = 0
        while batch := await self._in_thread(self._remove_some_expired):
            removed += batch
        if removed:
            self._wipe_soon()
        return removed

    async def check(self) -> None:
        await self._in_thread(self._file.check)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._wiping is not None:
                self._wiping.cancel()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        if self._closed:  # a stream that outlives the shutdown still wants to remember its answer
            raise StateUnavailable("the conversations are closed, because the server is stopping")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _wipe_soon(self) -> None:
        self._is_in_log = True
        if self._wiping is None or self._wiping.done():
            self._wiping = asyncio.create_task(self._wipe())

    async def _wipe(self) -> None:
        # Together what was deleted within a second: whoever deletes without pause must not keep the disk busy.
        while self._is_in_log:
            await asyncio.sleep(WIPE_AFTER_S)
            self._is_in_log = False
            try:
                emptied = await self._in_thread(self._file.empty_log)
            except StateUnavailable:
                emptied = False
            self._is_in_log |= not emptied

    def _close(self) -> None:
        if self._is_in_log:
            with suppress(StateUnavailable):
                self._file.empty_log()
        self._file.close()

    def _history(self, id_hash: bytes) -> list[Message]:
        rows = self._file.read(
            "SELECT role, content FROM sessions JOIN messages ON session = number "
            "WHERE id_hash = ? AND used_at >= ? ORDER BY position",
            (id_hash, self._file.now_s() - self._timeout_s),
        )
        return [Message.stored(role, content.decode("utf-8", "surrogatepass")) for role, content in rows]

    def _append(self, id_hash: bytes, rows: Sequence[tuple[str, bytes]], asked_s_ago: float) -> None:
        with self._file.transaction() as connection:
            if not self._was_deleted(connection, id_hash, asked_s_ago):
                self._write(connection, id_hash, rows)

    def _was_deleted(self, connection: apsw.Connection, id_hash: bytes, within_s: float) -> bool:
        deleted = "SELECT 1 FROM deletions WHERE id_hash = ? AND deleted_at > ?"
        return connection.execute(deleted, (id_hash, self._file.now_s() - within_s)).get is not None

    def _restore(self, id_hash: bytes, rows: Sequence[tuple[str, bytes]], asked_s_ago: float) -> list[Message]:
        with self._file.transaction() as connection:
            remembered = self._history(id_hash)
            if remembered or not rows or self._was_deleted(connection, id_hash, asked_s_ago):
                return remembered
            self._write(connection, id_hash, rows)
            return self._history(id_hash)

    def _write(self, connection: apsw.Connection, id_hash: bytes, rows: Sequence[tuple[str, bytes]]) -> None:
        now = self._file.now_s()  # asked under the lock: the order of commits is the order of times
        session, used_at, newest = connection.execute(
            "SELECT number, used_at, (SELECT max(position) FROM messages WHERE session = number) "
            "FROM sessions WHERE id_hash = ?",
            (id_hash,),
        ).get or (None, now, None)
        if session is not None and used_at < now - self._timeout_s:
            connection.execute("DELETE FROM sessions WHERE number = ?", (session,))
            session = newest = None
        if session is None:
            session = self._begin(connection, id_hash, now)
        else:
            connection.execute("UPDATE sessions SET used_at = ? WHERE number = ?", (now, session))
        newest = newest or 0
        connection.executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?)",
            [(session, position, *row) for position, row in enumerate(rows, start=newest + 1)],
        )
        too_old = newest + len(rows) - self._max_messages
        if too_old > 0:
            connection.execute("DELETE FROM messages WHERE session = ? AND position <= ?", (session, too_old))
        while connection.execute("SELECT bytes FROM total").get > self._max_bytes:
            connection.execute(
                "DELETE FROM sessions WHERE number IN "
                "(SELECT number FROM sessions WHERE number <> ? ORDER BY used_at LIMIT 1)",
                (session,),
            )
            if not connection.changes():
                break

    def _begin(self, connection: apsw.Connection, id_hash: bytes, now: float) -> int:
        connection.execute("INSERT INTO sessions (id_hash, started_at, used_at) VALUES (?, ?, ?)", (id_hash, now, now))
        session = connection.last_insert_rowid()
        if self._max_sessions is not None:
            connection.execute(
                "DELETE FROM sessions WHERE number IN "
                "(SELECT number FROM sessions ORDER BY used_at DESC, number DESC LIMIT -1 OFFSET ?)",
                (self._max_sessions,),
            )
        return session

    def _delete(self, id_hash: bytes) -> None:
        with self._file.transaction() as connection:
            now = self._file.now_s()
            connection.execute("DELETE FROM sessions WHERE id_hash = ?", (id_hash,))
            # Noted of unknown ones too: their first answer may be on its way.
            connection.execute("INSERT OR REPLACE INTO deletions VALUES (?, ?)", (id_hash, now))
            connection.execute("DELETE FROM deletions WHERE deleted_at < ?", (now - DELETION_KNOWN_S,))

    def _count(self) -> int:
        earliest_use = self._file.now_s() - self._timeout_s
        ((sessions,),) = self._file.read("SELECT count(*) FROM sessions WHERE used_at >= ?", (earliest_use,))
        return int(sessions)

    def _stats(self) -> ConversationStats:
        earliest_use = self._file.now_s() - self._timeout_s
        ((sessions, messages, started_at),) = self._file.read(
            "SELECT count(*), (SELECT count(*) FROM messages JOIN sessions ON number = session WHERE used_at >= ?1), "
            "min(started_at) FROM sessions WHERE used_at >= ?1",
            (earliest_use,),
        )
        oldest = None
        if started_at is not None:
            oldest = datetime.fromtimestamp(self._file.to_wall_s(started_at), UTC).isoformat(timespec="seconds")
        return {"sessions": sessions, "messages": messages, "oldest": oldest}

    def _take_turn_to_prune(self, interval_s: float) -> bool:
        with self._file.transaction() as connection:
            now = self._file.now_s()
            connection.execute("UPDATE pruning SET pruned_at = ? WHERE pruned_at <= ?", (now, now - interval_s))
            is_ours = connection.changes() == 1
            connection.execute("DELETE FROM deletions WHERE deleted_at < ?", (now - DELETION_KNOWN_S,))
        if is_ours:
            self._file.checkpoint()
        return is_ours

    def _remove_some_expired(self) -> int:
        with self._file.transaction() as connection:
            connection.execute(
                "DELETE FROM sessions WHERE number IN (SELECT number FROM sessions WHERE used_at < ? LIMIT ?)",
                (self._file.now_s() - self._timeout_s, _PRUNED_AT_ONCE),
            )
            return connection.changes()


def _hash(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).digest()


def _rows(messages: Sequence[Message]) -> list[tuple[str, bytes]]:
    return [(message.stored_role, message.content.encode("utf-8", "surrogatepass")) for message in messages]

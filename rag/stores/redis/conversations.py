"""Remembers who said what, for all servers that share one Redis.

The same promises as the SQLite file of one machine, with Redis' own clock in place of the machine's. It must not know
of HTTP, of models, or of what is said. The id of a conversation is never stored, only its SHA-256.

    rag:conversation:<hash>     list, a message each, oldest first; expires by itself
    rag:deletion:<hash>         when it was deleted (microseconds since 1970), for half an hour
    rag:conversations:used      sorted set, hash → last use; `…:began` likewise (microseconds since 1970)
    rag:conversations:sizes     hash, hash → messages; `…:messages` is their sum; `…:bytes_of`, `…:bytes` likewise
    rag:conversations:pruned    when any server pruned last

The last four lines are an index, so that counting and pruning need no walk over all keys. Every change is one Lua
script, and so happens as a whole or not at all. The names of lists are made inside the scripts: Redis Cluster is not
supported.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis import BlockingConnectionPool, Redis

from rag.errors import StateUnavailable
from rag.setting_parsers import shown_address
from rag.stores.protocols import DELETION_KNOWN_S, ConversationStats
from rag.stores.redis.link import FAILURES, SILENCE, connection_options, unavailable
from rag.types import Message

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

ANSWER_TIMEOUT_S = 0.5
"""How long an answer may take."""

PROBE_INTERVAL_S = 1.0
"""How often a Redis that fell silent is asked whether it is back, by each worker and by nobody else."""

_THREADS = 4
"""And connections, of one worker. A call takes a fraction of a millisecond, so few carry many visitors."""

_PRUNED_AT_ONCE = 200
"""Conversations that one script removes: Redis serves nobody else meanwhile."""

_COMMON = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function list_of(id) return 'rag:conversation:' .. id end
local function deletion_of(id) return 'rag:deletion:' .. id end
local function forget(id)
  local size = redis.call('HGET', 'rag:conversations:sizes', id)
  if size then redis.call('DECRBY', 'rag:conversations:messages', size) end
  redis.call('HDEL', 'rag:conversations:sizes', id)
  local bytes = redis.call('HGET', 'rag:conversations:bytes_of', id)
  if bytes then redis.call('DECRBY', 'rag:conversations:bytes', bytes) end
  redis.call('HDEL', 'rag:conversations:bytes_of', id)
  redis.call('ZREM', 'rag:conversations:used', id)
  redis.call('ZREM', 'rag:conversations:began', id)
  redis.call('DEL', list_of(id))
end
"""

_WRITE = """
local id, only_unknown = ARGV[1], ARGV[2] == '1'
local timeout_us, max_messages, max_sessions = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local asked_us, max_bytes, first = tonumber(ARGV[6]), tonumber(ARGV[7]), 8
local list, at = list_of(id), now()
local deleted = redis.call('GET', deletion_of(id))
if deleted and tonumber(deleted) > at - asked_us then return {} end
if redis.call('EXISTS', list) == 0 then
  -- Only what is there: Redis asks whether there is memory before a script's first write, and not again.
  if redis.call('HEXISTS', 'rag:conversations:sizes', id) == 1 then forget(id) end
  if #ARGV < first then return {} end
elseif only_unknown then
  return redis.call('LRANGE', list, 0, -1)
end
for i = first, #ARGV do redis.call('RPUSH', list, ARGV[i]) end
redis.call('LTRIM', list, -max_messages, -1)
redis.call('PEXPIREAT', list, math.floor((at + timeout_us) / 1000))
local size, before = redis.call('LLEN', list), redis.call('HGET', 'rag:conversations:sizes', id) or 0
redis.call('HSET', 'rag:conversations:sizes', id, size)
redis.call('INCRBY', 'rag:conversations:messages', size - before)
redis.call('ZADD', 'rag:conversations:used', at, id)
redis.call('ZADD', 'rag:conversations:began', 'NX', at, id)
local too_many = max_sessions and redis.call('ZCARD', 'rag:conversations:used') - max_sessions or 0
if too_many > 0 then
  for _, idle in ipairs(redis.call('ZRANGE', 'rag:conversations:used', 0, too_many - 1)) do forget(idle) end
end
local rows, bytes = redis.call('LRANGE', list, 0, -1), 0
for _, row in ipairs(rows) do bytes = bytes + #row end
redis.call('INCRBY', 'rag:conversations:bytes', bytes - (redis.call('HGET', 'rag:conversations:bytes_of', id) or 0))
redis.call('HSET', 'rag:conversations:bytes_of', id, bytes)
while tonumber(redis.call('GET', 'rag:conversations:bytes')) > max_bytes do
  local idlest = redis.call('ZRANGE', 'rag:conversations:used', 0, 0)[1]
  if idlest == id then break end
  forget(idlest)
end
return only_unknown and rows or {}
"""

_DELETE = """
forget(ARGV[1])
redis.call('SET', deletion_of(ARGV[1]), string.format('%.0f', now()), 'PX', ARGV[2])
"""

_SWEEP = """
local timeout_us, at_once = tonumber(ARGV[1]), ARGV[2]
local idle = redis.call('ZRANGEBYSCORE', 'rag:conversations:used', '-inf', now() - timeout_us, 'LIMIT', 0, at_once)
for _, id in ipairs(idle) do forget(id) end
return #idle
"""

_COUNT = "return redis.call('ZCOUNT', 'rag:conversations:used', now() - ARGV[1], '+inf')"

_TAKE_TURN = """
local at, interval_us = now(), tonumber(ARGV[1])
local last = tonumber(redis.call('GET', 'rag:conversations:pruned') or 0)
if last <= at and last > at - interval_us then return 0 end
redis.call('SET', 'rag:conversations:pruned', string.format('%.0f', at))
return 1
"""


class RedisConversations:
    """Conversations in one Redis. Raises ValueError for a URL that cannot be read.

    Only the newest `max_messages` of a conversation stay, and it expires when nothing was appended for `timeout_s`.
    Beyond `max_sessions`, or `max_bytes` of what was said, those unused for the longest time go. A call that is
    cancelled, or was not answered in time, has happened as a whole or not at all.

    When Redis falls silent, whoever is waiting waits `ANSWER_TIMEOUT_S` at most; from then on every call fails at once,
    while one task asks every `PROBE_INTERVAL_S` whether Redis is back.

    The blocking client in a few threads, not the one for asyncio: a time-out in a thread is the kernel's, so it says
    that Redis is slow. One on the event loop also strikes when this process is busy (docs/decisions/0010-redis.md).
    """

    def __init__(
        self, *, url: str, max_messages: int = 20, timeout_s: float = 24 * 3600, max_sessions: int | None = None,
        max_bytes: int = 1024**3,
    ) -> None:  # fmt: skip
        self._url = url
        self._max_messages = max_messages
        self._timeout_us = round(timeout_s * 1e6)
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(_THREADS, "redis_conversations")
        self._pool = BlockingConnectionPool.from_url(
            url, max_connections=_THREADS + 1, timeout=ANSWER_TIMEOUT_S, **connection_options(ANSWER_TIMEOUT_S)
        )
        self._redis: Any = Redis(connection_pool=self._pool)  # its types mix the asyncio client's into every answer
        self._write = self._redis.register_script(_COMMON + _WRITE)
        self._delete = self._redis.register_script(_COMMON + _DELETE)
        self._sweep = self._redis.register_script(_COMMON + _SWEEP)
        self._count = self._redis.register_script(_COMMON + _COUNT)
        self._take_turn = self._redis.register_script(_COMMON + _TAKE_TURN)
        self._silent = False
        self._probe: asyncio.Task[None] | None = None
        self._closed = False

    async def history(self, session_id: str) -> list[Message]:
        return _messages(await self._ask(lambda: self._redis.lrange(f"rag:conversation:{_hash(session_id)}", 0, -1)))

    async def append(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> None:
        await self._write_rows(session_id, messages, only_unknown=False, asked_s_ago=asked_s_ago)

    async def restore(self, session_id: str, messages: Sequence[Message], *, asked_s_ago: float = 0.0) -> list[Message]:
        return _messages(await self._write_rows(session_id, messages, only_unknown=True, asked_s_ago=asked_s_ago))

    async def delete(self, session_id: str) -> None:
        await self._ask(lambda: self._delete(args=[_hash(session_id), round(DELETION_KNOWN_S * 1e3)]))

    async def count(self) -> int:
        return int(await self._ask(lambda: self._count(args=[self._timeout_us])))

    async def stats(self) -> ConversationStats:
        await self._remove_expired()
        sessions, messages, began = await self._ask(self._counts)
        oldest = datetime.fromtimestamp(began[0][1] / 1e6, UTC).isoformat(timespec="seconds") if began else None
        return {"sessions": sessions, "messages": int(messages or 0), "oldest": oldest}

    async def prune_if_due(self, interval_s: float) -> int | None:
        if not await self._ask(lambda: self._take_turn(args=[round(interval_s * 1e6)])):
            return None
        return await self._remove_expired()

    async def check(self) -> None:
        # A write: a replica, or a Redis without memory or disk to spare, still answers PING.
        await self._ask(lambda: self._redis.set("rag:check", "1", px=10_000))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._probe is not None:
                self._probe.cancel()
            await asyncio.to_thread(self._threads.shutdown)
            self._redis.close()
            self._pool.disconnect()

    async def _write_rows(
        self, session_id: str, messages: Sequence[Message], *, only_unknown: bool, asked_s_ago: float = 0.0
    ) -> list[bytes]:
        limit = "" if self._max_sessions is None else self._max_sessions
        options = [int(only_unknown), self._timeout_us, self._max_messages, limit]
        options += [round(asked_s_ago * 1e6), self._max_bytes]
        rows = [_row(message) for message in messages[-self._max_messages :]]
        found: list[bytes] = await self._ask(lambda: self._write(args=[_hash(session_id), *options, *rows]))
        return found

    async def _remove_expired(self) -> int:
        removed = 0
        while batch := await self._ask(lambda: self._sweep(args=[self._timeout_us, _PRUNED_AT_ONCE])):
            removed += batch
        return removed

    def _counts(self) -> list[Any]:
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zcard("rag:conversations:used").get("rag:conversations:messages")
            pipeline.zrange("rag:conversations:began", 0, 0, withscores=True)
            counts: list[Any] = pipeline.execute()
        return counts

    async def _ask(self, call: Callable[[], _Result]) -> _Result:
        if self._closed:  # a stream that outlives the shutdown still wants to remember its answer
            raise StateUnavailable("the conversations are closed, because the server is stopping")
        try:
            self._refuse_while_silent()
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, call)
        finally:
            if self._silent and not self._closed and (self._probe is None or self._probe.done()):
                self._probe = asyncio.create_task(self._until_it_answers())

    def _call(self, call: Callable[[], _Result]) -> _Result:
        self._refuse_while_silent()  # who stood in line meanwhile goes home, or the line would ask one by one
        try:
            return call()
        except FAILURES as error:
            if isinstance(error, SILENCE):
                self._silent = True
            raise unavailable(self._url, error) from error

    def _refuse_while_silent(self) -> None:
        if self._silent:
            raise StateUnavailable(f"{shown_address(self._url)}: silent; nobody waits for it until it answers again")

    async def _until_it_answers(self) -> None:
        log.warning("Redis is silent", extra={"address": shown_address(self._url)})
        while self._silent:
            await asyncio.sleep(PROBE_INTERVAL_S)
            # Connections from before the silence may be dead on the other side, and a visitor would find out.
            self._pool.disconnect(inuse_connections=False)
            with contextlib.suppress(*FAILURES):
                self._silent = not await asyncio.to_thread(self._redis.ping)
        log.info("Redis answers again", extra={"address": shown_address(self._url)})


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()


def _row(message: Message) -> bytes:
    # Not escaped to ASCII: two lone surrogates would come back as the one character that they encode.
    return json.dumps([message.stored_role, message.content], ensure_ascii=False).encode("utf-8", "surrogatepass")


def _messages(rows: Sequence[bytes]) -> list[Message]:
    return [Message.stored(*json.loads(row.decode("utf-8", "surrogatepass"))) for row in rows]

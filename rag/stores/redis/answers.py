"""Answers that are kept for whoever asks the same again, for all servers that share one Redis.

rag:answer:<key>        hash: asked, value, barred; expires by itself
rag:asking:<key>        who asks just now; expires by itself
rag:answers             sorted set, key → when it was used last (seconds since 1970)
rag:answers:sizes       hash, key → bytes; rag:answers:bytes is their sum
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from redis import Redis

from rag.stores.protocols import KEPT_FROM, Look
from rag.stores.redis.link import FAILURES, connection_options, unavailable

_Result = TypeVar("_Result")

ANSWER_TIMEOUT_S = 0.25

_COMMON = """
local key, now = ARGV[1], tonumber(redis.call('TIME')[1])
local answer, asking = 'rag:answer:' .. key, 'rag:asking:' .. key
local function drop(key)
    local size = redis.call('HGET', 'rag:answers:sizes', key)
    if size then redis.call('DECRBY', 'rag:answers:bytes', size) end
    redis.call('HDEL', 'rag:answers:sizes', key)
    redis.call('ZREM', 'rag:answers', key)
end
"""
_LOOK = """
local value = redis.call('HGET', answer, 'value')
if value then
    redis.call('ZADD', 'rag:answers', now, key)
    return {value, 0, 0}
end
local asked = redis.call('HINCRBY', answer, 'asked', 1)
if asked == 1 then redis.call('EXPIRE', answer, ARGV[2]) end
if asked < tonumber(ARGV[4]) or redis.call('HEXISTS', answer, 'barred') == 1 then return {false, 0, 0} end
if redis.call('SET', asking, 1, 'NX', 'PX', ARGV[3]) then return {false, 1, 0} end
return {false, 0, 1}
"""
_KEEP = """
redis.call('DEL', asking)
if redis.call('HEXISTS', answer, 'barred') == 1 then return end
drop(key)
redis.call('HSET', answer, 'value', ARGV[2])
redis.call('EXPIRE', answer, ARGV[3])
redis.call('ZADD', 'rag:answers', now, key)
redis.call('HSET', 'rag:answers:sizes', key, #ARGV[2])
redis.call('INCRBY', 'rag:answers:bytes', #ARGV[2])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', 'rag:answers', '-inf', now - ARGV[3])) do
    if redis.call('EXISTS', 'rag:answer:' .. old) == 0 then drop(old) end
end
while tonumber(redis.call('GET', 'rag:answers:bytes')) > tonumber(ARGV[4]) do
    local idlest = redis.call('ZRANGE', 'rag:answers', 0, 0)[1]
    if not idlest then break end
    redis.call('DEL', 'rag:answer:' .. idlest)
    drop(idlest)
end
"""
_EVICT = """
drop(key)
redis.call('HDEL', answer, 'value')
redis.call('HSET', answer, 'barred', 1)
redis.call('EXPIRE', answer, ARGV[2])
"""


class RedisAnswers:
    """Answers live for `ttl_s`; of more than `max_bytes` of them those unused for the longest time go."""

    def __init__(self, *, url: str, ttl_s: float, max_bytes: int) -> None:
        self._url = url
        self._ttl_s = max(1, round(ttl_s))
        self._max_bytes = max_bytes
        self._redis: Any = Redis.from_url(url, **connection_options(ANSWER_TIMEOUT_S))
        self._look, self._keep, self._evict = (
            self._redis.register_script(_COMMON + script) for script in (_LOOK, _KEEP, _EVICT)
        )
        self._thread = ThreadPoolExecutor(1, "redis_answers")

    async def look(self, key: str, *, lease_s: float) -> Look:
        args: list[Any] = [key, self._ttl_s, round(lease_s * 1000), KEPT_FROM]
        value, may_keep, is_asked = await self._ask(lambda: self._look(args=args))
        return Look(value=value, may_keep=bool(may_keep), is_asked=bool(is_asked))

    async def keep(self, key: str, value: bytes) -> None:
        await self._ask(lambda: self._keep(args=[key, value, self._ttl_s, self._max_bytes]))

    async def free(self, key: str) -> None:
        await self._ask(lambda: self._redis.delete(f"rag:asking:{key}"))

    async def evict(self, key: str) -> None:
        await self._ask(lambda: self._evict(args=[key, self._ttl_s]))

    async def close(self) -> None:
        self._thread.shutdown(wait=False)
        self._redis.close()

    async def _ask(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except FAILURES as error:
            raise unavailable(self._url, error) from error

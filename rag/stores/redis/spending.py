"""What was spent today, and what is put aside for calls that run, for all servers that share one Redis.

    rag:spent:<day>       hash, subject → amount; kept for two days
    rag:spent:site        hash, day → what the site spent
    rag:reserved:<day>    hash, subject → the sum of what is held
    rag:held:<id>         hash, subject → amount, and its day
    rag:held              sorted set, id → when it runs out (microseconds since 1970)
    rag:announced:<day>   set

Days and time are Redis' own. Every change is one Lua script, and so happens as a whole or not at all.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis import Redis

from rag.stores.protocols import DAY_S, SITE, Claim, Settlement, Spent
from rag.stores.redis.link import FAILURES, connection_options, unavailable

_Result = TypeVar("_Result")

ANSWER_TIMEOUT_S = 0.5

_COMMON = """
local time = redis.call('TIME')
local now, today = time[1] * 1000000 + time[2], math.floor(time[1] / 86400)
local function spend(day, subject, amount)
    if amount == 0 then return end
    redis.call('HINCRBY', 'rag:spent:' .. day, subject, amount)
    redis.call('EXPIRE', 'rag:spent:' .. day, 172800)
    if subject == 'site' then redis.call('HINCRBY', 'rag:spent:site', day, amount) end
end
-- What is held under an id becomes what was spent: amounts by subject, or else all that was held.
local function settle(id, amounts)
    local held = redis.call('HGETALL', 'rag:held:' .. id)
    local day = redis.call('HGET', 'rag:held:' .. id, '')
    for i = 1, #held, 2 do
        if held[i] ~= '' then
            redis.call('HINCRBY', 'rag:reserved:' .. day, held[i], -held[i + 1])
            spend(day, held[i], amounts and amounts[held[i]] or held[i + 1])
        end
    end
    redis.call('DEL', 'rag:held:' .. id)
    redis.call('ZREM', 'rag:held', id)
end
local function used(subject)
    local spent = redis.call('HGET', 'rag:spent:' .. today, subject) or 0
    return spent + (redis.call('HGET', 'rag:reserved:' .. today, subject) or 0)
end
for _, one in ipairs(cjson.decode(ARGV[1])) do settle(one[1], one[2]) end
"""
_RESERVE = """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'rag:held', '-inf', now)) do settle(id) end
local id, hold_us, claims = ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4])
for _, claim in ipairs(claims) do
    if used(claim[1]) + claim[2] > claim[3] then return claim[1] end
end
for _, claim in ipairs(claims) do
    redis.call('HSET', 'rag:held:' .. id, claim[1], string.format('%.0f', claim[2]), '', today)
    redis.call('HINCRBY', 'rag:reserved:' .. today, claim[1], string.format('%.0f', claim[2]))
end
redis.call('EXPIRE', 'rag:reserved:' .. today, 172800)
redis.call('ZADD', 'rag:held', now + hold_us, id)
return ''
"""
_ANNOUNCE = """
redis.call('EXPIRE', 'rag:announced:' .. today, 172800)
return redis.call('SADD', 'rag:announced:' .. today, ARGV[2])
"""


class RedisSpending:
    """The blocking client in one thread, for the reason that `conversations` gives."""

    def __init__(self, *, url: str) -> None:
        self._url = url
        self._redis: Any = Redis.from_url(url, decode_responses=True, **connection_options(ANSWER_TIMEOUT_S))
        self._reserve, self._settle, self._used, self._announce = (
            self._redis.register_script(_COMMON + script)
            for script in (_RESERVE, "", "return string.format('%.0f', used(ARGV[2]))", _ANNOUNCE)
        )
        self._thread = ThreadPoolExecutor(1, "redis_spending")

    async def reserve(
        self, identity: str, claims: Sequence[Claim], *, hold_s: float, settled: Sequence[Settlement]
    ) -> str | None:
        claimed = json.dumps([(claim.subject, claim.amount, claim.cap) for claim in claims])
        args: list[Any] = [_listed(settled), identity, round(hold_s * 1e6), claimed]
        refused_by: str = await self._ask(lambda: self._reserve(args=args))
        return refused_by or None

    async def settle(self, settled: Sequence[Settlement]) -> None:
        await self._ask(lambda: self._settle(args=[_listed(settled)]))

    async def spent(self, subject: str) -> int:
        return int(await self._ask(lambda: self._used(args=["[]", subject])))

    async def first_to_announce(self, what: str) -> bool:
        return bool(await self._ask(lambda: self._announce(args=["[]", what])))

    async def days(self, count: int) -> list[Spent]:
        by_day = await self._ask(lambda: self._redis.hgetall(f"rag:spent:{SITE}"))
        dated = sorted(
            (datetime.fromtimestamp(int(day) * DAY_S, UTC).date(), int(spent)) for day, spent in by_day.items()
        )
        return [Spent(day.isoformat(), spent) for day, spent in dated[-count:]]

    async def close(self) -> None:
        self._thread.shutdown(wait=False)
        self._redis.close()

    async def _ask(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except FAILURES as error:
            raise unavailable(self._url, error) from error


def _listed(settled: Sequence[Settlement]) -> str:
    return json.dumps([(one.id, dict(one.amounts)) for one in settled])

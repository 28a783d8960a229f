"""slowapi's store of hits in one Redis that several servers share.

Counted in Redis' own time, so that servers whose clocks disagree count alike; told in the wall clock's seconds of this
machine. It must not know who is counted: keys are made, and hashed, by the caller. Hits expire by themselves.
"""

from typing import Any

from limits.storage import RedisStorage

from rag.stores.redis.link import FAILURES, connection_options, unavailable
from rag.stores.sqlite.file import Clocks

_MARK = "rag-"

ANSWER_TIMEOUT_S = 0.25
"""After that the worker counts for itself. All visitors who count on this worker wait for it together, once."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window, amount = tonumber(ARGV[1]), ARGV[2] * 1000000, tonumber(ARGV[3])
"""

_ACQUIRE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
if redis.call('ZCARD', KEYS[1]) + amount > limit then return 0 end
local newest = redis.call('ZRANGE', KEYS[1], -1, -1)[1]
-- Two hits of one microsecond must stay two.
local at = math.max(now, newest and newest + 1 or 0)
for i = 0, amount - 1 do redis.call('ZADD', KEYS[1], at + i, string.format('%.0f', at + i)) end
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
return 1
"""

_WINDOW = """
local after = '(' .. string.format('%.0f', now - window)
local oldest = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'LIMIT', 0, 1)[1]
if not oldest then return {0, 0} end
return {redis.call('ZCOUNT', KEYS[1], oldest, '+inf'), math.max(0, now - oldest)}
"""


def redis_storage_uri(url: str) -> str:
    """The storage URI of this module's store in the Redis at `url` (redis://, rediss:// or unix://)."""
    return f"{_MARK}{url}"


class SharedRedisStorage(RedisStorage):
    """Moving windows in Redis' time; the rest is that of `limits`. Its methods raise what `FAILURES` holds."""

    STORAGE_SCHEME = [f"{_MARK}{scheme}" for scheme in ("redis", "rediss", "unix")]  # noqa: RUF012  as the base does
    over_network = True

    def __init__(self, uri: str, wrap_exceptions: bool = False, *, clocks: Clocks) -> None:
        self._url = uri.removeprefix(_MARK)
        self._clocks = clocks
        super().__init__(
            self._url, key_prefix="rag:limit", wrap_exceptions=wrap_exceptions, **connection_options(ANSWER_TIMEOUT_S)
        )
        client: Any = self.storage
        self._acquire, self._window = (client.register_script(_NOW + script) for script in (_ACQUIRE, _WINDOW))

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return FAILURES

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts `amount` hits where the last `expiry` seconds leave room for all of them; else counts none."""
        return bool(self._acquire([self.prefixed_key(key)], [limit, expiry, amount]))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest hit still counted was made (now, where there is none), and how many are counted."""
        used, age_us = self._window([self.prefixed_key(key)], [limit, expiry, 0])
        return self._clocks.wall_s() - age_us / 1e6, used

    def check(self) -> bool:
        """False: slowapi would ask while a visitor waits. Whether Redis is back, `prove` finds out aside."""
        return False

    def prove(self) -> None:
        """Raises StateUnavailable where nothing can be counted now."""
        try:
            self.storage.set("rag:check", "1", px=10_000)
        except FAILURES as error:
            raise unavailable(self._url, error) from error

    def prune(self) -> int:
        """Nothing to do: hits expire."""
        return 0

    def close(self) -> None:
        self.storage.close()

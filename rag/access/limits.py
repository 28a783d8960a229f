"""Limits of requests per visitor that hold exactly across worker processes and servers, through slowapi.

It must not know how a visitor is told from another, nor what a refusal looks like. A visitor's
bucket (an address, a network) is hashed before anything stores or logs it. Where hits are kept, the storage URI says.

Several limits in one value, `1000/hour;60/minute`, are checked from the shortest window to the longest; the first that
is exhausted refuses. It does not count the request, nor do the longer ones, only the shorter ones that had let it pass:
who hammers against the minute loses nothing of the hour. The headers speak of the tightest limit.
"""

import asyncio
import math
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

from limits import RateLimitItem, parse_many
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.requests import Request

from rag.access.callers import hashed
from rag.errors import ConfigError, RateLimited, StateUnavailable
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.limits import SqliteStorage as SqliteStorage  # makes its URIs known to slowapi
from rag.stores.sqlite.limits import sqlite_storage_uri as sqlite_storage_uri

PROBE_INTERVAL_S = 1.0
"""How often a store in the network that fell silent is asked whether it is back, by each worker and by no visitor."""


class Store(Protocol):
    """What a store of hits offers beside slowapi's own methods."""

    over_network: bool
    """True: a call may take as long as its time-out, so none is made on the event loop."""

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]: ...

    def prove(self) -> None:
        """Raises StateUnavailable where nothing can be counted now."""

    def prune(self) -> int:
        """Removes what no longer counts; returns the number of rows."""

    def close(self) -> None: ...


class LimitExceeded(RateLimited):
    """A refusal; `headers` are the X-RateLimit ones of the response."""

    def __init__(self, private: str, *, retry_after_s: float, headers: dict[str, str]) -> None:
        super().__init__(private, retry_after_s=retry_after_s)
        self.headers = headers


class _Limiter(Limiter):
    """slowapi's, but deaf to RATELIMIT_* variables and to a `.env` in the working directory."""

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        return default_value


class RateLimits:
    """Named limits, such as `{"chat": "20/minute", "search": "30/minute;1000/hour"}`, over one `Store`.

    While the store does not answer, each worker counts for itself. It asks for a file again after 1 to 32 seconds, for
    a store in the network every `PROBE_INTERVAL_S`, aside. Raises ConfigError for a limit that cannot be read.
    """

    def __init__(self, *, limits: Mapping[str, str], storage_uri: str, enabled: bool, clocks: Clocks) -> None:
        self._items = {name: _parse(name, value) for name, value in limits.items()}
        self._clocks = clocks
        options: dict[str, Any] = {"clocks": clocks}
        with warnings.catch_warnings(action="ignore"):  # that the file it is told to read instead of .env is missing
            self._limiter = _Limiter(
                key_func=lambda request: request.state.bucket,
                strategy="moving-window",
                storage_uri=storage_uri,
                storage_options=options,
                in_memory_fallback_enabled=True,
                enabled=enabled,
                config_filename="",
                key_style="endpoint",
            )
        # One line for every refusal would bury the log; the access log and the metrics count them.
        self._limiter.logger.addFilter(lambda record: not record.msg.startswith("ratelimit "))
        self._store = cast(Store, self._limiter._storage)
        # One thread: when the store falls silent all visitors wait for one time-out together, not each for its own.
        self._thread = ThreadPoolExecutor(1, "rate_limits") if self._store.over_network else None
        self._probe: asyncio.Task[None] | None = None
        self._away = ""
        """What the probe heard last from a store that is away."""
        self._guards = {name: self._guard(name, items) for name, items in self._items.items()}

    async def check(self, name: str, bucket: str) -> dict[str, str]:
        """Counts one request of this bucket; returns the response's X-RateLimit headers, none where switched off.

        X-RateLimit-Reset is in seconds since 1970. Raises LimitExceeded; KeyError for a name that has no limit.
        """
        guard = self._guards[name]
        if not self._limiter.enabled:
            return {}
        key = hashed(bucket)
        if self._thread is None:
            return self._count(guard, name, key)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._count, guard, name, key)
        finally:
            if self._limiter._storage_dead and (self._probe is None or self._probe.done()):
                self._probe = asyncio.create_task(self._until_it_answers())

    async def check_store(self) -> None:
        """Raises StateUnavailable where the limits do not hold across workers now; ends the fallback where they do."""
        if self._away:  # whoever asks for `/ready` should not wait for it either
            raise StateUnavailable(self._away)
        await self._prove()

    async def _prove(self) -> None:
        if self._thread is None:
            self._store.prove()
        else:
            await asyncio.to_thread(self._store.prove)
        self._limiter._storage_dead = False

    async def prune(self) -> int:
        """Removes what no longer counts; returns the number of rows. Raises StateUnavailable."""
        return self._store.prune() if self._thread is None else await asyncio.to_thread(self._store.prune)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        self._store.close()

    def _count(self, guard: Callable[[Request], None], name: str, key: str) -> dict[str, str]:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": {"bucket": key}}
        refused_by = None
        try:
            guard(Request(scope))
        except RateLimitExceeded as refusal:
            refused_by = refusal.detail
        headers, retry_after_s = self._headers(name, key)
        if refused_by is not None:
            raise LimitExceeded(f"{name}: more than {refused_by}", retry_after_s=retry_after_s, headers=headers)
        return headers

    async def _until_it_answers(self) -> None:
        while self._limiter._storage_dead:
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                await self._prove()
            except StateUnavailable as error:
                self._away = str(error)
        self._away = ""

    def _guard(self, name: str, items: list[RateLimitItem]) -> Callable[[Request], None]:
        def guard(request: Request) -> None:
            """slowapi limits functions and files its counts under their names."""

        guard.__name__ = name
        limited: Callable[[Request], None] = self._limiter.limit(";".join(map(str, items)))(guard)
        return limited

    def _headers(self, name: str, key: str) -> tuple[dict[str, str], int]:
        endpoint = f"{__name__}.{name}"
        limiter = self._limiter.limiter
        try:
            windows = [(item, limiter.get_window_stats(item, key, endpoint)) for item in self._items[name]]
        except self._store.base_exceptions:
            self._limiter._storage_dead = True
            return self._headers(name, key)
        # Of several exhausted limits the one that frees up last decides when it is worth coming back.
        item, window = min(windows, key=lambda pair: (pair[1].remaining, -pair[1].reset_time))
        headers = {
            "X-RateLimit-Limit": str(item.amount),
            "X-RateLimit-Remaining": str(max(0, window.remaining)),
            "X-RateLimit-Reset": str(math.ceil(window.reset_time)),
        }
        return headers, max(1, math.ceil(window.reset_time - self._clocks.wall_s()))


def _parse(name: str, value: str) -> list[RateLimitItem]:
    try:
        return sorted(parse_many(value), key=lambda item: item.get_expiry())
    except ValueError:
        # slowapi itself would log it and go on without a limit.
        fault = f"the rate limit of {name} is {value!r}; write it like 20/minute or 60/minute;1000/hour"
        raise ConfigError([fault]) from None

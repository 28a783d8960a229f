"""One call to one of several equal endpoints: who is asked, when it is tried again, and when it is given up.

The only user of httpx. Knows status codes, headers and bytes, but not what the bodies mean: that is `azure_openai`.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from tenacity import AsyncRetrying, RetryCallState

from rag.errors import ContentFiltered, UpstreamError, UpstreamRejected, UpstreamTimeout
from rag.models import Endpoint
from rag.resilience import Breaker, Clock, Deadline, RetryBudget

log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS = 3
"""Calls made for one question, at most, over all endpoints."""
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 8.0
MAX_BODY_BYTES = 32 * 1024 * 1024
"""An answer larger than this is no answer of a model; it would only fill the memory."""
FINAL_STATUSES = frozenset({400, 401, 403, 404, 405, 409, 411, 413, 415, 422})
"""The same request would be refused again."""
ELSEWHERE_STATUSES = frozenset({401, 403, 404})
"""Refused for this endpoint's key or deployment: another endpoint may still answer."""


class Unanswered(UpstreamError):
    """One attempt failed in a way that another attempt may mend."""

    def __init__(self, private: str, *, retry_after_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(private, retry_after_s=retry_after_s)
        self.throttled = throttled


class Refused(UpstreamRejected):
    """The request was refused for good; `elsewhere` tells whether another endpoint may see it differently."""

    def __init__(self, private: str, *, elsewhere: bool) -> None:
        super().__init__(private)
        self.elsewhere = elsewhere


@dataclass
class Target:
    """An endpoint, and how it has been doing."""

    endpoint: Endpoint
    breaker: Breaker
    url: httpx.URL = field(init=False)
    headers: dict[str, str] = field(init=False, repr=False)
    throttled_until: float = 0.0

    def __post_init__(self) -> None:
        self.url = httpx.URL(self.endpoint.url)
        key = self.endpoint.api_key
        auth = {"Authorization": f"Bearer {key}"} if self.endpoint.bearer else {"api-key": key}
        self.headers = {"Content-Type": "application/json", **(auth if key else {})}


@asynccontextmanager
async def http_client(*, connections: int = 1024) -> AsyncIterator[httpx.AsyncClient]:
    """A pool over aiohttp's transport: httpx's own loses a connection for good when a visitor leaves."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60)
    timeout = httpx.Timeout(None, connect=5.0)
    # Proxies of the environment are not for the model's endpoint: the key would pass through them unasked.
    async with httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=timeout, trust_env=False) as client:
        yield client


class Upstream:
    """The endpoints of one kind (chat or embeddings), behind retries, breakers and a shared retry budget."""

    def __init__(
        self,
        *,
        kind: str,
        endpoints: Sequence[Endpoint],
        client: httpx.AsyncClient,
        budget: RetryBudget,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.kind = kind
        self.targets = [Target(endpoint, Breaker(clock=clock)) for endpoint in endpoints]
        self._client = client
        self._budget = budget
        self._clock = clock
        self._sleep = sleep

    def health(self) -> dict[str, Any]:
        """For `/ready`: each endpoint's name and breaker; `ok` while one of them may be called."""
        usable = any(target.breaker.state != "open" for target in self.targets)
        endpoints = [{"endpoint": target.endpoint.name, "breaker": target.breaker.state} for target in self.targets]
        return {"status": "ok" if usable else "unavailable", "endpoints": endpoints}

    async def call(
        self, body: dict[str, Any], *, deadline: Deadline, read: Callable[[httpx.Response], Awaitable[T]]
    ) -> T:
        """POST `body`, and return what `read` makes of the response; `read` owns closing it when it succeeds.

        Raises `UpstreamTimeout` at the deadline, `UpstreamRejected` and `ContentFiltered` when asking again is
        useless, `UpstreamError` when every attempt failed or no endpoint may be asked.
        """
        content = orjson.dumps(body)
        tried: list[Target] = []
        retrying = AsyncRetrying(
            retry=self._may_retry, stop=_stop_at(deadline), wait=self._wait_for(tried), sleep=self._sleep,
            before_sleep=self._log_retry(tried), reraise=True,
        )  # fmt: skip
        self._budget.active += 1
        retry_in_flight = False
        try:
            async with deadline.timeout():
                async for attempt in retrying:
                    with attempt:
                        if attempt.retry_state.attempt_number > 1 and not retry_in_flight:
                            retry_in_flight = True
                            self._budget.retrying += 1
                        target = self._choose(tried)
                        tried.append(target)
                        return await self._attempt(target, content, read, deadline)
        except TimeoutError:
            raise UpstreamTimeout(f"{self.kind}: no answer within the request's deadline") from None
        finally:
            self._budget.active -= 1
            self._budget.retrying -= retry_in_flight
        raise AssertionError("tenacity reraises the last failure")

    async def _attempt(
        self, target: Target, content: bytes, read: Callable[[httpx.Response], Awaitable[T]], deadline: Deadline
    ) -> T:
        breaker = target.breaker
        breaker.begin()
        settle = breaker.abandoned
        try:
            request = self._client.build_request("POST", target.url, content=content, headers=target.headers)
            response = await self._client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    await self._refuse(target, response)
                answer = await read(response)
            except BaseException:
                await response.aclose()
                raise
            settle = breaker.succeeded
            return answer
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            settle = breaker.failed
            raise Unanswered(f"{target.endpoint.name}: {type(error).__name__}") from None
        except Unanswered as error:
            # A throttled endpoint is healthy: it is left alone for as long as it asks, and no longer.
            if error.throttled:
                target.throttled_until = self._clock() + min(error.retry_after_s or 1.0, 60.0)
            else:
                settle = breaker.failed
            raise
        except Refused:
            settle = breaker.failed
            raise
        except ContentFiltered:
            settle = breaker.succeeded
            raise
        except asyncio.CancelledError:
            # Either the deadline passed, which speaks against the endpoint, or the visitor left, which does not.
            if deadline.remaining_s == 0:
                settle = breaker.failed
            raise
        finally:
            settle()

    async def _refuse(self, target: Target, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status, place = response.status_code, target.endpoint.name
        body = await read_body(response)
        try:
            error = orjson.loads(body).get("error") or {}
            code = str(error.get("code") or error.get("type") or "")
        except (ValueError, AttributeError):
            code = ""
        if code == "content_filter" or "content_filter" in code:
            raise ContentFiltered(f"{place}: the prompt was refused by the content filter")
        private = f"{place}: HTTP {status}{f' {code[:80]}' if code else ''}"
        if status in FINAL_STATUSES:
            raise Refused(private, elsewhere=status in ELSEWHERE_STATUSES)
        raise Unanswered(private, retry_after_s=_retry_after(response.headers), throttled=status == 429)

    def _choose(self, tried: list[Target]) -> Target:
        """The first endpoint that is healthy and was not asked yet, else one that is only throttled or tried."""
        usable = [target for target in self.targets if target.breaker.available()]
        if not usable:
            raise UpstreamError(f"{self.kind}: the breaker of every endpoint is open")
        now = self._clock()
        return min(usable, key=lambda target: (target in tried, target.throttled_until > now))

    def _elsewhere(self, tried: list[Target]) -> bool:
        now = self._clock()
        return any(
            target not in tried and target.breaker.available() and target.throttled_until <= now
            for target in self.targets
        )

    def _may_retry(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Refused):
            return error.elsewhere and len(self.targets) > state.attempt_number
        return isinstance(error, Unanswered) and self._budget.allows_one_more()

    def _wait_for(self, tried: list[Target]) -> Callable[[RetryCallState], float]:
        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if self._elsewhere(tried):
                return 0.0
            if isinstance(error, Unanswered) and error.retry_after_s is not None:
                return error.retry_after_s
            ceiling = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (state.attempt_number - 1))
            return random.uniform(0, ceiling)  # noqa: S311 - full jitter needs no secret

        return wait

    def _log_retry(self, tried: list[Target]) -> Callable[[RetryCallState], None]:
        def write(state: RetryCallState) -> None:
            fields = {
                "upstream": self.kind,
                "endpoint": tried[-1].endpoint.name if tried else "",
                "attempt": state.attempt_number,
                "attempts": ATTEMPTS,
                "delay_ms": round(state.upcoming_sleep * 1000),
                "reason": str(state.outcome.exception()) if state.outcome else "",
            }
            log.warning("upstream call failed, trying again", extra=fields)

        return write


def _stop_at(deadline: Deadline) -> Callable[[RetryCallState], bool]:
    # A pause that outlasts the deadline would only delay the degraded answer.
    return lambda state: state.attempt_number >= ATTEMPTS or state.upcoming_sleep >= deadline.remaining_s


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait, from `retry-after-ms` or else `Retry-After`; None where neither is a number."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


async def read_body(response: httpx.Response) -> bytes:
    """The whole body, decoded, at most `MAX_BODY_BYTES`; closes the response. Raises `Unanswered` beyond that."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Unanswered(f"a body of more than {MAX_BODY_BYTES} bytes")
    finally:
        await response.aclose()
    return bytes(body)

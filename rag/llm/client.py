"""One call to one of several equal endpoints: who is asked, when it is tried again, and when it is given up.

Knows status codes, headers and bytes, but not what the bodies mean: that is `azure_openai`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import aiohttp
import httpx
import orjson
from tenacity import AsyncRetrying, RetryCallState

from rag.calls import UNMETERED, UNOBSERVED, CallObserver, Meter, Refused, Throttled, TooSlow, Unanswered
from rag.deadline import Clock, Deadline
from rag.errors import ContentFiltered, UpstreamError, UpstreamTimeout
from rag.llm import model_quirks
from rag.llm.http_client import BILL, bill_of, read_body, reason_of, take_bill
from rag.llm.resilience import Breaker, RetryBudget, RetryShare, full_jitter, retry_after_s
from rag.llm.target import Target
from rag.types import Endpoint

log = logging.getLogger(__name__)
T = TypeVar("T")
Read = Callable[[httpx.Response], Awaitable[T]]

ATTEMPTS = 3
"""Calls made for one question, at most, over all endpoints."""
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 8.0
LONGEST_THROTTLE_S = 60.0
"""A throttled endpoint stands behind the others for as long as it asks, and no longer than this."""
UNSAID_THROTTLE_S = 1.0
"""The same for one that does not say how long."""
TIMEOUT_SHARE = 0.5
"""Of the time that is left, for an endpoint while another one could still be asked: a hang must not use up all."""
PROBE_TIMEOUT_S = 3.0
"""For a probe while another endpoint is healthy: the visitor who finds out that it still hangs waits no longer."""
YOUNG_PROBE_S = 0.5
"""How old a probe may be for others to wait for its outcome."""
MAX_ERROR_BYTES = 64 * 1024
"""Of a refusal's body; its code stands at the beginning."""
PASSING_STATUSES = frozenset({408, 409, 425, 429})
"""The statuses below 500 that may be gone at the next attempt; all others would be the same again."""


@dataclass(slots=True)
class _Attempts:
    """What was tried for one call."""

    body: dict[str, Any]
    deadline: Deadline
    share: RetryShare
    tried: list[Target] = field(default_factory=list)
    refused: list[Target] = field(default_factory=list)


class Upstream:
    """The endpoints of one kind (chat or embeddings), behind retries, breakers and a shared retry budget."""

    def __init__(
        self,
        *,
        kind: str,
        endpoints: Sequence[Endpoint],
        client: httpx.AsyncClient,
        budget: RetryBudget,
        observer: CallObserver = UNOBSERVED,
        meter: Meter = UNMETERED,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[..., float] = full_jitter,
    ) -> None:
        self.kind = kind
        self.targets = [Target(endpoint, Breaker(clock=clock)) for endpoint in endpoints]
        self._client = client
        self._budget = budget
        self._observer = observer
        self._meter = meter
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        for target in self.targets:
            target.token_changed = partial(self._tell_of, target)

    def _tell_of(self, target: Target) -> None:
        closed = target.breaker.state == "closed" and not target.barred
        self._observer.breaker_changed(self.kind, target.endpoint.name, closed=closed)

    def health(self) -> dict[str, Any]:
        """For `/ready`: each endpoint's name and state; `ok` while one of them may be called."""
        now = self._clock()
        endpoints = [
            {"endpoint": one.endpoint.name, "breaker": one.breaker.state, "throttled": one.throttled_until > now}
            | ({"token": not one.barred} if one.endpoint.identity else {})
            for one in self.targets
        ]
        usable = any(one.breaker.state != "open" and not one.barred for one in self.targets)
        return {"status": "ok" if usable else "unavailable", "endpoints": endpoints}

    async def call(self, body: dict[str, Any], *, deadline: Deadline, read: Read[T]) -> T:
        """POST `body`, with the endpoint's model, and return what `read` makes of the response.

        `read` owns closing the response when it succeeds, and settles its bill (`take_bill`) where it takes it.
        It may raise `Unanswered` for another attempt.
        Raises `UpstreamTimeout` at the deadline, `UpstreamRejected` and `ContentFiltered` when asking again is
        useless, `UpstreamError` when every attempt failed or no endpoint may be asked.
        """
        with self._budget.request() as share:
            attempts = _Attempts(body, deadline, share)
            try:
                return await self._attempt(attempts, read)
            except UpstreamError as error:
                first: UpstreamError | None = error
            # Only now, and with the failure as its first attempt: a sound call need not spend the time.
            async for attempt in AsyncRetrying(
                retry=lambda state: self._may_retry(attempts, state),
                wait=lambda state: self._pause_s(attempts, state),
                # A pause that outlasts the deadline would only delay the degraded answer.
                stop=lambda state: state.attempt_number >= ATTEMPTS or state.upcoming_sleep >= deadline.remaining_s,
                before_sleep=lambda state: self._log_retry(attempts, state),
                sleep=self._sleep,
                reraise=True,
            ):
                with attempt:
                    if first is not None:
                        failed, first = first, None
                        raise failed
                    return await self._attempt(attempts, read)
        raise AssertionError("tenacity reraises the last failure")

    async def _attempt(self, attempts: _Attempts, read: Read[T]) -> T:
        target = await self._next_target(attempts)
        attempts.tried.append(target)
        timeout_s = remaining_s = attempts.deadline.remaining_s
        if len(attempts.tried) < ATTEMPTS and self._elsewhere(attempts):
            probing = target.breaker.state != "closed"
            timeout_s = min(remaining_s * TIMEOUT_SHARE, PROBE_TIMEOUT_S if probing else remaining_s)
        breaker = target.breaker
        generation, settle = breaker.begin(), breaker.abandoned
        with self._observer.call(self.kind, target.endpoint.name):
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self._exchange(target, attempts.body, read)
                settle = breaker.succeeded
                return answer
            except TimeoutError:
                settle = breaker.failed
                private = f"{target.endpoint.name}: no answer within {timeout_s:.1f} s"
                raise (UpstreamTimeout(private) if timeout_s == remaining_s else TooSlow(private)) from None
            except (httpx.HTTPError, aiohttp.ClientError) as error:
                settle = breaker.failed
                raise Unanswered(f"{target.endpoint.name}: {reason_of(error)}") from None
            except Unanswered:
                # Throttling counts too: else an outage that looks like it would cost two calls for every question.
                settle = breaker.failed
                raise
            except Refused as error:
                attempts.refused.append(target)
                settle = breaker.failed if error.of_endpoint else breaker.succeeded
                raise
            except ContentFiltered:
                settle = breaker.succeeded
                raise
            finally:
                if settle(generation):
                    self._tell_of(target)
                    log.warning("endpoint's breaker changed", extra={
                        "upstream": self.kind, "endpoint": target.endpoint.name, "breaker": breaker.state})  # fmt: skip

    async def _exchange(self, target: Target, body: dict[str, Any], read: Read[T]) -> T:
        """What a refusal teaches is tried at once, as part of the same call."""
        sent = target.options.of(body)
        while True:
            try:
                return await self._post(target, sent, read)
            except Refused as error:
                again = target.options.learn(body, sent=sent, code=error.named, param=error.param)
                if again is None:
                    raise
                sent = again
                fields = {"upstream": self.kind, "endpoint": target.endpoint.name, "refused": error.param}
                log.info("endpoint wants requests spelled differently", extra=fields)

    async def _post(self, target: Target, body: dict[str, Any], read: Read[T]) -> T:
        model = target.endpoint.model
        content = orjson.dumps({**body, "model": model} if model else body)
        # Not `client.build_request`: merging the client's defaults takes a fifth of the whole call's time.
        request = httpx.Request(
            "POST", target.url, content=content, headers=target.headers, extensions={"timeout": {"connect": 5.0}}
        )
        # Here, where every call passes, and not where a question begins: retries and what is asked beside cost too.
        bill = await self._meter.reserve(self.kind, body, len(content))
        try:
            response = await self._client.send(request, stream=True)
            response.extensions[BILL] = bill
            try:
                if response.status_code != 200:
                    await self._refuse(target, response)
                return await read(response)
            except BaseException as error:
                if isinstance(error, UpstreamError):
                    error.http_status = response.status_code
                await response.aclose()
                raise
            finally:
                bill = take_bill(response)
        except (httpx.ConnectError, aiohttp.ClientConnectorError):
            if bill is not None:
                bill.refused(read_the_prompt=False)
            raise
        finally:
            if bill is not None:
                bill.settle()

    async def _refuse(self, target: Target, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status = response.status_code
        try:
            code, param = model_quirks.read(await read_body(response, limit=MAX_ERROR_BYTES))
        except (httpx.HTTPError, aiohttp.ClientError, Unanswered):
            code = param = ""
        code = "" if code == str(status) else code
        private = " ".join(filter(None, [f"{target.endpoint.name}: HTTP {status}", code, param]))
        if bill := bill_of(response):
            bill.refused(read_the_prompt=status == 408 or "content_filter" in code)
        if "content_filter" in code:
            raise ContentFiltered(private)
        if 300 <= status < 500 and status not in PASSING_STATUSES:
            raise Refused(private, named=code, param=param, of_endpoint=model_quirks.is_of_endpoint(status, code))
        asked_s = retry_after_s(response.headers)
        if status == 429 or asked_s is not None:
            pause_s = UNSAID_THROTTLE_S if asked_s is None else min(asked_s, LONGEST_THROTTLE_S)
            target.throttled_until = self._clock() + pause_s
            raise Throttled(private, retry_after_s=asked_s)
        raise Unanswered(private, retry_after_s=asked_s)

    def _usable(self, attempts: _Attempts) -> list[Target]:
        return [
            target
            for target in self.targets
            if not target.barred and target.breaker.available() and target not in attempts.refused
        ]

    async def _next_target(self, attempts: _Attempts) -> Target:
        """The first of those that are not throttled, else the one that is soonest free; the fresh before the tried."""
        usable = self._usable(attempts)
        if not usable:
            timeout_s = min(YOUNG_PROBE_S, attempts.deadline.remaining_s)
            for target in self.targets:
                if await target.breaker.probe_outcome(within_s=timeout_s):
                    break
            usable = self._usable(attempts)
        if not usable:
            barred = {target.barred for target in self.targets if target.barred}
            raise UpstreamError(f"{self.kind}: {' · '.join(barred) or 'the breaker of every endpoint is open'}")
        now = self._clock()
        return min(usable, key=lambda target: (max(0.0, target.throttled_until - now), attempts.tried.count(target)))

    def _elsewhere(self, attempts: _Attempts) -> bool:
        """Whether an endpoint that was not asked yet could answer now."""
        now = self._clock()
        return len(self.targets) > 1 and any(
            target not in attempts.tried and target.throttled_until <= now for target in self._usable(attempts)
        )

    def _may_retry(self, attempts: _Attempts, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, (Unanswered, Refused)) and self._elsewhere(attempts):
            # Its own breaker protects the next endpoint; the budget is for asking where it has just failed.
            return True
        return isinstance(error, Unanswered) and bool(self._usable(attempts)) and attempts.share.allows_a_retry()

    def _pause_s(self, attempts: _Attempts, state: RetryCallState) -> float:
        if self._elsewhere(attempts):
            return 0.0
        now = self._clock()
        throttled_s = min((target.throttled_until - now for target in self._usable(attempts)), default=0.0)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unanswered) and error.retry_after_s is not None and throttled_s > 0:
            return throttled_s
        return self._jitter(state.attempt_number, first_s=FIRST_BACKOFF_S, longest_s=LONGEST_BACKOFF_S)

    def _log_retry(self, attempts: _Attempts, state: RetryCallState) -> None:
        self._observer.retried(self.kind)
        fields = {
            "upstream": self.kind,
            "endpoint": attempts.tried[-1].endpoint.name,
            "attempt": state.attempt_number,
            "attempts": ATTEMPTS,
            "delay_ms": round(state.upcoming_sleep * 1000),
            "reason": str(state.outcome.exception()) if state.outcome else "",
        }
        log.warning("upstream call failed, trying again", extra=fields)

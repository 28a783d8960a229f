"""Retry budgets, pauses and circuit breakers: when to ask again, and when not to ask at all.

Pure bookkeeping on an injected clock; knows nothing of who calls, and of HTTP only how a pause is asked for. Not
thread-safe: one event loop each.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Literal

from rag.deadline import Clock

BreakerState = Literal["closed", "open", "half_open"]


def full_jitter(
    attempt: int, *, first_s: float, longest_s: float, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to pause after the failed `attempt` (1 is the first): anything from 0 to a ceiling that doubles.

    "Full jitter" of Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015: callers that failed together
    do not come back together.
    """
    return uniform(0.0, min(longest_s, first_s * 2.0 ** (attempt - 1)))


_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait, from `retry-after-ms` (Azure's) or else `Retry-After` (RFC 9110, 10.2.3).

    `headers` finds names in lower case. None where neither is sound.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        # Python reads more than the standard has: other scripts' digits, underscores, words for infinity.
        if _SECONDS.fullmatch(asked := headers.get(name, "").strip()):
            return float(asked) / scale
    try:
        # Both moments by the endpoint's own clock, which may differ from ours.
        until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


class RetryBudget:
    """Retries may be a fifth of the active requests, and three are always allowed (Envoy's defaults).

    Without it an outage multiplies the load on a service that is already failing.
    """

    def __init__(self, *, fraction: float = 0.2, at_least: int = 3) -> None:
        self.active = 0
        self.retrying = 0
        self._fraction = fraction
        self._at_least = at_least

    def allows_one_more(self) -> bool:
        """Whether another retry may start now."""
        return self.retrying < max(self._at_least, int(self.active * self._fraction))

    @contextmanager
    def request(self) -> Iterator["RetryShare"]:
        """Counts a request while it is active, and its retry from `allows_a_retry` to the end."""
        share = RetryShare(self)
        self.active += 1
        try:
            yield share
        finally:
            self.active -= 1
            self.retrying -= share.taken


class RetryShare:
    """What one request takes of the budget."""

    __slots__ = ("_budget", "taken")

    def __init__(self, budget: RetryBudget) -> None:
        self.taken = False
        self._budget = budget

    def allows_a_retry(self) -> bool:
        """Whether this request may ask again; once it may, it counts as one that retries until it ends."""
        if not self.taken and self._budget.allows_one_more():
            self.taken = True
            self._budget.retrying += 1
        return self.taken


class Breaker:
    """Stops asking an endpoint that keeps failing, and lets one probe find out when it is back.

    closed → open after `failures_to_open` failures in a row → half-open after `open_s` → closed by one success.
    A probe that has no outcome after another `open_s` makes room for the next: one that hangs must not hide recovery.

    An outcome counts only for the state in which its call began. Calls that were under way when the endpoint failed end
    one after the other, long after it has recovered; they would open the breaker again.
    """

    def __init__(self, *, failures_to_open: int = 5, open_s: float = 2.0, clock: Clock = time.monotonic) -> None:
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._generation = 0
        self._opened_in_generation = 0
        self._next_probe_at: float | None = None
        """None while closed."""
        self._probe_began_at = 0.0
        self._no_probe = asyncio.Event()
        self._no_probe.set()

    @property
    def state(self) -> BreakerState:
        if self._next_probe_at is None:
            return "closed"
        return "half_open" if not self._no_probe.is_set() or self._clock() >= self._next_probe_at else "open"

    def available(self) -> bool:
        """Whether a call may be made now; a half-open breaker has room for one."""
        return self._next_probe_at is None or self._clock() >= self._next_probe_at

    def begin(self) -> int:
        """A call starts. Hand what is returned to exactly one of `succeeded`, `failed` and `abandoned`."""
        if self._next_probe_at is not None:
            self._generation += 1
            self._probe_began_at = self._clock()
            self._next_probe_at = self._probe_began_at + self._open_s
            self._no_probe.clear()
        return self._generation

    def succeeded(self, generation: int) -> bool:
        """The endpoint answered. True if that closed the breaker."""
        if generation < self._opened_in_generation:
            return False
        self._failures = 0
        was_open, self._next_probe_at = self._next_probe_at is not None, None
        self._no_probe.set()
        return was_open

    def failed(self, generation: int) -> bool:
        """The endpoint failed. True if that opened the breaker, False also for a probe that finds it still failing."""
        if generation != self._generation:
            return False
        self._failures += 1
        was_closed = self._next_probe_at is None
        if was_closed and self._failures < self._failures_to_open:
            return False
        self._generation += 1
        self._opened_in_generation = self._generation
        self._next_probe_at = self._clock() + self._open_s
        self._no_probe.set()
        return was_closed

    def abandoned(self, generation: int) -> bool:
        """The caller left before the outcome was known: that says nothing about the endpoint. Always False."""
        if generation == self._generation and self._next_probe_at is not None:
            self._next_probe_at = self._clock()
            self._no_probe.set()
        return False

    async def probe_outcome(self, *, within_s: float) -> bool:
        """Wait for the probe under way, until it is `within_s` old; False if there was nothing to wait for.

        Just after a recovery this spares those who come during the probe an answer without the endpoint.
        """
        left_s = self._probe_began_at + within_s - self._clock()
        if self._no_probe.is_set() or left_s <= 0:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._no_probe.wait()
        return True

"""Deadlines, retry budgets and circuit breakers: how long to wait, and when not to ask at all.

Pure bookkeeping on an injected clock; knows nothing of HTTP or of who calls. Not thread-safe: one event loop each.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

Clock = Callable[[], float]
"""Seconds that only go forward."""

BreakerState = Literal["closed", "open", "half_open"]


class Deadline:
    """The moment by which a request must be answered; whoever waits, waits against it."""

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._ends_at = clock() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._ends_at - self._clock())

    def share(self, fraction: float) -> "Deadline":
        """A nearer deadline for one stage, so that a stage that hangs leaves time for the rest."""
        return Deadline(self.remaining_s * fraction, clock=self._clock)

    def timeout(self) -> asyncio.Timeout:
        """`async with deadline.timeout():` raises `TimeoutError` when the time is up."""
        return asyncio.timeout(self.remaining_s)


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


class Breaker:
    """Stops asking an endpoint that keeps failing, and lets one probe find out when it is back.

    closed → open after `failures_to_open` failures in a row → half-open after `open_s` → closed by one success.
    """

    def __init__(self, *, failures_to_open: int = 5, open_s: float = 2.0, clock: Clock = time.monotonic) -> None:
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._probing or self._clock() - self._opened_at >= self._open_s else "open"

    def available(self) -> bool:
        """Whether a call may be made now; a half-open breaker has room for one."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self._probing)

    def begin(self) -> None:
        """A call starts. Every `begin` is followed by exactly one of `succeeded`, `failed` and `abandoned`."""
        if self._opened_at is not None:
            self._probing = True

    def succeeded(self) -> None:
        self._failures = 0
        self._opened_at = None
        self._probing = False

    def failed(self) -> None:
        self._failures += 1
        if self._probing or self._failures >= self._failures_to_open:
            self._opened_at = self._clock()
        self._probing = False

    def abandoned(self) -> None:
        """The caller left before the outcome was known: that says nothing about the endpoint."""
        self._probing = False

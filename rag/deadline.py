"""The time that a request has: one deadline for all of its stages."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds that only go forward."""

STREAM_LENGTH_S = 300.0
"""For a whole answer from its first words; a stream that goes on for longer is cut."""


class Deadline:
    """The moment by which a request must be answered; whoever waits, waits against it."""

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self.length_s = seconds
        """The whole time that was given, however much of it is left."""
        self._clock = clock
        self._ends_at = clock() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._ends_at - self._clock())

    def share(self, fraction: float) -> "Deadline":
        """A nearer deadline for one stage, so that a stage that hangs leaves time for the rest."""
        return Deadline(self.remaining_s * fraction, clock=self._clock)

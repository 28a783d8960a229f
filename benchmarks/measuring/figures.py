"""Percentiles, and what several rounds come to. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed; not a number where there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


@dataclass(frozen=True)
class Spread:
    """A figure over several rounds."""

    median: float
    lowest: float
    highest: float

    def shown(self, form: str) -> str:
        """`1.02 (0.98–1.05)`, each in `form`, such as `.2f`."""
        if self.lowest == self.highest:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.lowest:{form}}–{self.highest:{form}})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))

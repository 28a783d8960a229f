"""One of the indexes that are searched together: a build or a segment, and which of its rows still count.

Rows of all parts are numbered through, those that were removed left out: the numbers that hits carry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rag.search.hybrid import Build

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """An open build or segment; `first` is the number of its first row among all."""

    build: Build
    first: int
    live: Rows | None = None
    """Its own rows that count, ascending; None where all do."""
    alive: NDArray[np.bool_] | None = field(init=False)
    """The same for each row of its own."""

    def __post_init__(self) -> None:
        alive = None
        if self.live is not None:
            alive = np.zeros(self.build.count, dtype=bool)
            alive[self.live] = True
        object.__setattr__(self, "alive", alive)

    @property
    def count(self) -> int:
        return self.build.count if self.live is None else len(self.live)

    def own(self, rows: Rows) -> Rows:
        """Its own rows for `rows` among all."""
        return rows - self.first if self.live is None else self.live[rows - self.first]

    def among_all(self, own: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """The numbers among all of those of its `own` rows that count, and which ones these are."""
        if self.live is None or self.alive is None:
            return own + self.first, np.ones(len(own), dtype=bool)
        counts = self.alive[own]
        return np.searchsorted(self.live, own[counts]) + self.first, counts


def shared(parts: Sequence[Part], rows: Rows) -> Iterator[tuple[Part, NDArray[np.int64]]]:
    """For each part that has some of `rows`, the places in `rows` at which they are."""
    firsts = np.array([part.first for part in parts], dtype=np.int64)
    owners = np.searchsorted(firsts, rows, side="right") - 1
    for number, part in enumerate(parts):
        places = np.flatnonzero(owners == number)
        if len(places):
            yield part, places

"""The order in which builds went live, kept beside `CURRENT` in `HISTORY`: where a rollback finds the way back.

By their ids builds can only be sorted by age, and the next older one may be the very one that was rolled back from.
`CURRENT` alone says what is live: programs that know no `HISTORY` go on changing it, and this record follows.
"""

from collections.abc import Sequence
from pathlib import Path

from rag import durable

NAME = "HISTORY"


def read(root: Path, *, live: str | None, kept: Sequence[str]) -> list[str]:
    """Ids of kept builds in the order in which they went live; the last one is `live`, where that is known.

    A build that was rolled back from is not among them. Without a record, the kept builds up to `live` by age.
    """
    try:
        recorded = (root / NAME).read_text("ascii").split()
    except (OSError, ValueError):
        recorded = []
    order = [build_id for build_id in recorded if build_id in kept]
    if not order:
        order = sorted(build_id for build_id in kept if live is None or build_id <= live)
    return order if live is None else after(order, live)


def after(order: Sequence[str], live: str) -> list[str]:
    """The order once `live` has gone live: one that was live before is gone back to, another one is new."""
    return list(order[: order.index(live) + 1] if live in order else [*order, live])


def write(root: Path, order: Sequence[str]) -> None:
    """Replace the record, by one rename."""
    durable.replace(root / NAME, "".join(f"{build_id}\n" for build_id in order).encode())

"""What was spent today, and what is put aside for calls that run, for all servers that share one PostgreSQL.

Days and time are the database's own.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from rag.stores.postgres.link import Database
from rag.stores.protocols import DAY_S, SITE, Claim, Settlement, Spent

_DAYS = "SELECT day, spent FROM rag.spending WHERE subject = %s AND day > rag.today() - %s ORDER BY day"


class PostgresSpending:
    """`Database` is the caller's to close."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def reserve(
        self, identity: str, claims: Sequence[Claim], *, hold_s: float, settled: Sequence[Settlement]
    ) -> str | None:
        claimed = json.dumps([(claim.subject, claim.amount, claim.cap) for claim in claims])
        [(refused_by,)] = await self._database.rows(
            "SELECT rag.reserve(%s, %s::jsonb, %s, %s::jsonb)", (identity, claimed, float(hold_s), _listed(settled))
        )
        return None if refused_by is None else str(refused_by)

    async def settle(self, settled: Sequence[Settlement]) -> None:
        await self._database.rows("SELECT rag.settle(%s::jsonb)", (_listed(settled),))

    async def spent(self, subject: str) -> int:
        [(used,)] = await self._database.rows("SELECT rag.used(%s)", (subject,))
        return int(used)

    async def first_to_announce(self, what: str) -> bool:
        [(is_first,)] = await self._database.rows("SELECT rag.announce(%s)", (what,))
        return bool(is_first)

    async def days(self, count: int) -> list[Spent]:
        rows = await self._database.rows(_DAYS, (SITE, count))
        return [Spent(datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat(), spent) for day, spent in rows]

    async def close(self) -> None:
        """Nothing to do: the database is shared."""


def _listed(settled: Sequence[Settlement]) -> str:
    return json.dumps([{"id": one.id, "amounts": dict(one.amounts)} for one in settled])

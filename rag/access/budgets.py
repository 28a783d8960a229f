"""The most that a day may cost: for the site, for a visitor, for a key.

Before a call to a model its worst case is put aside; afterwards what it did cost takes that place. So what is spent and
what is put aside are never more than a budget, in however many processes. Knows no route and no model: it is asked
where calls are made (`rag.calls.Meter`), and learns who calls from `payer`.

Amounts are tokens, or billionths of the currency that the prices are in.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from rag.access.callers import hashed
from rag.calls import Usage
from rag.deadline import STREAM_LENGTH_S
from rag.errors import BudgetSpent, StateUnavailable
from rag.settings import Settings
from rag.stores.protocols import DAY_S, SITE, Claim, Settlement, Spending
from rag.telemetry.metrics import Metrics
from rag.types import Budget

log = logging.getLogger(__name__)

HOLD_S = STREAM_LENGTH_S + 60.0
"""Longer than any call takes."""
SETTLED_WITHIN_S = 0.2
"""How long a settlement may wait for the next call, which takes it along in one transaction."""
WARNED_AT = 0.8
BILLIONTHS = 1_000
"""A price is per million tokens, so a token costs that many millionths, or a thousand times as many billionths."""


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose budget a call counts against, beside the site's."""

    kind: Literal["visitor", "key"]
    bucket: str


payer: ContextVar[Payer | None] = ContextVar("payer", default=None)
"""Who asked, while a request is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Per million tokens, in the budgets' currency."""

    prompt: float = 0.0
    completion: float = 0.0
    embedding: float = 0.0

    def cost(self, usage: Usage, budget: Budget) -> int:
        """In the unit that `budget` is counted in, rounded up."""
        if not budget.currency:
            return usage.prompt + usage.completion + usage.embedding
        price = usage.prompt * self.prompt + usage.completion * self.completion + usage.embedding * self.embedding
        # To nine places first, or 0.1 + 0.2 would cost one unit more than 0.3.
        return math.ceil(round(price * BILLIONTHS, 9))


class _Bill:
    """One call's. Whatever is not known is taken to have cost the most that it may."""

    def __init__(self, worst: Usage, settle: Callable[[Usage], None]) -> None:
        self._worst = worst
        self._usage: Usage | None = None
        self._written: int | None = None
        self._settle: Callable[[Usage], None] | None = settle

    def used(self, usage: Usage) -> None:
        self._usage = usage

    def wrote(self, size: int) -> None:
        # No text has more tokens than bytes.
        self._written = (self._written or 0) + size

    def refused(self, *, read_the_prompt: bool) -> None:
        self._usage = Usage(self._worst.prompt, 0, self._worst.embedding) if read_the_prompt else Usage()

    def settle(self) -> None:
        settle, self._settle = self._settle, None
        if settle is None:
            return
        worst = self._worst
        if self._usage is None and self._written is not None:
            self._usage = Usage(worst.prompt, min(worst.completion, self._written), worst.embedding)
        settle(self._usage or worst)


class Budgets:
    """Asked before every call. `limits` are the budgets by kind, `site`, `visitor` and `key`; there is at least one."""

    def __init__(
        self, *, spending: Spending, limits: Mapping[str, Budget], prices: Prices, at_cap: str, metrics: Metrics | None
    ) -> None:
        if metrics is not None:
            metrics.expect(budgets=limits)
        self._spending = spending
        self._limits = limits
        self._prices = prices
        self._refuses = at_cap == "refuse"
        self._metrics = metrics
        self._caps = {
            kind: int(one.amount * (1e9 if one.currency else 1)) for kind, one in limits.items()
        }  # fmt: skip
        self._subjects: dict[str, Mapping[str, str]] = {}
        self._settled: deque[Settlement] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._announced: set[tuple[int, str]] = set()

    async def reserve(self, kind: str, body: Mapping[str, Any], size: int) -> _Bill | None:
        """See `rag.calls.Meter`. While the store does not answer nothing is left: nobody could say what is spent."""
        subjects = self._of(payer.get())
        if not subjects:
            return None
        if kind == "chat":
            # No text has more tokens than bytes, and the body holds the names and marks around each message too.
            worst = Usage(prompt=size, completion=body.get("max_tokens") or body["max_completion_tokens"])
        else:
            worst = Usage(embedding=size)
        claims = [
            Claim(subject, self._prices.cost(worst, self._limits[kind]), self._caps[kind])
            for kind, subject in subjects.items()
        ]
        identity, settled = secrets.token_hex(16), self._take_settled()
        try:
            refused_by = await self._spending.reserve(identity, claims, hold_s=HOLD_S, settled=settled)
        except StateUnavailable as error:
            self._settled.extendleft(reversed(settled))
            log.warning("spending cannot be counted, no model is asked", extra={"reason": str(error)})
            raise self._spent("the store of spending does not answer") from error
        except BaseException:
            # All of it may be written, or nothing; to settle twice is harmless.
            self._settled.extendleft(reversed(settled))
            self._settle(Settlement(identity, dict.fromkeys(subjects.values(), 0)))
            raise
        if refused_by is not None:
            kind = next(kind for kind, subject in subjects.items() if subject == refused_by)
            if self._metrics is not None:
                self._metrics.budget_refused(kind)
            if kind == "site":
                await self._announce("spent", "today's budget is used up")
            raise self._spent(f"BUDGET_{kind.upper()} is used up")

        def settle(usage: Usage) -> None:
            amounts = {subject: self._prices.cost(usage, self._limits[kind]) for kind, subject in subjects.items()}
            self._settle(Settlement(identity, amounts))

        return _Bill(worst, settle)

    async def headers(self) -> dict[str, str]:
        """What is left to who calls, for the response; the site's own is not for strangers."""
        kind, subject = list(self._of(payer.get()).items())[-1]
        if kind == "site":
            return {}
        try:
            used = await self._spending.spent(subject)
        except StateUnavailable:
            return {}
        return {
            "X-Budget-Limit": self._shown(kind, self._caps[kind]),
            "X-Budget-Remaining": self._shown(kind, max(0, self._caps[kind] - used)),
            "X-Budget-Reset": str(math.ceil(time.time() + _until_midnight_s())),
        }

    async def state(self) -> tuple[float, float] | None:
        """What the site has spent today and may spend, in tokens or money; None where it may spend anything.

        Raises `StateUnavailable`.
        """
        if "site" not in self._caps:
            return None
        unit = 1e9 if self._limits["site"].currency else 1.0
        return await self._spending.spent(SITE) / unit, self._caps["site"] / unit

    async def embeds(self, size: int) -> Literal["now", "later", "never"]:
        """When the site's budget leaves enough to embed `size` bytes of text: today, on another day, or on none."""
        if "site" not in self._caps:
            return "now"
        cost, cap = self._prices.cost(Usage(embedding=size), self._limits["site"]), self._caps["site"]
        try:
            spent = await self._spending.spent(SITE)
        except StateUnavailable:
            return "later"
        return "never" if cost > cap else "now" if spent + cost <= cap else "later"

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        if settled := self._take_settled():
            try:
                await self._spending.settle(settled)
            except StateUnavailable as error:
                log.warning("spending not written", extra={"reason": str(error), "calls": len(settled)})
        await self._spending.close()

    def _of(self, who: Payer | None) -> dict[str, str]:
        """The subjects that a call counts against, by their kind."""
        subjects = {"site": SITE} if "site" in self._limits else {}
        if who is not None and who.kind in self._limits:
            subjects[who.kind] = f"{who.kind}:{hashed(who.bucket)}"
        return subjects

    def _settle(self, settlement: Settlement) -> None:
        self._settled.append(settlement)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    def _take_settled(self) -> list[Settlement]:
        settled = list(self._settled)
        self._settled.clear()
        return settled

    async def _write_soon(self) -> None:
        while True:
            await asyncio.sleep(SETTLED_WITHIN_S)
            settled = self._take_settled()
            try:
                if settled:
                    await self._spending.settle(settled)
                await self._warn()
            except StateUnavailable as error:
                self._settled.extendleft(reversed(settled))
                log.warning("spending not written, tried again", extra={"reason": str(error)})
            if not self._settled:
                return

    async def _warn(self) -> None:
        state = await self.state()
        if state is not None and state[0] >= WARNED_AT * state[1]:
            await self._announce("near", f"{WARNED_AT:.0%} of today's budget are used", spent=state[0], limit=state[1])

    async def _announce(self, what: str, message: str, **fields: float) -> None:
        """One line a day, from whichever process comes first."""
        today = (int(time.time() // DAY_S), what)
        if today not in self._announced:
            self._announced.add(today)
            if await self._spending.first_to_announce(what):
                log.warning(message, extra=fields)

    def _spent(self, private: str) -> BudgetSpent:
        return BudgetSpent(private, retry_after_s=_until_midnight_s(), refuse=self._refuses)

    def _shown(self, kind: str, amount: int) -> str:
        return f"{amount / 1e9:.4f}" if self._limits[kind].currency else str(amount)


def budgets_of(settings: Settings, spending: Callable[[], Spending], metrics: Metrics | None) -> Budgets | None:
    """The ones that the settings name; None where there are none, or no model that costs anything.

    Without `metrics` refusals are not counted: nobody who asked had to do without an answer.
    """
    given = {"site": settings.budget_site, "visitor": settings.budget_visitor, "key": settings.budget_key}
    limits = {kind: one for kind, one in given.items() if one is not None}
    if not limits or settings.demo:
        return None
    prices = Prices(
        prompt=settings.price_input or 0.0, completion=settings.price_output or 0.0, embedding=settings.price_embedding
    )  # fmt: skip
    return Budgets(
        spending=spending(), limits=limits, prices=prices, at_cap=settings.budget_at_cap, metrics=metrics
    )  # fmt: skip


def _until_midnight_s() -> float:
    return DAY_S - time.time() % DAY_S

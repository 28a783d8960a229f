"""Keeps the endpoints of this server's identity authorised: one task renews their token before it ends.

Knows how long a token lives, and nothing of where it comes from: that is `tokens`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from rag.llm.client import Upstream
from rag.llm.entra.tokens import FETCH_S, NoToken, Token, fetch_token
from rag.llm.target import Target
from rag.settings import Settings

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
"""Between two attempts while no token comes."""
SHORTEST_LIFE_S = 1.0
"""Between two renewals, however soon a token says that it ends."""


class Renewal:
    """The token of some targets.

    One that has ended is sent nowhere: its targets are passed over until a new one comes.
    """

    def __init__(
        self, *, targets: Sequence[Target], fetch: Callable[[], Awaitable[Token]],
        now: Callable[[], float] = time.time, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        """`now` counts from 1970."""
        self._targets = targets
        self._fetch = fetch
        self._now = now
        self._sleep = sleep
        self._token: Token | None = None
        self._failures = 0

    async def renew(self) -> None:
        """Fetch a token and hand it to the targets. Raises `NoToken`; the old one then stays until its end."""
        try:
            self._token = await self._fetch()
        except NoToken as error:
            self._failures += 1
            self._give_up_what_ended(str(error))
            raise
        self._failures = 0
        for target in self._targets:
            target.authorise(self._token.text)

    async def run_forever(self) -> None:
        """Renew when it is due; after a failure soon again, and less often while nothing changes."""
        while True:
            await self._sleep(self._pause_s())
            try:
                await self.renew()
            except NoToken as error:
                self.tell(error)

    def tell(self, error: NoToken) -> None:
        left_s = self._token.expires_at - self._now() if self._token else 0.0
        fields = {"reason": str(error), "remedy": error.remedy, "old_one_ends_in_s": max(0, round(left_s))}
        log.warning("no new token for the models", extra=fields)

    def _pause_s(self) -> float:
        now = self._now()
        if not self._failures:
            return max(SHORTEST_LIFE_S, self._token.renew_at - now) if self._token else 0.0
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10))
        # The end of the old one is not slept through.
        left_s = self._token.expires_at - now if self._token else 0.0
        return min(pause_s, left_s) if left_s > 0 else pause_s

    def _give_up_what_ended(self, reason: str) -> None:
        if self._token is None or self._token.expires_at <= self._now():
            for target in self._targets:
                target.bar(f"no token: {reason}")


@asynccontextmanager
async def authorised(
    settings: Settings, *upstreams: Upstream, required: bool = True, within_s: float = FETCH_S
) -> AsyncIterator[None]:
    """Inside, the targets that want it have a token of this server's identity; where none wants it, this does nothing.

    Raises `NoToken` where the first one is `required` and does not come; else it is told, and tried again.
    """
    targets = [target for upstream in upstreams for target in upstream.targets if target.endpoint.identity]
    if not targets:
        yield
        return
    renewal = Renewal(targets=targets, fetch=lambda: fetch_token(settings, within_s=within_s))
    try:
        await renewal.renew()
    except NoToken as error:
        if required:
            raise
        renewal.tell(error)
    task = asyncio.create_task(renewal.run_forever())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

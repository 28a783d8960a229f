"""Removes what is older than it may be, again and again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rag.errors import StateUnavailable
from rag.stores.protocols import Conversations

log = logging.getLogger(__name__)


async def prune_forever(
    conversations: Conversations, *, interval_s: float, also: Callable[[], Awaitable[object]]
) -> None:
    """Every worker asks often; the store lets one of them prune, once per interval, and that one does `also`."""
    while True:
        try:
            removed = await conversations.prune_if_due(interval_s)
            if removed is not None:
                log.info("conversations pruned", extra={"removed": removed})
                await also()
        except StateUnavailable as error:
            log.warning("conversations not pruned", extra={"reason": str(error)})
        await asyncio.sleep(min(interval_s, 60.0))

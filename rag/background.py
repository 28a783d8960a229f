"""Work beside answering, for the life of a worker."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

OBJECTS_BETWEEN_COLLECTIONS = 10_000
"""Python's own 700 are fewer than one chat makes, and looking for cycles among them took a tenth of its time."""


async def in_background(stack: AsyncExitStack, work: Callable[[], Awaitable[None]]) -> None:
    """Start `work`; `stack` cancels it and waits for its end."""
    task = asyncio.ensure_future(work())

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)


def collect_seldom() -> None:
    """What was opened stays for the life of the process, and is not looked through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)

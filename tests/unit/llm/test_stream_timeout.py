"""How long something is waited for, with one timer for many waits."""

import asyncio
import time

import pytest

from rag.llm.stream_timeout import StreamTimeout


def test_each_wait_has_all_of_the_time() -> None:
    async def story() -> int:
        with StreamTimeout(0.2) as patience:
            return sum([await patience.wait(asyncio.sleep(0.05, 1)) for _ in range(8)])

    assert asyncio.run(story()) == 8


def test_a_wait_that_takes_too_long_ends_and_the_task_goes_on() -> None:
    async def story() -> float:
        began = time.monotonic()
        with StreamTimeout(0.05) as patience, pytest.raises(TimeoutError):
            await patience.wait(asyncio.Event().wait())
        took_s = time.monotonic() - began
        await asyncio.sleep(0)
        return took_s

    assert 0.04 < asyncio.run(story()) < 2


def test_time_between_two_waits_does_not_count() -> None:
    async def story() -> bool:
        with StreamTimeout(0.05) as patience:
            await patience.wait(asyncio.sleep(0))
            await asyncio.sleep(0.2)
            return await patience.wait(asyncio.sleep(0.01, True))

    assert asyncio.run(story())


def test_a_task_that_is_cancelled_meanwhile_is_cancelled_and_not_out_of_time() -> None:
    async def story() -> None:
        async def waits() -> None:
            with StreamTimeout(30) as patience:
                await patience.wait(asyncio.Event().wait())

        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())

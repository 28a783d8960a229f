"""`rag.llm.single_flight`: one call for everyone who asks the same at the same time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rag.deadline import Deadline
from rag.errors import UpstreamError, UpstreamTimeout
from rag.llm.single_flight import SingleFlightEmbedder


class Slow:
    """An embedder that answers, or fails, when it is told to."""

    name = "slow"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    def health(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        self.asked.append(tuple(texts))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return np.ones((len(texts), 2), dtype=np.float32)


async def _started(
    embedder: SingleFlightEmbedder, count: int, seconds: float = 5.0
) -> list["asyncio.Task[np.ndarray]"]:
    tasks = [asyncio.create_task(embedder.embed(["same"], deadline=Deadline(seconds))) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_the_same_question_asked_by_many_at_once_is_embedded_once() -> None:
    async def check() -> None:
        slow = Slow()
        tasks = await _started(SingleFlightEmbedder(embedder=slow), 20)
        slow.gate.set()
        assert [vectors.shape for vectors in await asyncio.gather(*tasks)] == [(1, 2)] * 20
        assert slow.asked == [("same",)]

    asyncio.run(check())


def test_nothing_is_kept_for_whoever_asks_later() -> None:
    async def check() -> None:
        slow = Slow()
        slow.gate.set()
        once = SingleFlightEmbedder(embedder=slow)
        for _ in range(2):
            await once.embed(["same"], deadline=Deadline(5.0))
        assert slow.asked == [("same",)] * 2

    asyncio.run(check())


def test_other_questions_do_not_wait_for_it() -> None:
    async def check() -> None:
        slow = Slow()
        once = SingleFlightEmbedder(embedder=slow)
        tasks = await _started(once, 2)
        tasks.append(asyncio.create_task(once.embed(["other"], deadline=Deadline(5.0))))
        await asyncio.sleep(0)
        assert slow.asked == [("same",), ("other",)]
        slow.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(check())


def test_a_failure_is_everybodys() -> None:
    async def check() -> None:
        slow = Slow()
        slow.failure = UpstreamError("down")
        tasks = await _started(SingleFlightEmbedder(embedder=slow), 5)
        slow.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, UpstreamError) for outcome in outcomes)
        assert slow.asked == [("same",)]

    asyncio.run(check())


def test_when_the_visitor_who_asked_first_leaves_another_one_asks() -> None:
    async def check() -> None:
        slow = Slow()
        first, *others = await _started(SingleFlightEmbedder(embedder=slow), 4)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        while len(slow.asked) < 2:
            await asyncio.sleep(0)
        slow.gate.set()
        assert all(vectors.shape == (1, 2) for vectors in await asyncio.gather(*others))
        assert slow.asked == [("same",)] * 2

    asyncio.run(check())


def test_a_visitor_who_waits_and_leaves_takes_nobody_along() -> None:
    async def check() -> None:
        slow = Slow()
        first, second, third = await _started(SingleFlightEmbedder(embedder=slow), 3)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        slow.gate.set()
        assert (await first).shape == (await third).shape == (1, 2)

    asyncio.run(check())


def test_whoever_waits_does_so_no_longer_than_the_own_deadline() -> None:
    async def check() -> None:
        slow = Slow()
        once = SingleFlightEmbedder(embedder=slow)
        (patient,) = await _started(once, 1)
        with pytest.raises(UpstreamTimeout):
            await once.embed(["same"], deadline=Deadline(0.01))
        slow.gate.set()
        assert (await patient).shape == (1, 2)

    asyncio.run(check())

"""What is embedded once, and what again."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from rag.embedding_cache import EmbeddingCache
from rag.errors import UpstreamError
from rag.resilience import Deadline


class Model:
    """Counts what it is asked; waits for `gate`, then fails as often as it is told."""

    name = "model"

    def __init__(self, *, failures: int = 0) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._failures = failures

    def health(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        self.asked.append(list(texts))
        await self.gate.wait()
        if self._failures:
            self._failures -= 1
            raise UpstreamError("down")
        return np.full((len(texts), 2), len(texts[0]), dtype=np.float32)


def cached(model: Model, *, capacity: int = 10, dimensions: int = 2) -> EmbeddingCache:
    return EmbeddingCache(embedder=model, dimensions=lambda: dimensions, capacity=capacity)


async def until_asked(model: Model) -> None:
    async with asyncio.timeout(5):
        while not model.asked:
            await asyncio.sleep(0)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_a_question_is_embedded_once_and_each_text_has_its_own_vector() -> None:
    async def story() -> None:
        model = Model()
        cache = cached(model)
        for text in ("abc", "abcd", "abc", "abcd"):
            vectors = await cache.embed([text], deadline=Deadline(5))
            assert vectors.tolist() == [[len(text)] * 2]
        assert model.asked == [["abc"], ["abcd"]]

    run(story)


def test_the_same_question_of_many_at_a_time_is_embedded_once() -> None:
    async def story() -> None:
        model = Model()
        model.gate.clear()
        cache = cached(model)
        asking = [asyncio.create_task(cache.embed(["abc"], deadline=Deadline(5))) for _ in range(20)]
        await until_asked(model)
        model.gate.set()
        assert [vectors.tolist() for vectors in await asyncio.gather(*asking)] == [[[3, 3]]] * 20
        assert model.asked == [["abc"]]

    run(story)


def test_a_visitor_who_leaves_takes_no_other_visitors_question_along() -> None:
    async def story() -> None:
        model = Model()
        model.gate.clear()
        cache = cached(model)
        first, second = (asyncio.create_task(cache.embed(["abc"], deadline=Deadline(5))) for _ in range(2))
        await until_asked(model)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        model.gate.set()
        assert (await second).tolist() == [[3, 3]]

    run(story)


def test_a_failure_is_neither_kept_nor_shared() -> None:
    async def story() -> None:
        model = Model(failures=1)
        model.gate.clear()
        cache = cached(model)
        asking = [asyncio.create_task(cache.embed(["abc"], deadline=Deadline(5))) for _ in range(2)]
        await until_asked(model)
        model.gate.set()
        first, second = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, UpstreamError)
        assert isinstance(second, np.ndarray)
        assert (await cache.embed(["abc"], deadline=Deadline(5))).tolist() == [[3, 3]]
        assert model.asked == [["abc"]] * 2

    run(story)


def test_whoever_waits_for_anothers_call_waits_no_longer_than_their_own_deadline() -> None:
    async def story() -> None:
        model = Model()
        model.gate.clear()
        cache = cached(model)
        first = asyncio.create_task(cache.embed(["abc"], deadline=Deadline(60)))
        await until_asked(model)
        # Out of time it asks for itself, and the model's own deadline says so.
        second = asyncio.create_task(cache.embed(["abc"], deadline=Deadline(0.01)))
        async with asyncio.timeout(5):
            while len(model.asked) < 2:
                await asyncio.sleep(0.005)
        model.gate.set()
        assert (await first).tolist() == (await second).tolist()

    run(story)


def test_the_question_that_was_not_asked_for_the_longest_time_is_forgotten_first() -> None:
    async def story() -> None:
        model = Model()
        cache = cached(model, capacity=2)
        for text in ("a", "bb", "a", "ccc", "a", "bb"):
            await cache.embed([text], deadline=Deadline(5))
        assert model.asked == [["a"], ["bb"], ["ccc"], ["bb"]]

    run(story)


def test_what_is_kept_cannot_be_changed() -> None:
    async def story() -> None:
        vectors = await cached(Model()).embed(["abc"], deadline=Deadline(5))
        with pytest.raises(ValueError, match="read-only"):
            vectors[0, 0] = 1

    run(story)


def test_several_texts_pass_through() -> None:
    async def story() -> None:
        model = Model()
        cache = cached(model)
        for _ in range(2):
            assert (await cache.embed(["abc", "d"], deadline=Deadline(5))).shape == (2, 2)
        assert model.asked == [["abc", "d"]] * 2

    run(story)


def test_a_vector_that_the_build_cannot_be_searched_for_is_not_kept() -> None:
    async def story() -> None:
        model = Model()
        cache = cached(model, dimensions=3)
        for _ in range(2):
            await cache.embed(["abc"], deadline=Deadline(5))
        assert model.asked == [["abc"]] * 2

    run(story)

"""One call for everyone who asks the same at the same time.

A suggested question is asked by many within a second. Nothing is kept beyond that: a vector from memory would hide that
the embeddings are down. Knows an embedder only by its interface.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag.deadline import Deadline
from rag.errors import UpstreamError, UpstreamTimeout
from rag.protocols import Embedder


class SingleFlightEmbedder:
    """An embedder whose callers share the call that is under way for the same texts, its failure too."""

    def __init__(self, *, embedder: Embedder) -> None:
        self.name = embedder.name
        self._embedder = embedder
        self._flights: dict[tuple[str, ...], asyncio.Future[np.ndarray | None]] = {}

    def health(self) -> dict[str, Any]:
        return self._embedder.health()

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        """Unit vectors, float32 [len(texts), dimensions]; not to be written to. Raises `UpstreamError`."""
        asked = tuple(texts)
        while (flight := self._flights.get(asked)) is not None:
            try:
                async with asyncio.timeout(deadline.remaining_s):
                    vectors = await asyncio.shield(flight)
            except TimeoutError:
                raise UpstreamTimeout("the same question, asked before, is not embedded yet") from None
            if vectors is not None:
                return vectors
            # Who had called has left. One of those who waited calls now.
        flight = self._flights[asked] = asyncio.get_running_loop().create_future()
        outcome: np.ndarray | None = None
        try:
            outcome = await self._embedder.embed(texts, deadline=deadline)
            return outcome
        except UpstreamError as error:
            flight.set_exception(error)
            flight.exception()  # looked at, in case that nobody waits
            raise
        finally:
            del self._flights[asked]
            if not flight.done():
                flight.set_result(outcome)

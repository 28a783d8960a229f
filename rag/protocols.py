"""What the rooms ask of a model, so that none of them has to know which one it is."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import numpy as np

from rag.deadline import Deadline
from rag.types import Completion, Generated, Missing, Prompt

DENSE_WEIGHT = 0.6
"""The dense leg's share for an embedding model trained on sentences; the manifest holds each model's own."""


class Embedder(Protocol):
    """What turns texts into vectors: Azure's service, or the embedded one."""

    name: str

    def health(self) -> dict[str, Any]: ...

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        """Unit vectors, float32 [len(texts), dimensions]. Raises `UpstreamError`."""


class ChatModel(Protocol):
    """What answers a prompt: Azure's service, or the one that quotes."""

    degraded: Missing | None
    """What every answer of this model lacks."""
    generated: Generated

    def health(self) -> dict[str, Any]: ...

    async def complete(self, prompt: Prompt, *, deadline: Deadline) -> Completion: ...

    def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str | Completion]: ...


async def pieces(
    model: ChatModel, prompt: Prompt, deadline: Deadline, *, stream: bool
) -> AsyncGenerator[str | Completion | ChatModel, None]:
    """What a model says, as it comes or whole, with its counts; at last the model itself."""
    if stream:
        async with aclosing(model.stream(prompt, deadline=deadline)) as told:  # type: ignore[type-var]
            async for piece in told:
                yield piece
    else:
        completion = await model.complete(prompt, deadline=deadline)
        yield completion
        yield completion.text
    yield model

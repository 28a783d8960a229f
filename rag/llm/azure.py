"""Embeddings and chat in the wire format of Azure OpenAI, which OpenAI, vLLM and Ollama speak too.

Spells requests and checks answers; who is called and how often is `client`'s business.
"""

import binascii
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp
import httpx
import numpy as np
import orjson

from rag.calls import Refused, Unanswered, Usage
from rag.deadline import STREAM_LENGTH_S, Deadline
from rag.errors import UpstreamError, UpstreamTimeout
from rag.llm.chat_answers import (  # fmt: skip
    JUDGING,
    judged_completion,
    judged_pieces,
    read_completion,
    read_pieces,
    tokens_of,
    used_up,
)
from rag.llm.client import Read, Upstream
from rag.llm.http_client import bill_of, read_body
from rag.llm.model_quirks import TOO_LONG
from rag.llm.stream_timeout import StreamTimeout
from rag.protocols import DENSE_WEIGHT
from rag.types import Completion, Generated, Missing, Prompt

log = logging.getLogger(__name__)
T = TypeVar("T")

STREAM_SILENCE_S = 10.0
"""Between two tokens, and never more than the request's own time; a stream that is silent for longer has broken off."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_VECTOR_BYTES = 128 * 1024
"""One vector, as numbers in full length; 4,096 dimensions need 90 kB."""


class AzureEmbedder:
    """Turns texts into vectors. `name` is the identity of the model, as a build's manifest keeps it."""

    dense_weight = DENSE_WEIGHT
    """Its share beside the words when a build is searched."""

    def __init__(self, *, upstream: Upstream, name: str) -> None:
        self.name = name
        self._upstream = upstream

    def health(self) -> dict[str, Any]:
        return self._upstream.health()

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        """Unit vectors, float32 [len(texts), dimensions], in the order of `texts`. Raises `UpstreamError`."""
        body = {"input": list(texts), "encoding_format": "base64"}

        async def read(response: httpx.Response) -> np.ndarray:
            return _vectors(response, await read_body(response, limit=(len(texts) + 1) * MAX_VECTOR_BYTES), len(texts))

        return await self._upstream.call(body, deadline=deadline, read=read)


class AzureChat:
    """Answers a prompt, whole or token by token."""

    degraded: Missing | None = None
    """What every answer of this model lacks: nothing."""
    generated: Generated = "model"

    def __init__(self, *, upstream: Upstream, temperature: float, max_tokens: int) -> None:
        self._upstream = upstream
        self._temperature = temperature
        self._max_tokens = max_tokens

    def health(self) -> dict[str, Any]:
        return self._upstream.health()

    async def complete(self, prompt: Prompt, *, deadline: Deadline) -> Completion:
        """The whole answer. Raises `UpstreamError`, or `ContentFiltered` for a refused prompt or answer."""

        async def read(response: httpx.Response) -> Completion:
            completion = read_completion(response, await read_body(response, limit=MAX_ANSWER_BYTES))
            return judged_completion(completion) if prompt.judges else completion

        return await self._asked(prompt, deadline=deadline, read=read, stream=False)

    async def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str | Completion]:
        """Pieces of the answer as they arrive, at last the whole where its tokens were counted, or it was cut.

        The deadline counts until the first piece.
        Fails before the first piece as `complete` does; after it, with an `UpstreamError` and never with a restart.
        """

        async def read(response: httpx.Response) -> tuple[str, AsyncGenerator[str | Completion, None]]:
            pieces, first = read_pieces(response), ""
            if prompt.judges:
                pieces = judged_pieces(pieces)
            async for piece in pieces:
                if isinstance(piece, Completion):
                    if piece.cut:
                        raise used_up()
                    return "", _only(replace(piece, text=""))
                first += piece
                if first.strip():
                    return first, pieces
            return "", pieces

        first, pieces = await self._asked(prompt, deadline=deadline, read=read, stream=True)
        whole = Deadline(STREAM_LENGTH_S)
        async with aclosing(pieces):
            yield first
            with StreamTimeout(min(STREAM_SILENCE_S, deadline.length_s)) as timeout:
                while True:
                    try:
                        piece = await timeout.wait(anext(pieces, None))
                        if not whole.remaining_s:
                            raise TimeoutError
                    except TimeoutError:
                        raise UpstreamTimeout("the stream fell silent, or went on for too long") from None
                    except (httpx.HTTPError, aiohttp.ClientError, Unanswered) as error:
                        raise UpstreamError(f"the stream broke off: {error or type(error).__name__}") from None
                    if piece is None:
                        return
                    yield piece

    async def _asked(self, prompt: Prompt, *, deadline: Deadline, read: Read[T], stream: bool) -> T:
        """Asks again with a shorter prompt while the model cannot read that much; such a refusal costs nothing."""
        while True:
            try:
                return await self._upstream.call(self._body(prompt, stream=stream), deadline=deadline, read=read)
            except Refused as error:
                if error.named != TOO_LONG or prompt.shorter is None:
                    raise
                log.warning("prompt too long for the model, asked with less", extra={"reason": str(error)})
                prompt = prompt.shorter()

    def _body(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        body = {"messages": prompt.messages, "temperature": self._temperature, "max_tokens": self._max_tokens}
        body |= {"response_format": JUDGING} if prompt.judges else {}
        if not stream:
            return body
        counted = all(_counts_streams(target.endpoint.url) for target in self._upstream.targets)
        return body | {"stream": True} | ({"stream_options": {"include_usage": True}} if counted else {})


async def _only(completion: Completion) -> AsyncGenerator[str | Completion, None]:
    yield completion


def _counts_streams(url: str) -> bool:
    """Whether the service there counts a stream's tokens: Azure refuses to be asked in versions before 2024-09."""
    version = re.search(r"[?&]api-version=(\d{4}-\d{2})", url)
    return version is None or version[1] >= "2024-09"


def _vectors(response: httpx.Response, body: bytes, count: int) -> np.ndarray:
    """Float32 [count, dimensions], normalised; `Unanswered` for every other form."""
    try:
        answer = orjson.loads(body)
        items = sorted(answer["data"], key=lambda item: item["index"])
        if [item["index"] for item in items] != list(range(count)):
            raise Unanswered(f"{len(items)} embeddings for {count} texts")
        vectors = np.stack([_vector(item["embedding"]) for item in items])
        if vectors.ndim != 2:
            raise Unanswered("embeddings that are no vectors")
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise Unanswered(f"embeddings of a wrong form ({type(error).__name__})") from None
    if (bill := bill_of(response)) and (read := tokens_of({"completion_tokens": 0, **(answer.get("usage") or {})})):
        bill.used(Usage(embedding=read[0]))
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    # Of what is no number every comparison is false.
    if not ((norms > 0) & (norms < np.inf)).all():
        raise Unanswered("embeddings that are not numbers, or zero")
    return np.asarray(vectors / norms[:, None], dtype=np.float32)


def _vector(embedding: str | list[float]) -> np.ndarray:
    # Some compatible servers ignore `encoding_format` and send numbers.
    if isinstance(embedding, str):
        return np.frombuffer(binascii.a2b_base64(embedding, strict_mode=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)

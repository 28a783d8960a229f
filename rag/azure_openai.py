"""Embeddings and chat in the wire format of Azure OpenAI, which OpenAI, vLLM and Ollama speak too.

Spells requests and checks answers; who is called and how often is `upstream`'s business.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
import httpx
import numpy as np
import orjson

from rag.errors import ContentFiltered, RagError, UpstreamError, UpstreamTimeout
from rag.fusion import DENSE_WEIGHT
from rag.models import Completion, Prompt
from rag.resilience import Deadline
from rag.upstream import Unanswered, Upstream, read_body

log = logging.getLogger(__name__)

STREAM_SILENCE_S = 30.0
"""Between two tokens; a stream that is silent for longer has broken off."""
STREAM_LENGTH_S = 300.0
"""For a whole answer; a stream that goes on for longer is cut."""
DRAIN_S = 0.5
"""For the end of a response whose answer is complete: a connection read to its end is used again."""
MAX_EVENT_BYTES = 1024 * 1024
"""One event of a stream; more is no event of a model."""


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
        body: dict[str, Any] = {"input": list(texts), "encoding_format": "base64"}
        model = self._upstream.targets[0].endpoint.model
        if model:
            body["model"] = model

        async def read(response: httpx.Response) -> np.ndarray:
            return _vectors(await read_body(response), len(texts))

        return await self._upstream.call(body, deadline=deadline, read=read)


class AzureChat:
    """Answers a prompt, whole or token by token."""

    degraded: str | None = None
    """What is missing from every answer of this model: nothing."""

    def __init__(self, *, upstream: Upstream, temperature: float, max_tokens: int) -> None:
        self._upstream = upstream
        self._temperature = temperature
        self._max_tokens = max_tokens

    def health(self) -> dict[str, Any]:
        return self._upstream.health()

    async def complete(self, prompt: Prompt, *, deadline: Deadline) -> Completion:
        """The whole answer. Raises `UpstreamError`, or `ContentFiltered` for a refused prompt or answer."""

        async def read(response: httpx.Response) -> Completion:
            return _completion(await read_body(response))

        return await self._upstream.call(self._body(prompt, stream=False), deadline=deadline, read=read)

    async def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str]:
        """Pieces of the answer as they arrive. The deadline counts until the first piece.

        Fails before the first piece as `complete` does; after it, with an `UpstreamError` and never with a restart.
        """

        async def read(response: httpx.Response) -> tuple[list[str], AsyncIterator[list[str]]]:
            pieces = _pieces(response)
            async for first in pieces:
                return first, pieces
            raise Unanswered("a stream without a token")

        first, pieces = await self._upstream.call(self._body(prompt, stream=True), deadline=deadline, read=read)
        whole = Deadline(STREAM_LENGTH_S)
        async with aclosing(pieces):  # type: ignore[type-var]  # an async generator, typed as an iterator
            yield "".join(first)
            while True:
                try:
                    async with Deadline(min(STREAM_SILENCE_S, whole.remaining_s)).timeout():
                        piece = await anext(pieces, None)
                except TimeoutError:
                    raise UpstreamTimeout("the stream fell silent, or went on for too long") from None
                except (httpx.HTTPError, aiohttp.ClientError, Unanswered) as error:
                    raise UpstreamError(f"the stream broke off: {type(error).__name__}") from None
                if piece is None:
                    return
                yield "".join(piece)

    def _body(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        model = self._upstream.targets[0].endpoint.model
        return {
            "messages": prompt.messages,
            "temperature": self._temperature,
            "max_tokens": self._max_tokens,
            **({"stream": True} if stream else {}),
            **({"model": model} if model else {}),
        }


def _vectors(body: bytes, count: int) -> np.ndarray:
    """Float32 [count, dimensions], normalised; `Unanswered` for every other form."""
    try:
        items = sorted(orjson.loads(body)["data"], key=lambda item: item["index"])
        if [item["index"] for item in items] != list(range(count)):
            raise Unanswered(f"{len(items)} embeddings for {count} texts")
        rows = [_vector(item["embedding"]) for item in items]
        vectors = np.stack(rows)
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise Unanswered(f"embeddings of a wrong form ({type(error).__name__})") from None
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise Unanswered("embeddings that are not numbers, or zero")
    return np.asarray(vectors / norms, dtype=np.float32)


def _vector(embedding: str | list[float]) -> np.ndarray:
    # Some compatible servers ignore `encoding_format` and send numbers.
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)


def _completion(body: bytes) -> Completion:
    try:
        answer = orjson.loads(body)
        choice = answer["choices"][0]
        text, reason = choice["message"].get("content"), choice.get("finish_reason")
        usage = answer.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Unanswered(f"an answer of a wrong form ({type(error).__name__})") from None
    if reason == "content_filter":
        raise ContentFiltered("the answer was refused by the content filter")
    if not isinstance(text, str) or not text.strip():
        raise Unanswered("an answer without text")
    return Completion(text=text, prompt_tokens=tokens[0], completion_tokens=tokens[1])


async def _pieces(response: httpx.Response) -> AsyncIterator[list[str]]:
    """The texts of a stream's events, those that arrived together in one list; closes the response.

    Ends after `[DONE]`, or after a finish reason where `[DONE]` is missing; `Unanswered` for a stream that was cut.
    """
    buffer = b""
    finished = False
    chunks = response.aiter_bytes()
    try:
        while True:
            try:
                async with asyncio.timeout(DRAIN_S if finished else None):
                    chunk = await anext(chunks, b"")
            except TimeoutError:
                return
            if not chunk:
                break
            # Lines are cut from bytes, so that a character split over two chunks is whole again when it is decoded.
            *lines, buffer = (buffer + chunk).split(b"\n")
            if len(buffer) > MAX_EVENT_BYTES:
                raise Unanswered("an event of a wrong form")
            texts: list[str] = []
            for line in lines:
                data = line[5:].strip() if line.startswith(b"data:") else b""
                if data == b"[DONE]":
                    finished = True
                elif data:
                    text, reason = _event(data)
                    if reason == "content_filter":
                        raise ContentFiltered("the answer was refused by the content filter")
                    finished = finished or reason is not None
                    if text:
                        texts.append(text)
            if texts:
                yield texts
        if not finished:
            raise Unanswered("the stream was cut")
    finally:
        await response.aclose()


def _event(data: bytes) -> tuple[str, str | None]:
    """Text and finish reason of one event; both may be empty, as in Azure's first event."""
    try:
        event = orjson.loads(data)
        if error := event.get("error"):
            filtered = "content_filter" in str(error.get("code"))
            failure: RagError = ContentFiltered("refused in the stream") if filtered else Unanswered("an error event")
            raise failure
        if not (choices := event.get("choices")):
            return "", None
        choice = choices[0]
        return (choice.get("delta") or {}).get("content") or "", choice.get("finish_reason")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise Unanswered(f"an event of a wrong form ({type(error).__name__})") from None

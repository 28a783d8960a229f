"""Embeddings and chat in the wire format of Azure OpenAI, which OpenAI, vLLM and Ollama speak too.

Spells requests and checks answers; who is called and how often is `upstream`'s business.
"""

import asyncio
import binascii
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp
import httpx
import numpy as np
import orjson

from rag.calls import Refused, Unanswered
from rag.deadline import STREAM_LENGTH_S, Deadline
from rag.errors import ContentFiltered, RagError, UpstreamError, UpstreamTimeout
from rag.llm.client import Read, Upstream, read_body
from rag.llm.http_client import chunks_of
from rag.llm.stream_timeout import StreamTimeout
from rag.protocols import DENSE_WEIGHT
from rag.types import Completion, Prompt

log = logging.getLogger(__name__)
T = TypeVar("T")

STREAM_SILENCE_S = 10.0
"""Between two tokens, and never more than the request's own time; a stream that is silent for longer has broken off."""
DRAIN_S = 0.5
"""For the end of a response whose answer is complete: a connection read to its end is used again."""
MAX_EVENT_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
NO_ANSWER = "The model gave no answer to this question. Please put it in other words."
"""What is shown in place of an answer without a word: asked again, the model would be paid to say as little."""
TOO_LONG = "context_length_exceeded"
"""The code with which a model refuses more than it can read."""
MOST_TOKENS = 10**9
NO_REASON = "done"
CUT = "length"
"""Why an answer ends that reached the longest length allowed."""
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
            return _vectors(await read_body(response, limit=(len(texts) + 1) * MAX_VECTOR_BYTES), len(texts))

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
            return _completion(await read_body(response, limit=MAX_ANSWER_BYTES))

        return await self._asked(prompt, deadline=deadline, read=read, stream=False)

    async def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str | Completion]:
        """Pieces of the answer as they arrive, at last the whole where its tokens were counted, or it was cut.

        The deadline counts until the first piece.
        Fails before the first piece as `complete` does; after it, with an `UpstreamError` and never with a restart.
        """

        async def read(response: httpx.Response) -> tuple[str, AsyncGenerator[str | Completion, None]]:
            pieces, first = _pieces(response), ""
            async for piece in pieces:
                if isinstance(piece, Completion):
                    if piece.cut:
                        raise _used_up()
                    continue
                first += piece
                if first.strip():
                    return first, pieces
            return NO_ANSWER, pieces

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
        """Asks once more without the earlier turns where the model cannot read that much."""
        try:
            return await self._upstream.call(self._body(prompt, stream=stream), deadline=deadline, read=read)
        except Refused as error:
            if error.named != TOO_LONG or len(prompt.messages) <= 2:
                raise
            log.warning("prompt too long for the model, asked without the conversation", extra={"reason": str(error)})
            shorter = replace(prompt, messages=(prompt.messages[0], prompt.messages[-1]))
            return await self._upstream.call(self._body(shorter, stream=stream), deadline=deadline, read=read)

    def _body(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        body = {"messages": prompt.messages, "temperature": self._temperature, "max_tokens": self._max_tokens}
        if not stream:
            return body
        counted = all(_counts_streams(target.endpoint.url) for target in self._upstream.targets)
        return body | {"stream": True} | ({"stream_options": {"include_usage": True}} if counted else {})


def _vectors(body: bytes, count: int) -> np.ndarray:
    """Float32 [count, dimensions], normalised; `Unanswered` for every other form."""
    try:
        items = sorted(orjson.loads(body)["data"], key=lambda item: item["index"])
        if [item["index"] for item in items] != list(range(count)):
            raise Unanswered(f"{len(items)} embeddings for {count} texts")
        vectors = np.stack([_vector(item["embedding"]) for item in items])
        if vectors.ndim != 2:
            raise Unanswered("embeddings that are no vectors")
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise Unanswered(f"embeddings of a wrong form ({type(error).__name__})") from None
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


def _completion(body: bytes) -> Completion:
    try:
        answer = orjson.loads(body)
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content") or message.get("refusal") or ""
        tokens = _tokens(answer.get("usage")) or (0, 0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Unanswered(f"an answer of a wrong form ({type(error).__name__})") from None
    if reason == "content_filter":
        raise ContentFiltered("the answer was refused by the content filter")
    if not isinstance(text, str):
        raise Unanswered("an answer of a wrong form (text)")
    if not text.strip():
        if reason == CUT:
            raise _used_up()
        text = NO_ANSWER
    return Completion(text=text, prompt_tokens=tokens[0], completion_tokens=tokens[1], cut=reason == CUT)


def _used_up() -> Refused:
    # Asked again it would think as long again. A model elsewhere may think less.
    private = "CHAT_MAX_TOKENS were used up by thinking, before the first word: raise it"
    return Refused(private, named=CUT, param="max_tokens", of_endpoint=False)


def _counts_streams(url: str) -> bool:
    """Whether the service there counts a stream's tokens: Azure refuses to be asked in versions before 2024-09."""
    version = re.search(r"[?&]api-version=(\d{4}-\d{2})", url)
    return version is None or version[1] >= "2024-09"


def _tokens(usage: Any) -> tuple[int, int] | None:
    """Of the prompt and of the answer; None where they were not counted in a known form, which spoils no answer."""
    if usage is None:
        return None
    try:
        prompt, completion = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        return (prompt, completion) if 0 <= min(prompt, completion) <= max(prompt, completion) <= MOST_TOKENS else None
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


async def _pieces(response: httpx.Response) -> AsyncGenerator[str | Completion, None]:
    """The texts of a stream's events, those that arrived together in one piece, then the whole where its tokens were
    counted, or it was cut; closes the response.

    Ends after `[DONE]`, or after a finish reason where `[DONE]` is missing; `Unanswered` for a stream that was cut.
    """
    buffer = bytearray()
    reason = whole = ""
    tokens: tuple[int, int] | None = None
    chunks = chunks_of(response)
    try:
        while True:
            chunk = await (_drained(chunks) if reason else anext(chunks, b""))
            # Lines are cut from bytes, so that a character split over two chunks is whole again when it is decoded.
            buffer += chunk or b"\n"
            if b"\n" in chunk or not chunk:
                *lines, rest = buffer.split(b"\n")
                buffer = rest
                text, ended, counted = _said(lines)
                reason = reason or ended
                tokens = counted or tokens
                if text:
                    whole += text
                    yield text
            if not chunk:
                break
            if len(buffer) > MAX_EVENT_BYTES:
                raise Unanswered("an event of a wrong form")
        if not reason or (reason == NO_REASON and not whole):
            raise Unanswered("the stream was cut")
        if tokens or reason == CUT:
            yield Completion(whole, *(tokens or (0, 0)), cut=reason == CUT)
    finally:
        await response.aclose()


async def _drained(chunks: AsyncIterator[bytes]) -> bytes:
    """What follows a complete answer; empty where nothing does, or not soon: the answer is whole without it."""
    try:
        async with asyncio.timeout(DRAIN_S):
            return await anext(chunks, b"")
    except (TimeoutError, httpx.HTTPError, aiohttp.ClientError):
        return b""


def _said(lines: Iterable[bytes | bytearray]) -> tuple[str, str, tuple[int, int] | None]:
    """The text of these lines' events, the reason for which the answer ends if it does, and its tokens."""
    texts: list[str] = []
    tokens = None
    ended = ""
    for line in lines:
        data = line[5:].strip() if line.startswith(b"data:") else b""
        if data == b"[DONE]":
            ended = ended or NO_REASON
        elif data:
            text, reason, counted = _event(data)
            tokens = counted or tokens
            if reason == "content_filter":
                raise ContentFiltered("the answer was refused by the content filter")
            ended = ended or str(reason or "")
            texts.append(text)
    return "".join(texts), ended, tokens


def _event(data: bytes | bytearray) -> tuple[str, str | None, tuple[int, int] | None]:
    """Text, finish reason and tokens of one event; all may be missing, as in Azure's first event."""
    try:
        event = orjson.loads(data)
        if error := event.get("error"):
            filtered = "content_filter" in str(error.get("code"))
            failure: RagError = ContentFiltered("refused in the stream") if filtered else Unanswered("an error event")
            raise failure
        tokens = _tokens(event.get("usage"))
        if not (choices := event.get("choices")):
            return "", None, tokens
        delta = choices[0].get("delta") or {}
        text = delta.get("content") or delta.get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError
        return text, choices[0].get("finish_reason"), tokens
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise Unanswered(f"an event of a wrong form ({type(error).__name__})") from None

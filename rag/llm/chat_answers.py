"""A chat model's answer on the wire, whole or as a stream of events: its words, its end, and what it costs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import aiohttp
import httpx
import orjson

from rag.calls import Refused, Unanswered, Usage
from rag.errors import ContentFiltered, RagError
from rag.llm.http_client import bill_of, chunks_of, take_bill
from rag.types import Completion

DRAIN_S = 0.5
"""For the end of a response whose answer is complete: a connection read to its end is used again."""
MAX_EVENT_BYTES = 1024 * 1024
MOST_TOKENS = 10**9
NO_REASON = "done"
CUT = "length"
"""Why an answer ends that reached the longest length allowed."""


def read_completion(response: httpx.Response, body: bytes) -> Completion:
    """The whole answer that `body` holds; its tokens go on the response's bill."""
    try:
        answer = orjson.loads(body)
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content") or message.get("refusal") or ""
        counted = tokens_of(answer.get("usage"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Unanswered(f"an answer of a wrong form ({type(error).__name__})") from None
    if counted and (bill := bill_of(response)):
        bill.used(Usage(*counted))
    if reason == "content_filter":
        raise ContentFiltered("the answer was refused by the content filter")
    if not isinstance(text, str):
        raise Unanswered("an answer of a wrong form (text)")
    if not text.strip():
        if reason == CUT:
            raise used_up()
        text = ""
    return Completion(text, *(counted or (0, 0)), cut=reason == CUT)


def used_up() -> Refused:
    # Asked again it would think as long again. A model elsewhere may think less.
    private = "CHAT_MAX_TOKENS were used up by thinking, before the first word: raise it"
    return Refused(private, named=CUT, param="max_tokens", of_endpoint=False)


def tokens_of(usage: Any) -> tuple[int, int] | None:
    """Of the prompt and of the answer; None where they were not counted in a known form, which spoils no answer."""
    if usage is None:
        return None
    try:
        prompt, completion = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        return (prompt, completion) if 0 <= min(prompt, completion) <= max(prompt, completion) <= MOST_TOKENS else None
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


async def read_pieces(response: httpx.Response) -> AsyncGenerator[str | Completion, None]:
    """The texts of a stream's events, those that arrived together in one piece, then the whole where its tokens were
    counted, or it was cut; closes the response and settles its bill.

    Ends after `[DONE]`, or after a finish reason where `[DONE]` is missing; `Unanswered` for a stream that was cut.
    """
    buffer = bytearray()
    reason = whole = ""
    tokens: tuple[int, int] | None = None
    chunks, bill = chunks_of(response), take_bill(response)
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
                if bill is not None:
                    bill.wrote(len(text.encode()))
                    if counted:
                        bill.used(Usage(*counted))
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
        if bill is not None:
            bill.settle()
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
        tokens = tokens_of(event.get("usage"))
        if not (choices := event.get("choices")):
            return "", None, tokens
        delta = choices[0].get("delta") or {}
        text = delta.get("content") or delta.get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError
        return text, choices[0].get("finish_reason"), tokens
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise Unanswered(f"an event of a wrong form ({type(error).__name__})") from None

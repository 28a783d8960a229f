"""How an answer leaves the emulator: promptly and soundly, or late, cut, garbled or never.

Knows the wire of both operations, nothing of routes, keys or control.
"""

import asyncio
import base64
import json
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from tests.support import azure_chat as chat
from tests.support import azure_errors as errors
from tests.support.azure_exchange import EVENTS, JSON, Exchange
from tests.support.azure_faults import Fault
from tests.support.azure_vectors import Vectors

HUGE_BYTES = 48 * 1024 * 1024
MULTIBYTE_TAIL = " Größer als 10 °C – naïve 日本語 🌊."
"""Said where an answer would be plain ASCII and could not be split inside a character."""


@dataclass(frozen=True)
class Profile:
    """How the emulator behaves when nothing is wrong. Delays are before the first byte, per request or per token."""

    embeddings_delay_ms: float = 0.0
    chat_delay_ms: float = 0.0
    token_delay_ms: float = 0.0
    reply: str | None = None
    """What is answered instead of an answer from the sources."""
    tokens: list[str] | None = None
    """The same, token by token."""

    def fixed_tokens(self) -> list[str] | None:
        if self.tokens is None and self.reply is not None:
            return re.findall(r"\s*\S+|\s+$", self.reply)
        return self.tokens


async def _deliver_fault(exchange: Exchange, fault: Fault, *, beginning: bytes, content_type: bytes = JSON) -> bool:
    """The faults that both operations share; False if the fault is about the answer's content.

    `beginning` is how a huge body starts: a JSON object, open inside its last string.
    """
    match fault.kind:
        case "status":
            body = errors.body_for(fault.status)
            if fault.body is not None:
                body = fault.body.encode() if isinstance(fault.body, str) else orjson.dumps(fault.body)
            headers = [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
            await exchange.answer(fault.status, body, headers=headers)
        case "hang":
            await exchange.pause(None)
        case "reset":
            exchange.reset()
        case "not_json":
            page = f"<html><body><h1>Gateway</h1>{errors.WORDING}</body></html>"
            await exchange.answer(200, page.encode(), b"text/html; charset=utf-8")
        case "too_long":
            await exchange.answer(400, errors.TOO_LONG if fault.body is None else orjson.dumps(fault.body))
        case "content_filter_prompt":
            await exchange.answer(400, errors.FILTERED_PROMPT)
        case "huge_body":
            await exchange.start(200, content_type)
            await exchange.write(beginning)
            piece = b"x" * 65_536
            for _ in range(-(-(fault.size or HUGE_BYTES) // len(piece))):
                await exchange.pause(0.0001)
                await exchange.write(piece)
            await exchange.end(b'"}')
        case _:
            return False
    return True


async def _deliver_body(exchange: Exchange, body: bytes, fault: Fault | None) -> None:
    """A JSON body, sound or broken off."""
    kind = fault.kind if fault else None
    if kind in ("cut_stream", "stall_after"):
        await exchange.start(200, JSON, [(b"content-length", str(len(body)).encode())])
        await exchange.write(body[: len(body) // 2])
        if kind == "stall_after":
            await exchange.pause(None)
        exchange.close()
    elif kind in ("split_utf8", "many_small_chunks"):
        await exchange.start(200, JSON)
        for start in range(0, len(body), 97):
            await exchange.write(body[start : start + 97])
            await asyncio.sleep(0)
        await exchange.end()
    else:
        await exchange.answer(200, body)


async def deliver_embeddings(
    exchange: Exchange, body: dict[str, Any], fault: Fault | None, profile: Profile, vectors: Vectors, *, model: str
) -> None:
    await exchange.pause(profile.embeddings_delay_ms / 1000)
    kind = fault.kind if fault else None
    if fault and kind == "slow_headers":
        await exchange.pause(fault.seconds)
    if fault and await _deliver_fault(exchange, fault, beginning=b'{"object":"list","data":[],"padding":"'):
        return
    given = body.get("input", "")
    texts = given if isinstance(given, list) else [given]
    wanted = body.get("dimensions")
    if fault and kind == "wrong_dimension":
        wanted = fault.dimension or vectors.dimension // 2
    rows = [vectors.of(text, wanted) for text in texts]
    if kind == "nan":
        rows = [np.concatenate([np.full(1, np.nan, np.float32), row[1:]]) for row in rows]
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index,
         "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if packed else row}
        for index, row in enumerate(rows)
    ]  # fmt: skip
    if kind == "wrong_count":
        data.pop()
    elif kind == "shuffled":
        data.reverse()
    elif kind == "empty_choices":
        data = []
    spent = sum(len(text) for text in texts) // 4 + len(texts)
    exchange.billed += spent
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    answer = {"object": "list", "data": data, "model": model, "usage": usage}
    if kind == "nan" and not packed:
        # orjson writes NaN as null, Python's own writer as NaN: both are seen in the wild, this one is worse.
        await _deliver_body(exchange, json.dumps(answer, default=lambda row: row.tolist()).encode(), None)
        return
    await _deliver_body(exchange, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), fault)


async def deliver_chat(
    exchange: Exchange, body: dict[str, Any], fault: Fault | None, profile: Profile, *, model: str, azure: bool
) -> None:
    await exchange.pause(profile.chat_delay_ms / 1000)
    kind = fault.kind if fault else None
    if fault and kind == "slow_headers":
        await exchange.pause(fault.seconds)
    beginning, content_type = b'{"object":"chat.completion","choices":[],"padding":"', JSON
    if body.get("stream"):
        beginning, content_type = b"data: " + beginning, EVENTS
    if fault and await _deliver_fault(exchange, fault, beginning=beginning, content_type=content_type):
        return
    tokens = [] if kind == "empty_answer" else profile.fixed_tokens()
    reply = chat.reply_to(
        {"messages": [], **body}, model=model, azure=azure, tokens=tokens,
        filtered_after=fault.tokens if fault and kind == "content_filter_answer" else None,
        tail=MULTIBYTE_TAIL if kind == "split_utf8" else "",
    )  # fmt: skip
    reply = replace(reply, refuses=kind == "refusal")
    exchange.billed += reply.prompt_tokens
    if body.get("stream"):
        options = body.get("stream_options") or {}
        events = chat.as_events(
            reply, include_usage=bool(options.get("include_usage")), annotations=kind == "annotation_events"
        )
        await exchange.start(200, EVENTS)
        await _deliver_events(exchange, events, fault, profile.token_delay_ms / 1000)
        return
    # A whole answer is written whether or not anybody waits for it.
    exchange.billed += len(reply.tokens)
    await exchange.pause(profile.token_delay_ms / 1000 * len(reply.tokens))
    answer = chat.as_json(reply)
    if kind == "empty_choices":
        answer["choices"] = []
    if kind == "error_event_in_stream":
        await exchange.answer(200, errors.body_for(500))
        return
    await _deliver_body(exchange, orjson.dumps(answer), fault)


async def _deliver_events(exchange: Exchange, events: chat.Events, fault: Fault | None, token_delay_s: float) -> None:
    kind = fault.kind if fault else None
    if fault and kind in ("split_utf8", "many_small_chunks"):
        exchange.billed += len(events.tokens)
        whole = b"".join([events.before, *events.tokens, events.finish, events.usage, chat.DONE])
        await _deliver_pieces(exchange, whole, None if kind == "split_utf8" else fault.size or 7)
        return
    await exchange.write(events.before)
    tokens = [] if kind == "empty_choices" else events.tokens
    if fault and kind in ("cut_stream", "stall_after", "error_event_in_stream"):
        tokens = tokens[: fault.tokens]
    for token in tokens:
        await exchange.pause(token_delay_s)
        exchange.billed += 1
        await exchange.write(token)
    if kind == "cut_stream":
        exchange.close()
    elif kind == "stall_after":
        await exchange.pause(None)
    elif kind == "error_event_in_stream":
        await exchange.end(b"data: " + errors.body_for(500) + b"\n\n")
    elif fault and kind == "no_done":
        await exchange.end(events.finish + events.usage if fault.finish else b"")
    elif kind == "empty_choices":
        await exchange.end(events.usage + chat.DONE)
    else:
        await exchange.end(events.finish + events.usage + chat.DONE)


async def _deliver_pieces(exchange: Exchange, whole: bytes, size: int | None) -> None:
    """Pieces of `size` bytes; None ends every piece inside a character of several bytes."""
    start = 0
    for place in range(1, len(whole)):
        inside = whole[place] & 0xC0 == 0x80
        if inside if size is None else place - start == size:
            await exchange.write(whole[start:place])
            # One piece must have left before the next, or the kernel joins them again.
            await exchange.pause(0.001 if size is None else 0.00005)
            start = place
    await exchange.end(whole[start:])

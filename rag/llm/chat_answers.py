"""A chat model's answer on the wire, whole or as a stream of events: its words, its end, and what it costs."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import replace
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
JUDGED = ("asked", "unhappy")
JUDGING: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer", "strict": True,
        "schema": {
            "type": "object", "additionalProperties": False, "required": ["escalation", "answer"],
            "properties": {
                "escalation": {
                    "type": "string", "enum": ["none", *JUDGED],
                    "description": "asked: the visitor wants to reach a person; unhappy: the visitor is upset, or says "
                    "that earlier answers did not help; none: everything else",
                },
                "answer": {"type": "string", "description": "the answer to the visitor, in Markdown"},
            },
        },
    },
}  # fmt: skip
"""The form of an answer with a judgement. The judgement comes first, so that the answer can be read as it arrives."""
_BEGINS = re.compile(
    r"\s*(?:```(?:json)?\s*)?\{\s*"
    r'(?:"escalation"\s*:\s*"(?P<judged>\w{0,20})"\s*,\s*)?"answer"\s*:\s*"'
)
_JUDGED_LATER = re.compile(r'\s*,\s*"escalation"\s*:\s*"(\w{0,20})"')
_PLAIN = re.compile(r'[^"\\]+')
_BEGINNING_CHARS = 200
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
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


class JudgedAnswer:
    """Reads an answer of the form `JUDGING` as it arrives. What has another form is an answer as it stands: a model
    that cannot keep to a form says the same without it."""

    def __init__(self) -> None:
        self.judged = ""
        self._raw = ""
        self._state = "begin"

    def feed(self, piece: str) -> str:
        """The answer's words that are complete with this piece."""
        self._raw += piece
        if self._state == "begin":
            if begun := _BEGINS.match(self._raw):
                self._judge(begun["judged"])
                self._raw, self._state = self._raw[begun.end() :], "answer"
            elif len(self._raw) > _BEGINNING_CHARS or self._raw.lstrip()[:1] not in ("", "{", "`"):
                self._state = "plain"
        if self._state == "plain":
            said, self._raw = self._raw, ""
            return said
        return self._read() if self._state == "answer" else ""

    def end(self) -> str:
        """What is left, at the end of the answer."""
        if self._state == "begin":
            return self._raw
        if self._state == "ended" and (later := _JUDGED_LATER.match(self._raw)):
            self._judge(later[1])
        return ""

    def _judge(self, judged: str | None) -> None:
        self.judged = judged if judged in JUDGED else self.judged

    def _read(self) -> str:
        """The characters of a JSON string up to its end, or to an escape that is not complete."""
        raw, at, said = self._raw, 0, []
        while at < len(raw):
            if raw[at] == '"':
                self._state = "ended"
                at += 1
                break
            if raw[at] != "\\":
                plain = _PLAIN.match(raw, at)
                assert plain is not None  # noqa: S101 - this character is one
                said.append(plain[0])
                at = plain.end()
                continue
            read = _escape(raw[at : at + 12])
            if read is None:
                break
            said.append(read[0])
            at += read[1]
        self._raw = raw[at:]
        return "".join(said)


def _escape(raw: str) -> tuple[str, int] | None:
    """The character that `raw` begins with, escaped, and the length of its escape; None where more has to come."""
    if len(raw) < 2:
        return None
    if raw[1] != "u":
        return _ESCAPES.get(raw[1], raw[1]), 2
    if len(raw) < 6:
        return None
    code = _hex(raw[2:6])
    if not 0xD800 <= code < 0xE000:
        return chr(code), 6
    if code >= 0xDC00 or not r"\u".startswith(raw[6:8]):
        return "\ufffd", 6  # half a character
    if len(raw) < 12:
        return None
    low = _hex(raw[8:12])
    if not 0xDC00 <= low < 0xE000:
        return "\ufffd", 6
    return chr(0x10000 + ((code - 0xD800) << 10) + low - 0xDC00), 12


def _hex(digits: str) -> int:
    return int(digits, 16) if re.fullmatch("[0-9A-Fa-f]{4}", digits) else 0xFFFD


def judged_completion(completion: Completion) -> Completion:
    """A whole answer of the form `JUDGING`, as its words and the judgement."""
    answer = JudgedAnswer()
    text = answer.feed(completion.text) + answer.end()
    return replace(completion, text=text if text.strip() else "", judged=answer.judged)


async def judged_pieces(
    pieces: AsyncGenerator[str | Completion, None],
) -> AsyncGenerator[str | Completion, None]:
    """The pieces of a stream of the form `JUDGING`: the answer's words, then the whole with the judgement."""
    answer, whole, counted = JudgedAnswer(), "", Completion("", 0, 0)
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Completion):
                counted = piece
            elif text := answer.feed(piece):
                whole += text
                yield text
    if rest := answer.end():
        whole += rest
        yield rest
    if counted.text or answer.judged:
        yield replace(counted, text=whole, judged=answer.judged)

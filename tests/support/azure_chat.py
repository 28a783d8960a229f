"""What the emulated model says: an answer composed from the prompt's sources, as JSON or as a stream of events.

Depends on the prompt's wording as little as it can: a source is what follows `[1]`, `[2]`, … in a user's message.
Knows nothing of HTTP.
"""

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tests.support.azure_errors import CAUGHT, SAFE

DOES_NOT_KNOW = "I do not know: the sources say nothing about this."
LONGEST_SENTENCE = 400
"""Characters; what looks like a longer sentence is a table or a list."""
DONE = b"data: [DONE]\n\n"

REASONING_TOKENS = 64
"""Spent before the first word by a model that reasons."""

_MARK = re.compile(r"^[ \t>*#<-]*(?:source\s*)?\[(\d{1,2})\]", re.MULTILINE | re.IGNORECASE)
_END_OF_SOURCES = re.compile(r"^[ \t*#<]*/?(?:question|frage|user question|sources>|/sources)\b.*", re.I | re.M | re.S)
_CODE = re.compile(r"^ *```.*?(?:^ *```.*?$|\Z)", re.MULTILINE | re.DOTALL)
_LABEL = re.compile(r"^(?:title|url|source|page|link|heading|section)s?\s*[:=]", re.IGNORECASE)
_SENTENCE = re.compile(r"(.+?[.!?。！？])(?=\s|$|[^\x00-\x7f])", re.DOTALL)
_NOT_PROSE = ("#", "http://", "https://", "```", "|", "---", "<")


def reasons(deployment: str) -> bool:
    """Whether the model of this deployment thinks before it writes, as its name says; it refuses some parameters."""
    return deployment.startswith("reasoning")


@dataclass(frozen=True)
class Reply:
    """One answer: its tokens, and why it ends."""

    tokens: list[str]
    finish_reason: str
    prompt_tokens: int
    model: str
    azure: bool
    """Whether content filter results are sent, as Azure does and OpenAI does not."""
    refuses: bool = False
    """Whether the words are a refusal, which has a field of its own."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def usage(self) -> dict[str, int]:
        spent = len(self.tokens)
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": spent,
                "total_tokens": self.prompt_tokens + spent}  # fmt: skip


def text_of(content: Any) -> str:
    """A message's content as text: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def answer_from(messages: list[dict[str, Any]]) -> str:
    """The first sentence of the first one or two sources, each with its citation."""
    for message in reversed(messages):
        if message.get("role") == "user":
            said = [
                f"{sentence} [{number}]"
                for number, source in _sources(text_of(message.get("content")))
                if (sentence := _first_sentence(source))
            ]
            if said:
                return " ".join(said[:2])
    return DOES_NOT_KNOW


def _sources(text: str) -> Iterator[tuple[int, str]]:
    marks = list(_MARK.finditer(text))
    seen: set[int] = set()
    for place, mark in enumerate(marks):
        end = marks[place + 1].start() if place + 1 < len(marks) else len(text)
        number = int(mark[1])
        if number and number not in seen:
            seen.add(number)
            yield number, _END_OF_SOURCES.sub("", text[mark.end() : end])


def _first_sentence(source: str) -> str:
    """The first sentence of the first paragraph that is prose; what stands beside the mark is usually a title."""
    beside, _, below = source.partition("\n")
    paragraphs = []
    for block in _CODE.sub("", below).split("\n\n"):
        lines = [line.strip().lstrip("*-> ") for line in block.splitlines()]
        kept = [line for line in lines if line and not line.startswith(_NOT_PROSE) and not _LABEL.match(line)]
        if kept:
            paragraphs.append(" ".join(kept))
    with_sentence = (paragraph for paragraph in paragraphs if _SENTENCE.match(paragraph))
    chosen = next(with_sentence, paragraphs[0] if paragraphs else beside.strip(" :–-\t"))
    sentence = _SENTENCE.match(chosen)
    return (sentence[1] if sentence else chosen)[:LONGEST_SENTENCE]


def reply_to(
    body: dict[str, Any], *, model: str, azure: bool, tokens: list[str] | None, filtered_after: int | None, tail: str
) -> Reply:
    """`tokens` replaces what the emulator would say; `tail` is said at the end; `max_tokens` counts words."""
    if tokens is None:
        answer = answer_from(body["messages"])
        tokens = re.findall(r"\s*\S+", _in_form(answer, body) if body.get("response_format") else answer)
    if tail:
        tokens = [*tokens, *re.findall(r"\s*\S+", tail)]
    finish_reason = "stop"
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if filtered_after is not None:
        tokens, finish_reason = tokens[:filtered_after], "content_filter"
    elif isinstance(limit, int) and len(tokens) > (left := max(0, limit - REASONING_TOKENS * reasons(model))):
        tokens, finish_reason = tokens[:left], "length"
    prompt_tokens = sum(len(text_of(message.get("content"))) for message in body["messages"]) // 4 + 3
    return Reply(tokens, finish_reason, prompt_tokens, model, azure)


def _in_form(answer: str, body: dict[str, Any]) -> str:
    """The answer with a judgement, as the form asks for it: whoever calls it useless is unhappy."""
    form = body["response_format"]["json_schema"]["schema"]["properties"]
    asked = text_of(body["messages"][-1]["content"]).rpartition("Question:")[2]
    judged = "unhappy" if "useless" in asked else "none"
    assert judged in form["escalation"]["enum"]
    return orjson.dumps({"escalation": judged, "answer": answer}).decode()


def _choice(azure: bool, finish_reason: str | None, **more: Any) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None, **more}
    if azure:
        choice["content_filter_results"] = CAUGHT if finish_reason == "content_filter" else SAFE
    return choice


def as_json(reply: Reply) -> dict[str, Any]:
    """The body of an answer that is not streamed. A filtered one has no content, as Azure documents."""
    message: dict[str, Any] = {"role": "assistant", "refusal": None}
    if reply.finish_reason != "content_filter":
        message |= {"content": None, "refusal": reply.text} if reply.refuses else {"content": reply.text}
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": reply.model,
        "system_fingerprint": "fp_emulated",
        "choices": [_choice(reply.azure, reply.finish_reason, message=message)],
        "usage": reply.usage,
    }
    if reply.azure:
        answer["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": SAFE}]
    return answer


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


@dataclass(frozen=True)
class Events:
    """A streamed answer, ready to send."""

    before: bytes
    tokens: list[bytes]
    finish: bytes
    usage: bytes


def as_events(reply: Reply, *, include_usage: bool, annotations: bool = False) -> Events:
    """Azure's order: filter results without choices, the role, the tokens, the reason for the end, the usage."""
    frame = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": reply.model,
        "system_fingerprint": "fp_emulated",
    }

    def chunk(finish_reason: str | None, delta: dict[str, Any]) -> bytes:
        return event({**frame, "choices": [_choice(reply.azure, finish_reason, delta=delta)]})

    before = chunk(None, {"role": "assistant", "content": "", "refusal": None})
    if reply.azure:
        filtered = [{"prompt_index": 0, "content_filter_results": SAFE}]
        empty = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": filtered}
        before = event(empty) + before
    field = "refusal" if reply.refuses else "content"
    tokens = [chunk(None, {field: token}) for token in reply.tokens]
    if annotations:
        offsets = {"check_offset": 0, "start_offset": 0, "end_offset": 1}
        note = {"index": 0, "finish_reason": None, "content_filter_results": SAFE, "content_filter_offsets": offsets}
        tokens = [token + event({"id": "", "object": "", "model": "", "created": 0, "choices": [note]})
                  for token in tokens]  # fmt: skip
    usage = event({**frame, "choices": [], "usage": reply.usage}) if include_usage else b""
    return Events(before, tokens, chunk(reply.finish_reason, {}), usage)

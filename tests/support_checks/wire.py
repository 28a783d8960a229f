"""Questions for the emulator and readers of its answers, for the checks beside this file."""

import json
from typing import Any

import httpx
import numpy as np

SOURCES = """Answer from these sources.

[1] Warranty
https://brinewell.example/warranty
The warranty lasts 37.5 months. It covers the probes.

[2] Prices
Brinewell One costs 289 euros. Shipping is included.

[3] Installation
Setting up takes 35 minutes.

Question: how long is the warranty?"""
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": SOURCES}]}
STREAMED = {**QUESTION, "stream": True}
ANSWER = "The warranty lasts 37.5 months. [1] Brinewell One costs 289 euros. [2]"


def events_of(text: str) -> list[Any]:
    """The stream's events, parsed; the last is "[DONE]" where it ended properly."""
    data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(entry) if entry != "[DONE]" else entry for entry in data]


def said(events: list[Any]) -> str:
    choices = [event["choices"][0] for event in events if event != "[DONE]" and event.get("choices")]
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)


def finish_reasons(events: list[Any]) -> list[str]:
    choices = [event["choices"][0] for event in events if event != "[DONE]" and event.get("choices")]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def vectors_of(answer: httpx.Response) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([entry["embedding"] for entry in answer.json()["data"]], dtype=np.float32)

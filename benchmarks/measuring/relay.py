"""How long one token is on its way from the model through a server to its reader, each token with its own stamp.

The model is here: it writes the moment of sending into every token, so that what arrives tells how long it took. That
counts both sockets and this process's own reading, so a server adds less than is measured.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks.measuring.figures import percentile
from benchmarks.measuring.servers import Running
from benchmarks.measuring.streams import request_for
from tests.support.waiting import free_port

Start = Callable[[Mapping[str, str]], AbstractContextManager[Running]]

TOKENS = 40
PAUSE_S = 0.05
STAMP = re.compile(rb"at(\d{12,})")


class _Model:
    """Answers embeddings with one fixed vector, and chats with a stream of stamped tokens."""

    def __init__(self, vector: np.ndarray) -> None:
        packed = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        self._embedding = json.dumps({"data": [{"index": 0, "embedding": packed}]}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head.lower())[1]))  # type: ignore[index]
            if b"/embeddings" in head.partition(b"\r\n")[0]:
                length = len(self._embedding)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, self._embedding))
            else:
                await self._stream(writer)
            await writer.drain()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(TOKENS):
            await asyncio.sleep(PAUSE_S)
            stamped = {"choices": [{"delta": {"content": f" at{time.perf_counter_ns()} "}, "finish_reason": None}]}
            writer.write(_chunk(b"data: %b\n\n" % json.dumps(stamped).encode()))
        end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        writer.write(_chunk(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(end).encode()) + b"0\r\n\r\n")


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        # The last is the end of this program: its servers are gone, and nobody asks any more.
        return b""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True)
class Relayed:
    """How long tokens took from the model's writing to the reader's reading."""

    tokens: int
    p50_ms: float
    p99_ms: float


def relay(start: Start, env: Mapping[str, str], *, vector: np.ndarray, questions: Sequence[str]) -> Relayed:
    """As many streams at once as there are questions, through the server that `start` starts.

    `env` names the model's addresses; here they lead to a model of our own, whose every vector is `vector`.
    """
    return asyncio.run(_relay(start, env, _Model(vector), questions))


async def _relay(start: Start, env: Mapping[str, str], model: "_Model", questions: Sequence[str]) -> Relayed:
    port = free_port()
    here = {name: re.sub(r"^http://[^/]+", f"http://127.0.0.1:{port}", value) for name, value in env.items()}
    async with await asyncio.start_server(model.serve, "127.0.0.1", port):
        with ExitStack() as stack:
            # It may look at its model before it starts, and that is this event loop.
            running = await asyncio.to_thread(stack.enter_context, start(here))
            await _all(running.url, questions[:4])
            delays_ms = await _all(running.url, questions)
    return Relayed(len(delays_ms), percentile(delays_ms, 50), percentile(delays_ms, 99))


async def _all(url: str, questions: Sequence[str]) -> list[float]:
    host, _, port = url.removeprefix("http://").partition(":")
    found = await asyncio.gather(*(_read(host, int(port), question) for question in questions))
    return [delay for one in found for delay in one]


async def _read(host: str, port: int, question: str) -> list[float]:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request_for(question))
    found: list[float] = []
    rest = b""
    while data := await reader.read(65_536):
        now = time.perf_counter_ns()
        if b"event: done" in data or b"[DONE]" in data:
            break
        *lines, rest = (rest + data).split(b"\n")
        found += [(now - int(stamp)) / 1e6 for line in lines for stamp in STAMP.findall(line)]
    writer.close()
    return found

"""Many readers at once, each on a connection of its own, in one process that does little more than look at its clock.

Reads bytes, not events: it knows a token by the letters before its text, and a stream's end by its last event.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

from benchmarks.measuring.figures import percentile
from benchmarks.measuring.servers import Running

TOKENS = 60
TOKEN = " token"
"""How every token of the emulated model begins."""
SOON_S = 120.0
PROBE_EVERY_S = 0.1


def tokens() -> list[str]:
    """What the emulated model says; one of them cites."""
    return [f"{TOKEN}{number}" for number in range(TOKENS - 1)] + [" [1]."]


@dataclass(frozen=True)
class Spelling:
    """How a server writes its streams."""

    token: bytes
    end: bytes


PRODUCT = Spelling(token=b'{"text":"' + TOKEN.encode(), end=b"event: done")
UPSTREAM = Spelling(token=b'"content":"' + TOKEN.encode(), end=b"data: [DONE]")


@dataclass
class _Read:
    """One stream, as its reader saw it."""

    asked_at: float
    first_ms: float | None = None
    is_whole: bool = False


@dataclass(frozen=True)
class Streams:
    """What one run of load came to."""

    readers: int
    streams: int
    dropped: int
    """Streams that did not come to their end."""
    first_p50_ms: float
    first_p99_ms: float
    cpu_us: float
    """Processor time of all workers for one token of a whole stream, with all that asking and ending cost."""
    health_p99_ms: float
    """Of `/health`, asked ten times a second meanwhile."""


@dataclass
class _Reader(asyncio.Protocol):
    """Asks one question and reads until the end."""

    request: bytes
    spelling: Spelling
    done: asyncio.Future[None]
    read: _Read = field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._tail = b""
        self.read = _Read(time.perf_counter())
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.read.first_ms is None and self.spelling.token in data:
            self.read.first_ms = 1000 * (time.perf_counter() - self.read.asked_at)
        # A chunk of the network may end inside the word that is looked for.
        seen = self._tail + data
        self._tail = seen[-len(self.spelling.end) :]
        if self.spelling.end in seen:
            self.read.is_whole = True
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def read_along(
    running: Running, *, spelling: Spelling, questions: Sequence[str], readers: int, rounds: int, ramp_s: float
) -> Streams:
    """`readers` begin one after the other within `ramp_s`, and each reads `rounds` streams one after the other."""
    before = running.cpu_s()
    reads, health_ms = uvloop.run(_all(running.url, spelling, questions, readers, rounds, ramp_s))
    spent_s = running.cpu_s() - before
    whole = [read for read in reads if read.is_whole]
    first_ms = [read.first_ms for read in whole if read.first_ms is not None]
    return Streams(
        readers=readers,
        streams=len(reads),
        dropped=len(reads) - len(whole),
        first_p50_ms=percentile(first_ms, 50),
        first_p99_ms=percentile(first_ms, 99),
        cpu_us=1e6 * spent_s / max(1, TOKENS * len(whole)),
        health_p99_ms=percentile(health_ms, 99),
    )


async def _all(
    url: str, spelling: Spelling, questions: Sequence[str], readers: int, rounds: int, ramp_s: float
) -> tuple[list[_Read], list[float]]:
    host, _, port = url.removeprefix("http://").partition(":")
    reads: list[_Read] = []
    health_ms: list[float] = []

    async def read_some(number: int) -> None:
        await asyncio.sleep(ramp_s * number / readers)
        for turn in range(rounds):
            question = f"{questions[number % len(questions)]} {time.time_ns():x}{number}-{turn}?"
            reads.append(await _read(host, int(port), request_for(question), spelling))

    async def probe() -> None:
        while True:
            began = time.perf_counter()
            await _read(host, int(port), _HEALTH, Spelling(b"{", b"}"))
            health_ms.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(PROBE_EVERY_S)

    probing = asyncio.create_task(probe())
    await asyncio.gather(*(read_some(number) for number in range(readers)))
    probing.cancel()
    return reads, health_ms


async def _read(host: str, port: int, request: bytes, spelling: Spelling) -> _Read:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    reader = _Reader(request, spelling, done)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(SOON_S):
            await loop.create_connection(lambda: reader, host, port)
            await done
    except (OSError, TimeoutError):
        return _Read(began)
    return reader.read


def request_for(question: str) -> bytes:
    """A POST to /chat/stream, as bytes."""
    body = json.dumps({"message": question}).encode()
    return (
        b"POST /chat/stream HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


_HEALTH = b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n"

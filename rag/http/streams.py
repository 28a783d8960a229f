"""Answers whole or as server-sent events, in whatever dialect; and visitors who leave before the end.

It must not know how an answer comes about, nor what any one dialect looks like: that is the spelling's business.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar, Protocol, cast

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Send

from rag.chat.pipeline import Delta, Done, Event, Sources
from rag.chat.turn import Turn
from rag.errors import RagError, VisitorLeft

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
"""Between two comments on a silent stream, so that no proxy takes it for dead."""
STOPPED = RagError("the server stops", detail="The server is being restarted. Please ask again.")
"""What a stream breaks off with that outlasts the patience of a stopping server."""


class Spelling(Protocol):
    """One stream in one dialect, as server-sent events."""

    def begin(self) -> bytes: ...

    def spell(self, event: Event) -> bytes: ...

    def broke(self, error: RagError) -> bytes:
        """What is said instead of the rest; `error` may be `STOPPED`."""


class EventStream(StreamingResponse):
    """Lines of events as they arrive. One that is silent for long is kept alive by a task of its own, not by a timer
    for every line: there may be a hundred lines a second and a thousand readers."""

    media_type = "text/event-stream"
    fixed_headers: ClassVar[dict[str, str]] = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

    def __init__(self, lines: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(lines, headers=headers | self.fixed_headers)
        self._lines = lines
        self._clock = asyncio.get_running_loop().time
        self._sent_at_s = self._clock()

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        heartbeat = asyncio.create_task(self._keep_alive(send))
        try:
            async with aclosing(self._lines):
                async for line in self._lines:
                    await send({"type": "http.response.body", "body": line, "more_body": True})
                    self._sent_at_s = self._clock()
        finally:
            heartbeat.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            silent_s = self._clock() - self._sent_at_s
            if silent_s >= HEARTBEAT_S:
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                self._sent_at_s, silent_s = self._clock(), 0.0
            await asyncio.sleep(HEARTBEAT_S - silent_s)


async def whole(request: Request, events: AsyncGenerator[Event, None]) -> Turn:
    """What became of a question, once it is answered. Raises what `Chat.answer` does, and `VisitorLeft`."""
    async with _while_connected(request), aclosing(events):
        async for event in events:
            _tell(request, event)
            if isinstance(event, Done):
                return event.turn
    raise AssertionError("every answer ends with Done")


async def streamed(
    request: Request, events: AsyncGenerator[Event, None], spelling: Spelling, **headers: str
) -> EventStream:
    """The answer as it arrives. Up to its first piece errors are raised, as by `whole`; then they are spelled."""
    first: list[Event] = []
    async with _while_connected(request):
        async for event in events:
            _tell(request, event)
            first.append(event)
            if isinstance(event, Delta):
                break
    return EventStream(_lines(spelling, first, events), headers)


def _tell(request: Request, event: Event) -> None:
    """Puts into the response's headers what is known before its first word."""
    if isinstance(event, Sources) and event.cache is not None:
        request.scope.setdefault("response_headers", {})["X-Answer-Cache"] = event.cache


async def _lines(
    spelling: Spelling, first: Sequence[Event], rest: AsyncGenerator[Event, None]
) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(rest):
            yield spelling.begin() + b"".join(map(spelling.spell, first))
            async for event in rest:
                yield spelling.spell(event)
    except RagError as error:
        log.warning("stream broke off", extra={"code": error.code, "reason": str(error)})
        yield spelling.broke(error)
    except asyncio.CancelledError:
        # A visitor who left does not read this; one whose server stops would take half an answer for a whole one. Not
        # raised again, so that the response ends properly; the task that was cancelled has nothing else to do.
        yield spelling.broke(STOPPED)


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[None]:
    """Cancels what it encloses when the visitor leaves, for nobody would read what it costs. Raises `VisitorLeft`."""
    answering, left = cast("asyncio.Task[Any]", asyncio.current_task()), False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        answering.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Whoever else wants this task to end, such as a server that stops, must not be taken for a visitor.
        if left and answering.uncancel() == 0:
            raise VisitorLeft from None
        raise
    finally:
        watching.cancel()

"""Answers whole or as server-sent events, in whatever dialect; and visitors who leave before the end.

It must not know how an answer comes about, nor what any one dialect looks like: that is the spelling's business.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from rag.chat import Delta, Done, Event
from rag.errors import RagError, VisitorLeft

log = logging.getLogger(__name__)
T = TypeVar("T")

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


async def whole(request: Request, events: AsyncGenerator[Event, None]) -> Done:
    """The end of an answer, which holds all of it. Raises what `Chat.answer` does, and `VisitorLeft`."""

    async def last() -> Done:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Done):
                    return event
        raise AssertionError("every answer ends with Done")

    return await _while_connected(request, last())


async def streamed(
    request: Request, events: AsyncGenerator[Event, None], spelling: Spelling, **headers: str
) -> StreamingResponse:
    """The answer as it arrives. Up to its first piece errors are raised, as by `whole`; then they are spelled."""
    first = await _while_connected(request, _up_to_the_first_piece(events))
    lines = _until_stopped(_with_heartbeat(_lines(spelling, first, events)), spelling)
    headers |= {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def _up_to_the_first_piece(events: AsyncGenerator[Event, None]) -> list[Event]:
    first: list[Event] = []
    async for event in events:
        first.append(event)
        if isinstance(event, Delta):
            break
    return first


async def _lines(spelling: Spelling, first: Sequence[Event], rest: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    try:
        async with aclosing(rest):
            yield spelling.begin() + b"".join(map(spelling.spell, first))
            async for event in rest:
                yield spelling.spell(event)
    except RagError as error:
        log.warning("stream broke off", extra={"code": error.code, "reason": str(error)})
        yield spelling.broke(error)


async def _with_heartbeat(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    pending = asyncio.ensure_future(anext(lines, None))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            if not done:
                yield b": still here\n\n"
                continue
            line = pending.result()
            if line is None:
                return
            pending = asyncio.ensure_future(anext(lines, None))
            yield line
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


async def _until_stopped(lines: AsyncIterator[bytes], spelling: Spelling) -> AsyncIterator[bytes]:
    try:
        async for line in lines:
            yield line
    except asyncio.CancelledError:
        # A visitor who left does not read this; one whose server stops would take half an answer for a whole one. Not
        # raised again, so that the response ends properly; the task that was cancelled has nothing else to do.
        yield spelling.broke(STOPPED)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the visitor leaves: nobody would read what it costs."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise VisitorLeft
        return task.result()
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

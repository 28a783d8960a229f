"""Answers as server-sent events, and visitors who leave before the end."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from fastapi import Request

from rag.chat import Delta, Done, Event, Sources
from rag.errors import RagError, VisitorLeft
from rag.routes import problems
from rag.routes.bodies import Source
from rag.routes.rooms import now

log = logging.getLogger(__name__)
T = TypeVar("T")

HEARTBEAT_S = 15.0
"""Between two comments on a silent stream, so that no proxy takes it for dead."""


async def up_to_the_first_piece(events: AsyncGenerator[Event, None]) -> list[Event]:
    first: list[Event] = []
    async for event in events:
        first.append(event)
        if isinstance(event, Delta):
            break
    return first


async def spelled(session_id: str, first: list[Event], rest: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    yield _event("session", {"session_id": session_id})
    try:
        async with aclosing(rest):
            yield b"".join(_spell(event) for event in first)
            async for event in rest:
                yield _spell(event)
    except RagError as error:
        log.warning("stream broke off", extra={"code": error.code, "reason": str(error)})
        yield _event("error", problems.body_of(error))


def _spell(event: Event) -> bytes:
    match event:
        case Sources(hits):
            return _event("sources", [source.model_dump() for source in Source.all_of(hits, cited=0)])
        case Delta(text, cited):
            return _event("delta", {"text": text, "cited": cited})
        case Done(response, hits, cited, degraded):
            sources = [source.model_dump() for source in Source.all_of(hits, cited=cited)]
            done = {"response": response, "sources": sources, "degraded": degraded, "timestamp": now()}
            return _event("done", done)


def _event(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


async def with_heartbeat(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
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

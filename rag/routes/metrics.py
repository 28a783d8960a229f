"""What Prometheus reads: all workers together, whichever answers. Open to those who can reach the server."""

import asyncio
from datetime import datetime

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rag.errors import StateUnavailable
from rag.metrics import Now
from rag.routes.rooms import InRooms, Rooms
from rag.routes.site import VERSION

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter()


@router.get("/metrics", summary="Figures for Prometheus, all workers together", response_class=PlainTextResponse)
async def metrics(rooms: InRooms) -> Response:
    text = await rooms.scrapes.text(lambda: _now(rooms))
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


async def _now(rooms: Rooms) -> Now:
    try:
        async with asyncio.timeout(2.0):
            sessions = (await rooms.conversations.stats())["sessions"]
    except (StateUnavailable, TimeoutError):
        sessions = None
    build = rooms.index.build
    try:
        created_at_s = datetime.fromisoformat(str(build.manifest.get("created_at"))).timestamp()
    except ValueError:
        created_at_s = 0.0
    return Now(
        version=VERSION, build=build.id, embedding_model=build.model, created_at_s=created_at_s,
        passages=build.count, refused="refused" in rooms.index.health(), sessions=sessions,
    )  # fmt: skip

"""The server itself: its name, its health, and the page that shows the chat."""

import asyncio
import gzip
import hashlib
import logging
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from rag.errors import StateUnavailable
from rag.http import bodies, problems
from rag.http.services import WithServices, now

log = logging.getLogger(__name__)

VERSION = "0.1.0"
STATIC = Path(__file__).parent / "static"

router = APIRouter()


@router.get("/", summary="The server's name", response_model=bodies.Running)
async def root(request: Request, services: WithServices) -> Any:
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("demo", headers={"Vary": "Accept"})
    return bodies.Running(message=services.settings.site_name, status="running", timestamp=now())


@router.get("/health", summary="The process lives", responses=problems.described(429))
async def health() -> bodies.Healthy:
    return bodies.Healthy(status="healthy", version=VERSION, timestamp=now())


@router.get("/ready", summary="Whether questions can be answered, and the state of what that needs",
            responses={503: {"model": bodies.Ready}})  # fmt: skip
async def ready(services: WithServices, response: Response) -> bodies.Ready:
    conversations, rate_limits = await asyncio.gather(
        _checked(services.conversations.check()), _checked(services.rate_limits.check_store())
    )
    parts = {
        "index": services.index.health(), "conversations": conversations, "rate_limits": rate_limits,
        "chat": services.model.health(), "embeddings": services.embedder.health(),
    }  # fmt: skip
    sound = all(part["status"] == "ok" for part in parts.values())
    if parts["index"]["status"] != "ok":
        response.status_code = 503
        return bodies.Ready(status="unavailable", **parts)
    return bodies.Ready(status="ready" if sound else "degraded", **parts)


@router.get("/demo", include_in_schema=False)
async def demo() -> FileResponse:
    return FileResponse(STATIC / "demo.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    return FileResponse(STATIC / "docs.html", headers={"Cache-Control": "no-cache"})


@router.get("/widget.js", include_in_schema=False)
async def widget(request: Request) -> Response:
    plain, packed, etag = _widget()
    headers = {"Cache-Control": "public, max-age=3600", "ETag": etag, "Vary": "Accept-Encoding"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
    return Response(plain, media_type="text/javascript", headers=headers)


@router.get("/widget/config", include_in_schema=False)
async def widget_config(services: WithServices) -> dict[str, Any]:
    settings = services.settings
    return {"site_name": settings.site_name, "suggested_questions": settings.suggested_questions, "demo": settings.demo}


@cache
def _widget() -> tuple[bytes, bytes, str]:
    """The chat as it is, packed, and its ETag: weak, since both forms share it. Changes only with a new process."""
    plain = (STATIC / "widget.js").read_bytes()
    return plain, gzip.compress(plain, mtime=0), f'W/"{hashlib.sha256(plain).hexdigest()[:20]}"'


async def _checked(check: Coroutine[Any, Any, None]) -> dict[str, Any]:
    try:
        await check
    except StateUnavailable as error:
        log.warning("store not usable", extra={"reason": str(error)})
        return {"status": "unavailable"}
    return {"status": "ok"}

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

from rag.access.admission import Caller
from rag.chat.texts import DEFAULT_LANGUAGE
from rag.errors import StateUnavailable
from rag.http import bodies, problems
from rag.http.admission import AdmittedRoute, rule
from rag.http.services import WithServices

log = logging.getLogger(__name__)

VERSION = "0.1.0"
STATIC = Path(__file__).parent / "static"

OF_ANSWERS = ("answer_", "talk_")
"""What the codes begin with of sentences that the server writes into answers itself: the chat never says them."""

router = APIRouter(route_class=AdmittedRoute)


@router.get("/", summary="The server's name", response_model=bodies.Running)
@rule()
async def root(request: Request, services: WithServices) -> Any:
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("demo", headers={"Vary": "Accept"})
    return bodies.Running(message=services.settings.site_name, status="running", timestamp=bodies.now())


@router.get("/health", summary="The process lives", responses=problems.described(429))
@rule(limit="health", free_on_loopback=True)
async def health() -> bodies.Healthy:
    return bodies.Healthy(status="healthy", version=VERSION, timestamp=bodies.now())


@router.get("/ready", summary="Whether questions can be answered, and the state of what that needs",
            responses={503: {"model": bodies.Ready}, **problems.described(429)})  # fmt: skip
@rule(tells_owners_more=True)
async def ready(request: Request, services: WithServices, response: Response) -> bodies.Ready:
    conversations, rate_limits = await asyncio.gather(
        _checked(services.conversations.check()), _checked(services.rate_limits.check_store())
    )
    parts = {
        "index": services.index.health(), "conversations": conversations, "rate_limits": rate_limits,
        "chat": services.model.health(), "embeddings": services.embedder.health(),
    }  # fmt: skip
    sound = all(part["status"] == "ok" for part in parts.values())
    caller: Caller = request.state.caller
    if "admin" not in caller.scopes and not caller.is_local:
        # Hosts, deployments and builds are nobody else's business.
        parts = {name: {"status": part["status"]} for name, part in parts.items()}
    if parts["index"]["status"] != "ok":
        response.status_code = 503
        return bodies.Ready(status="unavailable", **parts)
    return bodies.Ready(status="ready" if sound else "degraded", **parts)


@router.get("/demo", include_in_schema=False)
@rule()
async def demo() -> FileResponse:
    return FileResponse(STATIC / "demo.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs", include_in_schema=False)
@rule()
async def docs() -> FileResponse:
    return FileResponse(STATIC / "docs.html", headers={"Cache-Control": "no-cache"})


@router.get("/widget.js", include_in_schema=False)
@rule()
async def widget(request: Request) -> Response:
    plain, packed, etag = _widget()
    headers = {"Cache-Control": "public, max-age=3600", "ETag": etag, "Vary": "Accept-Encoding"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
    return Response(plain, media_type="text/javascript", headers=headers)


@router.get("/widget/config", include_in_schema=False)
@rule()
async def widget_config(services: WithServices, language: str = "") -> dict[str, Any]:
    settings = services.settings
    config = {
        "site_name": settings.site_name,
        "suggested_questions": settings.suggested_questions,
        "demo": settings.demo,
        "ai_notice": settings.ai_notice,
        "privacy_url": settings.privacy_url or None,
    }
    if settings.takes_handoffs or settings.escalation_url:
        config["handoff"] = {"form": settings.takes_handoffs, "url": settings.escalation_url or None}
    if language:
        texts = services.texts.get(language, services.texts[DEFAULT_LANGUAGE])
        config["texts"] = {code: text for code, text in texts.items() if not code.startswith(OF_ANSWERS)}
    return config if services.visits is None else {**config, "visits": True}


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

"""What Prometheus reads: all workers together, whichever answers. Open to those who can reach the server."""

import asyncio
from contextlib import suppress
from datetime import datetime

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rag.errors import IndexUnavailable, StateUnavailable
from rag.http.admission import AdmittedRoute, rule
from rag.http.services import Services, WithServices
from rag.http.site import VERSION
from rag.telemetry.metrics import Now

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(route_class=AdmittedRoute)


@router.get("/metrics", summary="Figures for Prometheus, all workers together", response_class=PlainTextResponse)
@rule()
async def metrics(services: WithServices) -> Response:
    text = await services.metrics.text(lambda: _now(services))
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


async def _now(services: Services) -> Now:
    try:
        async with asyncio.timeout(2.0):
            sessions = await services.conversations.count()
    except (StateUnavailable, TimeoutError):
        sessions = None
    budget = None
    if services.budgets is not None:
        with suppress(StateUnavailable):
            budget = await services.budgets.state()
    build = services.index.build
    build_id, model, created_at_s = "", "", None
    # Where nothing can be served, or a build of an early version is, there is less to tell, and it is told.
    with suppress(IndexUnavailable, KeyError, ValueError):
        build_id, model = str(build.manifest["id"]), build.model
        created_at_s = datetime.fromisoformat(build.manifest["created_at"]).timestamp()
    return Now(
        version=VERSION, build=build_id, embedding_model=model, created_at_s=created_at_s,
        passages=build.count, refused="refused" in services.index.health(), sessions=sessions,
        budget=budget,
    )  # fmt: skip

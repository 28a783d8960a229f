"""What Prometheus reads: all workers together, whichever answers. Open to those who can reach the server."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rag.documents.library import Library
from rag.documents.records import FAILURES
from rag.errors import IndexUnavailable, StateUnavailable
from rag.http.admission import AdmittedRoute, rule
from rag.http.services import Services, WithServices
from rag.http.site import VERSION
from rag.telemetry.looked_up import Now, Uploads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

WAITING = ("queued", "reading", "embedding")

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
    build, health, ingest = services.index.build, services.index.health(), services.ingest
    uploads = None
    if ingest is not None:
        uploads = await asyncio.to_thread(_uploads, ingest.library, segments=health.get("segments", 0))
    build_id, model, created_at_s = "", "", None
    # Where nothing can be served, or a build of an early version is, there is less to tell, and it is told.
    with suppress(IndexUnavailable, KeyError, ValueError):
        build_id, model = str(build.manifest["id"]), build.model
        created_at_s = datetime.fromisoformat(build.manifest["created_at"]).timestamp()
    return Now(
        version=VERSION, build=build_id, embedding_model=model, created_at_s=created_at_s,
        passages=build.count, refused=bool(health.keys() & {"refused", "uploads_refused"}), sessions=sessions,
        budget=budget, uploads=uploads,
    )  # fmt: skip


def _uploads(library: Library, *, segments: int) -> Uploads:
    records = library.records()
    arrived = [one.arrived_at_s for one in records if one.status in WAITING]
    last = max((one for one in records if one.status == "live"), key=lambda one: one.updated_at, default=None)
    took_s = datetime.fromisoformat(last.updated_at).timestamp() - last.arrived_at_s if last else 0.0
    return Uploads(
        by_status=dict.fromkeys((*WAITING, "live", "failed"), 0) | Counter(one.status for one in records),
        by_failure=dict.fromkeys(FAILURES, 0) | Counter(one.failure for one in records if one.status == "failed"),
        waiting_s=max(0.0, time.time() - min(arrived)) if arrived else 0.0, took_s=max(0.0, took_s), segments=segments,
    )  # fmt: skip

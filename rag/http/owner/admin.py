"""The owner's page and its data, as JSON or CSV: what visitors ask, what is not answered, what it costs; and the index.

The page itself holds nothing: whoever opens it types a key with the scope admin, and each of the data's addresses asks
for that.
"""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

from rag.chat.owner.gaps import find_gaps, most_asked
from rag.chat.owner.usage import of_day
from rag.errors import Conflict, IndexUnavailable, NotFound
from rag.http import bodies, problems
from rag.http.admission import AdmittedRoute, rule
from rag.http.owner import rebuild
from rag.http.owner.tables import FORMS, Format, csv_of
from rag.http.services import Services, WithServices
from rag.http.site import STATIC
from rag.search.hot.layered import LayeredBuild
from rag.stores.protocols import QuestionFilter, QuestionStore

router = APIRouter(route_class=AdmittedRoute)

Days = Annotated[int, Query(ge=1, le=400, description="how many days back")]
ADMIN_ERRORS = problems.described(401, 403, 404, 422, 429, 503)


@router.get("/admin", include_in_schema=False)
@rule(exists_for_admins=True)
async def page() -> FileResponse:
    return FileResponse(STATIC / "admin.html", headers={"Cache-Control": "no-cache"})


@router.get("/admin/usage", summary="Questions, tokens and outages by day", responses={**FORMS, **ADMIN_ERRORS},
            response_class=JSONResponse)  # fmt: skip
@rule(scope="admin")
async def usage(
    services: WithServices, days: Days = 30, format: Format = "json",
    table: Annotated[Literal["days", "cited", "never_cited"], Query(description="which of them, as CSV")] = "days",
) -> Response:  # fmt: skip
    log = _store(services)
    by_day = [of_day(day, services.settings) for day in await log.days(days)]
    if format == "csv" and table == "days":
        return csv_of(by_day)
    build, cited = services.index.build, await log.cited(days)
    budget = await services.budgets.state() if services.budgets else None
    known: dict[str, str] = {}
    try:
        known = await asyncio.to_thread(lambda: {one.url: one.title for one in build.passages()})
        about: dict[str, Any] = {
            "id": build.manifest["id"], "passages": build.count, "documents": build.manifest.get("documents"),
            "added": len(build.added) if isinstance(build, LayeredBuild) else 0,
            "created_at": build.manifest.get("created_at"),
            "kept": await asyncio.to_thread(services.index.backend.kept_ids),
        }  # fmt: skip
    except IndexUnavailable:
        about = {"id": "", "passages": 0}
    told = {
        "days": by_day,
        "cited": [{"url": url, "title": known.get(url, ""), "times": times} for url, times in cited.items()],
        "never_cited": [{"url": url, "title": title} for url, title in known.items() if url not in cited],
    }
    if format == "csv":
        return csv_of(told[table])
    return JSONResponse({
        **told, "build": about, "timestamp": bodies.now(), "site_name": services.settings.site_name,
        "budget": {"spent": budget[0], "limit": budget[1], "currency": _currency(services)} if budget else None,
        "question_log": services.settings.question_log, "uploads": services.ingest is not None,
    })  # fmt: skip


@router.get("/admin/questions", summary="What visitors ask, the most frequent first",
            responses={**FORMS, **ADMIN_ERRORS}, response_class=JSONResponse)  # fmt: skip
@rule(scope="admin")
async def questions(
    services: WithServices, days: Days = 30, outcome: str = "", language: str = "", page: str = "",
    gaps: bool = False, limit: Annotated[int, Query(ge=1, le=1000)] = 200, format: Format = "json",
) -> Response:  # fmt: skip
    wanted = QuestionFilter(days=days, outcome=outcome, language=language, page=page, gaps=gaps)
    rows = await most_asked(_store(services), wanted, limit=limit)
    return csv_of(rows) if format == "csv" else JSONResponse({"questions": rows})


@router.get("/admin/gaps", summary="What the site does not answer, and what is the matter with each",
            responses={**FORMS, **ADMIN_ERRORS}, response_class=JSONResponse)  # fmt: skip
@rule(scope="admin")
async def gaps(services: WithServices, days: Days = 30, format: Format = "json") -> Response:
    rows = [asdict(gap) for gap in await find_gaps(_store(services), services.retriever, days=days)]
    return csv_of(rows) if format == "csv" else JSONResponse({"gaps": rows})


class BuildProgress(BaseModel):
    state: Literal["never", "running", "done", "failed"]
    said: str = Field(description="the last lines of the build's output")


@router.post("/admin/build", status_code=202, summary="Build the index again, as it was built last",
             responses={**problems.described(409), **ADMIN_ERRORS})  # fmt: skip
@rule(scope="admin")
async def build(services: WithServices) -> BuildProgress:
    await asyncio.to_thread(rebuild.start, services.index, state_dir=services.settings.state_dir)
    return await build_progress(services)


@router.get("/admin/build", summary="What the rebuild is doing", responses=ADMIN_ERRORS)
@rule(scope="admin")
async def build_progress(services: WithServices) -> BuildProgress:
    now = await asyncio.to_thread(rebuild.progress, state_dir=services.settings.state_dir)
    return BuildProgress(state=now.state, said=now.said)


class RollbackRequest(BaseModel):
    build: str | None = Field(None, pattern=r"^[0-9A-Za-z-]{1,64}$", description="absent: the one before the live one")


class RolledBack(BaseModel):
    build: str


@router.post("/admin/rollback", summary="Make an earlier build live",
             responses={**problems.described(409), **ADMIN_ERRORS})  # fmt: skip
@rule(scope="admin")
async def rollback(services: WithServices, body: RollbackRequest | None = None) -> RolledBack:
    wanted = body.build if body else None
    try:
        return RolledBack(build=await asyncio.to_thread(services.index.backend.rollback, wanted))
    except IndexUnavailable as error:
        raise Conflict(
            str(error), detail="There is no such build that is sound, or none before the live one."
        ) from None


def _store(services: Services) -> QuestionStore:
    if services.chat.log is None:
        raise NotFound("no questions are logged")
    return services.chat.log.store


def _currency(services: Services) -> str:
    site = services.settings.budget_site
    return site.currency if site else ""

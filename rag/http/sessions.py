"""Conversations: read, forgotten, counted. An id that is unknown looks like one that is empty. And visits: begun."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from rag.access.visits import NEW_VISITS
from rag.errors import ProofRequired
from rag.http import bodies, problems
from rag.http.admission import AdmittedRoute, rule
from rag.http.bodies import SessionId
from rag.http.services import WithServices

router = APIRouter(route_class=AdmittedRoute)
visits = APIRouter(route_class=AdmittedRoute)
"""Only where pages get tokens for their visitors."""


@router.get("/sessions/stats", summary="Counts of conversations", responses=problems.described(401, 404, 503))
@rule(scope="admin")
async def stats(services: WithServices) -> bodies.Stats:
    return bodies.Stats(**await services.conversations.stats())


@router.get("/sessions/{session_id}/history", summary="What was said", responses=problems.described(422, 503))
@rule(scope="chat")
async def history(session_id: SessionId, services: WithServices) -> bodies.HistoryResponse:
    turns = await services.conversations.history(session_id)
    said = [bodies.HistoryTurn(role=turn.role, content=turn.content) for turn in turns]
    return bodies.HistoryResponse(session_id=session_id, history=said)


@router.delete("/sessions/{session_id}", summary="Forget a conversation", responses=problems.described(422, 429, 503))
@rule(limit="delete", scope="chat")
async def delete(session_id: SessionId, services: WithServices) -> bodies.Deleted:
    asked = [turn.content for turn in await services.conversations.history(session_id) if turn.role == "user"]
    await services.conversations.delete(session_id)
    await services.feedback.forget(session_id)
    if services.chat.log is not None:
        await services.chat.log.forget(session_id, asked)
    return bodies.Deleted(message="The conversation is forgotten.")


class VisitRequest(BaseModel):
    proof: Any = Field(None, description="the solution of a challenge, as ALTCHA sends it; only where one is asked for")


class Visit(BaseModel):
    token: str = Field(description="goes into Authorization: Bearer")
    expires_at: datetime
    proof: None = None


class ChallengeProblem(problems.Problem):
    """What a visit without its proof gets: the challenge to be solved, in ALTCHA's form."""

    proof: dict[str, Any]


@visits.post("/visit", summary="A token for a page's visitor", response_model=Visit,
             responses={428: {"model": ChallengeProblem}, **problems.described(403, 413, 422, 429)})  # fmt: skip
@rule(limit=NEW_VISITS[0])
async def begin(request: Request, services: WithServices, body: VisitRequest | None = None) -> Response | Visit:
    assert services.visits is not None  # noqa: S101 - the route exists only where there are visits
    try:
        token, expires_at = await services.visits.begin(request.headers, body and body.proof)
    except ProofRequired as error:
        return problems.problem(error, proof=error.challenge)
    return Visit(token=token, expires_at=datetime.fromtimestamp(expires_at, UTC))

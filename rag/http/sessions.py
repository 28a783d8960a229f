"""Conversations: read, forgotten, counted. An id that is unknown looks like one that is empty."""

from fastapi import APIRouter, Request

from rag.http import bodies, problems
from rag.http.bodies import SessionId
from rag.http.services import WithServices, require_admin

router = APIRouter()


@router.get("/sessions/stats", summary="Counts of conversations", responses=problems.described(401, 404, 503))
async def stats(request: Request, services: WithServices) -> bodies.Stats:
    require_admin(request, services.settings)
    return bodies.Stats(**await services.conversations.stats())


@router.get("/sessions/{session_id}/history", summary="What was said", responses=problems.described(422, 503))
async def history(session_id: SessionId, services: WithServices) -> bodies.HistoryResponse:
    turns = await services.conversations.history(session_id)
    said = [bodies.HistoryTurn(role=turn.role, content=turn.content) for turn in turns]
    return bodies.HistoryResponse(session_id=session_id, history=said)


@router.delete("/sessions/{session_id}", summary="Forget a conversation", responses=problems.described(422, 429, 503))
async def delete(session_id: SessionId, services: WithServices) -> bodies.Deleted:
    await services.conversations.delete(session_id)
    return bodies.Deleted(message="The conversation is forgotten.")

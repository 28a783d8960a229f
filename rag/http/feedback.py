"""Thumbs up and down: visitors give them, the owner reads them."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from rag.http import bodies, problems
from rag.http.admission import AdmittedRoute, rule
from rag.http.owner.tables import Format, csv_of
from rag.http.services import WithServices
from rag.stores.protocols import Feedback
from rag.types import Message

router = APIRouter(route_class=AdmittedRoute)


class FeedbackRequest(BaseModel):
    session_id: bodies.SessionId
    rating: Literal["up", "down"]
    message_index: Annotated[int, Field(ge=0, le=1000, strict=True), bodies.WHOLE_NUMBER] | None = Field(
        None, description="the answer's place in the history; absent: the last answer"
    )
    reason: str = Field("", max_length=2000, pattern=bodies.NO_NUL)


class FeedbackEntry(BaseModel):
    rating: Literal["up", "down"]
    reason: str
    question: str
    answer: str
    given_at: str


class FeedbackList(BaseModel):
    feedback: list[FeedbackEntry]


@router.post("/feedback", summary="A thumb for an answer", status_code=204,
             responses=problems.described(413, 422, 429, 503))  # fmt: skip
@rule(limit="search", scope="chat")
async def give(body: FeedbackRequest, services: WithServices) -> Response:
    turns = await services.conversations.history(body.session_id)
    about = _turn(turns, body.message_index)
    # For a conversation that is unknown the answer is the same: it must not tell which ids exist.
    if about is not None:
        question, answer = about
        said = Feedback(rating=body.rating, reason=body.reason, question=question, answer=answer)
        await services.feedback.add(said, session_id=body.session_id)
        services.metrics.rated(body.rating)
        if body.rating == "down":
            if services.chat.cache is not None:
                await services.chat.cache.evict(question, services.index.build)
            if services.chat.log is not None:
                await services.chat.log.disliked(body.session_id, question, body.reason)
    return Response(status_code=204)


@router.get("/feedback", summary="What visitors thought, newest first", response_model=FeedbackList,
            responses={200: {"content": {"text/csv": {}}}, **problems.described(401, 404, 422, 503)})  # fmt: skip
@rule(scope="admin")
async def read(
    services: WithServices, limit: Annotated[int, Query(ge=1, le=1000)] = 100, format: Format = "json"
) -> FeedbackList | Response:
    entries = await services.feedback.newest(limit)
    if format == "csv":
        return csv_of([asdict(entry) for entry in entries])
    return FeedbackList(feedback=[FeedbackEntry.model_validate(entry, from_attributes=True) for entry in entries])


def _turn(turns: list[Message], index: int | None) -> tuple[str, str] | None:
    """The question and the answer at `index`, or the last ones; None where no answer stands there."""
    # What only a client says was answered is nobody's word: it must not reach the owner as the site's.
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant" and not turn.is_claimed]
    place = index if index is not None else answers[-1] if answers else -1
    if place not in answers:
        return None
    question = turns[place - 1].content if place and turns[place - 1].role == "user" else ""
    return question, turns[place].content

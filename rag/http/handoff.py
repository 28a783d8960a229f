"""A way to a person: a visitor leaves an address and a message for the owner. Only where they can be delivered."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from rag.access.admission import HANDOFFS
from rag.chat.owner.handoff import MAIL
from rag.errors import InvalidRequest
from rag.http import bodies, problems
from rag.http.admission import AdmittedRoute, rule
from rag.http.services import WithServices

router = APIRouter(route_class=AdmittedRoute)


class HandoffRequest(BaseModel):
    session_id: bodies.SessionId
    email: str = Field(max_length=254, pattern=rf"^{MAIL.pattern}$", description="where the owner can answer")
    message: str = Field("", max_length=4000, pattern=bodies.NO_NUL)
    include_conversation: bool = Field(False, strict=True, description="whether what was said goes along")
    page: bodies.PageContext | None = None


class Handoff(BaseModel):
    reference: str = Field(description="names the request, for the visitor and for the owner")


@router.post(
    "/handoff", status_code=202, summary="Ask for a person", responses=problems.described(413, 422, 429, 503, 507)
)
@rule(limit=HANDOFFS[0], scope="chat")
async def ask_for_a_person(body: HandoffRequest, services: WithServices) -> Handoff:
    assert services.handoffs is not None  # noqa: S101 - the route exists only where messages can be delivered
    conversation = None
    if body.include_conversation:
        conversation = await services.conversations.history(body.session_id)
        if not conversation:
            raise InvalidRequest(detail="There is no such conversation that could be sent along.")
    elif not body.message.strip():
        raise InvalidRequest(detail="Write a message, or send the conversation along.")
    page = body.page.url if body.page else ""
    reference = await services.handoffs.take(
        email=body.email, message=body.message.strip(), conversation=conversation, page=page
    )  # fmt: skip
    return Handoff(reference=reference)

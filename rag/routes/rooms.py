"""What the routes call. `rag_server` wires it and puts it into the request's state."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from rag import access
from rag.chat import Chat, ChatModel
from rag.conversations import Conversations
from rag.errors import NotFound, Unauthorized
from rag.feedback import FeedbackStore
from rag.live_index import LiveIndex
from rag.metrics import Metrics
from rag.rate_limits import RateLimits
from rag.retrieval import Embedder, Retriever
from rag.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Everything a route may use, opened by the lifespan."""

    settings: Settings
    index: LiveIndex
    retriever: Retriever
    chat: Chat
    model: ChatModel
    embedder: Embedder
    conversations: Conversations
    feedback: FeedbackStore
    rate_limits: RateLimits
    metrics: Metrics


async def _rooms(request: Request) -> Rooms:
    rooms: Rooms = request.state.rooms
    return rooms


InRooms = Annotated[Rooms, Depends(_rooms)]


def now() -> str:
    """This moment as routes write it: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def require_admin(request: Request, settings: Settings) -> None:
    """Raises `NotFound` where no admin key is set, `Unauthorized` where another one is presented."""
    if not settings.admin_api_key:
        raise NotFound
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not access.key_matches(settings.admin_api_key, presented):
        raise Unauthorized

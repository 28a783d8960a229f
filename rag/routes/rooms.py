"""What the routes call. `rag_server` wires it and puts it into the request's state."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from rag.chat import Chat, ChatModel
from rag.conversations import Conversations
from rag.live_index import LiveIndex
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
    rate_limits: RateLimits


async def _rooms(request: Request) -> Rooms:
    rooms: Rooms = request.state.rooms
    return rooms


InRooms = Annotated[Rooms, Depends(_rooms)]


def now() -> str:
    """This moment as routes write it: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

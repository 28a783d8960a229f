"""What the routes call. `rag_server` wires it and puts it into the request's state."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from rag.access.budgets import Budgets
from rag.access.limits import RateLimits
from rag.access.visits import Visits
from rag.chat.owner.handoff import Handoffs
from rag.chat.pipeline import Chat
from rag.chat.retrieval import Retriever
from rag.chat.texts import Texts
from rag.documents.leading import Ingest
from rag.protocols import ChatModel, Embedder
from rag.search.live import LiveIndex
from rag.settings import Settings
from rag.stores.protocols import Conversations, FeedbackStore
from rag.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
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
    texts: Texts
    visits: Visits | None
    """None where pages get no tokens for their visitors."""
    budgets: Budgets | None
    """None where spending has no limit."""
    handoffs: Handoffs | None
    """None where visitors' messages can reach nobody."""
    ingest: Ingest | None
    """What was uploaded, and who works on it; None where nothing can be uploaded."""


async def _services(request: Request) -> Services:
    services: Services = request.state.services
    return services


WithServices = Annotated[Services, Depends(_services)]

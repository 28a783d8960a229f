"""Which models answer, by the settings: those of the endpoints, or the embedded ones."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from rag.calls import CallObserver, Meter
from rag.errors import ConfigError
from rag.llm.azure import AzureChat, AzureEmbedder
from rag.llm.client import Upstream
from rag.llm.embedded import LocalEmbedder
from rag.llm.entra.renewal import authorised
from rag.llm.http_client import http_client
from rag.llm.local.sentences import REMEDY, SentenceEmbedder, missing_packages
from rag.llm.quoting import QuotingChat
from rag.llm.resilience import RetryBudget
from rag.llm.single_flight import SingleFlightEmbedder
from rag.protocols import ChatModel, Embedder
from rag.settings import Settings
from rag.types import Endpoint, Missing

NO_MODEL = Missing("no_model", "no language model: passages are quoted")
START_S = 5.0
"""How long a worker waits for its first token before it serves without one."""


async def open_models(
    settings: Settings, *, observer: CallObserver, meter: Meter, stack: AsyncExitStack
) -> tuple[Embedder, ChatModel]:
    """`observer` hears of every call, `meter` is asked before it; `stack` closes the connections."""
    own = own_embedder(settings)
    if settings.demo:
        by_words = isinstance(own, LocalEmbedder)
        return own or LocalEmbedder(), QuotingChat(
            degraded=NO_MODEL, opening="answer_demo", found_by_words=by_words
        )  # fmt: skip
    client = await stack.enter_async_context(http_client())
    budget = RetryBudget()

    def upstream(kind: str, endpoints: Sequence[Endpoint]) -> Upstream:
        return Upstream(
            kind=kind, endpoints=endpoints, client=client, budget=budget, observer=observer, meter=meter
        )  # fmt: skip

    chat = upstream("chat", settings.chat_endpoints)
    embeddings = [] if own else [upstream("embeddings", settings.embeddings_endpoints)]
    # A login's bad hour must not keep a worker from starting: what needs no model is answered meanwhile.
    await stack.enter_async_context(authorised(settings, *embeddings, chat, required=False, within_s=START_S))
    model = AzureChat(upstream=chat, temperature=settings.chat_temperature, max_tokens=settings.chat_max_tokens)
    if own is not None:
        return own, model
    embedder = AzureEmbedder(upstream=embeddings[0], name=settings.embeddings_endpoints[0].model_name)
    return SingleFlightEmbedder(embedder=embedder), model


def own_embedder(settings: Settings) -> LocalEmbedder | SentenceEmbedder | None:
    """The embedder that needs no endpoint; None where one is needed. Raises `ConfigError` where it is not installed."""
    if settings.embeddings == "local":
        if missing := missing_packages():
            raise ConfigError([f"EMBEDDINGS=local needs {', '.join(missing)}: {REMEDY}"])
        return SentenceEmbedder.open(settings.state_dir)
    return LocalEmbedder() if settings.demo else None

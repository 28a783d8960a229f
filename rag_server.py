"""Wires the rooms to one application, and opens and closes what they hold: `rag_server:app`.

The only place of the server where adapters are constructed.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from rag.access import visits
from rag.access.admission import Admission, limits_of
from rag.access.authentication import authenticator
from rag.access.budgets import Budgets, budgets_of
from rag.access.limits import RateLimits
from rag.background import collect_seldom, in_background
from rag.calls import UNMETERED
from rag.chat.answer_cache import cache_of
from rag.chat.follow_ups import Rewriter
from rag.chat.owner.handoff import Handoffs
from rag.chat.owner.question_log import Mode, QuestionLog
from rag.chat.owner.summary import Summaries
from rag.chat.pipeline import Chat
from rag.chat.prompt import PromptWriter
from rag.chat.retrieval import Retriever
from rag.chat.wording.voice import Voice
from rag.documents.leading import ingest_of
from rag.http import answers, bodies, feedback, handoff, middleware, problems, reference, sessions, site
from rag.http.dialects import ai_sdk, openai, shared
from rag.http.owner import admin, metrics
from rag.http.services import Services
from rag.llm.http_client import fetched, posted
from rag.llm.opening import open_models
from rag.public_addresses import is_public
from rag.search.backends import opening as backends
from rag.search.live import LiveIndex
from rag.settings import Settings
from rag.stores import opening
from rag.stores.pruning import prune_forever
from rag.stores.sqlite.file import Clocks
from rag.telemetry.metrics import Metrics
from rag.telemetry.opening import metrics_of, tracing_of

if TYPE_CHECKING:
    from rag.telemetry.tracing import Tracing

log = logging.getLogger("rag_server")

OUR_TRACES_ALONE: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own, where anything switches it on, would export whole paths, in which sessions' ids stand."""


def create_app(settings: Settings, *, metrics_folder: Path | None = None) -> FastAPI:
    """The application for these settings; resources are opened when its lifespan begins.

    `metrics_folder` is where all workers of a server count together; None counts for this process alone.
    """
    limits = limits_of(settings)
    counts = metrics_of(settings, folder=metrics_folder, limits=sorted(limits))
    stores = opening.stores(settings)
    rate_limits = RateLimits(
        limits=limits, storage_uri=stores.limits_uri(), enabled=settings.rate_limit_enabled, clocks=Clocks.system()
    )  # fmt: skip
    visitors = visits.of_settings(settings, storage_uri=stores.limits_uri())
    known = authenticator(settings, visits=visitors, fetch=partial(fetched, timeout_s=3.0, largest_bytes=256 * 1024))
    budgets = budgets_of(settings, stores.spending, counts)
    admission = Admission(limits=rate_limits, metrics=counts, authenticator=known, budgets=budgets)
    tracing = tracing_of(settings, version=site.VERSION)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            if tracing is not None:
                await stack.enter_async_context(tracing)
            stack.push_async_callback(stores.close)
            stack.push_async_callback(rate_limits.close)
            if visitors is not None:
                stack.push_async_callback(visitors.close)
            if budgets is not None:
                stack.push_async_callback(budgets.close)
            services = await open_services(settings, stores, rate_limits, counts, tracing, visitors, budgets, stack)
            collect_seldom()
            yield {"services": services, "admission": admission}

    app = FastAPI(
        title=settings.site_name, version=site.VERSION, lifespan=lifespan, docs_url=None, redoc_url=None,
        telemetry=OUR_TRACES_ALONE,
        description="Answers questions about a site's own documents, with their sources.",
    )  # fmt: skip
    # In this order a request's path is compared with theirs.
    for room in (answers, site, sessions, feedback, openai, ai_sdk, metrics, admin):
        app.include_router(room.router)
    if settings.demo:
        # Only here, so that no other server loads a Markdown reader.
        from rag.http import demo_pages

        app.include_router(demo_pages.router)
    if visitors is not None:
        app.include_router(sessions.visits)
    if settings.takes_handoffs:
        app.include_router(handoff.router)
    if settings.uploads == "on":
        # Only here, so that no other server loads a reader of forms.
        from rag.http.owner import documents

        app.include_router(documents.router)
    app.mount("/static", StaticFiles(directory=site.STATIC), name="static")

    def describe(document: dict[str, Any]) -> None:
        reference.complete(document)
        bodies.limit_questions(document, settings.max_message_length)

    problems.install(app, document=describe)
    # The last one added is the outermost. A fault of ours passes these by on its way out; its answer goes through them.
    apology: ASGIApp = problems.apology
    rewording = (shared.ProblemsReworded, {"prefix": openai.PREFIX, "reword": openai.reworded})
    for kind, options in (*middleware.cors(settings.allowed_origins), rewording):
        app.add_middleware(kind, **options)
        apology = kind(apology, **options)
    app.add_middleware(middleware.RefusedOrigins, allowed=settings.allowed_origins, clock_s=monotonic)
    app.add_middleware(middleware.RequestContext, metrics=counts, tracer=tracing, apology=apology)
    return app


async def open_services(
    settings: Settings, stores: opening.Stores, rate_limits: RateLimits, counts: Metrics, tracing: "Tracing | None",
    visitors: visits.Visits | None, budgets: Budgets | None, stack: AsyncExitStack,
) -> Services:  # fmt: skip
    """Open everything that answering needs; `stack` closes it in reverse order."""
    observer = tracing.observing(counts) if tracing else counts
    embedder, model = await open_models(settings, observer=observer, meter=budgets or UNMETERED, stack=stack)
    backend = backends.backend(settings)
    stack.callback(backend.close)
    index = LiveIndex(backend=backend, model=embedder.name)
    conversations = stores.conversations()
    stack.push_async_callback(conversations.close)
    thumbs = stores.feedback()
    stack.push_async_callback(thumbs.close)
    retriever = Retriever(index=index, embedder=embedder, threshold=settings.similarity_threshold, metrics=counts)
    stack.callback(retriever.close)
    prompts = PromptWriter.of(settings)
    if (cache := cache_of(settings, stores.answers, instructions=prompts.instructions)) is not None:
        stack.push_async_callback(cache.close)
        counts.expect(cache_results=("hit", "miss"))
    questions = QuestionLog(store=stores.questions(), mode=cast("Mode", settings.question_log))
    stack.push_async_callback(questions.close)
    await in_background(stack, questions.write_forever)
    chat = Chat(
        retriever=retriever, model=model, conversations=conversations, prompts=prompts, voice=Voice.of(settings),
        cache=cache, log=questions,
        max_results=settings.max_vector_results, timeout_s=settings.request_timeout_s,
        degraded_answers=settings.degraded_answers, metrics=counts,
        feedback=thumbs if settings.leads_to_a_person else None,
        # The model that quotes words no queries.
        rewriter=Rewriter(model=model) if settings.query_rewrite == "model" and not settings.demo else None,
    )  # fmt: skip
    handoffs = None
    if settings.takes_handoffs:
        allows = (lambda _: True) if settings.escalation_allow_private else is_public
        post = partial(posted, timeout_s=5.0, allows=allows)
        outbox = stores.outbox()
        handoffs = Handoffs(outbox=outbox, settings=settings, post=post)
        stack.push_async_callback(handoffs.close)
        await in_background(stack, handoffs.deliver_forever)
        if settings.weekly_summary:
            summaries = Summaries(outbox=outbox, questions=questions.store, retriever=retriever, settings=settings)
            await in_background(stack, summaries.write_forever)
    await in_background(stack, index.watch)
    if (ingest := ingest_of(settings)) is not None:
        await in_background(stack, ingest.lead_forever)
    pruned_every_s = settings.cleanup_interval_minutes * 60
    prune = partial(prune_forever, conversations, interval_s=pruned_every_s, also=rate_limits.prune)
    await in_background(stack, prune)
    counts.worker_began()
    await in_background(stack, partial(counts.measure_forever, stores.connections))
    log.info("worker is ready", extra={"build": index.build.id, "passages": index.build.count})
    return Services(
        settings=settings, index=index, retriever=retriever, chat=chat, model=model, embedder=embedder,
        conversations=conversations, feedback=thumbs, rate_limits=rate_limits, metrics=counts,
        texts=chat.voice.texts, visits=visitors, budgets=budgets, handoffs=handoffs, ingest=ingest,
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    # Made on demand, so that importing this module needs no settings.
    if name == "app":
        return create_app(Settings.from_environment())
    raise AttributeError(name)

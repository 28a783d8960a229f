"""What records requests beside the log, as the settings want it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag.settings import Settings
from rag.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from rag.telemetry.tracing import Tracing


def tracing_of(settings: Settings, *, version: str) -> "Tracing | None":
    """Traces of this server's `version`; None where no collector is named."""
    if not settings.otel_endpoint:
        return None
    # Imported where it is wanted: its packages are optional.
    from rag.telemetry.tracing import Tracing

    resource = dict(settings.otel_resource_attributes, **{"service.name": settings.otel_service_name})
    return Tracing(
        endpoint=settings.otel_endpoint, headers=dict(settings.otel_headers),
        resource={"service.version": version, **resource},
        sampler=settings.otel_traces_sampler, ratio=settings.otel_traces_ratio,
    )  # fmt: skip


def metrics_of(settings: Settings, *, folder: Path | None, limits: Sequence[str]) -> Metrics:
    """The counts of these settings, which begin at 0: for each model's endpoint and each of the named `limits`."""
    counts = Metrics(folder=folder)
    endpoints = [("chat", one.name) for one in settings.chat_endpoints]
    endpoints += [("embeddings", one.name) for one in settings.embeddings_endpoints]
    counts.expect(endpoints=[] if settings.demo else endpoints, limits=limits)
    return counts

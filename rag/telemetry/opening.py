"""Opens what records requests beside the log, if the settings want it."""

from typing import TYPE_CHECKING

from rag.settings import Settings

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

"""What is looked up when somebody asks for the metrics, rather than counted. Knows none of what it is looked up in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """What became of the documents that were uploaded."""

    by_status: Mapping[str, int]
    by_failure: Mapping[str, int]
    waiting_s: float
    """How long the oldest one that is neither live nor failed has been waiting; 0 where none does."""
    took_s: float
    """What the last one took until it was live; 0 where none is."""
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What is looked up when somebody asks, rather than counted."""

    version: str
    build: str
    embedding_model: str
    created_at_s: float | None
    """When the live build was made, in seconds since 1970; None where there is none, or it does not say."""
    passages: int
    refused: bool
    """Whether a published build is refused, and an earlier one served."""
    sessions: int | None
    """None while the store does not answer."""
    budget: tuple[float, float] | None = None
    """What the site has spent today and may spend; None where it may spend anything, or the store does not answer."""
    uploads: Uploads | None = None
    """None where nothing can be uploaded."""


def families(now: Now) -> list[Metric]:
    """In the library's form."""

    def gauge(name: str, meaning: str, value: float) -> Metric:
        return GaugeMetricFamily(name, meaning, value=value)

    found: list[Metric] = [
        InfoMetricFamily("rag_server", "The server's version", value={"version": now.version}),
        InfoMetricFamily(
            "rag_index_build", "The build of the index that is served",
            value={"build": now.build, "embedding_model": now.embedding_model},
        ),
        gauge("rag_index_passages", "Passages of the live build", now.passages),
        gauge("rag_index_refused", "1 while a published build is refused, and an earlier one served", now.refused),
    ]  # fmt: skip
    if now.created_at_s is not None:
        found.append(gauge("rag_index_created_timestamp_seconds", "When the live build was made", now.created_at_s))
    if now.budget is not None:
        found.append(gauge("rag_budget_spent", "Spent today of BUDGET_SITE, in tokens or money", now.budget[0]))
        found.append(gauge("rag_budget_limit", "BUDGET_SITE, in tokens or money", now.budget[1]))
    if now.sessions is not None:
        found.append(gauge("rag_sessions", "Conversations that are remembered", now.sessions))
    if now.uploads is not None:
        found += of_uploads(now.uploads)
    return found


def of_uploads(now: Uploads) -> Iterator[Metric]:
    for name, meaning, label, counts in (
        ("rag_uploads", "Documents that were uploaded, by what became of them", "status", now.by_status),
        ("rag_uploads_failed", "Those that failed, by the kind of the reason", "reason", now.by_failure),
    ):
        family = GaugeMetricFamily(name, meaning, labels=[label])
        for value, count in counts.items():
            family.add_metric([value], count)
        yield family
    for name, meaning, figure in (
        ("rag_upload_waiting_seconds", "How long the oldest one has been waiting", now.waiting_s),
        ("rag_upload_duration_seconds", "From its arrival until it was live, of the last one", now.took_s),
        ("rag_index_segments", "Segments beside the build that is served", now.segments),
    ):
        yield GaugeMetricFamily(name, meaning, value=figure)

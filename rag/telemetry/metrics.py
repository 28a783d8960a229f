"""What is counted and timed, for Prometheus: all workers together, each in files of its own (`metric_files`).

Made once and handed to whoever has something to tell. A label holds names that we or the operator chose, never what a
visitor sent: no words, no ids, no addresses; so the number of series is bounded. Knows no HTTP beyond its words.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from rag import calls
from rag.telemetry import looked_up, metric_files, process_memory
from rag.telemetry.looked_up import Now
from rag.types import DEGRADED_CODES

log = logging.getLogger(__name__)
Kind = TypeVar("Kind", Counter, Gauge, Histogram)

SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Upper bounds of what takes as long as a model: from a page to the longest stream; 8 is the alert's."""
SEARCH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0)
MEASURED_EVERY_S = 15.0
FRESH_S = 1.0
"""Far below the pause between two scrapes: an older text from the next worker would look like a reset."""
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
ANSWER_OUTCOMES = ("answered", "quoted", "nothing_found", "small_talk", "filtered", "failed", "left")
RATINGS = ("up", "down")
STAGES = ("embed", "search")


class Metrics:
    """Everything that is measured. `folder` is where the workers' files are; None counts for this process alone."""

    def __init__(self, *, folder: Path | None) -> None:
        """Raises `RuntimeError` where the library was loaded before PROMETHEUS_MULTIPROC_DIR named the folder."""
        if (folder is not None) != values.ValueClass._multiprocess:
            raise RuntimeError(f"the metrics' folder is {folder}, but the process was started for another mode")
        self._folder = folder
        self._turn, self._text, self._fresh_until_s = asyncio.Lock(), b"", 0.0
        self._registry = CollectorRegistry()
        self._requests = self._counter("rag_http_requests", "Requests that ended", "method", "route", "status")
        self._durations = self._histogram(
            "rag_http_request_duration_seconds", "Until a request ended, a stream with its last byte",
            SECONDS, "method", "route",
        )  # fmt: skip
        self._answers = self._counter("rag_answers", "Questions by what became of them", "outcome")
        self._degraded = self._counter("rag_degraded_answers", "Answers that had to do without something", "reason")
        self._first_tokens = self._histogram(
            "rag_time_to_first_token_seconds", "Until the first words of a streamed answer", SECONDS
        )
        self._tokens = self._counter("rag_tokens", "Tokens of answers, as the chat model counts them", "direction")
        self._stages = self._histogram(
            "rag_search_duration_seconds", "Stages of a search: the question's vector, the index",
            SEARCH_SECONDS, "stage",
        )  # fmt: skip
        self._calls = self._counter(
            "rag_upstream_calls", "Calls to the models' endpoints", "upstream", "endpoint", "outcome"
        )
        self._call_durations = self._histogram(
            "rag_upstream_call_duration_seconds", "Until an endpoint answered, a stream with its first words",
            SECONDS, "upstream", "endpoint",
        )  # fmt: skip
        self._retries = self._counter("rag_upstream_retries", "Calls that were tried again", "upstream")
        self._breakers = self._gauge(
            "rag_upstream_breaker_open", "Workers that leave an endpoint alone: it keeps failing, or has no token",
            "upstream", "endpoint",
        )  # fmt: skip
        self._limited = self._counter("rag_rate_limited", "Requests refused by a rate limit", "limit")
        self._cached = self._counter("rag_answer_cache", "Questions looked up among the answers kept", "result")
        self._budget_refusals = self._counter("rag_budget_refusals", "Calls not made: a budget is used up", "budget")
        self._feedback = self._counter("rag_feedback", "Thumbs that visitors gave", "rating")
        self._starts = self._counter("rag_worker_starts", "Workers that began to serve")
        self._workers = self._gauge("rag_workers", "Workers that serve")
        self._memory = self._gauge(
            "rag_memory_bytes", "Memory of all workers, what they share counted once (PSS), every 15 seconds"
        )
        self._connections = self._gauge(
            "rag_database_connections", "Connections to PostgreSQL: open, allowed, and at work at once in 15 s", "state"
        )
        # A series that begins with its first event hides that event from rate() and increase().
        for series, known in (
            (self._answers, ANSWER_OUTCOMES), (self._degraded, DEGRADED_CODES), (self._feedback, RATINGS),
            (self._tokens, ("prompt", "completion")), (self._stages, STAGES),
        ):  # fmt: skip
            for value in known:
                series[value]  # looked up, it exists

    def expect(
        self, *, endpoints: Iterable[tuple[str, str]] = (), limits: Iterable[str] = (), budgets: Iterable[str] = (),
        cache_results: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """Begin the series of these (upstream, endpoint), rate limits, budgets and results of the cache at zero."""
        for result in cache_results:
            self._cached[result]
        for budget in budgets:
            self._budget_refusals[budget]
        for upstream, endpoint in endpoints:
            self._retries[upstream]
            self._breakers[upstream, endpoint].set(0)
            self._call_durations[upstream, endpoint]
            for outcome in calls.OUTCOMES:
                self._calls[upstream, endpoint, outcome]
        for limit in limits:
            self._limited[limit]

    def worker_began(self) -> None:
        self._starts.metric.inc()
        self._workers.metric.set(1)
        self.measure_memory()

    async def measure_forever(self, connections: Callable[[], Mapping[str, int]]) -> None:
        """This process's memory and its connections, again and again."""
        while True:
            self.measure_connections(connections())
            await asyncio.sleep(MEASURED_EVERY_S)
            await asyncio.to_thread(self.measure_memory)

    def measure_memory(self) -> None:
        """Look up this process's share of the memory; a few milliseconds of the kernel's time."""
        self._memory.metric.set(process_memory.in_bytes())

    def measure_connections(self, connections: Mapping[str, int]) -> None:
        """Of the pool that the stores share, by state; nothing where they share none."""
        for state, number in connections.items():
            self._connections[state].set(number)

    def request_ended(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is a template, such as `/sessions/{session_id}`, or `unmatched`."""
        method = method if method in METHODS else "other"
        self._requests[method, route, status].inc()
        self._durations[method, route].observe(seconds)

    def searched(self, *, embed_s: float, search_s: float) -> None:
        self._stages["embed"].observe(embed_s)
        self._stages["search"].observe(search_s)

    def first_token(self, seconds: float) -> None:
        self._first_tokens.metric.observe(seconds)

    def answer_ended(
        self, outcome: str, *, degraded: Sequence[str], prompt_tokens: int, completion_tokens: int
    ) -> None:
        """`outcome` is one of `ANSWER_OUTCOMES`, `degraded` some of `DEGRADED_CODES`."""
        self._answers[outcome].inc()
        for reason in degraded:
            self._degraded[reason].inc()
        if prompt_tokens:
            self._tokens["prompt"].inc(prompt_tokens)
        if completion_tokens:
            self._tokens["completion"].inc(completion_tokens)

    def rate_limited(self, limit: str) -> None:
        self._limited[limit].inc()

    def answer_looked_up(self, result: str) -> None:
        """A question could be answered from memory: `hit`, or not: `miss`."""
        self._cached[result].inc()

    def budget_refused(self, kind: str) -> None:
        """A call was not made because a budget, `site`, `visitor` or `key`, is used up."""
        self._budget_refusals[kind].inc()

    def rated(self, rating: str) -> None:
        self._feedback[rating].inc()

    def call(self, upstream: str, endpoint: str) -> "_Call":
        return _Call(self, upstream, endpoint)

    def retried(self, upstream: str) -> None:
        self._retries[upstream].inc()

    def breaker_changed(self, upstream: str, endpoint: str, *, closed: bool) -> None:
        self._breakers[upstream, endpoint].set(0 if closed else 1)

    def call_ended(self, upstream: str, endpoint: str, outcome: str, seconds: float) -> None:
        self._calls[upstream, endpoint, outcome].inc()
        self._call_durations[upstream, endpoint].observe(seconds)

    async def text(self, look_up: Callable[[], Awaitable[Now]]) -> bytes:
        """As `render`, made once a second at most: whoever asks without pause must not keep a worker busy."""
        async with self._turn:
            if time.monotonic() >= self._fresh_until_s:
                self._text = await asyncio.to_thread(self.render, await look_up())
                self._fresh_until_s = time.monotonic() + FRESH_S
        return self._text

    def render(self, now: Now) -> bytes:
        """Everything in Prometheus's text format (0.0.4), for the sum of all workers. Reads files: for a thread."""
        shown = CollectorRegistry(auto_describe=False)
        shown.register(_Shown([*self._counted(), *looked_up.families(now)]))
        return generate_latest(shown)

    def _counted(self) -> list[Metric]:
        if self._folder is None:
            return list(self._registry.collect())
        with metric_files.reading(self._folder) as files:
            return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]

    def _counter(self, name: str, meaning: str, *labels: str) -> "_Series[Counter]":
        return _Series(Counter(name, meaning, labels, registry=self._registry))

    def _histogram(self, name: str, meaning: str, bounds: Sequence[float], *labels: str) -> "_Series[Histogram]":
        return _Series(Histogram(name, meaning, labels, buckets=bounds, registry=self._registry))

    def _gauge(self, name: str, meaning: str, *labels: str) -> "_Series[Gauge]":
        return _Series(Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode="livesum"))


class _Series(dict[Any, Kind]):
    """One metric's series by label, or tuple of labels. The library's own look-up was a third of counting's cost."""

    def __init__(self, metric: Kind) -> None:
        super().__init__()
        self.metric: Kind = metric

    def __missing__(self, labels: Any) -> Kind:
        series: Kind = self.metric.labels(*(labels if isinstance(labels, tuple) else (labels,)))
        self[labels] = series
        return series


class _Call:
    """One call to an endpoint, timed."""

    __slots__ = ("_began", "_endpoint", "_metrics", "_upstream")

    def __init__(self, metrics: Metrics, upstream: str, endpoint: str) -> None:
        self._metrics, self._upstream, self._endpoint = metrics, upstream, endpoint

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        self._metrics.call_ended(self._upstream, self._endpoint, calls.outcome_of(error), seconds)


class _Shown:
    """Hands finished figures to the library's writer."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families

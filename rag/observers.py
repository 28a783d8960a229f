"""What is told of a call to a model's endpoint while it runs, and one who does not listen.

Knows neither who calls nor who counts: `upstream` tells, `metrics` listens.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class CallObserver(Protocol):
    """Hears of every call. `upstream` is `chat` or `embeddings`, `endpoint` the name of an `Endpoint`."""

    def call(self, upstream: str, endpoint: str) -> AbstractContextManager[None]:
        """Encloses one call; what it raises passes through."""

    def retried(self, upstream: str) -> None:
        """A call failed and is about to be tried again."""

    def breaker_changed(self, upstream: str, endpoint: str, *, closed: bool) -> None:
        """The endpoint is left alone from now on, or asked again."""


class Unobserved:
    """Listens to nothing: for programs that make a few calls and end."""

    def call(self, upstream: str, endpoint: str) -> AbstractContextManager[None]:
        return nullcontext()

    def retried(self, upstream: str) -> None:
        pass

    def breaker_changed(self, upstream: str, endpoint: str, *, closed: bool) -> None:
        pass

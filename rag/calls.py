"""What can become of one call to a model's endpoint, and who hears of it.

    UpstreamError
    ├── Unanswered               another attempt may mend it
    │   ├── TooSlow              no answer in the time that this endpoint had
    │   └── Throttled            the endpoint asks to be left alone for a while
    └── UpstreamRejected
        └── Refused              refused for good

Knows neither who calls nor who counts: `upstream` tells, `metrics` and `tracing` listen.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rag.errors import ContentFiltered, UpstreamError, UpstreamRejected, UpstreamTimeout

OUTCOMES = ("ok", "failed", "timeout", "throttled", "refused", "filtered", "abandoned")


class Unanswered(UpstreamError):
    """One attempt failed in a way that another attempt may mend."""


class TooSlow(Unanswered):
    """It took longer than it was given, and another endpoint could still be asked."""


class Throttled(Unanswered):
    """The endpoint asks to be left alone for a while."""


class Refused(UpstreamRejected):
    """Refused for good by this endpoint; another one may see it differently.

    `named` and `param` are the code and the parameter that the refusal names: the endpoint's words, for us alone.
    `of_endpoint` tells whether it would refuse every question.
    """

    def __init__(self, private: str, *, named: str, param: str, of_endpoint: bool) -> None:
        super().__init__(private)
        self.named = named
        self.param = param
        self.of_endpoint = of_endpoint


def outcome_of(error: BaseException | None) -> str:
    """One of `OUTCOMES` for what a call raised; None where it raised nothing."""
    match error:
        case None:
            return "ok"
        case UpstreamTimeout() | TooSlow():
            return "timeout"
        case Throttled():
            return "throttled"
        case Refused():
            return "refused"
        case ContentFiltered():
            return "filtered"
        case UpstreamError():
            return "failed"
        case _:
            return "abandoned"


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


UNOBSERVED = Unobserved()
"""Holds nothing, so that one is enough."""

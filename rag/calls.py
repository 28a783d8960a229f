"""What can become of one call to a model's endpoint, and who hears of it.

    UpstreamError
    ├── Unanswered               another attempt may mend it
    │   ├── TooSlow              no answer in the time that this endpoint had
    │   └── Throttled            the endpoint asks to be left alone for a while
    └── UpstreamRejected
        └── Refused              refused for good

Knows neither who calls nor who counts: `upstream` tells, `metrics` and `tracing` listen, `budgets` pays.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from rag.errors import BudgetSpent, ContentFiltered, UpstreamError, UpstreamRejected, UpstreamTimeout

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
        case BudgetSpent():
            return "abandoned"
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


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a model charges for."""

    prompt: int = 0
    completion: int = 0
    embedding: int = 0


class Bill(Protocol):
    """What one call costs: the most that it may, until more is known. `settle` ends it, once; later words are lost."""

    def used(self, usage: Usage) -> None:
        """This is what the call cost, exactly."""

    def wrote(self, size: int) -> None:
        """The model has written `size` more bytes, and is told to stop when nobody reads on."""

    def refused(self, *, read_the_prompt: bool) -> None:
        """The endpoint did no work, except that it may have read the prompt."""

    def settle(self) -> None: ...


class Meter(Protocol):
    """Asked before every call to a model."""

    async def reserve(self, kind: str, body: Mapping[str, Any], size: int) -> Bill | None:
        """Put aside what a call may cost at most; None where nobody counts. `kind` is `chat` or `embeddings`, `body`
        what is sent, in `size` bytes. Raises `BudgetSpent` where that much is not left.
        """


class Unmetered:
    """Spending has no limit, and is not counted."""

    async def reserve(self, kind: str, body: Mapping[str, Any], size: int) -> None:
        return None


UNMETERED = Unmetered()

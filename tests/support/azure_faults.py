"""What can go wrong on demand, and how often. Knows nothing of HTTP."""

from dataclasses import dataclass, field, fields
from typing import Any

KINDS = frozenset(
    {
        "status",  # `status`, `headers`, `body`
        "hang",  # no answer until the client leaves
        "slow_headers",  # the status line comes after `seconds`, the answer is sound
        "reset",  # the connection is reset without an answer
        "not_json",  # 200 and an HTML page
        "empty_choices",  # 200 and nothing in it
        "cut_stream",  # the connection ends after `tokens` tokens, or in the middle of a JSON body
        "no_done",  # the stream ends properly, but without [DONE]; without finish_reason too if `finish` is false
        "split_utf8",  # network chunks end inside characters
        "many_small_chunks",  # network chunks of `size` bytes
        "error_event_in_stream",  # an error event after `tokens` tokens
        "annotation_events",  # choices without a delta, as Azure's asynchronous content filter sends them
        "wrong_dimension",  # vectors of `dimension` numbers, half of the usual by default
        "wrong_count",  # one vector too few
        "shuffled",  # all vectors, in reverse order, each with its true index
        "nan",  # vectors with a NaN
        "content_filter_prompt",  # 400 content_filter
        "content_filter_answer",  # 200, finish_reason content_filter, after `tokens` tokens in a stream
        "stall_after",  # `tokens` tokens, then silence until the client leaves
        "empty_answer",  # 200, an answer without a word, counted
        "refusal",  # 200, the answer in the field for refusals
        "too_long",  # 400 for requests of more than `size` bytes, with `body` where it is not Azure
        "huge_body",  # a sound beginning, then `size` bytes of content
    }
)
TARGETS = frozenset({"any", "chat", "embeddings"})


@dataclass
class Fault:
    """One thing that goes wrong, for the requests that it fits."""

    kind: str
    target: str = "any"
    deployment: str | None = None
    times: int | None = None
    """How many requests it strikes; None is all of them."""
    after: int = 0
    """How many fitting requests pass first."""
    contains: str | None = None
    """Strikes only requests whose raw body holds this text."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    """A text, or something to send as JSON; None is Azure's own body for the status."""
    tokens: int = 2
    seconds: float = 1.0
    size: int | None = None
    """Bytes: of a network chunk, of a huge body, or that a model can read."""
    dimension: int | None = None
    finish: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such kind of fault: {self.kind!r}; there are {', '.join(sorted(KINDS))}")
        if self.target not in TARGETS:
            raise ValueError(f"no such target: {self.target!r}; there are {', '.join(sorted(TARGETS))}")

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> "Fault":
        """ValueError for a name that no fault has, so that a mistyped test fails at once."""
        unknown = given.keys() - {known.name for known in fields(cls)}
        if unknown or "kind" not in given:
            raise ValueError(f"a fault needs a kind and knows no {', '.join(sorted(unknown)) or 'default kind'}")
        return cls(**given)

    def fits(self, target: str, deployment: str, raw: bytes) -> bool:
        return (
            self.target in ("any", target)
            and self.deployment in (None, deployment)
            and (self.contains is None or self.contains.encode() in raw)
            and (self.kind != "too_long" or len(raw) > (self.size or 0))
        )


class FaultBook:
    """The faults in force, oldest first; the first that fits and has strikes left wins."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def take(self, target: str, deployment: str, raw: bytes) -> Fault | None:
        """The fault that strikes this request, counted; None where the request is served properly."""
        for fault in self._faults:
            if fault.times == 0 or not fault.fits(target, deployment, raw):
                continue
            if fault.after:
                fault.after -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None

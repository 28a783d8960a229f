"""One question and what became of it: values that the pipeline builds, and that routes and telemetry read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from rag.chat.citation_marks import marks
from rag.chat.escalation import Reason, reason_for
from rag.chat.wording.small_talk import SmallTalk
from rag.text.citing import Citation, citations, cited_at, led_to, quoted_at
from rag.types import Completion, Generated, Hit, Message, Missing, Passage

Outcome = Literal["answered", "quoted", "nothing_found", "small_talk", "filtered", "failed", "left"]
CacheResult = Literal["hit", "miss"]
CUT_SHORT = Missing("length", "answer cut short: it reached the longest length allowed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Where on the site a question is asked: what the client says, and so data like the question itself."""

    url: str
    title: str = ""
    selection: str = ""
    """What the visitor has marked there."""

    @property
    def path(self) -> str:
        """The address's path alone: what stands after it may name a visitor."""
        try:
            return urlsplit(self.url).path[:200]
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a visitor asks, and in which conversation."""

    text: str
    session_id: str | None = None
    """None: nothing is remembered."""
    is_new: bool = False
    """The id was made just now, so that nothing can be remembered under it yet."""
    claimed: Sequence[Message] = ()
    """The conversation as the client tells it, believed where the server remembers none."""
    kept: Sequence[Message] | None = None
    """What stays of the conversation when its last answer is asked for again; the rest is forgotten once the new one is
    complete. None: nothing is asked for again."""
    page: Page | None = None
    asks_for: str = ""
    """The language that the client asks for, of the chat's; empty where it names none."""

    @property
    def selection(self) -> str:
        """What the visitor has marked on the page; empty where nothing is."""
        return self.page.selection.strip() if self.page else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is known of one question, up to now. Never changed: each step makes another one."""

    question: Question
    earlier: Sequence[Message] = ()
    """What was said before."""
    is_claimed: bool = False
    """Whether only the client says so."""
    hits: Sequence[Hit] = ()
    """What the answer may be made from."""
    linked: Sequence[Hit] = ()
    """The same once there is an answer, each as a link to the section that it was cited for."""
    similarity: float | None = None
    """Cosine of the best passage, used or not."""
    vector: np.ndarray | None = None
    """The question's, float32 [dimensions]."""
    build: str = ""
    cited: int = 0
    text: str = ""
    talk: SmallTalk | None = None
    """What the message is, where it asks nothing of the site."""
    missing: tuple[Missing, ...] = ()
    generated: Generated = "quoted"
    prompt_tokens: int = 0
    """As the model counted them; 0 where it told nothing, or none was asked."""
    completion_tokens: int = 0
    cache: CacheResult | None = None
    """Whether the answer came from memory; None where it could not."""
    disliked: int = 0
    """Answers of the conversation that got a thumb down."""
    judged: str = ""
    """What the model said of whether a person would help better: see `Completion.judged`."""
    is_own: bool = False
    """Whether the answer is one that the owner has written."""
    first_token_s: float | None = None
    outcome: Outcome = "left"
    """Until the answer is complete, the visitor might leave."""
    error: str | None = None
    """The code of what went wrong."""

    @property
    def degraded(self) -> str | None:
        return "; ".join(one.words for one in self.missing) or None

    @property
    def escalation(self) -> Reason | None:
        """Why a way to a person should be offered with the answer."""
        if self.talk is not None:
            return "asked" if self.talk.kind == "person" else None
        return reason_for(self.question.text, outcome=self.outcome, disliked=self.disliked, judged=self.judged)

    @property
    def cut(self) -> bool:
        """Whether the answer ended at the longest length allowed."""
        return CUT_SHORT in self.missing

    def citations(self) -> Iterator[tuple[Citation, Passage]]:
        """Where the answer cites, and the passage as a link to the section that says it."""
        quoted = self.generated == "quoted"
        for one in citations(self.text, marks(self.text), quoted=quoted):
            if 0 < one.number <= self.cited:
                passage = self.hits[one.number - 1].passage
                yield one, (quoted_at(passage, one.words) if quoted else led_to(passage, one.words))

    def answered(self, text: str, hits: Sequence[Hit], *, cited: int) -> "Turn":
        """The turn with its answer; `hits` are in the order of their numbers in it."""
        quoted = self.generated == "quoted"
        found = citations(text, marks(text), quoted=quoted)
        linked = cited_at(hits, found, question=self.question.text, quoted=quoted)
        return replace(self, text=text, hits=hits, linked=linked, cited=cited)

    def without(self, *missing: Missing | None) -> "Turn":
        new = tuple(one for one in missing if one is not None and one not in self.missing)
        return replace(self, missing=self.missing + new) if new else self

    def counted(self, completion: Completion) -> "Turn":
        counted = replace(
            self, prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens,
            judged=completion.judged,
        )  # fmt: skip
        return counted.without(CUT_SHORT if completion.cut else None)

    def noted(self) -> dict[str, Any]:
        """Fields for the request's line of the log: no words of the visitor's."""
        fields: dict[str, Any] = {"degraded": self.degraded, "outcome": self.outcome}
        if self.prompt_tokens or self.completion_tokens:
            fields |= {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        if self.cache is not None:
            fields["cache"] = self.cache
        if self.is_own:
            fields["own_words"] = True
        if self.first_token_s is not None:
            fields["first_token_ms"] = round(self.first_token_s * 1000, 1)
        if self.text:
            fields |= {"hits": len(self.hits), "cited": self.cited}
        return fields | ({"error": self.error} if self.error else {})

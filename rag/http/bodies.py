"""What requests carry and what answers look like, as the OpenAPI document shows it; and how a body is read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, Field, StrictFloat, StrictInt, StrictStr

from rag.access.callers import SESSION_ID
from rag.chat.escalation import Reason
from rag.chat.turn import Turn
from rag.text.citing import led_to, own_text
from rag.types import DEGRADED_CODES, Generated, Hit

PREVIEW_CHARS = 200


def now() -> str:
    """This moment as routes write it: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def as_json(answer: "ChatResponse | SearchResponse") -> Response:
    """What we made ourselves needs no second check: mypy has held its types, the tests its schema."""
    return Response(orjson.dumps(answer), media_type="application/json")


class StrictRequest(Request):
    """Reads JSON as the standard has it: no NaN, no lone surrogates, no infinite numbers, bounded depth.

    A name that stands twice in one object is refused too. The standard leaves open which of the two counts, so that a
    filter before this server and the server could read different questions.
    """

    def keep(self, body: bytes) -> None:
        """The body that was read already."""
        self._body = body

    async def json(self) -> Any:
        body = await self.body()
        value = orjson.loads(body)
        try:
            _NAMES_ONCE.decode(body.decode())
        except (RecursionError, ValueError) as error:
            raise json.JSONDecodeError(str(error), "", 0) from None
        return value


def _names_once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")


_NAMES_ONCE = json.JSONDecoder(object_pairs_hook=_names_once)


NO_NUL = r"^[^\x00]*$"
NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
Question = Annotated[
    str,
    # The routes check this and the length, which is a setting, and say it in better words than a pattern.
    Field(min_length=1, json_schema_extra={"pattern": NOT_BLANK}),
]
SessionId = Annotated[str, Field(pattern=SESSION_ID, description="16–128 characters of A–Z a–z 0–9 . _ -")]


def _whole(value: Any) -> Any:
    # JSON has one kind of number: 3.0 is the integer 3, as JSON Schema has it too.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE_NUMBER = BeforeValidator(_whole)


class ClaimedMessage(BaseModel):
    """A message that the client remembers."""

    role: Literal["user", "assistant"]
    content: str = Field(max_length=60_000, pattern=NO_NUL)
    timestamp: StrictStr | StrictInt | StrictFloat | None = None


class PageContext(BaseModel):
    """The page that the visitor is on."""

    url: str = Field(max_length=2000, pattern=NO_NUL)
    title: str = Field("", max_length=500, pattern=NO_NUL)
    selection: str = Field("", max_length=2000, pattern=NO_NUL, description="what the visitor has marked there")


class ChatRequest(BaseModel):
    message: Question = Field(
        description="the question, at most MAX_MESSAGE_LENGTH characters", examples=["How do I reset my password?"]
    )
    session_id: SessionId | None = Field(None, description="continues a conversation; absent: a new one begins")
    history: list[ClaimedMessage] = Field(
        default_factory=list, max_length=200, description="restores a conversation that the server does not know"
    )
    page: PageContext | None = Field(None, description="where on the site the question is asked")
    regenerate: bool = Field(
        False, strict=True, description="the answer after `history` is forgotten first, and given anew"
    )


@dataclass(frozen=True, slots=True)
class Source:
    url: str
    title: str
    content_preview: str
    content_full: str
    similarity_score: float
    cited: Annotated[
        bool, Field(description="whether the answer cites it; the cited ones come first, [1] is the first of them")
    ]

    @classmethod
    def all_of(cls, hits: Sequence[Hit], *, cited: int) -> "list[Source]":
        return [cls._of(hit, cited=place < cited) for place, hit in enumerate(hits)]

    @classmethod
    def _of(cls, hit: Hit, *, cited: bool) -> "Source":
        passage = hit.passage
        # A word and its space are two characters at least, so that no more of them can be seen.
        text = " ".join(own_text(passage).split(None, PREVIEW_CHARS // 2 + 1)[: PREVIEW_CHARS // 2 + 1])
        preview = text if len(text) <= PREVIEW_CHARS else text[:PREVIEW_CHARS].rsplit(" ", 1)[0] + " …"
        return cls(
            url=passage.citation_url,
            title=passage.heading_path,
            content_preview=preview,
            content_full=passage.text,
            similarity_score=round(hit.similarity, 4),
            cited=cited,
        )


@dataclass(frozen=True, slots=True)
class Escalation:
    """A way to a person should be offered with this answer."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a stream, and without one the whole answer."""

    response: str
    timestamp: str
    sources: list[Source]
    degraded: Annotated[str | None, Field(description="what was missing when this was answered, or null")]
    degraded_codes: Annotated[list[str], Field(description="the same for programs: " + ", ".join(DEGRADED_CODES))]
    generated: Annotated[Generated, Field(description="who wrote the answer: a model, or the pages themselves")]
    own_words: Annotated[bool, Field(description="whether it is an answer that the site's owner has written")]
    escalation: Annotated[Escalation | None, Field(description="why a person could help better, or null")]

    @classmethod
    def of(cls, turn: Turn, **more: str) -> Self:
        return cls(
            response=turn.text,
            timestamp=now(),
            sources=Source.all_of(turn.linked, cited=turn.cited),
            degraded=turn.degraded,
            degraded_codes=[one.code for one in turn.missing],
            generated=turn.generated,
            own_words=turn.is_own,
            escalation=Escalation(turn.escalation) if turn.escalation else None,
            **more,
        )


@dataclass(frozen=True, slots=True)
class ChatResponse(Answer):
    session_id: str


class SearchRequest(BaseModel):
    query: Question = Field(examples=["reset password"])
    k: Annotated[int, Field(ge=1, le=20, strict=True), WHOLE_NUMBER] = 5


@dataclass(frozen=True, slots=True)
class SearchResult:
    score: Annotated[float, Field(description="0 to 1, comparable within one search")]
    content: str
    metadata: dict[str, Any]
    citation_url: str
    page_title: str
    citation: Annotated[str, Field(description="a Markdown link to the passage")]

    @classmethod
    def of(cls, hit: Hit, *, query: str) -> "SearchResult":
        passage = led_to(hit.passage, "", question=query)
        metadata = {
            "source": passage.source, "url": passage.url, "headings": list(passage.headings),
            "language": passage.language, "similarity": round(hit.similarity, 4),
        }  # fmt: skip
        return cls(
            score=round(hit.score, 4), content=passage.text, metadata=metadata, citation_url=passage.citation_url,
            page_title=passage.title, citation=f"[{passage.heading_path or passage.source}]({passage.citation_url})",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SearchResponse:
    results: list[SearchResult]
    query: str
    timestamp: str
    degraded: Annotated[str | None, Field(description="what was missing when this was searched, or null")]


class HistoryTurn(BaseModel):
    role: Literal["user", "assistant"]
    content: str


class HistoryResponse(BaseModel):
    session_id: str
    history: list[HistoryTurn]


class Deleted(BaseModel):
    message: str


class Stats(BaseModel):
    sessions: int
    messages: int
    oldest: str | None


class Running(BaseModel):
    message: str
    status: Literal["running"]
    timestamp: str


class Healthy(BaseModel):
    status: Literal["healthy"]
    version: str
    timestamp: str


def limit_questions(document: dict[str, Any], max_chars: int) -> None:
    """Write the setting's limit into the OpenAPI document."""
    schemas = document["components"]["schemas"]
    for model, name in ((ChatRequest, "message"), (SearchRequest, "query")):
        schemas[model.__name__]["properties"][name]["maxLength"] = max_chars


class Ready(BaseModel):
    status: Literal["ready", "degraded", "unavailable"]
    index: dict[str, Any]
    conversations: dict[str, Any]
    rate_limits: dict[str, Any]
    chat: dict[str, Any]
    embeddings: dict[str, Any]

"""Plain data that passes between the rooms. Knows nothing of HTTP, files or models."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Role = Literal["user", "assistant"]
Generated = Literal["model", "quoted"]
"""Who wrote an answer: a language model, or the pages themselves."""


@dataclass(frozen=True, slots=True)
class Section:
    """What a passage holds of one section of its page."""

    start: int
    """Where it begins in the passage's text, in characters from 0."""
    end: int
    headings: tuple[str, ...]
    """The path of headings above it, outermost first, without the page's title."""
    anchor: str
    """The fragment that leads to it, or empty."""
    phrases: tuple[tuple[int, int], ...] = ()
    """Begin and end, in the passage's text, of words that stand in the page once."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the page within a passage's text, which holds its words alone."""

    start: int
    end: int
    url: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one document, as it is indexed, retrieved and shown."""

    text: str
    """What a reader sees: the passage itself, Markdown allowed."""
    title: str
    """The page's title."""
    headings: tuple[str, ...]
    """The path of headings above the passage, outermost first, without the title."""
    url: str
    """The page's address, without a fragment; a source path where the site's address is unknown."""
    anchor: str
    """The fragment that leads to the passage (`response-model`, `page=3`), or empty."""
    source: str
    """The file it came from, relative to the indexed folder, with forward slashes."""
    language: str
    """ISO 639-1 code, or empty where it is not known."""
    fragment: str = ""
    """Words that lead to the passage and stand in the page once, percent-encoded for a text directive, or empty."""
    sections: tuple[Section, ...] = ()
    """What it is made of, in the order of its text; empty in builds of versions that did not know them."""
    links: tuple[Link, ...] = ()
    """Those of its prose, in the order of its text."""

    @property
    def heading_path(self) -> str:
        """Title and headings in one line: `Response Model › response_model Parameter`."""
        parts = [self.title, *(heading for heading in self.headings if heading != self.title)]
        return " › ".join(part for part in parts if part)

    @property
    def indexed_text(self) -> str:
        """What is embedded: the heading path above the text, so that a passage knows where it stands."""
        return f"{self.heading_path}\n\n{self.text}" if self.heading_path else self.text

    @property
    def content_hash(self) -> str:
        """SHA-256 of `indexed_text`, in hex: equal hashes need only one embedding call."""
        return hashlib.sha256(self.indexed_text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def anchored_url(self) -> str:
        """The address of the section: the page, with the fragment where there is one."""
        return f"{self.url}#{self.anchor}" if self.anchor else self.url

    @property
    def citation_url(self) -> str:
        """The address that opens the page at the passage's own words, else at its section, else at its top."""
        if not self.fragment:
            return self.anchored_url
        return f"{self.url}#{self.anchor}:~:text={self.fragment}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, with its scores."""

    passage: Passage
    score: float
    """The fused score, 0 to 1, comparable within one search only."""
    similarity: float
    """Cosine similarity to the question, -1 to 1; 0 where no embedding was at hand."""
    row: int
    """The passage's number in its build."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    is_claimed: bool = field(default=False, compare=False)
    """Whether only a client says that this was said."""

    @property
    def stored_role(self) -> str:
        """The role as stores keep it, with the claim."""
        return f"claimed {self.role}" if self.is_claimed else self.role

    @classmethod
    def stored(cls, role: str, content: str) -> "Message":
        """The message of a `stored_role`."""
        said: Role = "user" if role.endswith("user") else "assistant"
        return cls(said, content, role != said)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a model, with what is needed to call it."""

    url: str
    api_key: str = field(repr=False)
    model: str
    """The name sent in the body; empty where the address already names the deployment."""
    bearer: bool
    """True sends `Authorization: Bearer`, False Azure's `api-key`."""
    identity: bool = False
    """True sends a token of this server's own identity, and never a key."""

    @property
    def name(self) -> str:
        """Host and deployment: how logs, metrics and `/ready` call this endpoint."""
        deployment = _deployment(self.url) or self.model
        host = urlsplit(self.url).netloc.rsplit("@", 1)[-1]
        return f"{host}/{deployment}" if deployment else host

    @property
    def model_name(self) -> str:
        """The identity of the model behind the address: the setting, else the deployment, else the address."""
        parts = urlsplit(self.url)
        return self.model or _deployment(self.url) or f"{parts.netloc.rsplit('@', 1)[-1]}{parts.path}"


def _deployment(url: str) -> str:
    found = re.search(r"/deployments/([^/?]+)", url)
    return found.group(1) if found else ""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent in a day, in UTC."""

    amount: float
    currency: str
    """Three letters, such as `USD`; empty where tokens are counted."""


DEGRADED_CODES = ("model", "no_model", "budget", "embeddings", "memory", "length")


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that an answer had to do without."""

    code: str
    """For programs, and for metrics: one of `DEGRADED_CODES`."""
    words: str
    """For people, in English; the chat has its own words for each code."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer, with the tokens it reports; 0 where it reports none."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cut: bool = False
    """It ended at the longest length allowed, wherever that was."""
    judged: str = ""
    """Whether the visitor would be helped better by a person, where the prompt asked: `asked` or `unhappy`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: messages for one that writes, question and passages for one that quotes."""

    question: str
    messages: tuple[dict[str, str], ...]
    hits: tuple[Hit, ...]
    shorter: Callable[[], "Prompt"] | None = field(default=None, compare=False)
    """Writes the same question with less beside it; None where nothing is left to leave out."""
    sentences: Mapping[str, str] = field(default_factory=dict)
    """By code, in the visitor's language: what one that quotes says of its own. `rag/chat/texts.json` has them."""
    judges: bool = False
    """Whether a model that writes also has to judge if a person would help better: see `Completion.judged`."""

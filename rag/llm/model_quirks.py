"""What an endpoint refuses, whose fault that is, and what can be learned from it.

Models that reason refuse `max_tokens`, which they know by another name, and every temperature but their own. Which
models do is learned from the refusal: a list of their names would be out of date at once. Knows no wire and no retries.
"""

import re
from typing import Any

import orjson

from rag.calls import Refused
from rag.errors import UpstreamError, UpstreamRejected
from rag.llm.entra.tokens import NoToken
from rag.llm.http_client import BAD_CERTIFICATE, NO_HOST, NOT_LISTENING

SUCCESSORS = {"max_tokens": "max_completion_tokens"}
"""What a parameter is called where its old name is refused; Azure's versions before 2024-09 know the old one alone."""
DISPENSABLE = frozenset({"temperature", "response_format"})
"""Parameters without which an answer is an answer too."""
UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value", "invalid_request_error", ""})
"""Codes of such a refusal, which at first had none of its own: then the error's type stands in its place."""
QUESTION_STATUSES = frozenset({400, 413, 422})
"""A refusal with one of these may be about the question alone, and says nothing of the endpoint then."""
ENDPOINT_CODES = frozenset(
    {"unsupported_parameter", "unsupported_value", "model_not_found", "deploymentnotfound", "operationnotsupported"}
)
"""Except with one of these codes: they would be the same for every question."""


TOO_LONG = "context_length_exceeded"
"""The code with which Azure and OpenAI refuse more than a model can read."""
# Others say it in words (vLLM), or by a code of their own (llama.cpp's server).
_TOO_LONG = re.compile(
    r"maximum (?:context|model|sequence) length|max_model_len|(?:available |exceeds? (?:the |max(?:imum)? )?)context"
    r"|context[ _](?:length|size|window)[ _]exceed|exceed[ _]context|prompt is too long|input is too long",
    re.IGNORECASE,
)

ROLE = "give this identity the role Cognitive Services OpenAI User on the resource (in force after some minutes)"
SETTING_OF = {
    "temperature": "CHAT_TEMPERATURE", "max_tokens": "CHAT_MAX_TOKENS", "max_completion_tokens": "CHAT_MAX_TOKENS",
    "response_format": "ESCALATION_CLASSIFIER",
}  # fmt: skip
"""Which setting a parameter's value comes from."""


def read(body: bytes) -> tuple[str, str]:
    """Code and parameter that the body of a refusal names, each as one short word; empty where it names none.

    A text that is too long for the model has the same code whoever refuses it.
    """
    try:
        answer = orjson.loads(body)
        # Older versions of vLLM have no `error` around it.
        error = answer.get("error") or answer
        words = error if isinstance(error, str) else f"{error.get('type')} {error.get('message')}"
        if _TOO_LONG.search(words[:1_000]):
            return TOO_LONG, ""
        code, param = str(error.get("code") or error.get("type") or "")[:80], error.get("param")
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", ""
    return code, param if isinstance(param, str) and re.fullmatch(r"[\w.\[\]-]{1,40}", param, re.ASCII) else ""


def is_of_endpoint(status: int, code: str) -> bool:
    """Whether every question would be refused so: the key, the deployment or our parameters are wrong for it."""
    return status not in QUESTION_STATUSES or code.casefold() in ENDPOINT_CODES


class RequestOptions:
    """How one endpoint wants its requests, for the life of the process."""

    def __init__(self) -> None:
        self._refused: set[str] = set()

    def of(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request as this endpoint takes it, as far as that is known."""
        return self._spelled(body, without=DISPENSABLE & self._refused) if self._refused else body

    def learn(self, body: dict[str, Any], *, sent: dict[str, Any], code: str, param: str) -> dict[str, Any] | None:
        """The request as it may be sent again, after `sent` was refused; None where the refusal teaches nothing.

        Without anything dispensable, this once: a model that refuses one of them tends to refuse the other too, and
        whoever asks now should not wait for a second refusal.
        """
        known = param in SUCCESSORS or param in DISPENSABLE
        if not known or param not in sent or code not in UNSUPPORTED:
            return None
        self._refused.add(param)
        return self._spelled(body, without=DISPENSABLE)

    def _spelled(self, body: dict[str, Any], *, without: frozenset[str]) -> dict[str, Any]:
        renamed = {old: new for old, new in SUCCESSORS.items() if old in self._refused}
        return {renamed.get(name, name): value for name, value in body.items() if name not in without}


def remedy(error: UpstreamError, kind: str, *, by_identity: bool) -> str:
    """What to change. `kind` is `CHAT` or `EMBEDDINGS`; `by_identity`: tokens are sent, and no key."""
    if isinstance(error, NoToken):
        return error.remedy
    address, key = f"AZURE_OPENAI_{kind}_ENDPOINT", f"AZURE_OPENAI_{kind}_API_KEY"
    said, status = str(error), error.http_status
    if isinstance(error, Refused) and error.param in SETTING_OF:
        return f"set {SETTING_OF[error.param]} to a value that the model takes"
    if by_identity and status in (401, 403):
        return f"{ROLE}; compare AZURE_TOKEN_SCOPE and the tenant with those of {address}"
    if status == 401:
        return f"compare {key} with what the service shows; for Azure it is the key of this very resource"
    if status == 403:
        return (
            "let this machine's address through the service's network rules, and give the key the right to call models"
        )
    if status == 404:
        return f"compare the deployment's or model's name and the api-version in {address} with what the service shows"
    if status in QUESTION_STATUSES:
        return f"compare the model and the api-version in {address} with what is offered there: it takes other requests"
    if isinstance(error, UpstreamRejected):
        return f"compare {address} and {key} with what the service shows"
    if NO_HOST in said:
        return f"correct the host's name in {address}, or this machine's DNS"
    if NOT_LISTENING in said:
        return f"start the service, or correct the port in {address}"
    if BAD_CERTIFICATE in said:
        return f"correct {address}, or let this machine trust the certificate"
    return "look whether the service runs, and whether this machine may reach it (firewall, proxy)"

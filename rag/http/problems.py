"""Errors as `application/problem+json` (RFC 9457), the same form for every route and every cause."""

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from rag.errors import InvalidRequest, RagError, RateLimited
from rag.telemetry.logs import request_id

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What every error looks like."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def problem(error: RagError, **more: Any) -> Response:
    """The response to an error: its public half, never its private one. `more` are further fields of the document."""
    response = _response(error.status, error.code, error.title, error.detail, error.retry_after_s, **more)
    response.headers.update(error.public_headers)
    return response


def body_of(error: RagError) -> dict[str, Any]:
    """The same as plain data, for an `error` event inside a stream."""
    return _body(error.status, error.code, error.title, error.detail)


def rate_limit_problem(scope: Scope, error: RateLimited) -> ASGIApp:
    return problem(error)


async def apology(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers in place of the routes: with the error that the scope names, else for a fault of ours."""
    await problem(scope.get("error") or RagError())(scope, receive, send)


def install(app: FastAPI, *, document: Callable[[dict[str, Any]], None]) -> None:
    """Make every error that a route can raise take this form, and describe it; `document` may add to the description.

    The OpenAPI document is made once, at the first request for it.
    """
    app.add_exception_handler(RagError, _on_rag_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    described_app = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = described_app()
            _complete(described)
            document(described)
        assert app.openapi_schema is not None  # noqa: S101 - the call above has set it
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in the OpenAPI document, for the errors it can answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": schema}}
        for status in statuses
    }


def _complete(document: dict[str, Any]) -> None:
    """Add what any route can answer, because it happens before the routes."""
    # FastAPI describes only models that a route answers with; `described` refers to this one by name.
    document["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
    for operations in document["paths"].values():
        for method, operation in operations.items():
            answers = operation["responses"]
            if any(status.endswith("XX") for status in answers):
                continue  # a dialect with errors of its own form
            # A route that says so itself is not there for strangers.
            is_hidden = "404" in answers
            everywhere = (400, 404, 431, 500, 503) if method == "get" else (400, 404, 413, 422, 431, 500, 503)
            for status, response in described(*everywhere).items():
                answers.setdefault(str(status), response)
            operation["responses"] = dict(sorted(answers.items()))
            if "401" in answers:
                # An empty one: strangers may call, unless the owner closed the server.
                stranger: list[dict[str, list[str]]] = [] if is_hidden else [{}]
                operation["security"] = [*stranger, {"credential": []}]
    # X-API-Key is left out: clients that are made from this would send both.
    document["components"]["securitySchemes"] = {"credential": {"type": "http", "scheme": "bearer"}}


async def _on_rag_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RagError)  # noqa: S101 - FastAPI hands over what was registered
    level = logging.WARNING if error.status >= 500 else logging.DEBUG
    log.log(level, "request failed", extra={"code": error.code, "reason": str(error)})
    return problem(error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return problem(InvalidRequest(detail=_sentence(error.errors())))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    details = {404: "There is nothing at this address.", 405: "This address does not take this method."}
    response = _response(error.status_code, code, phrase, details.get(error.status_code, "The request is not valid."))
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_methods_at(request))
    return response


def _methods_at(request: Request) -> list[str]:
    """Every method that the address takes: Starlette names those of the first route that it meets."""
    at = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if _takes(request, method)] or ["GET"]
    return ["GET", "HEAD", *at[1:]] if at[0] == "GET" else at


def _takes(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    routes = (route for route in request.app.routes if not isinstance(route, Mount))
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


_FAULTS = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "is not of the form that the documentation of this route gives",
}
"""In words for a person, by pydantic's types of errors; the others read well as they are."""


def _sentence(faults: Sequence[Any]) -> str:
    """Which field is wrong and why, without what was sent: an error must not echo a body."""
    sentences = []
    for fault in faults[:3]:
        if fault["type"] == "json_invalid":
            return "The body is not valid JSON, or names a field twice."
        place = ".".join(str(part) for part in fault["loc"][1:] if not str(part).isspace())[:80]
        if not place:
            return "The body has to be a JSON object, sent with Content-Type: application/json."
        sentences.append(f"{place}: {_FAULTS.get(fault['type']) or fault['msg'].removeprefix('Value error, ')}")
    return "; ".join(sentences) + "."


def _body(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:rag-server:problem:{code}", "title": title, "status": status,
        "detail": detail, "code": code, "request_id": request_id.get(),
    }  # fmt: skip


def _response(
    status: int, code: str, title: str, detail: str, retry_after_s: float | None = None, **more: Any
) -> Response:
    headers = {"Retry-After": str(max(1, round(retry_after_s)))} if retry_after_s is not None else None
    content = orjson.dumps(_body(status, code, title, detail) | more)
    return Response(content, status_code=status, headers=headers, media_type="application/problem+json")

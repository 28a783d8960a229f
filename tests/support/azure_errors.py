"""Azure OpenAI's error bodies: its codes and shapes, our words. Knows nothing of when they are sent."""

from typing import Any

import orjson

WORDING = "emulated upstream wording"
"""Stands in every error message of the emulator, so that a test can show that none of it reaches a visitor."""

SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
CAUGHT = {**SAFE, "violence": {"filtered": True, "severity": "medium"}}


def error(code: str, message: str, **more: Any) -> bytes:
    """`{"error": {"code", "message", …}}`, as all of Azure's failures look."""
    return orjson.dumps({"error": {"code": code, "message": f"{message} ({WORDING})", **more}})


UNAUTHORIZED = error("401", "The subscription key is invalid or belongs to another endpoint.")
UNAUTHORIZED_OPENAI = error("invalid_api_key", "The API key is not correct.", type="invalid_request_error", param=None)
NO_SUCH_RESOURCE = error("404", "Resource not found")
NO_SUCH_DEPLOYMENT = error("DeploymentNotFound", "There is no such deployment on this resource.")
TOO_MANY_REQUESTS = error("429", "The call rate limit of this pricing tier has been exceeded. Retry later.")
FILTERED_PROMPT = error(
    "content_filter",
    "The prompt triggered the content management policy.",
    param="prompt",
    type=None,
    status=400,
    innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": CAUGHT},
)

TOO_LONG = error(
    "context_length_exceeded", "The messages have more tokens than this model can read.", param="messages",
    type="invalid_request_error",
)  # fmt: skip


def bad_request(message: str, param: str | None = None) -> bytes:
    """The body of a 400 for a request that has the wrong shape."""
    return error("invalid_request_error", message, param=param, type="invalid_request_error")


def unsupported(param: str, what: str, reason: str) -> bytes:
    """The body of a 400 for a parameter, or its value, that this model does not take; `what` says which of the two."""
    message = f"Unsupported {what}: '{param}' {reason} with this model."
    return error(f"unsupported_{what}", message, param=param, type="invalid_request_error")


def body_for(status: int) -> bytes:
    """The body that Azure sends with a bare status."""
    if status == 429:
        return TOO_MANY_REQUESTS
    if status == 401:
        return UNAUTHORIZED
    if status == 404:
        return NO_SUCH_DEPLOYMENT
    if status == 503:
        return error("503", "The service is temporarily unable to process the request.")
    if status >= 500:
        return error("InternalServerError", "The server had an error while processing the request.")
    return error(str(status), "The request failed.")

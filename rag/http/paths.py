"""What a request is before a route sees it: the name that its path has for others, and whose limit it counts against.

Knows the routes' paths, and nothing of what they do.
"""

import re

from starlette.types import Scope

from rag.access import callers

LIMITS = {
    ("POST", "/chat"): "chat",
    ("POST", "/chat/stream"): "chat",
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/api/chat"): "chat",
    ("POST", "/search"): "search",
    ("POST", "/feedback"): "search",
    ("DELETE", "/sessions/{session_id}"): "delete",
    ("GET", "/health"): "health",
}
"""Which limit a route counts against."""
DELETIONS = "300/minute"
"""The limit called `delete`, which is no setting: nobody tidies up faster than this, and each takes the write lock."""

_SESSION = re.compile(r"/sessions/[^/]+")


def limit_of(scope: Scope) -> str | None:
    return LIMITS.get((scope["method"], _template(scope)))


def bucket_of(scope: Scope) -> str | None:
    """Whom the limits count a request for; None for a probe on the machine itself, which is never limited."""
    address = scope["client"][0] if scope.get("client") else None
    if scope["path"] == "/health" and callers.is_loopback(address):
        return None
    return callers.client_bucket(address)


def name_of(scope: Scope) -> str:
    """The route's path for log, metrics and traces, where the path itself may hold a visitor's id."""
    route = scope.get("route")
    if path := getattr(route, "path", None):
        return str(path)
    if mounted_at := scope.get("root_path"):
        return str(mounted_at)
    # Refused before the routes: too many requests, or too large a body. Only paths of ours, for a label has to be.
    return _template(scope) if limit_of(scope) else "unmatched"


def _template(scope: Scope) -> str:
    path: str = scope["path"]
    return "/sessions/{session_id}" if scope["method"] == "DELETE" and _SESSION.fullmatch(path) else path

"""Lets the routes of one router be asked without the whole server."""

import tempfile
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from rag.access.admission import Admission
from rag.access.authentication import authenticator
from rag.access.limits import RateLimits, sqlite_storage_uri
from rag.settings import Settings
from rag.stores.sqlite.file import Clocks
from rag.telemetry.metrics import Metrics


async def _nowhere(url: str) -> bytes:
    raise AssertionError(f"{url} is asked for")


def admission(folder: Path, *, settings: Settings | None = None, **limits: str) -> Admission:
    """As the server has it, with these limits."""
    counted = RateLimits(
        limits={"credentials": "30/minute", **limits}, storage_uri=sqlite_storage_uri(folder / "hits.sqlite3"),
        enabled=True, clocks=Clocks.system(),
    )  # fmt: skip
    known = authenticator(settings or Settings(state_dir=folder), visits=None, fetch=_nowhere)
    return Admission(limits=counted, metrics=Metrics(folder=None), authenticator=known)


def admitting(app: ASGIApp, by: Admission | None = None, **state: Any) -> ASGIApp:
    """`app`, whose requests find an admission in their state; without one of the test's own nobody is limited."""
    admitted_by = by or admission(Path(tempfile.gettempdir()) / "never-written")

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"admission": admitted_by, **state}}, receive, send)

    return with_state

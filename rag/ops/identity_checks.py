"""Whether this server's identity gets tokens for the models, where they are called without a key."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rag.llm.entra import tokens
from rag.ops.store_checks import Found, State
from rag.settings import Settings

PACKAGES = Path(__file__).resolve().parents[2] / "requirements-entra.lock"
Fetch = Callable[[Settings], tokens.Token]
"""Gets one token of this server's identity. Raises `NoToken`."""


def findings(settings: Settings, *, fetch: Fetch | None, strict: bool) -> Iterator[Found]:
    """Nothing where nobody wants a token; `fetch` is called where it is given.

    Where it is not `strict`, a login that cannot be reached is forgiven: a restarted server starts in its bad hour too.
    """
    if settings.demo or not settings.needs_identity:
        return
    way = tokens.way_of(settings)
    if not tokens.is_installed():
        what = "AZURE_OPENAI_AUTH is entra, but azure-identity is not installed"
        yield "fault", "identity", what, f"{sys.executable} -m pip install -r {PACKAGES}"
    elif fetch is None:
        yield "ok", "identity", f"{way} is to get tokens", ""
    else:
        try:
            minutes = round((fetch(settings).expires_at - time.time()) / 60)
        except tokens.NoToken as error:
            state: State = "fault" if strict or error.refused else "warning"
            yield state, "identity", f"{way} gets no token: {error}", error.remedy
        else:
            yield "ok", "identity", f"{way} has got a token for {minutes} minutes", ""

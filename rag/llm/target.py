"""An endpoint as it is called: its headers, how it wants its requests, and how it has been doing."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from rag.llm import model_quirks
from rag.llm.resilience import Breaker
from rag.types import Endpoint


@dataclass(eq=False)
class Target:
    """An endpoint, and how it has been doing."""

    endpoint: Endpoint
    breaker: Breaker
    url: httpx.URL = field(init=False)
    headers: httpx.Headers = field(init=False, repr=False)
    throttled_until: float = 0.0
    barred: str = ""
    """Why it cannot be called at all; empty while it can."""
    options: model_quirks.RequestOptions = field(default_factory=model_quirks.RequestOptions)
    token_changed: Callable[[], None] = lambda: None
    """Called whenever a token comes or is given up."""

    def __post_init__(self) -> None:
        self.url = httpx.URL(self.endpoint.url)
        key = self.endpoint.api_key
        auth = {"Authorization": f"Bearer {key}"} if self.endpoint.bearer else {"api-key": key}
        # Unpacking would cost more time than the few bytes of an answer on a data centre's line.
        fixed = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "rag-server"}
        self.headers = httpx.Headers(fixed | (auth if key else {}))
        if self.endpoint.identity:
            self.barred = "no token yet"

    def authorise(self, token: str) -> None:
        """Send this token from now on; calls that are under way keep theirs."""
        self.headers["Authorization"] = f"Bearer {token}"
        self.barred = ""
        self.token_changed()

    def bar(self, reason: str) -> None:
        """Call it no more, and forget its token, until the next one comes."""
        self.headers.pop("Authorization", None)
        self.barred = reason
        self.token_changed()

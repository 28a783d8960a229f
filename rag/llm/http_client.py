"""The way to a model's endpoint: a pool of connections, and the bytes that come back. Knows no meaning of either."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
from httpx_aiohttp import AiohttpTransport


@asynccontextmanager
async def http_client(*, connections: int = 1024) -> AsyncIterator[httpx.AsyncClient]:
    """A pool over aiohttp's transport: httpx's own loses a connection for good when a visitor leaves."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60)
    async with _DirectClient(AiohttpTransport(limits=limits)) as client:
        yield client


class _DirectClient(httpx.AsyncClient):
    """Sends a request as it is. A model's endpoint has no use for what httpx does beside that: cookies, redirects,
    authentication."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        # Proxies of the environment are not for the model's endpoint: the key would pass through them unasked.
        super().__init__(transport=transport, timeout=None, trust_env=False)
        self._direct = transport

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        return await self._direct.handle_async_request(request)


def chunks_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body's chunks as they arrive, decoded."""
    if "content-encoding" in response.headers:
        return response.aiter_bytes()
    # httpx would pass each of them through three generators, and there is one for every token.
    return aiter(cast("httpx.AsyncByteStream", response.stream))

"""The way to a model's endpoint: a pool of connections, and the bytes that come back. Knows no meaning of either."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from rag.calls import Bill, Unanswered
from rag.public_addresses import Address, NotPublic

NO_HOST, NOT_LISTENING, BAD_CERTIFICATE, SILENT = "no such host", "connection refused", "its certificate", "no answer"
"""What kept a request from being answered."""
BILL = "rag.bill"
"""Where a response carries its bill."""


@asynccontextmanager
async def http_client(*, connections: int = 1024) -> AsyncIterator[httpx.AsyncClient]:
    """A pool over aiohttp's transport: httpx's own loses a connection for good when a visitor leaves."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60)
    async with _DirectClient(AiohttpTransport(limits=limits)) as client:
        yield client


async def fetched(url: str, *, timeout_s: float, largest_bytes: int) -> bytes:
    """The body at an address, over a connection of its own; redirects are not followed.

    Raises `ValueError` for any other status than 200 and for a body that is too large, else what the transport does.
    """
    async with asyncio.timeout(timeout_s), http_client(connections=1) as client, client.stream("GET", url) as response:
        if response.status_code != 200:
            raise ValueError(f"{url} answers {response.status_code}")
        body = bytearray()
        async for chunk in chunks_of(response):
            body += chunk
            if len(body) > largest_bytes:
                raise ValueError(f"{url} answers more than {largest_bytes} bytes")
        return bytes(body)


async def posted(
    url: str, content: bytes, headers: Mapping[str, str], *, timeout_s: float, allows: Callable[[Address], bool]
) -> int:
    """The status that an address answers to a POST, over a connection of its own; redirects are not followed.

    `allows` is asked for each address that a connection is about to go to, and its name is not resolved again after
    that; the certificate is still that of the name. Raises `NotPublic` where it allows none, else what the transport
    does, and `TimeoutError`.
    """
    refused: list[Address] = []
    allowed: list[Address] = []

    def checked(info: tuple[Any, ...]) -> socket.socket:
        address = ipaddress.ip_address(str(info[4][0]).partition("%")[0])
        (allowed if allows(address) else refused).append(address)
        if address in refused:
            raise ConnectionRefusedError
        return socket.socket(info[0], info[1], info[2])

    def session() -> aiohttp.ClientSession:
        tls = httpx.create_ssl_context()
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, socket_factory=checked))

    request = httpx.Request("POST", url, content=content, headers=dict(headers))
    try:
        async with asyncio.timeout(timeout_s), _DirectClient(AiohttpTransport(client=session)) as client:
            response = await client.send(request, stream=True)
            await response.aclose()
            return response.status_code
    except httpx.TransportError:
        if refused and not allowed:
            raise NotPublic(f"{request.url.host} is not of the open internet") from None
        raise


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


def bill_of(response: httpx.Response) -> Bill | None:
    """What the call to this response costs; None where nobody counts."""
    bill: Bill | None = response.extensions.get(BILL)
    return bill


def take_bill(response: httpx.Response) -> Bill | None:
    """The bill, for whoever settles it: a stream costs until its end."""
    bill: Bill | None = response.extensions.pop(BILL, None)
    return bill


async def read_body(response: httpx.Response, *, limit: int) -> bytes:
    """The whole body, decoded; closes the response. Raises `Unanswered` for more than `limit` bytes."""
    body = bytearray()
    try:
        async for chunk in chunks_of(response):
            body += chunk
            if len(body) > limit:
                raise Unanswered(f"a body of more than {limit:,} bytes")
    finally:
        await response.aclose()
    return bytes(body)


def reason_of(error: BaseException) -> str:
    """What kept a request from being answered: a host's name, a port, a certificate; else the error's own name."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return NO_HOST
        if isinstance(cause, ssl.SSLError):
            return f"{BAD_CERTIFICATE} is not accepted ({getattr(cause, 'verify_message', '') or cause.reason})"
        if isinstance(cause, ConnectionRefusedError):
            return f"{NOT_LISTENING}: nothing listens there"
    return type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from. Errors that are raised again may form a circle."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        if (inner := getattr(cause, "os_error", None)) is not None:
            yield inner
        cause = cause.__cause__ or cause.__context__

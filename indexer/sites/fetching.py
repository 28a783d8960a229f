"""One page over HTTP, from addresses that are allowed, within limits. Knows no robots.txt, sitemap, link or document.

A page that is fetched may say where to go next, and a name may lead anywhere: an indexer on a company's network must
not become a way into it. So a name is resolved once, every address is checked, and the connection goes to the very
address that was checked; a redirect is a new page with all of that again. Proxies of the environment are not used.
"""

import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from rag.errors import SourceUnreadable
from rag.public_addresses import Address, resolved

USER_AGENT = "rag-server-indexer"
MAX_REDIRECTS = 5
TIMEOUT_S = 30.0
"""For one page with all its redirects, from the first look-up to the last byte."""
CHUNK_BYTES = 64 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], list[Address]]


class PageUnavailable(SourceUnreadable):
    """The site does not answer as it should; `status` is 0 where it does not answer at all."""

    def __init__(self, reason: str, *, status: int = 0, retry_after: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Page:
    """What was fetched."""

    url: str
    """Where it was found in the end, without a fragment."""
    content_type: str
    """In lower case, without parameters; empty where it is not stated."""
    robots_tag: str
    """The `X-Robots-Tag`, in lower case."""
    body: bytes


class Fetcher:
    """Fetches pages, one connection each."""

    def __init__(
        self, *, allows: Callable[[Address], bool], max_bytes: int, timeout_s: float = TIMEOUT_S,
        resolve: Resolve = resolved,
    ) -> None:  # fmt: skip
        """`allows` says which addresses may be connected to; `max_bytes` holds for a page after unpacking too."""
        self._allows = allows
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._tls = ssl.create_default_context()

    def fetch(self, url: str, *, may_visit: Callable[[str], str]) -> Page:
        """The page at `url`. Raises `SourceUnreadable` with a short reason, `PageUnavailable` where the site fails.

        `may_visit` is asked for every address a redirect leads to, and says why not, or nothing.
        """
        deadline = time.monotonic() + self._timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            with self._response(url, deadline) as response:
                status, location = response.status, response.getheader("Location")
                if status not in REDIRECTS or not location:
                    return self._page(url, response)
            url = joined(url, location)
            if reason := may_visit(url):
                raise SourceUnreadable(f"redirects to {url}: {reason}")
        raise SourceUnreadable(f"more than {MAX_REDIRECTS} redirects")

    @contextmanager
    def _response(self, url: str, deadline: float) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
        is_late = threading.Event()
        try:
            with ExitStack() as opened:
                stream = opened.enter_context(self._connected(host, port, deadline))
                if parts.scheme == "https":
                    secured = self._tls.wrap_socket(stream, server_hostname=host, do_handshake_on_connect=False)
                    stream = opened.enter_context(secured)

                def stop() -> None:
                    # A time-out on a socket starts anew with each byte that trickles in; this one does not.
                    is_late.set()
                    with suppress(OSError):
                        socket.socket.shutdown(stream, socket.SHUT_RDWR)

                watch = threading.Timer(max(0.0, deadline - time.monotonic()), stop)
                watch.daemon = True
                watch.start()
                opened.callback(watch.cancel)
                if isinstance(stream, ssl.SSLSocket):
                    stream.do_handshake()
                connection = opened.enter_context(closing(http.client.HTTPConnection(host, port)))
                connection.sock = stream
                connection.request("GET", target, headers=_headers(parts.netloc))
                yield opened.enter_context(closing(connection.getresponse()))
                if is_late.is_set():
                    # Where no length was stated, what was cut off looks like the end.
                    raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError, PageUnavailable) as error:
            if is_late.is_set() or isinstance(error, TimeoutError):
                raise PageUnavailable(f"took more than {self._timeout_s:g} s") from None
            raise error if isinstance(error, PageUnavailable) else PageUnavailable(_failure(error)) from None

    def _connected(self, host: str, port: int, deadline: float) -> socket.socket:
        """A connection to the first address that answers, where all of the name's addresses are allowed."""
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError):
            raise PageUnavailable(f"the name {host} cannot be resolved") from None
        for address in addresses:
            if not self._allows(address):
                raise SourceUnreadable(f"{host} is at the private address {address}; --allow-private-addresses")
        failure: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((str(address), port), timeout=max(0.01, deadline - time.monotonic()))
            except OSError as error:
                failure = error
        raise failure or OSError(f"{host} has no address")

    def _page(self, url: str, response: http.client.HTTPResponse) -> Page:
        if response.status != 200:
            retry_after = response.getheader("Retry-After") or ""
            raise PageUnavailable(f"HTTP {response.status}", status=response.status, retry_after=retry_after)
        stated = response.getheader("Content-Length") or ""
        if stated.isascii() and stated.isdigit() and int(stated) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        packing = (response.getheader("Content-Encoding") or "identity").lower()
        if packing not in {"identity", "gzip", "x-gzip"}:
            raise SourceUnreadable(f"is packed as {packing[:20]}, which was not asked for")
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16) if packing != "identity" else None
        while chunk := response.read1(CHUNK_BYTES):
            try:
                body += unpacker.decompress(chunk, self._max_bytes + 1 - len(body)) if unpacker else chunk
            except zlib.error:
                raise SourceUnreadable("its compression is broken") from None
            if len(body) > self._max_bytes:
                raise self._too_large()
        if response.length or (unpacker and not unpacker.eof):
            raise PageUnavailable("broke off")
        content_type = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        return Page(url, content_type, (response.getheader("X-Robots-Tag") or "").lower(), bytes(body))

    def _too_large(self) -> SourceUnreadable:
        return SourceUnreadable(f"more than {self._max_bytes / 1024**2:g} MiB; --max-bytes allows more")


def unpacked(body: bytes, *, limit_bytes: int) -> bytes:
    """What a gzip file holds. Raises `SourceUnreadable` beyond the limit, and for one that is broken."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        whole = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise SourceUnreadable("its compression is broken") from None
    if len(whole) > limit_bytes:
        raise SourceUnreadable(f"more than {limit_bytes / 1024**2:g} MiB unpacked")
    return whole


def joined(base: str, address: str) -> str:
    """The `cleaned` address of what a page or a redirect names. Raises `SourceUnreadable`."""
    try:
        return cleaned(urljoin(base, address))
    except ValueError:
        raise SourceUnreadable(f"{address[:200]!r} is no http(s) address") from None


def cleaned(url: str) -> str:
    """The address without fragment and user, its host in lower case. Raises `SourceUnreadable` for one that is none."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:  # UnicodeError is one
        host = ""
    if not host or parts.scheme not in {"http", "https"}:
        raise SourceUnreadable(f"{url[:200]!r} is no http(s) address")
    place = f"[{host}]" if ":" in host else host
    if port not in {None, 80 if parts.scheme == "http" else 443}:
        place = f"{place}:{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return f"{parts.scheme}://{place}{path}" + (f"?{query}" if query else "")


def _headers(netloc: str) -> dict[str, str]:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    return {
        "Host": netloc, "User-Agent": USER_AGENT, "Accept": accept, "Accept-Encoding": "gzip", "Connection": "close",
    }  # fmt: skip


def _failure(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no secure connection ({error.reason or type(error).__name__})"
    if isinstance(error, OSError):
        return f"no connection ({(error.strerror or type(error).__name__).lower()})"
    return f"no valid answer ({type(error).__name__})"

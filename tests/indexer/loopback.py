"""A small site on loopback, for tests of what a running site can do to an indexer. Knows nothing of the indexer."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Writes a whole response."""


@dataclass
class Loopback:
    """What the site has, and who asked for it."""

    url: str = ""
    pages: dict[str, Answer] = field(default_factory=dict)
    """By path and query."""
    asked: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0


def page(
    body: bytes | str, content_type: str = "text/html; charset=utf-8", *, status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    content = body.encode() if isinstance(body, str) else body

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def html(title: str, text: str, *links: str, head: str = "") -> Answer:
    anchors = "".join(f'<a href="{link}">x</a> ' for link in links)
    return page(
        f"<html><head><title>{title}</title>{head}</head><body><main><p>{text}</p>{anchors}</main></body></html>"
    )


def moved(location: str, status: int = 302) -> Answer:
    return page("", status=status, headers={"Location": location})


def sitemap(*addresses: str) -> str:
    entries = "".join(f"<url><loc>{address}</loc></url>" for address in addresses)
    return f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Loopback]:
    """The site, up until the block is left; what it does not have is 404."""
    site = Loopback()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # an answer leaves when it is no longer counted as being made

        def do_GET(self) -> None:
            with lock:
                site.asked.append(self.path)
                site.agents.add(self.headers.get("User-Agent", ""))
                site.at_once += 1
                site.most_at_once = max(site.most_at_once, site.at_once)
            try:
                site.pages.get(self.path, page("gone", status=404))(self)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the indexer hung up, as it should
            finally:
                with lock:
                    site.at_once -= 1

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"http://{address}:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

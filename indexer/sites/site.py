"""A running site -> documents: its robots.txt is obeyed, its pages fetched one by one, slowly, within limits.

It starts at a sitemap, an index of sitemaps, or a page whose links are followed. It never leaves the host it started
at. Pages are read in the same child processes as files are; knows nothing of sockets and of formats.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urljoin, urlsplit

from indexer.documents import Document, Skipped
from indexer.formats.robots_tag import is_noindex
from indexer.reading.excluding import Exclusions
from indexer.reading.files import read_all
from indexer.sites.fetching import USER_AGENT, Fetcher, Page, PageUnavailable, cleaned, joined, unpacked
from indexer.sites.robots import Robots
from indexer.sites.sitemaps import looks_like_xml, read_links, read_sitemap
from rag.errors import SourceUnreadable

EXTENSIONS = {
    "text/html": ".html", "application/xhtml+xml": ".html", "application/pdf": ".pdf", "text/markdown": ".md",
    "text/x-markdown": ".md", "text/plain": ".txt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}  # fmt: skip
"""How a page is read, by what its server says it is."""
_NOT_PAGES = """.7z .avi .bmp .css .csv .dmg .eot .exe .gif .gz .ico .iso .jpeg .jpg .js .json .map .mov .mp3 .mp4 .ogg
.png .ppt .pptx .rar .rss .svg .tar .tgz .ttf .wasm .wav .webm .webp .woff .woff2 .xls .xlsx .xml .zip"""
NOT_PAGES = frozenset(_NOT_PAGES.split())
"""Endings of links that are not followed: nothing readable is behind them."""
MOST_SITEMAPS = 500
SITEMAP_BYTES = 50 * 1024 * 1024
"""Unpacked; the protocol's own limit."""
LONGEST_WAIT_S = 60.0
"""Of what a site asks for by Crawl-delay or Retry-After."""
BUSY = frozenset({429, 503})
FAILURES_IN_A_ROW = 10
"""After these the site is down, or wants no more questions, and no build is made of what is left of it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a site is fetched, and how fast."""

    max_pages: int = 2_000
    max_bytes: int = 10 * 1024 * 1024
    """Of one page or file."""
    delay_s: float = 0.5
    """Between the end of one answer and the next question; robots.txt may ask for more."""


def is_address(source: str) -> bool:
    """Whether a SOURCE is a site's address and not a path."""
    return source.lower().startswith(("http://", "https://"))


def host_of(url: str) -> str:
    """The site that an address is on: its host without `www.`, and its port where that is an unusual one."""
    parts = urlsplit(url)
    port = "" if parts.port in {None, 80, 443} else f":{parts.port}"
    return f"{(parts.hostname or '').removeprefix('www.')}{port}"


class Site:
    """One site from its start address on. `documents` is gone through once."""

    def __init__(
        self, start: str, *, fetcher: Fetcher, limits: Limits, exclusions: Exclusions,
        progress: Callable[[str, int, int], None], sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """Raises `SourceUnreadable` for an address that is none."""
        self._start = cleaned(start)
        self.host = host_of(self._start)
        self.failed: dict[str, str] = {}
        """Addresses that the site did not give, while `documents` is gone through, and how it refused."""
        self._fetcher = fetcher
        self._limits = limits
        self._exclusions = exclusions
        self._progress = progress
        self._sleep = sleep
        self._robots = Robots(agent=USER_AGENT)
        self._fetched_before = False
        self._follows = False
        self._waiting: deque[str] = deque()
        self._seen: set[str] = set()
        self._skipped: deque[Skipped] = deque()

    def documents(self) -> Iterator[Document | Skipped]:
        """Every page, read, or why it was not. Raises `SourceUnreadable` where the site is down."""
        read: set[str] = set()
        pages: deque[tuple[Page, Path]] = deque()
        with TemporaryDirectory(prefix="site-") as folder:

            def files() -> Iterator[tuple[Path, str]]:
                for number, (page, extension) in enumerate(self._pages()):
                    path = Path(folder, f"{number}{extension}")
                    path.write_bytes(page.body)
                    pages.append((replace(page, body=b""), path))
                    yield path, _source_of(page.url, extension)

            for outcome in read_all(files(), site_url=""):
                page, path = pages.popleft()
                path.unlink()
                if isinstance(outcome, Skipped):
                    yield Skipped(page.url, outcome.reason)
                elif (address := self._address_of(outcome, page)) in read:
                    yield Skipped(page.url, f"the same page as {address}")
                else:
                    read.add(address)
                    yield replace(outcome, url=address)
                yield from self._reasons()
            yield from self._reasons()

    def _reasons(self) -> Iterator[Skipped]:
        while self._skipped:
            yield self._skipped.popleft()

    def _address_of(self, document: Document, page: Page) -> str:
        """The page's own word for its address, where that is on this site, else where it was found."""
        try:
            stated = cleaned(document.url)
        except SourceUnreadable:
            return page.url
        return stated if host_of(stated) == self.host else page.url

    def _pages(self) -> Iterator[tuple[Page, str]]:
        """Pages with the extension by which they are read."""
        self._robots = self._rules()
        self._queue(self._start)
        done = failures = sitemaps = 0
        while self._waiting:
            url = self._waiting.popleft()
            if done == self._limits.max_pages:
                more = f"and {len(self._waiting):,} more" if self._waiting else "the last one"
                self._skipped.append(Skipped(url, f"{more}: stopped after {done:,} pages; --max-pages allows more"))
                return
            done += 1
            try:
                page = self._fetch(url)
                failures = 0
                if self._is_sitemap(page):
                    done -= 1
                    sitemaps += 1
                    if sitemaps <= MOST_SITEMAPS:
                        self._take_sitemap(page)
                    continue
                self._follows |= url == self._start
                yield page, self._extension(page)
            except SourceUnreadable as error:
                self._skipped.append(Skipped(url, str(error)))
                if isinstance(error, PageUnavailable):
                    self.failed[url] = str(error)
                    failures += error.status in BUSY or error.status == 0 or error.status >= 500
                if failures == FAILURES_IN_A_ROW:
                    reasons = "\n  ".join(f"{skipped.source}: {skipped.reason}" for skipped in self._skipped)
                    what = f"{self._start}: gave up after {failures} failures in a row"
                    raise SourceUnreadable(f"{what}\n  {reasons}") from None
            self._progress("fetching", done, min(done + len(self._waiting), self._limits.max_pages))

    def _rules(self) -> Robots:
        """After RFC 9309: a site without robots.txt allows all, one whose robots.txt fails allows nothing."""
        address = urljoin(self._start, "/robots.txt")
        try:
            page = self._fetcher.fetch(address, may_visit=self._leaves)
        except PageUnavailable as error:
            if 400 <= error.status < 500 and error.status != 429:
                return Robots(agent=USER_AGENT)
            raise SourceUnreadable(f"{address}: {error}; without it nothing may be fetched") from None
        return Robots(page.body.decode("utf-8", "replace"), agent=USER_AGENT)

    def _fetch(self, url: str) -> Page:
        delay_s = max(self._limits.delay_s, min(self._robots.delay_s, LONGEST_WAIT_S))
        if reason := self._refusal(url):
            raise SourceUnreadable(reason)
        if self._fetched_before:
            self._sleep(delay_s)
        self._fetched_before = True
        try:
            page = self._fetcher.fetch(url, may_visit=self._refusal)
        except PageUnavailable as error:
            if error.status not in BUSY:
                raise
            asked_s = float(error.retry_after) if re.fullmatch(r"[0-9]{1,6}", error.retry_after) else 5.0
            self._sleep(max(delay_s, min(asked_s, LONGEST_WAIT_S)))
            page = self._fetcher.fetch(url, may_visit=self._refusal)
        if page.url != url:
            if page.url in self._seen:
                raise SourceUnreadable(f"redirects to {page.url}, which is read by itself")
            self._seen.add(page.url)
        return page

    def _leaves(self, url: str) -> str:
        """Why the address is not of this site, or nothing."""
        return "" if host_of(url) == self.host else "another site"

    def _refusal(self, url: str) -> str:
        return self._leaves(url) or ("" if self._robots.allows(url) else "robots.txt forbids it")

    def _is_sitemap(self, page: Page) -> bool:
        is_packed = page.body.startswith(b"\x1f\x8b")
        return is_packed or ("html" not in page.content_type and looks_like_xml(page.body))

    def _take_sitemap(self, page: Page) -> None:
        body = unpacked(page.body, limit_bytes=SITEMAP_BYTES) if page.body.startswith(b"\x1f\x8b") else page.body
        found = read_sitemap(body)
        for address in [*found.sitemaps, *found.pages]:
            try:
                url = joined(page.url, address)
            except SourceUnreadable as error:
                self._skipped.append(Skipped(address[:200], str(error)))
                continue
            if self._leaves(url):
                self._skipped.append(Skipped(url, "another site"))
            else:
                self._queue(url)

    def _queue(self, url: str) -> None:
        if url not in self._seen:
            self._seen.add(url)
            # The start is where pages are found, whether or not it is one itself.
            if url == self._start or not self._exclusions.excludes_address(url):
                self._waiting.append(url)

    def _extension(self, page: Page) -> str:
        """How the page is read; its links are queued on the way. Raises `SourceUnreadable` for what must not be."""
        suffix = Path(unquote(urlsplit(page.url).path)).suffix.lower()
        stated = page.content_type
        by_name = {".pdf", ".docx", ".md", ".txt"}
        # Servers know Markdown and Word under many names; the address's ending knows better than these two.
        unsure = stated in {"", "text/plain", "application/octet-stream"}
        extension = suffix if unsure and suffix in by_name else EXTENSIONS.get(stated)
        if extension is None:
            raise SourceUnreadable(f"{stated or 'an unstated type'} is not a type that can be read")
        if extension == ".html":
            links = read_links(page.body, url=page.url)
            if self._follows:
                self._follow(links.addresses)
            if links.is_noindex:
                raise SourceUnreadable("the page asks not to be indexed (noindex)")
        if is_noindex(page.robots_tag):
            raise SourceUnreadable("the site asks not to index it (X-Robots-Tag)")
        return extension

    def _follow(self, addresses: list[str]) -> None:
        for address in addresses:
            try:
                url = cleaned(address)
            except SourceUnreadable:
                continue
            suffix = Path(urlsplit(url).path).suffix.lower()
            if suffix not in NOT_PAGES and not self._refusal(url):
                self._queue(url)


def _source_of(url: str, extension: str) -> str:
    """What stands for a file's path: `https://x.example/guide/` -> `guide/index.html`.

    The extension is that of what a browser will show, for those who make links: `/a.php?b=c` -> `a.php?b=c.html`.
    """
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    path = f"{path}index" if not path or path.endswith("/") else path
    path = f"{path}?{parts.query}" if parts.query else path
    return path if path.lower().endswith(extension) else f"{path}{extension}"

"""Whether a crawl found enough of its site to take the place of what is live. Fetches nothing, publishes nothing.

A firewall that turns the indexer away, or a site that was moved in a hurry, answers 403 or 404 for page after page: to
a crawl that looks like pages that are gone. So what the live build has of the same site is the measure.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from indexer.sites.site import Site, host_of
from rag.errors import IndexUnavailable, RagError
from rag.search.backends.protocol import Backend
from rag.search.hybrid import Build

FEWEST_LOST = 3
"""Fewer pages than these come and go on every site."""
MOST_FAILED_SHARE = 0.25
LEAST_FOUND_SHARE = 0.5
"""Of the pages that the live build has of the site."""


class SiteIncomplete(RagError):
    """A crawl that must not be published unasked; `str(error)` says what is missing."""


def require_complete(made: Build, *, backend: Backend, crawls: Sequence[Site]) -> None:
    """Raises `SiteIncomplete` where `made` has lost too much of a crawled site, compared with the live build.

    Too much is a quarter of the live pages (and three at least) that could not be fetched, or more than half of them
    for whatever reason, or all.
    """
    try:
        live = _pages(backend.open())
    except IndexUnavailable:
        return
    now = _pages(made)
    for host in dict.fromkeys(crawl.host for crawl in crawls):
        failed = {url: reason for crawl in crawls if crawl.host == host for url, reason in crawl.failed.items()}
        lost = live[host] - now[host]
        unreachable = Counter(failed[url] for url in lost if url in failed)
        missing = unreachable.total()
        few = len(lost) < FEWEST_LOST and now[host]
        if not few and missing >= MOST_FAILED_SHARE * len(live[host]) and missing >= FEWEST_LOST:
            what = f"{missing:,} of the {len(live[host]):,} live pages could not be fetched"
        elif not few and len(now[host]) < LEAST_FOUND_SHARE * len(live[host]):
            what = f"{len(now[host]):,} pages were found where {len(live[host]):,} are live"
        else:
            continue
        reasons = [f"{reason}: {count:,} of them" for reason, count in unreachable.most_common(5)]
        remedy = "nothing was published; if the site has really become smaller, run it again with --yes"
        raise SiteIncomplete("\n  ".join([f"{host}: {what}", *reasons, remedy]))


def _pages(build: Build) -> defaultdict[str, set[str]]:
    """The addresses of a build's pages by host."""
    pages: defaultdict[str, set[str]] = defaultdict(set)
    for passage in build.passages():
        if passage.url.startswith(("http://", "https://")):
            pages[host_of(passage.url)].add(passage.url)
    return pages

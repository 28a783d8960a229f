"""A running site on loopback becomes documents: politely, within limits, and each page that does not says why."""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from indexer.documents import Document, Skipped
from indexer.reading.excluding import Exclusions
from indexer.sites.fetching import Fetcher
from indexer.sites.site import Limits, Site
from rag.errors import SourceUnreadable
from tests.indexer.loopback import Loopback, html, moved, page, serving, sitemap

FAST = Limits(delay_s=0.0, max_bytes=200_000)


@pytest.fixture
def site() -> Iterator[Loopback]:
    with serving() as running:
        yield running


class Crawl:
    """What came of a site, by path."""

    def __init__(self, site: Loopback, start: str, limits: Limits = FAST, exclude: Sequence[str] = ()) -> None:
        self.slept: list[float] = []
        self.told: list[tuple[str, int, int]] = []
        fetcher = Fetcher(allows=lambda address: str(address) == "127.0.0.1", max_bytes=limits.max_bytes)
        outcomes = list(
            Site(
                f"{site.url}{start}", fetcher=fetcher, limits=limits,
                exclusions=Exclusions(exclude), progress=lambda *step: self.told.append(step), sleep=self.slept.append,
            ).documents()
        )  # fmt: skip
        self.documents = {o.url.removeprefix(site.url): o for o in outcomes if isinstance(o, Document)}
        self.skipped = {o.source.removeprefix(site.url): o.reason for o in outcomes if isinstance(o, Skipped)}


def test_the_pages_of_a_sitemap_become_documents_with_their_addresses(site: Loopback) -> None:
    site.pages |= {
        "/sitemap.xml": page(sitemap(f"{site.url}/", f"{site.url}/guide/returns/", f"{site.url}/t.txt"), "text/xml"),
        "/": html("Start", "Welcome to the shop.", "/not-in-the-sitemap"),
        "/guide/returns/": html("Returns", "Goods can be returned within 30 days."),
        "/t.txt": page("Plain words.", "text/plain"),
    }
    crawl = Crawl(site, "/sitemap.xml")
    assert {path: d.title for path, d in crawl.documents.items()} == {
        "/": "Start",
        "/guide/returns/": "Returns",
        "/t.txt": "T",
    }
    assert crawl.documents["/guide/returns/"].source == "guide/returns/index.html"
    assert "30 days" in str(crawl.documents["/guide/returns/"].sections)
    assert crawl.skipped == {}
    assert site.asked == ["/robots.txt", "/sitemap.xml", "/", "/guide/returns/", "/t.txt"]
    assert crawl.told[-1] == ("fetching", 3, 3)


def test_an_index_of_packed_sitemaps_is_followed(site: Loopback) -> None:
    index = f"<sitemapindex><sitemap><loc>{site.url}/s1.xml.gz</loc></sitemap></sitemapindex>"
    site.pages |= {
        "/index.xml": page(index, "application/xml"),
        "/s1.xml.gz": page(gzip.compress(sitemap(f"{site.url}/a").encode()), "application/gzip"),
        "/a": html("A", "Words of a."),
    }
    assert Crawl(site, "/index.xml").documents.keys() == {"/a"}


def test_from_a_page_the_links_of_the_same_site_are_followed_each_once(site: Loopback) -> None:
    site.pages |= {
        "/": html("Start", "Welcome.", "/a", "b#part", "/", "https://elsewhere.example/", "/logo.png", "mailto:x@y"),
        "/a": html("A", "Words of a.", "/", "/b", "/c"),
        "/b": html("B", "Words of b."),
        "/c": html("C", "Words of c."),
    }
    crawl = Crawl(site, "/")
    assert crawl.documents.keys() == {"/", "/a", "/b", "/c"}
    assert sorted(site.asked) == ["/", "/a", "/b", "/c", "/robots.txt"]
    assert site.most_at_once == 1


def test_robots_txt_is_obeyed_on_redirects_too(site: Loopback) -> None:
    site.pages |= {
        "/robots.txt": page("User-agent: *\nDisallow: /private\nCrawl-delay: 3", "text/plain"),
        "/sitemap.xml": page(sitemap(*(f"{site.url}/{name}" for name in ("private/a", "way-in", "b"))), "text/xml"),
        "/way-in": moved("/private/a"),
        "/private/a": html("Secret", "Secret words."),
        "/b": html("B", "Words of b."),
    }
    crawl = Crawl(site, "/sitemap.xml")
    assert crawl.documents.keys() == {"/b"}
    assert crawl.skipped["/private/a"] == "robots.txt forbids it"
    assert crawl.skipped["/way-in"] == f"redirects to {site.url}/private/a: robots.txt forbids it"
    assert "/private/a" not in site.asked
    assert crawl.slept == [3.0, 3.0]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_without_a_robots_txt_that_answers_nothing_is_fetched(site: Loopback, status: int) -> None:
    site.pages |= {"/robots.txt": page("", status=status), "/": html("Start", "Welcome.")}
    with pytest.raises(SourceUnreadable, match=rf"robots\.txt: HTTP {status}; without it"):
        Crawl(site, "/")
    assert "/" not in site.asked


def test_pages_are_asked_for_with_a_pause_between_them(site: Loopback) -> None:
    site.pages |= {"/": html("Start", "Welcome.", "/a", "/b"), "/a": html("A", "Words."), "/b": html("B", "Words.")}
    assert Crawl(site, "/", replace(FAST, delay_s=0.7)).slept == [0.7, 0.7]


def test_a_busy_site_is_waited_for_once(site: Loopback) -> None:
    busy = [page("", status=429, headers={"Retry-After": "7"}), html("A", "Words of a.")]
    site.pages |= {"/": html("Start", "Welcome.", "/a", "/b"), "/a": lambda handler: busy.pop(0)(handler)}
    site.pages["/b"] = page("", status=503, headers={"Retry-After": "9999"})
    crawl = Crawl(site, "/")
    assert crawl.documents.keys() == {"/", "/a"}
    assert crawl.skipped == {"/b": "HTTP 503"}
    assert [pause for pause in crawl.slept if pause] == [7.0, 60.0]


def test_every_page_that_cannot_be_had_is_named_with_its_reason(site: Loopback) -> None:
    names = ("gone", "loop", "away", "huge", "picture", "broken.pdf", "hidden", "header", "empty", "good")
    site.pages |= {
        "/sitemap.xml": page(
            sitemap(*(f"{site.url}/{n}" for n in names), "https://other.example/x", "ftp://x/"), "text/xml"
        ),
        "/loop": moved("/loop"),
        "/away": moved("http://169.254.169.254/latest/meta-data/"),
        "/huge": page(b"x" * 300_000),
        "/picture": page(b"GIF89a", "image/gif"),
        "/broken.pdf": page(b"%PDF-1.7 nothing", "application/pdf"),
        "/hidden": html("H", "Hidden words.", head='<meta name="robots" content="noindex">'),
        "/header": page("<p>Hidden words.</p>", headers={"X-Robots-Tag": "noindex"}),
        "/empty": page(""),
        "/good": html("Good", "Good words."),
    }
    crawl = Crawl(site, "/sitemap.xml")
    assert crawl.documents.keys() == {"/good"}
    expected = {
        "/gone": "HTTP 404", "/loop": "more than 5 redirects", "/huge": "more than 0.19",
        "/away": "redirects to http://169.254.169.254/latest/meta-data/: another site",
        "/picture": "image/gif is not a type", "/broken.pdf": "broken PDF", "/hidden": "noindex",
        "/header": "X-Robots-Tag", "/empty": "empty file", "https://other.example/x": "another site",
        "ftp://x/": "is no http",
    }  # fmt: skip
    assert crawl.skipped.keys() == expected.keys()
    assert {path: reason for path, reason in expected.items() if reason not in crawl.skipped[path]} == {}


def test_a_canonical_address_counts_on_the_same_site_only(site: Loopback) -> None:
    def canonical(address: str) -> str:
        return f'<link rel="canonical" href="{address}">'

    site.pages |= {
        "/": html("Start", "Welcome.", "/a?session=1", "/a?session=2", "/b"),
        "/a?session=1": html("A", "Words of a.", head=canonical(f"{site.url}/a")),
        "/a?session=2": html("A", "Words of a.", head=canonical(f"{site.url}/a")),
        "/b": html("B", "Words of b.", head=canonical("https://evil.example/b")),
    }
    crawl = Crawl(site, "/")
    assert crawl.documents.keys() == {"/", "/a", "/b"}
    assert crawl.skipped == {"/a?session=2": f"the same page as {site.url}/a"}


def test_two_addresses_that_lead_to_one_page_are_one_document(site: Loopback) -> None:
    site.pages |= {
        "/": html("Start", "Welcome.", "/old", "/new"),
        "/old": moved("/new"),
        "/new": html("N", "New words."),
    }
    crawl = Crawl(site, "/")
    assert crawl.documents.keys() == {"/", "/new"}
    assert all("/new" in reason for reason in crawl.skipped.values())


def test_pages_that_are_excluded_are_not_even_asked_for(site: Loopback) -> None:
    site.pages |= {
        "/": html("Start", "Welcome.", "/news/a", "/guide", "/tags?page=2", "/caf%C3%A9"),
        "/guide": html("Guide", "Words of the guide.", "/news/b"),
    }
    crawl = Crawl(site, "/", exclude=["news/*", "/caf\u00e9", f"{site.url}/tags[?]*", "/"])
    assert crawl.documents.keys() == {"/", "/guide"}
    assert crawl.skipped == {}
    assert site.asked == ["/robots.txt", "/", "/guide"]


def test_a_site_without_end_stops_at_the_limit_and_says_so(site: Loopback) -> None:
    for number in range(60):
        site.pages[f"/{number}"] = html(f"Page {number}", f"Words of {number}.", f"/{number + 1}", f"/{number + 2}")
    crawl = Crawl(site, "/0", replace(FAST, max_pages=5))
    assert len(crawl.documents) == 5
    assert len(site.asked) == 6
    assert "stopped after 5 pages; --max-pages" in next(iter(crawl.skipped.values()))


def test_a_site_that_goes_down_is_given_up_instead_of_indexed_without_its_pages(site: Loopback) -> None:
    addresses = [f"{site.url}/{number}" for number in range(40)]
    site.pages |= {"/sitemap.xml": page(sitemap(*addresses), "text/xml"), "/0": html("First", "Words.")}
    site.pages |= {f"/{number}": page("", status=502) for number in range(1, 40)}
    with pytest.raises(SourceUnreadable, match=r"gave up after 10 failures in a row(.|\n)*/10: HTTP 502"):
        Crawl(site, "/sitemap.xml")
    assert "/20" not in site.asked


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'<?xml version="1.0"?><!DOCTYPE u [<!ENTITY a "b">]><urlset/>', "document type"),
        (b"<?xml version='1.0'?><urlset><url>", "broken sitemap"),
        (gzip.compress(b"\0" * 60_000_000), "more than 50 MiB unpacked"),
    ],
    ids=["entities", "broken", "bomb"],
)
def test_a_hostile_sitemap_is_skipped_with_its_reason(site: Loopback, body: bytes, reason: str) -> None:
    site.pages["/sitemap.xml"] = page(body, "application/xml")
    limits = replace(FAST, max_bytes=400_000)
    assert reason in Crawl(site, "/sitemap.xml", limits).skipped["/sitemap.xml"]

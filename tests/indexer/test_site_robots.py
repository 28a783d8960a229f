"""robots.txt as RFC 9309 reads it, and the addresses in sitemaps and pages."""

import time

import pytest

from indexer.sites.robots import Robots
from indexer.sites.sitemaps import read_links, read_sitemap
from rag.errors import SourceUnreadable
from tests.indexer.loopback import sitemap

AGENT = "rag-server-indexer"


def allows(rules: str, path: str) -> bool:
    return Robots(rules, agent=AGENT).allows(f"https://x.example{path}")


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ("", "/a", True),
        ("User-agent: *\nDisallow: /", "/a", False),
        ("User-agent: *\nDisallow: /", "/robots.txt", True),
        ("User-agent: *\nDisallow:", "/a", True),
        ("User-agent: *\nDisallow: /a", "/abc", False),
        ("User-agent: *\nDisallow: /a/", "/abc", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a/public", "/a/public/x", True),
        ("User-agent: *\nAllow: /a\nDisallow: /a", "/a", True),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf?z", True),
        ("User-agent: *\nDisallow: /x$", "/x", False),
        ("User-agent: *\nDisallow: /x$", "/xy", True),
        ("User-agent: *\nDisallow: /a*b*c", "/a1b2c3", False),
        ("User-agent: *\nDisallow: /*?print=", "/p?print=1", False),
        ("User-agent: *\nDisallow: /%C3%A4", "/ä", False),
        ("User-agent: other\nDisallow: /", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: RAG-Server-Indexer\nDisallow: /private", "/a", True),
        ("User-agent: other\nUser-agent: rag-server-indexer\nDisallow: /", "/a", False),
        ("User-agent: rag-server-indexer\nDisallow: /a\n\nUser-agent: rag-server-indexer\nDisallow: /b", "/b", False),
        ("# note\nUSER-AGENT : *  # all\r\nDISALLOW: /a # here\r\nnonsense", "/a", False),
        ("\ufeffUser-agent: *\nDisallow: /a", "/a", False),
    ],
)
def test_the_longest_rule_of_the_right_group_decides(rules: str, path: str, expected: bool) -> None:
    assert allows(rules, path) is expected


def test_a_delay_is_read_and_nonsense_is_not() -> None:
    assert Robots("User-agent: *\nCrawl-delay: 2.5", agent=AGENT).delay_s == 2.5
    assert Robots("User-agent: *\nCrawl-delay: soon", agent=AGENT).delay_s == 0


def test_a_rule_of_many_stars_takes_no_time() -> None:
    began = time.monotonic()
    assert allows("User-agent: *\nDisallow: /" + "*a" * 5_000 + "b", "/" + "a" * 20_000)
    assert time.monotonic() - began < 2


def test_a_sitemap_and_an_index_are_read() -> None:
    assert read_sitemap(sitemap("https://x.example/a?b=1&amp;c=2", " https://x.example/d ").encode()).pages == [
        "https://x.example/a?b=1&c=2", "https://x.example/d",
    ]  # fmt: skip
    index = b"<sitemapindex><sitemap><loc>https://x.example/1.xml</loc><lastmod>2026</lastmod></sitemap></sitemapindex>"
    assert read_sitemap(index).sitemaps == ["https://x.example/1.xml"]


def test_an_image_in_a_sitemap_is_no_page() -> None:
    entry = "<url><loc>https://x.example/a</loc><image:image><image:loc>https://x.example/i.png</image:loc></image:image></url>"
    assert read_sitemap(f'<urlset xmlns:image="i">{entry}</urlset>'.encode()).pages == ["https://x.example/a"]


def test_a_billion_laughs_is_refused_at_once() -> None:
    entities = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE u [<!ENTITY l0 "ha">{entities}]><urlset><url><loc>&l9;</loc></url></urlset>'
    with pytest.raises(SourceUnreadable, match="document type"):
        read_sitemap(bomb.encode())


@pytest.mark.parametrize("body", [b"", b"<urlset>", b"<urlset><url></urlset>", b"\x00\xff", b"<a>" * 50_000])
def test_what_is_no_sitemap_is_refused(body: bytes) -> None:
    with pytest.raises(SourceUnreadable, match="sitemap"):
        read_sitemap(body)


def test_links_are_made_absolute_and_each_is_named_once() -> None:
    body = (
        b'<base href="/docs/"><a href="a">1</a><a href="a">2</a><a href="//y.example/b">3</a>'
        b'<a rel="x nofollow" href="c">4</a>'
    )
    links = read_links(body, url="https://x.example/start/")
    assert links.addresses == ["https://x.example/docs/a", "https://y.example/b"]
    assert not links.is_noindex


def test_a_page_can_ask_not_to_be_found_or_followed() -> None:
    noindex = read_links(b'<meta name="ROBOTS" content="NoIndex"><a href="/a">', url="https://x.example/")
    assert (noindex.is_noindex, noindex.addresses) == (True, ["https://x.example/a"])
    nofollow = read_links(b'<meta name="robots" content="nofollow"><a href="/a">', url="https://x.example/")
    assert (nofollow.is_noindex, nofollow.addresses) == (False, [])


@pytest.mark.parametrize("body", [b"<a href='http://[::1'>", b"<![weird[", b"\xff<a href=", b"<" * 100_000])
def test_a_page_of_nonsense_has_no_links(body: bytes) -> None:
    assert read_links(body, url="https://x.example/").addresses == []

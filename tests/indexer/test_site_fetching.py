"""One page at a time from a site that may be hostile: real sockets on loopback, a real server that misbehaves."""

import gzip
import ipaddress
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from indexer.sites.fetching import Fetcher, PageUnavailable, cleaned, joined, unpacked
from rag.errors import SourceUnreadable
from rag.public_addresses import Address, is_public
from tests.indexer.loopback import Loopback, moved, page, serving

LIMIT = 100_000


@pytest.fixture
def site() -> Iterator[Loopback]:
    with serving() as running:
        yield running


def fetcher(*, timeout_s: float = 10.0, allowed: str = "127.0.0.1") -> Fetcher:
    return Fetcher(allows=lambda address: str(address) == allowed, max_bytes=LIMIT, timeout_s=timeout_s)


def anywhere(_: str) -> str:
    return ""


def test_a_page_comes_with_its_type_and_final_address(site: Loopback) -> None:
    site.pages |= {"/old": moved("new?a=b#part"), "/new?a=b": page("Hallo", "TEXT/Plain; charset=utf-8")}
    found = fetcher().fetch(f"{site.url}/old", may_visit=anywhere)
    assert (found.url, found.content_type, found.body) == (f"{site.url}/new?a=b", "text/plain", b"Hallo")
    assert site.agents == {"rag-server-indexer"}


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "127.0.0.1", "169.254.169.254", "172.16.3.4", "192.168.0.9", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "2001:0:0:0:0:0:80ff:fffe",
        "2001:db8::1", "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16", "fec0::1", "2002:a83f:8110::",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_open_internet_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_an_address_of_the_open_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433"])
def test_by_default_nothing_on_this_machine_is_connected_to_however_it_is_written(site: Loopback, host: str) -> None:
    port = site.url.rpartition(":")[2]
    careful = Fetcher(allows=is_public, max_bytes=LIMIT)
    with pytest.raises(SourceUnreadable, match=r"private address|cannot be resolved"):
        careful.fetch(f"http://{host}:{port}/", may_visit=anywhere)
    assert site.asked == []


def test_a_redirect_to_a_private_address_is_refused_before_a_connection(site: Loopback) -> None:
    with serving("127.0.0.2") as private:
        private.pages["/secret"] = page("secret")
        site.pages["/"] = moved(f"{private.url}/secret")
        with pytest.raises(SourceUnreadable, match=r"127\.0\.0\.2 is at the private address 127\.0\.0\.2"):
            fetcher().fetch(f"{site.url}/", may_visit=anywhere)
        assert private.asked == []


def test_one_private_address_among_public_ones_refuses_the_name(site: Loopback) -> None:
    both: list[Address] = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.0.0.1")]
    mixed = Fetcher(allows=lambda a: str(a) == "127.0.0.1", max_bytes=LIMIT, resolve=lambda host, port: both)
    with pytest.raises(SourceUnreadable, match="private address"):
        mixed.fetch(f"{site.url}/", may_visit=anywhere)
    assert site.asked == []


def test_the_connection_goes_to_the_address_that_was_checked(site: Loopback) -> None:
    looked_up: list[str] = []

    def rebinding(host: str, port: int) -> list[Address]:
        looked_up.append(host)
        # A name that answers well once, and then with an address inside.
        return [ipaddress.ip_address("127.0.0.1" if len(looked_up) == 1 else "10.0.0.1")]

    site.pages["/"] = page("sound")
    pinned = Fetcher(allows=lambda a: str(a) == "127.0.0.1", max_bytes=LIMIT, resolve=rebinding)
    port = site.url.rpartition(":")[2]
    assert pinned.fetch(f"http://name.example:{port}/", may_visit=anywhere).body == b"sound"
    assert looked_up == ["name.example"]
    with pytest.raises(SourceUnreadable, match="private address 10"):
        pinned.fetch(f"http://name.example:{port}/", may_visit=anywhere)


def test_a_redirect_is_asked_about_before_it_is_followed(site: Loopback) -> None:
    site.pages |= {"/": moved("/admin"), "/admin": page("secret")}
    with pytest.raises(SourceUnreadable, match=r"redirects to .*/admin: forbidden"):
        fetcher().fetch(f"{site.url}/", may_visit=lambda url: "forbidden" if url.endswith("/admin") else "")
    assert site.asked == ["/"]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://x/", "javascript:1"])
def test_a_redirect_to_anything_but_http_is_refused(site: Loopback, target: str) -> None:
    site.pages["/"] = moved(target)
    with pytest.raises(SourceUnreadable):
        fetcher().fetch(f"{site.url}/", may_visit=anywhere)
    assert site.asked == ["/"]


def test_redirects_in_a_circle_end(site: Loopback) -> None:
    site.pages |= {"/a": moved("/b"), "/b": moved("/a")}
    with pytest.raises(SourceUnreadable, match="more than 5 redirects"):
        fetcher().fetch(f"{site.url}/a", may_visit=anywhere)
    assert len(site.asked) == 6


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_page_that_trickles_in_is_given_up(site: Loopback, part: str) -> None:
    stop = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if part == "headers" else b"Content-Length: 9999\r\n\r\n"))
        while not stop.wait(0.05):
            handler.wfile.write(b"X")
            handler.wfile.flush()

    site.pages["/"] = trickle
    began = time.monotonic()
    with pytest.raises(PageUnavailable, match=r"took more than 0\.4 s"):
        fetcher(timeout_s=0.4).fetch(f"{site.url}/", may_visit=anywhere)
    stop.set()
    assert time.monotonic() - began < 5


def test_a_page_without_end_is_given_up_at_the_limit(site: Loopback) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while sent < 500_000_000:
            sent += handler.wfile.write(b"x" * 65536)

    site.pages["/"] = endless
    with pytest.raises(SourceUnreadable, match=r"more than .* MiB; --max-bytes"):
        fetcher().fetch(f"{site.url}/", may_visit=anywhere)
    assert sent < 100_000_000


def test_a_page_that_says_it_is_too_large_is_not_read(site: Loopback) -> None:
    site.pages["/"] = page(b"x" * (LIMIT + 1))
    with pytest.raises(SourceUnreadable, match="--max-bytes"):
        fetcher().fetch(f"{site.url}/", may_visit=anywhere)


def test_what_is_packed_is_unpacked_within_the_limit(site: Loopback) -> None:
    packed = {"Content-Encoding": "gzip"}
    site.pages["/fits"] = page(gzip.compress(b"x" * LIMIT), headers=packed)
    site.pages["/bomb"] = page(gzip.compress(b"\0" * 200_000_000, compresslevel=1)[:LIMIT], headers=packed)
    site.pages["/broken"] = page(b"no gzip", headers=packed)
    site.pages["/other"] = page(b"...", headers={"Content-Encoding": "br"})
    assert len(fetcher().fetch(f"{site.url}/fits", may_visit=anywhere).body) == LIMIT
    for path, reason in (("bomb", "more than"), ("broken", "compression is broken"), ("other", "packed as br")):
        with pytest.raises(SourceUnreadable, match=reason):
            fetcher().fetch(f"{site.url}/{path}", may_visit=anywhere)
    with pytest.raises(SourceUnreadable, match="unpacked"):
        unpacked(gzip.compress(b"\0" * 5_000_000), limit_bytes=1_000_000)


def test_what_breaks_off_is_not_taken_for_a_page(site: Loopback) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    site.pages |= {"/half": half, "/none": lambda handler: None}
    for path in ("half", "none"):
        with pytest.raises(PageUnavailable, match=r"broke off|no valid answer|no connection"):
            fetcher().fetch(f"{site.url}/{path}", may_visit=anywhere)


def test_a_refusal_and_a_silence_say_what_they_are(site: Loopback) -> None:
    with pytest.raises(PageUnavailable, match="HTTP 404") as refused:
        fetcher().fetch(f"{site.url}/nothing", may_visit=anywhere)
    assert refused.value.status == 404
    with pytest.raises(PageUnavailable, match="no connection"):
        fetcher().fetch("http://127.0.0.1:1/", may_visit=anywhere)
    with pytest.raises(PageUnavailable, match="no secure connection"):
        fetcher().fetch(site.url.replace("http:", "https:"), may_visit=anywhere)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("HTTP://User:pw@Example.COM:80/a b#c", "http://example.com/a%20b"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com:8443/?q=1 2", "https://example.com:8443/?q=1%202"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
    ],
)
def test_an_address_is_written_in_one_way(given: str, expected: str) -> None:
    assert cleaned(given) == expected


@pytest.mark.parametrize(
    "given", ["", "/path", "http://", "http://[::1", "http://x:99999/", "mailto:a@b", "http://a..b/"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(SourceUnreadable, match="is no http"):
        cleaned(given)


@pytest.mark.parametrize("address", ["http://[", "http://[::1", "//[", "http://x:99999999/"])
def test_what_is_no_address_is_named_as_that(address: str) -> None:
    with pytest.raises(SourceUnreadable, match="is no http"):
        joined("https://site.example/", address)

"""Who is calling, and what they may see: pure functions over addresses, ids and keys."""

import re

import pytest

from rag.access import callers


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix:", "unknown"),
        ("visitor-1", "unknown"),
        ("203.0.113.7:1234", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_visitor_is_an_ipv4_address_or_an_ipv6_network_of_64_bits(address: str | None, bucket: str) -> None:
    assert callers.client_bucket(address) == bucket


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
        ("::", False), ("::2", False), ("::ffff:10.0.0.1", False), ("localhost", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_loopback_is_recognised_in_every_form(address: str | None, expected: bool) -> None:
    assert callers.is_loopback(address) is expected


def test_new_session_ids_are_long_random_and_valid() -> None:
    ids = {callers.new_session_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    assert all(len(session_id) == 32 and callers.is_session_id(session_id) for session_id in ids)
    for place in range(32):
        assert len({session_id[place] for session_id in ids}) == 64


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a" * 16, True), ("a" * 128, True), ("AZaz09._-AZaz09._-", True), ("a" * 15, False), ("a" * 129, False),
        ("a" * 16 + "\n", False), ("a" * 15 + "é", False), ("a b" * 8, False), ("../../../../etc/passwd", False),
        ("", False), ("a" * 15 + "\u0661", False),
    ],
)  # fmt: skip
def test_a_session_id_is_16_to_128_harmless_characters(value: str, expected: bool) -> None:
    assert callers.is_session_id(value) is expected
    assert (re.match(callers.SESSION_ID.replace("$", r"\Z"), value) is not None) is expected


@pytest.mark.parametrize("claimed", ["12345678", "a" * 128, "trace-0123.ABC_9"])
def test_a_sane_request_id_is_kept(claimed: str) -> None:
    assert callers.request_id(claimed) == claimed


@pytest.mark.parametrize("claimed", [None, "", "short", "a" * 129, "a" * 20 + "\r\nx: y", "a" * 20 + "\n", "é" * 10])
def test_any_other_request_id_is_replaced(claimed: str | None) -> None:
    first, second = callers.request_id(claimed), callers.request_id(claimed)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_what_is_not_a_page_may_load_nothing() -> None:
    for path in ("/", "/chat", "/docs/", "/demo/config", "/openapi.json", "/docs/../x"):
        assert callers.content_security_policy(path) == "default-src 'none'; frame-ancestors 'none'"


def test_our_own_page_runs_no_inline_script_and_sends_nothing_elsewhere() -> None:
    policy = dict(part.strip().split(" ", 1) for part in callers.content_security_policy("/demo").split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


def test_every_response_is_protected_by_the_same_headers() -> None:
    names = {name for name, _ in callers.SECURITY_HEADERS}
    assert names >= {b"x-content-type-options", b"referrer-policy", b"x-frame-options", b"permissions-policy"}

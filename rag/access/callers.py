"""Who is calling, and what they may see: addresses, session ids, keys, the headers that protect a page.

Pure functions over plain values. Which proxies are believed is uvicorn's business: by the time a request arrives
here, its client address is the rightmost one that no trusted proxy has.
"""

import hashlib
import ipaddress
import json
import re
import secrets
from typing import Final

SESSION_ID: Final = r"^[A-Za-z0-9._-]{16,128}$"
_SESSION_ID = re.compile(r"[A-Za-z0-9._-]{16,128}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")

API_CSP: Final = "default-src 'none'; frame-ancestors 'none'"
PAGE_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"x-frame-options", b"DENY"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
"""Sent with every response; the Content-Security-Policy depends on the page."""


def content_security_policy(path: str) -> str:
    """The policy of the page at `path`; what is not a page may load nothing."""
    return PAGE_CSP if path in ("/demo", "/docs", "/admin") or path.startswith("/demo/pages") else API_CSP


def refusal(status: int, phrase: str) -> bytes:
    """A whole HTTP/1.1 response in the form of every error, for what broke off before it became a request."""
    identity = request_id(None)
    code = phrase.lower().replace(" ", "_")
    problem = {
        "type": f"urn:rag-server:problem:{code}", "title": phrase, "status": status,
        "detail": "The request cannot be read, or there is no place for it.", "code": code, "request_id": identity,
    }  # fmt: skip
    body = json.dumps(problem).encode()
    headers = (
        *SECURITY_HEADERS,
        (b"content-security-policy", API_CSP.encode()),
        (b"cache-control", b"no-store"),
        (b"x-request-id", identity.encode()),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    )
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, phrase.encode(), lines, body)


def trusted_proxies(value: str) -> list[str]:
    """The networks of `FORWARDED_ALLOW_IPS`, each also in the form that a listener on `::` sees.

    To it the proxy 172.17.0.1 is ::ffff:172.17.0.1; not believed, all visitors would share the proxy's own bucket.
    """
    networks = [ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip()]
    mapped = [f"::ffff:{one.network_address}/{96 + one.prefixlen}" for one in networks if one.version == 4]
    return [*map(str, networks), *mapped]


def client_bucket(address: str | None) -> str:
    """Whose limits a request counts against: an IPv4 address, or an IPv6 network of 64 bits, or `unknown`.

    A home has 2^64 IPv6 addresses, so that limits for a single one would be no limits.
    """
    try:
        ip = ipaddress.ip_address((address or "").split("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def is_loopback(address: str | None) -> bool:
    """Whether a probe on the machine itself is calling."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    # A listener on `::` sees 127.0.0.1 as ::ffff:127.0.0.1.
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def new_session_id() -> str:
    """An id that nobody can guess: 192 bits from the system's source of randomness."""
    return secrets.token_urlsafe(24)


def is_session_id(value: str) -> bool:
    return _SESSION_ID.fullmatch(value) is not None


def request_id(claimed: str | None) -> str:
    """The caller's id where it is sane (8–128 harmless characters), else a new one."""
    if claimed is not None and _REQUEST_ID.fullmatch(claimed):
        return claimed
    return secrets.token_hex(16)


def hashed(bucket: str) -> str:
    """How a caller's bucket is stored and logged: 32 hexadecimal digits that do not tell whose it is."""
    return hashlib.sha256(bucket.encode("utf-8", "surrogatepass")).hexdigest()[:32]

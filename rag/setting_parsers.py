"""How the text of a setting becomes a value. Each parser raises `ValueError` with what is allowed, and nothing else."""

import base64
import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from limits import parse_many

from rag.types import Budget

UPLOADED_TYPES = ("pdf", "docx", "txt", "md", "mdx", "csv", "html", "htm")
"""Types of files that the indexer reads, as their names end."""


def number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    def parse(value: str) -> Any:
        try:
            number = kind(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{what} from {low:g} to {high:g}")
        return number

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return value.lower()

    return parse


def flag(value: str) -> bool:
    if value.lower() in ("true", "1", "yes", "on"):
        return True
    if value.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError("true or false")


def notice(value: str) -> str:
    """`on`, `off`, or words of the owner's own; an empty value is no way to lose the notice by accident."""
    return value.lower() if value.lower() in ("on", "off") else value


def listed(separator: str) -> Callable[[str], tuple[str, ...]]:
    return lambda value: tuple(part.strip() for part in value.split(separator) if part.strip())


def some_of(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    def parse(value: str) -> tuple[str, ...]:
        chosen = listed(",")(value)
        if not chosen or not set(chosen) <= set(allowed):
            raise ValueError(f"out of {', '.join(allowed)}, comma-separated")
        return chosen

    return parse


SHORTEST_SECRET_BYTES = 32
"""As long as the hash that it keys (RFC 7518, section 3.2)."""


def secrets(value: str) -> tuple[str, ...]:
    secrets = listed(",")(value)
    if not secrets or any(len(secret.encode()) < SHORTEST_SECRET_BYTES for secret in secrets):
        raise ValueError(f"{SHORTEST_SECRET_BYTES} bytes or more, such as openssl rand -hex 32 makes")
    return secrets


def web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError("an address such as https://login.example.com/keys")
    return value


def issuer(value: str) -> str:
    """Kept to the letter: a token's `iss` has to be the same."""
    if urlsplit(value).path.split("/")[1:2] in (["common"], ["organizations"], ["consumers"]):
        raise ValueError(
            "the issuer of one tenant, https://login.microsoftonline.com/TENANT/v2.0: those of many are not checked"
        )
    return web_address(value)


def origins(value: str) -> tuple[str, ...]:
    origins = listed(",")(value)
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query):
            raise ValueError("origins such as https://www.example.com, comma-separated, without a path; or * alone")
    if "*" in origins and len(origins) > 1:
        raise ValueError("either * alone or a list of origins")
    return origins


SHORTEST_KEY = 32


def secret_key(value: str) -> str:
    if len(value) < SHORTEST_KEY or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(
            f"at least {SHORTEST_KEY} characters that nobody can guess, such as openssl rand -hex 32 makes"
        )
    return value


def rate_limit(value: str) -> str:
    try:
        parse_many(value)
    except ValueError:
        raise ValueError("limits such as 20/minute, several with a semicolon between them") from None
    return value


_BUDGET = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]{3})?/day", re.ASCII)


def budget(value: str) -> Budget:
    found = _BUDGET.fullmatch(value)
    if found is None or not float(found[1]) or (not found[2] and "." in found[1]):
        raise ValueError("tokens or money a day, such as 500000/day or 5.00USD/day")
    return Budget(float(found[1]), (found[2] or "").upper())


def webhook_secret(value: str) -> str:
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("whsec_ and 24 to 64 bytes in base64, such as openssl rand -base64 32 makes")
    return value


def smtp_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("smtp", "smtps", "smtp+starttls") or not parts.hostname:
        raise ValueError("an address such as smtp+starttls://USER:PASSWORD@mail.example.com:587")
    return value


def mail_address(value: str) -> str:
    if not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", value):
        raise ValueError("one mail address, such as help@example.com")
    return value


def contact(value: str) -> str:
    return mail_address(value.removeprefix("mailto:")) and value if value.startswith("mailto:") else web_address(value)


def proxies(value: str) -> str:
    for part in listed(",")(value):
        try:
            # Strict, because gunicorn reads the same variable for itself and stops at 172.17.0.1/12.
            ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                "addresses or networks of your proxies, comma-separated, such as 172.16.0.0/12 (* would believe anyone)"
            ) from None
    return value


_REDIS_OPTIONS = {
    "redis": {"db"},
    "rediss": {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"},
    "unix": {"db", "password"},
}
"""What may stand in the query of each kind of address: the client would fail on the rest, at the first visitor."""


def redis_url(value: str) -> str:
    """An address of Redis; its time-outs are not the operator's to lengthen."""
    try:
        parts = urlsplit(value)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        place = len(parts.path) > 1 if parts.scheme == "unix" else parts.hostname and parts.port != 0
    except ValueError:
        parts, options, place = urlsplit(""), {}, False
    database = options.get("db") or ("" if parts.scheme == "unix" else parts.path.removeprefix("/"))
    known = parts.scheme in _REDIS_OPTIONS and options.keys() <= _REDIS_OPTIONS[parts.scheme]
    if not place or not known or parts.fragment or (database and not database.isdecimal()):
        raise ValueError(
            "redis://[:PASSWORD@]HOST[:PORT][/DB], the same with rediss:// for TLS, or unix:///PATH[?db=DB]"
        )
    return value


_DATABASE_OPTIONS = {
    "host", "target_session_attrs", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "channel_binding",
    "gssencmode", "load_balance_hosts",
}  # fmt: skip


def database_url(value: str) -> str:
    """An address of PostgreSQL; its time-outs are not the operator's to lengthen."""
    try:
        parts = urlsplit(value)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        parts, options = urlsplit(""), {}
    # Several hosts, comma-separated, each with its port: the first that serves, and takes writes where that is asked.
    hosts = parts.netloc.rpartition("@")[2].split(",")
    sound = all(re.fullmatch(r"([\w.-]+|\[[\da-fA-F:.]+\])(:[1-9]\d{0,4})?", host) for host in hosts)
    place = sound or (hosts == [""] and options.get("host", "").startswith("/"))
    known = parts.scheme in ("postgresql", "postgres") and options.keys() <= _DATABASE_OPTIONS
    if not place or not known or not re.fullmatch(r"/[^/]+", parts.path) or parts.fragment:
        raise ValueError(
            "postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?sslmode=…], or with ?host=/FOLDER for a socket"
        )
    return value


def shown_address(url: str) -> str:
    """An address for logs and screens: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def passwords(url: str) -> tuple[str, ...]:
    """The passwords in an address, as they are written and as they are meant."""
    parts = urlsplit(url)
    written = [parts.password or "", *re.findall(r"(?:^|&)(?:ssl)?password=([^&]+)", parts.query)]
    return tuple({form for password in written if password for form in (password, unquote(password))})


def collector(value: str) -> str:
    """The base address of an OTLP collector; a key in it would stand in warnings."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("a collector's base address such as http://localhost:4318; keys belong into headers")
    return value.rstrip("/")


def pairs(value: str) -> tuple[tuple[str, str], ...]:
    """Names and values, percent-encoded where they hold commas, as OpenTelemetry's variables have them."""
    pairs = [part.partition("=") for part in listed(",")(value)]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError("name=value, several comma-separated")
    return tuple((name.strip(), unquote(value.strip())) for name, _, value in pairs)


def site_url(value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
        raise ValueError("an address such as https://www.example.com/docs")
    return value.rstrip("/")


def file_size(value: str) -> int:
    """Bytes: `10MB` is ten million, `512KiB` 512 times 1024. Raises `ValueError` with what is allowed."""
    found = re.fullmatch(r"(\d{1,9})\s*([kmg]?)(i?)b?", value.strip().lower())
    count = int(found[1]) * (1024 if found[3] else 1000) ** " kmg".index(found[2] or " ") if found else 0
    if not 1000 <= count <= 1_000_000_000:
        raise ValueError("a size from 1kB to 1GB, such as 10MB")
    return count


def scanner_address(value: str) -> str:
    """The address of a clamd. Raises `ValueError` with what is allowed."""
    try:
        parts = urlsplit(value)
        sound = parts.scheme == "clamd" and (parts.hostname or len(parts.path) > 1) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment or (parts.hostname and parts.path.strip("/")):
        raise ValueError("clamd://HOST:3310, or clamd:///PATH of a socket")
    return value


def shown_size(count: int) -> str:
    """`10 MB`, as settings have it."""
    return f"{count / 1_000_000:g} MB" if count >= 1_000_000 else f"{count / 1000:g} kB"

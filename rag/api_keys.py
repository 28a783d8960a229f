"""The form of an API key, what is kept of one, and how both are written down. Keeps none, and asks nobody's rights.

A key is `rag_<id>_<secret><checksum>`: 8 characters that logs may show, 256 random bits in 43 characters of base 62,
and a CRC32 in 6, by which a key that was cut while it was copied is told from one that was revoked.
"""

import hashlib
import re
import secrets
import string
import time
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

SCOPES: Final = ("chat", "search", "ingest", "admin")
"""What a caller may be allowed; `admin` includes the others."""
VISITORS_SCOPES: Final = frozenset({"chat", "search"})
"""What a key may do that names no scopes, and the most that a caller without one may."""
SHORTEST_PLAIN_KEY: Final = 32
"""Characters of a key that an operator made up."""

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(r"rag_([0-9A-Za-z]{8})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASHED = re.compile(r"([^:=]+):sha256=([0-9a-fA-F]{64})")
_PLAIN = re.compile(r"[!-:<-~]+")
_SPAN = re.compile(r"([0-9]{1,5})([hd])")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key: enough to know it again, and not the key."""

    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the whole key."""
    scopes: frozenset[str]
    id: str = ""
    """The key's public part; empty for one that an operator made up."""
    expires_at: float | None = None
    """In seconds since 1970; None: never."""
    created_at: float | None = None

    @classmethod
    def of(cls, key: str, *, name: str, scopes: frozenset[str], expires_at: float | None = None) -> "ApiKey":
        """What to keep of `key`."""
        return cls(name, digest(key), scopes, id_of(key) or "", expires_at)

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> "ApiKey":
        """The key of one line of the file. Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
        expires, created = (line.get(field) and moment(line[field]) for field in ("expires", "created"))
        kept = cls(
            checked_name(line["name"]), bytes.fromhex(line["sha256"]), parsed_scopes(",".join(line["scopes"])),
            str(line["id"]), expires, created,
        )  # fmt: skip
        if len(kept.digest) != hashlib.sha256().digest_size:
            raise ValueError("a SHA-256 has 64 hex digits")
        return kept

    def as_line(self) -> dict[str, Any]:
        """The same as plain data, for one line of the file."""
        return {
            "name": self.name, "id": self.id, "sha256": self.digest.hex(), "scopes": in_order(self.scopes),
            "created": shown_moment(self.created_at), "expires": shown_moment(self.expires_at),
        }  # fmt: skip

    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()


def new_key() -> str:
    """A key that nobody had before."""
    identity = "".join(secrets.choice(_BASE62) for _ in range(8))
    body = f"rag_{identity}_{_base62(secrets.randbits(256), 43)}"
    return body + _checksum(body)


def id_of(key: str) -> str | None:
    """The public part of a key of our form; None for any other, and for one that was cut or mistyped."""
    match = _KEY.fullmatch(key)
    return match[1] if match and _checksum(key[:-6]) == match[2] else None


def looks_like_key(word: str) -> bool:
    """Whether somebody meant this to be a key of ours, sound or not."""
    return word.startswith("rag_")


def digest(key: str) -> bytes:
    """What is kept of a key. A fast hash: nobody guesses 256 random bits, and a slow one would be paid by each call."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def in_order(scopes: frozenset[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]


def parsed_scopes(value: str) -> frozenset[str]:
    """The scopes of `chat,search` or `chat+search`. Raises `ValueError` with what is allowed."""
    scopes = frozenset(part.strip() for part in value.replace("+", ",").split(",") if part.strip())
    if not scopes or not scopes <= set(SCOPES):
        raise ValueError(f"scopes out of {', '.join(SCOPES)}")
    return scopes


def parsed_anonymous_scopes(value: str) -> frozenset[str]:
    """What callers without a credential may do. Raises `ValueError` with what is allowed."""
    scopes = frozenset(part.strip().lower() for part in value.split(",") if part.strip())
    if scopes == {"none"}:
        return frozenset()
    if not scopes <= VISITORS_SCOPES:
        raise ValueError("chat, search, both with a comma between them, or none")
    return scopes


def checked_name(name: str) -> str:
    """Raises `ValueError` where it could not stand in a log or a command."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name of 1 to 64 letters, digits and . _ -")
    return name


def moment(value: str) -> float:
    """Seconds since 1970 of `2027-01-01` or `2027-01-01T12:00:00Z`, UTC where it says nothing else.

    Raises `ValueError` with what is allowed.
    """
    try:
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("a day such as 2027-01-01, or a moment such as 2027-01-01T12:00:00Z") from None


def span_s(value: str) -> float:
    """The seconds of `24h` or `90d`. Raises `ValueError` with what is allowed."""
    span = _SPAN.fullmatch(value)
    if span is None:
        raise ValueError("a span such as 24h or 90d")
    return float(span[1]) * (3600 if span[2] == "h" else 86400)


def shown_moment(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parsed_keys(value: str) -> tuple[ApiKey, ...]:
    """The keys of `API_KEYS`; a plain one is hashed here and kept nowhere. Raises `ValueError` with what is allowed."""
    return tuple(_api_key(part.strip()) for part in value.split(",") if part.strip())


def _api_key(entry: str) -> ApiKey:
    key, *options = (part.strip() for part in entry.split(";"))
    given = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("scopes", "expires") or name in given:
            raise ValueError("behind a key ;scopes=chat+search and ;expires=2027-01-01, each once")
        given[name] = value
    scopes = parsed_scopes(given["scopes"]) if "scopes" in given else VISITORS_SCOPES
    expires_at = moment(given["expires"]) if "expires" in given else None
    if hashed := _HASHED.fullmatch(key):
        return ApiKey(checked_name(hashed[1].strip()), bytes.fromhex(hashed[2]), scopes, "", expires_at)
    if len(key) < SHORTEST_PLAIN_KEY or not _PLAIN.fullmatch(key) or ":sha256=" in key:
        raise ValueError(f"keys of {SHORTEST_PLAIN_KEY} characters or more, or NAME:sha256= and 64 hex digits")
    if looks_like_key(key) and id_of(key) is None:
        raise ValueError("whole keys: one that begins with rag_ was cut or mistyped")
    return ApiKey.of(key, name=f"key-{digest(key).hex()[:8]}", scopes=scopes, expires_at=expires_at)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)

"""Visits without a key: a short-lived token for one page's origin, and the work that may be asked for it.

A visit says from which of the allowed sites somebody came, and nothing about who it is. A browser cannot lie about its
`Origin`, so no other site can use the chat; any other program can, which is why visits are limited like strangers.
It must not know how a token is carried, nor where what was used up is remembered.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from rag.access.limits import LimitExceeded, RateLimits
from rag.api_keys import VISITORS_SCOPES
from rag.errors import Forbidden, ProofRequired
from rag.settings import Settings
from rag.stores.sqlite.file import Clocks
from rag.telemetry.logs import note

TOKEN_S: Final = 3600
"""How long a visit lasts. The widget renews it before."""
CHALLENGE_S: Final = 300
"""How long a challenge may be solved, and how long one that was solved is remembered."""
HARDEST_NUMBER: Final = 50_000
"""The work of a challenge: up to so many SHA-256, a second or so of a phone's browser."""
ONCE: Final = ("proof", f"1/{CHALLENGE_S}second")
"""The limit, by its name, of one solved challenge."""
NEW_VISITS: Final = ("visit", "10/minute;100/day")
"""The same for new visits from one address."""
_BROWSERS_SITES: Final = {None, "same-origin", "same-site", "cross-site"}
"""What Sec-Fetch-Site may say beside an Origin. `none` is a page that was typed in, which has no Origin."""


def secret_in(folder: Path) -> str:
    """The secret of this machine's visits, made by whichever worker comes first. Raises `OSError`."""
    path = folder / "visit_secret"
    with suppress(FileNotFoundError):
        return path.read_text("ascii")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=".visit_secret.", dir=folder)  # readable by its owner alone
    try:
        with open(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(name, path)  # whole or not at all, and never over that of another worker
    finally:
        os.unlink(name)
    return path.read_text("ascii")


@dataclass(frozen=True, slots=True)
class Origins:
    """The sites whose pages may call."""

    allowed: Collection[str]

    def of(self, headers: Mapping[str, str]) -> str | None:
        """The allowed origin that a browser names; None where it names another, none, or contradicts itself."""
        origin = headers.get("origin")
        if origin not in self.allowed or headers.get("sec-fetch-site") not in _BROWSERS_SITES:
            return None
        return origin

    def may_be(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from that origin. A page that reads from its own server names none."""
        if "origin" in headers:
            return self.of(headers) == origin
        return headers.get("sec-fetch-site") == "same-origin" and origin in self.allowed


class Visits:
    """Makes and checks the tokens. The first secret signs, all of them verify.

    `scopes` are what a visitor may do. Without `proofs` a visit costs no work.
    """

    def __init__(
        self, *, secrets: Sequence[str], origins: Origins, scopes: frozenset[str], proofs: "Proofs | None" = None
    ) -> None:
        self.origins = origins
        self.scopes = scopes
        self._proofs = proofs
        self._signers = {_header(secret): secret.encode() for secret in secrets}
        self._header = _header(secrets[0])

    async def begin(self, headers: Mapping[str, str], proof: Any) -> tuple[str, int]:
        """A new visit's token, and when it ends in seconds since 1970.

        Raises `Forbidden` for a page of another site, and `ProofRequired` where work is asked for and not proved.
        """
        origin = self.origins.of(headers)
        if origin is None:
            raise Forbidden("origin", detail="Only pages of the sites that this server is for begin a visit.")
        if self._proofs is not None:
            await self._proofs.accept(proof, origin)
        now = int(time.time())
        claims = {"sub": secrets.token_urlsafe(16), "org": origin, "iat": now, "exp": now + TOKEN_S}
        body = f"{self._header}.{_encoded(claims)}"
        return f"{body}.{_signature(self._signers[self._header], body)}", now + TOKEN_S

    async def close(self) -> None:
        if self._proofs is not None:
            await self._proofs.close()

    def is_one(self, token: str) -> bool:
        """Whether a token calls itself a visit's: its header is one of ours, to the letter."""
        return token.partition(".")[0] in self._signers

    def sound(self, token: str, headers: Mapping[str, str]) -> bool:
        """Whether a token is ours, still holds, and comes from the origin that it was made for."""
        body, _, signature = token.rpartition(".")
        key = self._signers.get(body.partition(".")[0])
        if key is None or not signature.isascii() or not hmac.compare_digest(_signature(key, body), signature):
            return False
        claims = json.loads(base64.urlsafe_b64decode(body.partition(".")[2] + "=="))
        return claims["exp"] > time.time() and self.origins.may_be(claims["org"], headers)


class Proofs:
    """Challenges in ALTCHA's form, kept nowhere: a number is looked for whose hash behind the salt is the challenge.

    The salt ends in a delimiter, so that digits cannot move between it and the number.
    """

    def __init__(self, *, secret: str, used: RateLimits) -> None:
        """`used` has the limit of `ONCE`, and so remembers which challenges were solved, for all workers."""
        self._used = used
        self._key = hashlib.sha256(b"challenge:" + secret.encode()).digest()

    async def close(self) -> None:
        await self._used.close()

    async def accept(self, proof: Any, origin: str) -> None:
        """Raises `ProofRequired`, with a new challenge, where a proof solves none or one that was used already."""
        solved = self.solved(proof, origin)
        try:
            if solved is not None:
                await self._used.check(ONCE[0], solved)
                return
        except LimitExceeded:
            note(proof_refused="used before")
        raise ProofRequired(self.challenge(origin))

    def challenge(self, origin: str) -> dict[str, Any]:
        """A new one, for the visitors of one origin."""
        until = {"expires": int(time.time()) + CHALLENGE_S, "origin": origin}
        salt = f"{secrets.token_hex(12)}?{urlencode(until)}&"
        challenge = _solution(salt, secrets.randbelow(HARDEST_NUMBER + 1))
        return {
            "algorithm": "SHA-256", "challenge": challenge, "salt": salt, "maxnumber": HARDEST_NUMBER,
            "signature": self._signed(salt, challenge),
        }  # fmt: skip

    def solved(self, proof: Any, origin: str) -> str | None:
        """The challenge that a proof solves, which must be used only once; None for one that solves none.

        A proof is `{"algorithm", "challenge", "number", "salt", "signature"}`, or the same as JSON in base64.
        """
        try:
            given = json.loads(base64.b64decode(proof, validate=True)) if isinstance(proof, str) else proof
            salt, challenge, number = given["salt"], given["challenge"], given["number"]
            if type(number) is not int or not 0 <= number <= HARDEST_NUMBER or given["algorithm"] != "SHA-256":
                return None
            known = hmac.compare_digest(self._signed(salt, challenge), given["signature"])
            if not known or not hmac.compare_digest(_solution(salt, number), challenge):
                return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
            return None
        until = parse_qs(salt.partition("?")[2])
        sound = float(until["expires"][0]) > time.time() and until["origin"] == [origin]
        return challenge if sound else None

    def _signed(self, salt: str, challenge: str) -> str:
        return hmac.new(self._key, f"{salt}\n{challenge}".encode(), hashlib.sha256).hexdigest()


def of_settings(settings: Settings, *, storage_uri: str) -> Visits | None:
    """The visits that the settings ask for, if any. Solved challenges are remembered at `storage_uri`."""
    if settings.browser_sessions == "off":
        return None
    secrets = settings.browser_session_secrets or (secret_in(settings.state_dir),)
    proofs = None
    if settings.visit_proof == "altcha":
        # Not those of the other limits: these hold where RATE_LIMIT_ENABLED switches those off.
        used = RateLimits(limits=dict([ONCE]), storage_uri=storage_uri, enabled=True, clocks=Clocks.system())
        proofs = Proofs(secret=secrets[0], used=used)
    origins, scopes = Origins(settings.allowed_origins), settings.anonymous_scopes or VISITORS_SCOPES
    return Visits(secrets=secrets, origins=origins, scopes=scopes, proofs=proofs)


def _solution(salt: str, number: int) -> str:
    return hashlib.sha256(f"{salt}{number}".encode()).hexdigest()


def _header(secret: str) -> str:
    key_id = hashlib.sha256(b"visit:" + secret.encode()).hexdigest()[:8]
    return _encoded({"alg": "HS256", "typ": "visit+jwt", "kid": key_id})


def _signature(key: bytes, body: str) -> str:
    return _base64(hmac.new(key, body.encode("utf-8", "surrogatepass"), hashlib.sha256).digest())


def _encoded(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

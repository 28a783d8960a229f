"""Access tokens of an issuer that the operator trusts: JSON Web Tokens, after RFC 8725 and RFC 9068.

What a token's own header says chooses among what the settings allow and nothing else: no address, certificate or key in
it is ever used. Imported only where tokens are configured. It must not know how a token is carried.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import jwt

from rag.access.jwks import KeySet
from rag.api_keys import SCOPES
from rag.telemetry.logs import note

LEEWAY_S: Final = 60.0
"""How far the issuer's clock and ours may be apart."""
_TYPES: Final = {"jwt", "at+jwt", "application/at+jwt"}
"""What an access token may call itself. One that says nothing is taken for `jwt`."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a sound token says: who it is for its issuer, and what it may do here."""

    subject: str
    scopes: frozenset[str]


class InvalidToken(Exception):
    """A token that must not be believed; `str(error)` is for the log, and never shown."""


class TokenVerifier:
    """Checks tokens against one issuer's keys, or against secrets that are shared with it.

    `issuer` and `audiences` are checked where they are set. `secrets` are for HS256, `keys` for all other algorithms;
    one of both is given.
    """

    def __init__(
        self, *, issuer: str, audiences: Sequence[str], algorithms: Collection[str] = ("HS256",),
        secrets: Sequence[str] = (), keys: KeySet | None = None,
    ) -> None:  # fmt: skip
        self._issuer = issuer
        self._audiences = list(audiences)
        self._algorithms = frozenset(algorithms)
        self._secrets = [secret.encode() for secret in secrets]
        self._keys = keys
        self._options: Any = {
            "require": ["exp", *(["iss"] if issuer else []), *(["aud"] if audiences else [])],
            "verify_aud": bool(audiences), "verify_iss": bool(issuer), "verify_sub": False, "verify_jti": False,
        }  # fmt: skip

    async def verify(self, token: str) -> Token | None:
        """None for a token that must not be believed. Raises `IssuerUnavailable` where no keys could be fetched yet."""
        try:
            return await self._verified(token)
        except InvalidToken as error:
            note(token_refused=str(error))
            return None

    async def _verified(self, token: str) -> Token:
        header = _checked(partial(jwt.get_unverified_header, token))
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise InvalidToken("algorithm")
        if "crit" in header or "b64" in header:
            raise InvalidToken("critical extensions")
        if str(header.get("typ", "jwt")).lower() not in _TYPES:
            raise InvalidToken("type")
        if not isinstance(key_id, str | None):
            raise InvalidToken("key id")
        candidates: Sequence[Any] = self._secrets
        if self._keys is not None:
            found = await self._keys.find(algorithm, key_id)
            candidates = [found] if found is not None else []
        reason = "unknown key"
        for key in candidates:
            try:
                return self._read(_checked(partial(self._decoded, token, algorithm, key)))
            except InvalidToken as error:
                reason = str(error)
        raise InvalidToken(reason)

    def _decoded(self, token: str, algorithm: str, key: Any) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=[algorithm], audience=self._audiences or None, issuer=self._issuer or None,
            leeway=LEEWAY_S, options=self._options,
        )  # fmt: skip
        return claims

    def _read(self, claims: dict[str, Any]) -> Token:
        if self._issuer and claims["iss"] != self._issuer:
            raise InvalidToken("issuer")
        names = {name for claim in ("scope", "scp", "roles") for name in _names(claims.get(claim))}
        if _is_id_token(claims):
            raise InvalidToken("an ID token, which says who somebody is and not what they may do")
        subject = next((claims[one] for one in ("sub", "client_id", "azp", "appid") if claims.get(one)), "")
        return Token(str(subject), frozenset(names & set(SCOPES)))


def _names(claim: Any) -> list[str]:
    if isinstance(claim, str):
        return claim.split(" ")
    return [name for name in claim if isinstance(name, str)] if isinstance(claim, list) else []


def _is_id_token(claims: dict[str, Any]) -> bool:
    # Only an ID token holds hashes of what was issued beside it, and most repeat the nonce of the login, as the access
    # tokens of some older issuers do: those hold scopes. Roles are no sign, since Entra puts them into both.
    if {"at_hash", "c_hash", "s_hash"} & claims.keys() or claims.get("typ") == "ID":
        return True
    return "nonce" in claims and not {"scope", "scp"} & claims.keys()


def _checked(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read()
    except jwt.PyJWTError as error:
        raise InvalidToken(type(error).__name__) from None
    except (ValueError, TypeError, OverflowError, RecursionError, ArithmeticError) as error:
        # What a library does with numbers such as 1e999 and with depth must not be a fault of ours.
        raise InvalidToken(f"malformed: {type(error).__name__}") from None

"""Who is calling, and what they may do: a key, a token, a visit, or nobody in particular.

A credential that is not in force is refused, and never taken for none. It must not know what a route does, nor how
often somebody may call it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rag.access.key_ring import KeyRing
from rag.access.visits import Visits
from rag.api_keys import ApiKey, looks_like_key
from rag.errors import AmbiguousCredential, InvalidCredential
from rag.settings import Settings

if TYPE_CHECKING:
    from rag.access.jwks import Fetch
    from rag.access.tokens import TokenVerifier

LARGEST_CREDENTIAL_BYTES: Final = 8 * 1024

RawHeaders = Sequence[tuple[bytes, bytes]]
"""With names in lower case, as ASGI has them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a credential belongs to."""

    name: str
    """For the log: `key NAME`, `token` or `visit`."""
    scopes: frozenset[str]
    bucket: str | None
    """Whose limits its calls count against; None: those of the address."""


class Authenticator:
    """Tells callers apart. `tokens` and `visits` are None where they are not wanted."""

    def __init__(
        self, *, anonymous: frozenset[str], keys: KeyRing, tokens: "TokenVerifier | None", visits: Visits | None
    ) -> None:
        self.anonymous = anonymous
        """What a caller without a credential may do."""
        self._keys = keys
        self._tokens = tokens
        self._visits = visits

    def knows_admins(self) -> bool:
        """Whether any credential could have the scope `admin`."""
        return self._tokens is not None or self._keys.opens_admin()

    async def identify(self, headers: RawHeaders, *, any_word: bool) -> Identity | None:
        """Whose credential the headers carry; None where they carry none.

        With `any_word` a bearer that cannot be one of ours counts as none: OpenAI's clients always send some word.
        Raises `InvalidCredential`, `AmbiguousCredential` and `IssuerUnavailable`.
        """
        presented = _presented(headers)
        if not presented:
            return None
        word = next(iter(presented.values()))
        identity = await self._known(word, headers)
        if identity is None:
            meant_for_us = looks_like_key(word) or word.startswith("eyJ") or b"x-api-key" in presented
            if meant_for_us or not any_word:
                raise InvalidCredential
        return identity

    async def _known(self, word: str, headers: RawHeaders) -> Identity | None:
        if len(word) > LARGEST_CREDENTIAL_BYTES or not (word.isascii() and word.isprintable() and " " not in word):
            return None
        if key := self._keys.find(word):
            return Identity(f"key {key.name}", key.scopes, f"key:{key.name}")
        if self._visits is not None and self._visits.is_one(word):
            named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
            return Identity("visit", self._visits.scopes, None) if self._visits.sound(word, named) else None
        if self._tokens is None or looks_like_key(word):
            return None
        token = await self._tokens.verify(word)
        return None if token is None else Identity("token", token.scopes, f"token:{token.subject}")


def authenticator(settings: Settings, *, visits: Visits | None, fetch: "Fetch") -> Authenticator:
    """The one that the settings ask for. `fetch` gets what stands at an issuer's address."""
    admin = settings.admin_api_key
    given = (ApiKey.of(admin, name="admin", scopes=frozenset({"admin"})),) if admin else ()
    return Authenticator(
        anonymous=frozenset() if settings.browser_sessions == "required" else settings.anonymous_scopes,
        keys=KeyRing(given=(*given, *settings.api_keys), file=settings.keys_file),
        tokens=_tokens(settings, fetch) if settings.jwt_issuer or settings.jwt_secret_keys else None,
        visits=visits,
    )


def _tokens(settings: Settings, fetch: "Fetch") -> "TokenVerifier":
    # Imported where they are wanted: reading signatures costs each worker memory and a part of its start.
    from rag.access.jwks import KeySet
    from rag.access.tokens import TokenVerifier

    issuer, audiences = settings.jwt_issuer, settings.jwt_audiences
    if settings.jwt_secret_keys:
        return TokenVerifier(issuer=issuer, audiences=audiences, secrets=settings.jwt_secret_keys)
    algorithms = settings.jwt_algorithms
    keys = KeySet(issuer=issuer, url=settings.jwt_jwks_url, algorithms=algorithms, fetch=fetch)
    return TokenVerifier(issuer=issuer, audiences=audiences, algorithms=algorithms, keys=keys)


def _presented(headers: RawHeaders) -> dict[bytes, str]:
    """The one credential of a request, whatever it is worth, by the headers it stands in; empty where there is none.

    Raises `AmbiguousCredential`.
    """
    words: dict[bytes, str] = {}
    for name, value in headers:
        if name == b"authorization":
            scheme, _, word = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "basic":
                continue  # a password for a proxy before this server, which some of them hand on
            word = word.strip() if scheme.lower() == "bearer" else ""
        elif name == b"x-api-key":
            word = value.decode("latin-1").strip()
        else:
            continue
        if name in words or (words and word not in words.values()):
            raise AmbiguousCredential
        words[name] = word
    return words

"""The public keys of a token issuer (JWKS, RFC 7517): fetched when they are needed, and kept while none better come.

A flood of tokens with invented key ids costs one fetch a minute. It must not know what a token says, nor how an address
is fetched: that is passed in.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final
from urllib.parse import urlsplit

from jwt import PyJWK, PyJWTError

from rag.errors import IssuerUnavailable

log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""The body at an address, within a few seconds and of bounded size. Raises what went wrong."""

KEPT_S = 3600.0
"""After that a key set is fetched again, aside, when a token comes; the old one serves until the new one is there."""
REFETCH_EVERY_S = 60.0
"""At most so often because of a key id that the set does not hold."""
RETRY_EVERY_S = 5.0
"""The same while no set could be fetched at all."""
SMALLEST_RSA_KEY_BITS = 2048

_FORMS: Final = {"RS256": ("RSA", None), "PS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""Type and curve of the keys of each algorithm. None is symmetric: the set is public."""


class KeySet:
    """The keys of one issuer, in one worker. Its address is `url`, or stands in the issuer's own description of itself.

    The description is at `issuer` + `/.well-known/openid-configuration`, and has to name the very same issuer.
    """

    def __init__(
        self, *, issuer: str, url: str, algorithms: Collection[str], fetch: Fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._issuer = issuer
        self._url = url
        self._algorithms = frozenset(algorithms)
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[tuple[str, str | None], PyJWK] = {}
        """By algorithm and key id."""
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, key_id: str | None) -> PyJWK | None:
        """The key that checks a token; None where the issuer has no such key. Raises `IssuerUnavailable`.

        A token that names no key is checked with the only one of its algorithm, if there is only one.
        """
        now = self._clock()
        if self._keys and now - self._fetched_at > KEPT_S and now - self._tried_at > REFETCH_EVERY_S:
            self._refetch()
        found = self._at_hand(algorithm, key_id)
        if found is None:
            wait_s = REFETCH_EVERY_S if self._keys else RETRY_EVERY_S
            if self._fetching is not None or now - self._tried_at > wait_s:
                # Shielded: one visitor who leaves must not end the fetch that the others wait for.
                await asyncio.shield(self._refetch())
                found = self._at_hand(algorithm, key_id)
        if not self._keys:
            raise IssuerUnavailable("no keys of the token issuer were fetched yet; see the log, and compare JWT_ISSUER")
        return found

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _at_hand(self, algorithm: str, key_id: str | None) -> PyJWK | None:
        if key_id is not None:
            return self._keys.get((algorithm, key_id))
        fitting = [key for (one, _), key in self._keys.items() if one == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _refetch(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch_keys())
        return self._fetching

    async def _fetch_keys(self) -> None:
        try:
            url = self._url or await self._discovered()
            keys = _usable(json.loads(await self._fetch(url)), self._algorithms)
            if not keys:
                raise ValueError("no key for the algorithms of JWT_ALGORITHMS is in the set")
        except Exception as error:
            # Whatever it was: the issuer's bad hour must not end the sessions that it began.
            reason = f"{type(error).__name__}: {error}"
            log.warning("keys of the token issuer not fetched, the old ones stay", extra={"reason": reason})
        else:
            self._keys, self._fetched_at = keys, self._clock()
            log.info("keys of the token issuer fetched", extra={"keys": len(keys)})
        finally:
            self._fetching = None

    async def _discovered(self) -> str:
        described = json.loads(await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"))
        if described["issuer"] != self._issuer:
            raise ValueError(
                "the issuer at that address calls itself otherwise; set JWT_ISSUER to what it says, exactly"
            )
        url: str = described["jwks_uri"]
        # A description that came over TLS must not lead to keys that did not.
        if urlsplit(url).scheme not in ("https", urlsplit(self._issuer).scheme):
            raise ValueError("the issuer's keys are at an address without TLS")
        return url


def _usable(document: Any, algorithms: Collection[str]) -> dict[tuple[str, str | None], PyJWK]:
    """The signature keys of a set, by algorithm and id. One that cannot be used is passed over, as RFC 7517 has it."""
    keys = {}
    for described in document["keys"]:
        for algorithm in algorithms:
            kind, curve = _FORMS[algorithm]
            if (
                not isinstance(described, dict)
                or described.get("kty") != kind
                or (curve and described.get("crv") != curve)
                or described.get("use", "sig") != "sig"
                or described.get("alg", algorithm) != algorithm
            ):
                continue
            try:
                key = PyJWK(described, algorithm=algorithm)
            except (PyJWTError, ValueError, TypeError, KeyError):
                continue
            if kind == "RSA" and key.key.key_size < SMALLEST_RSA_KEY_BITS:
                continue
            key_id = described.get("kid")
            keys[algorithm, key_id if isinstance(key_id, str) else None] = key
    return keys

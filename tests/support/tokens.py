"""An issuer of tokens: its signing keys, what it serves (its key set, its description of itself), and what it signs."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "api://site-chat"


def b64(data: bytes | str | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Issuer:
    """Keys of every kind that a server may be told to believe, and one that nobody published."""

    url: str = "https://login.example.com/tenant-one/v2.0"
    rsa: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ec: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ed: Any = field(default_factory=ed25519.Ed25519PrivateKey.generate)
    stranger: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    fetches: list[str] = field(default_factory=list)
    broken: bool = False
    """Answers 500."""
    extra_keys: list[dict[str, Any]] = field(default_factory=list)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a sound access token; None takes one away."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "user-7",
            "iat": now,
            "exp": now + 600,
            "scope": "chat search",
        }
        return {name: value for name, value in {**usual, **changed}.items() if value is not None}

    def token(
        self, algorithm: str = "RS256", key: Any = None, header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        keys = {"RS256": self.rsa, "PS256": self.rsa, "ES256": self.ec, "EdDSA": self.ed}
        kids = {"RS256": "rsa", "PS256": "rsa", "ES256": "ec", "EdDSA": "ed"}
        headers = {"kid": kids.get(algorithm), "typ": "at+jwt", **(header or {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        # Not `jwt.encode`, which refuses some of the claims that an attacker would send.
        return jwt.PyJWS().encode(
            json.dumps(self.claims(**claims)).encode(), key or keys[algorithm], algorithm, headers
        )

    def forged(self, header: dict[str, Any], signature: bytes = b"", **claims: Any) -> str:
        """A token put together by hand."""
        return f"{b64(header)}.{b64(self.claims(**claims))}.{b64(signature)}"

    def key_set(self) -> dict[str, Any]:
        described = [
            {**RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True), "kid": "rsa", "use": "sig"},
            {**ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True), "kid": "ec", "use": "sig"},
            {**OKPAlgorithm.to_jwk(self.ed.public_key(), as_dict=True), "kid": "ed", "use": "sig"},
        ]
        return {"keys": [*described, *self.extra_keys]}

    async def fetch(self, url: str) -> bytes:
        """What a server fetches, without a network."""
        return self._answer(url)

    def _answer(self, url: str) -> bytes:
        self.fetches.append(url)
        if self.broken:
            raise ValueError(f"{url} answers 500")
        if url.endswith("/.well-known/openid-configuration"):
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        return json.dumps(self.key_set()).encode()


@contextmanager
def serving(issuer: Issuer) -> Iterator[str]:
    """Serves an issuer on loopback; its `url` becomes the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, body = 200, issuer._answer(self.path)
            except ValueError:
                status, body = 500, b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        issuer.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield issuer.url
        finally:
            listening.shutdown()
            thread.join()

"""Attacks on credentials, each with what it gets: over sockets, against real workers with every kind of credential.

Each comes from an address of its own, so that none is answered with the limit of wrong credentials, which is one of
them. An attack that gets nothing is refused in the form of every error, and never answered as a stranger is.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rag import api_keys
from rag.api_keys import ApiKey
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.support.tokens import Issuer, b64, serving

SITE, EVIL = "https://www.example.com", "https://evil.example"
ADMIN, PLAIN, ENDED = "admin-0123456789abcdef0123456789", "plain-0123456789abcdef0123456789", "ended-" + "0" * 32
JWT_KEY = "a-secret-of-32-bytes-or-some-more"
_addresses = (f"198.18.{number // 250}.{number % 250 + 1}" for number in count())

Headers = list[tuple[str, str]]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


@dataclass
class World:
    """The server under attack, and what an attacker may hold of it."""

    server: RagServer
    issuer: Issuer
    key: str
    """In force, for `chat` alone."""
    seen: list[str] = field(default_factory=list)

    def send(
        self, headers: Headers, *, method: str = "POST", path: str = "/search", body: str = '{"query": "warranty"}',
        address: str | None = None,
    ) -> Answer:  # fmt: skip
        forwarded = address or next(_addresses)
        fixed = [("Host", "here"), ("X-Forwarded-For", forwarded), ("Connection", "close")]
        if method == "POST":
            fixed += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        lines = "".join(f"{name}: {value}\r\n" for name, value in [*fixed, *headers])
        request = f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body if method == 'POST' else ''}"
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as connection:
            connection.sendall(request.encode("latin-1"))
            answered = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, content = answered.partition(b"\r\n\r\n")
        status, *named = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in named)
        return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, content)

    def visit(self) -> str:
        answer = self.send([("Origin", SITE)], path="/visit", body="{}")
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["token"])


@pytest.fixture(scope="module")
def world(site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, issuer, key = tmp_path_factory.mktemp("attacked"), Issuer(), api_keys.new_key()
    line = ApiKey.of(key, name="chat-only", scopes=frozenset({"chat"})).as_line()
    (folder / "keys.jsonl").write_text(json.dumps(line), "utf-8")
    with serving(issuer) as url:
        settings = {
            **azure_process.environment,
            "VECTOR_DB_PATH": str(site_build),
            "ALLOWED_ORIGINS": f"{SITE},https://docs.example.com",
            "ADMIN_API_KEY": ADMIN,
            "API_KEYS": f"{PLAIN},{ENDED};expires=2020-01-01",
            "API_KEYS_FILE": str(folder / "keys.jsonl"),
            "JWT_ISSUER": url,
            "JWT_AUDIENCE": "api://site-chat",
            "JWT_ALGORITHMS": "RS256,ES256",
            "BROWSER_SESSIONS": "on",
        }
        with RagServer.start(settings, folder, workers=2) as server:
            yield World(server, issuer, key)


def bearer(word: str) -> Headers:
    return [("Authorization", f"Bearer {word}")]


def at(token: str, place: int, part: str) -> str:
    """A token with another part."""
    parts = token.split(".")
    parts[place] = part
    return ".".join(parts)


def visit_of(world: World, *headers: tuple[str, str]) -> Headers:
    return [*bearer(world.visit()), *headers]


def forged(world: World, algorithm: str, **header: Any) -> Headers:
    return bearer(world.issuer.forged({"alg": algorithm, "typ": "at+jwt", "kid": "rsa", **header}))


def confused(world: World) -> Headers:
    """HS256, keyed with the public key that everybody can fetch: the oldest trick of all."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = world.issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = f"{b64({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'rsa'})}.{b64(world.issuer.claims())}"
    return bearer(f"{body}.{b64(hmac.new(public, body.encode(), hashlib.sha256).digest())}")


def own_key(world: World, name: str) -> dict[str, Any]:
    """A header that brings or names the attacker's own key."""
    stranger = Issuer(rsa=world.issuer.stranger)
    return {"jwk": {"jwk": stranger.key_set()["keys"][0]}, "jku": {"jku": "http://127.0.0.1:9/keys"},
            "x5u": {"x5u": "http://127.0.0.1:9/pem"}, "x5c": {"x5c": ["MIIB"]}}[name]  # fmt: skip


def signed(world: World, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> Headers:
    return bearer(world.issuer.token(key=key, header=header, **claims))


def now() -> int:
    return int(time.time())


REFUSED = {
    # Keys
    "a key that nobody made": lambda w: bearer(api_keys.new_key()),
    "a key with one character changed": lambda w: bearer(w.key[:-1] + ("a" if w.key[-1] != "a" else "b")),
    "a key that was cut": lambda w: bearer(w.key[:-6]),
    "a key with something behind it": lambda w: bearer(w.key + "0"),
    "the known id with another secret": lambda w: bearer(w.key[:13] + api_keys.new_key()[13:]),
    "the id of a key alone": lambda w: bearer(w.key[:12]),
    "the kept hash in place of the key": lambda w: bearer(api_keys.digest(w.key).hex()),
    "the hash as the settings write it": lambda w: bearer(f"chat-only:sha256={api_keys.digest(w.key).hex()}"),
    "a key that has ended": lambda w: bearer(ENDED),
    "a key in capitals": lambda w: bearer(PLAIN.upper()),
    "the beginning of the admin key": lambda w: bearer(ADMIN[:-1]),
    "an empty key": lambda w: [("X-API-Key", "")],
    "Bearer and nothing": lambda w: [("Authorization", "Bearer")],
    "Bearer and blanks": lambda w: [("Authorization", "Bearer    ")],
    "what broken scripts send: undefined": lambda w: bearer("undefined"),
    "what broken scripts send: null": lambda w: bearer("null"),
    "a key without its scheme": lambda w: [("Authorization", PLAIN)],
    "a scheme of somebody else's": lambda w: [("Authorization", f"Token {PLAIN}")],
    "Digest": lambda w: [("Authorization", f'Digest username="{PLAIN}"')],
    "two keys with a comma between them": lambda w: bearer(f"{PLAIN},{ADMIN}"),
    "two credentials in one header": lambda w: bearer(f"wrong, Bearer {PLAIN}"),
    "a blank within a key": lambda w: bearer(f"{PLAIN[:10]} {PLAIN[10:]}"),
    "letters of another alphabet": lambda w: bearer(PLAIN.replace("a", "\xe4")),
    "a word of 9 KiB": lambda w: bearer("x" * 9000),
    "a pattern of SQL": lambda w: bearer("' OR '1'='1"),
    # Signatures
    "algorithm none": lambda w: forged(w, "none"),
    "algorithm None": lambda w: forged(w, "None"),
    "algorithm nOnE with a signature": lambda w: at_header(w, {"alg": "nOnE"}),
    "no algorithm": lambda w: at_header(w, {}),
    "an algorithm that is a list": lambda w: at_header(w, {"alg": ["RS256"]}),
    "HS256 with the public key": confused,
    "HS256 with an empty key": lambda w: bearer(w.issuer.token("HS256", "0" * 32)),
    "an algorithm that is sound and not allowed": lambda w: bearer(w.issuer.token("PS256")),
    "EdDSA, published and not allowed": lambda w: bearer(w.issuer.token("EdDSA")),
    "RS512 with the right key": lambda w: bearer(w.issuer.token("RS512", w.issuer.rsa, {"kid": "rsa"})),
    "ES256 under the id of an RSA key": lambda w: bearer(w.issuer.token("ES256", w.issuer.ec, {"kid": "rsa"})),
    "signed by a stranger": lambda w: signed(w, key=w.issuer.stranger),
    "signed by a stranger, whose key is in jwk": lambda w: signed(w, own_key(w, "jwk"), w.issuer.stranger),
    "signed by a stranger, whose keys jku names": lambda w: signed(w, own_key(w, "jku"), w.issuer.stranger),
    "signed by a stranger, whose certificate x5u names": lambda w: signed(w, own_key(w, "x5u"), w.issuer.stranger),
    "signed by a stranger, with a certificate": lambda w: signed(w, own_key(w, "x5c"), w.issuer.stranger),
    "an unknown key id": lambda w: signed(w, {"kid": "invented"}),
    "a key id that is a path": lambda w: signed(w, {"kid": "../../../../dev/null"}),
    "no signature": lambda w: bearer(at(w.issuer.token(), 2, "")),
    "the signature of another token": lambda w: bearer(at(w.issuer.token(), 2, w.issuer.token(sub="x").split(".")[2])),
    "claims changed after signing": lambda w: bearer(at(w.issuer.token(), 1, b64(w.issuer.claims(scope="admin")))),
    "an ES256 signature of zeros": lambda w: bearer(at(w.issuer.token("ES256"), 2, b64(bytes(64)))),
    "a signature with padding": lambda w: bearer(w.issuer.token() + "=="),
    "two parts": lambda w: bearer(w.issuer.token().rpartition(".")[0]),
    "five parts": lambda w: bearer(w.issuer.token() + ".AA.AA"),
    "a critical extension": lambda w: signed(w, {"crit": ["exp"]}),
    "an unencoded payload": lambda w: at_header(w, {"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]}),
    "a header of 5,000 brackets": lambda w: bearer(at(w.issuer.token(), 0, b64("[" * 5000))),
    "a header that is no JSON": lambda w: bearer(at(w.issuer.token(), 0, b64("{alg}"))),
    "a header that is a list": lambda w: bearer(at(w.issuer.token(), 0, b64("[]"))),
    "just over 8 KiB": lambda w: bearer(sized(w, over=True)),
    # Claims
    "ended 61 seconds ago": lambda w: signed(w, exp=now() - 61),
    "no end": lambda w: signed(w, exp=None),
    "an end that is a word": lambda w: signed(w, exp="tomorrow"),
    "an end that is infinite": lambda w: signed(w, exp=float("inf")),
    "an end that is no number": lambda w: signed(w, exp=float("nan")),
    "not before two minutes from now": lambda w: signed(w, nbf=now() + 120),
    "issued two minutes from now": lambda w: signed(w, iat=now() + 120),
    "another issuer": lambda w: signed(w, iss=EVIL),
    "the issuer with a slash": lambda w: signed(w, iss=w.issuer.url + "/"),
    "the issuer in a list": lambda w: signed(w, iss=[w.issuer.url]),
    "no issuer": lambda w: signed(w, iss=None),
    "another audience": lambda w: signed(w, aud="api://other"),
    "the beginning of the audience": lambda w: signed(w, aud="api://site"),
    "no audience": lambda w: signed(w, aud=None),
    "an empty list of audiences": lambda w: signed(w, aud=[]),
    "an ID token with the hash of an access token": lambda w: signed(w, at_hash="x", roles=["admin"]),
    "an ID token with a nonce and roles": lambda w: signed(w, scope=None, nonce="n", roles=["admin"]),
    "an ID token of Keycloak's": lambda w: signed(w, typ="ID"),
    "a logout token": lambda w: signed(w, {"typ": "logout+jwt"}),
    "another kind of token": lambda w: signed(w, {"typ": "secevent+jwt"}),
    # Visits
    "a visit from a foreign site": lambda w: visit_of(w, ("Origin", EVIL)),
    "a visit from another of the allowed sites": lambda w: visit_of(w, ("Origin", "https://docs.example.com")),
    "a visit from a sandboxed frame": lambda w: visit_of(w, ("Origin", "null")),
    "a visit from a program that names no site": lambda w: visit_of(w),
    "a visit from a page that was typed in": lambda w: visit_of(w, ("Origin", SITE), ("Sec-Fetch-Site", "none")),
    "a visit whose claims were changed": lambda w: [*bearer(at(w.visit(), 1, b64({"org": SITE, "exp": 9**10}))),
                                                    ("Origin", SITE)],
    "a visit without a signature": lambda w: [*bearer(at(w.visit(), 2, "")), ("Origin", SITE)],
    "a visit that the issuer signed": lambda w: [*signed(w, {"typ": "visit+jwt"}), ("Origin", SITE)],
}  # fmt: skip
"""What is presented, by what it is; all of it gets 401 and `error="invalid_token"`."""


def at_header(world: World, header: dict[str, Any]) -> Headers:
    return bearer(at(world.issuer.token(), 0, b64(header)))


def sized(world: World, *, over: bool) -> str:
    """A sound token that is just larger than 8 KiB, or just not."""
    pad, made = 5400, [world.issuer.token()]
    while len(made[-1]) <= 8192:
        pad += 1
        made.append(world.issuer.token(pad="x" * pad))
    return made[-1] if over else made[-2]


@pytest.mark.parametrize("attack", REFUSED)
def test_an_attack_gets_401_and_is_never_taken_for_a_stranger(attack: str, world: World) -> None:
    make: Callable[[World], Headers] = REFUSED[attack]
    answer = world.send(make(world))
    assert (answer.status, answer.code) == (401, "unauthorized"), attack
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="rag-server", error="invalid_token"')
    assert json.loads(answer.body)["detail"] == "The credential is wrong, was revoked, or has ended."


ALLOWED = {
    "nothing at all": lambda w: [],
    "a key": lambda w: bearer(PLAIN),
    "a key in X-API-Key": lambda w: [("X-API-Key", PLAIN)],
    "the same key in both": lambda w: [("X-API-Key", PLAIN), *bearer(PLAIN)],
    "the admin key, which includes the rest": lambda w: bearer(ADMIN),
    "bearer in small letters": lambda w: [("Authorization", f"bearer {PLAIN}")],
    "a header's name in capitals": lambda w: [("AUTHORIZATION", f"Bearer {PLAIN}")],
    "a token": lambda w: signed(w),
    "a token of the other algorithm": lambda w: bearer(w.issuer.token("ES256")),
    "a token for several audiences": lambda w: signed(w, aud=["api://other", "api://site-chat"]),
    "a token that ended 50 seconds ago, since clocks differ": lambda w: signed(w, exp=now() - 50),
    "a token from 50 seconds ahead": lambda w: signed(w, iat=now() + 50, nbf=now() + 50),
    "a token that fills 8 KiB": lambda w: bearer(sized(w, over=False)),
    "a visit": lambda w: visit_of(w, ("Origin", SITE), ("Sec-Fetch-Site", "cross-site")),
    "a password for the proxy before the server": lambda w: [("Authorization", "Basic dXNlcjpwYXNz")],
    "the proxy's password and a key": lambda w: [("Authorization", "Basic dXNlcjpwYXNz"), ("X-API-Key", PLAIN)],
}  # fmt: skip


@pytest.mark.parametrize("shown", ALLOWED)
def test_what_is_sound_is_let_in(shown: str, world: World) -> None:
    make: Callable[[World], Headers] = ALLOWED[shown]
    answer = world.send(make(world))
    assert answer.status == 200, answer


AMBIGUOUS = {
    "Authorization twice": lambda w: [*bearer(PLAIN), *bearer(PLAIN)],
    "Authorization twice, the second wrong": lambda w: [*bearer(PLAIN), *bearer("wrong")],
    "Authorization twice, the first wrong": lambda w: [*bearer("wrong"), *bearer(ADMIN)],
    "X-API-Key twice": lambda w: [("X-API-Key", "wrong"), ("x-api-key", PLAIN)],
    "both headers, with different keys": lambda w: [*bearer("wrong"), ("X-API-Key", PLAIN)],
    "both headers, the other way round": lambda w: [*bearer(PLAIN), ("X-API-Key", "wrong")],
    "a key beside an empty one": lambda w: [*bearer(PLAIN), ("X-API-Key", "")],
}  # fmt: skip


@pytest.mark.parametrize("attack", AMBIGUOUS)
def test_several_credentials_are_never_chosen_from(attack: str, world: World) -> None:
    make: Callable[[World], Headers] = AMBIGUOUS[attack]
    answer = world.send(make(world))
    assert (answer.status, answer.code) == (400, "bad_request")
    assert 'error="invalid_request"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "line",
    [f"Bearer {PLAIN}\x00", f"Bearer \x00{PLAIN}", f"Bearer {PLAIN}\r\n folded", f"Bearer {PLAIN}\rX: y", "\x00"],
)
def test_control_characters_reach_no_key(line: str, world: World) -> None:
    assert world.send([("Authorization", line)]).status in (400, 401)


def test_a_key_in_the_address_is_no_key(world: World) -> None:
    for name in ("api_key", "key", "access_token", "token"):
        answer = world.send([], method="GET", path=f"/sessions/stats?{name}={ADMIN}")
        assert answer.status == 401
    assert ADMIN not in world.server.output


@pytest.mark.parametrize(
    ("shown", "lacks"),
    [
        (lambda w: bearer(w.key), "search"),
        (lambda w: signed(w, scope="chat"), "search"),
        (lambda w: signed(w, scope=None), "search"),
        (lambda w: signed(w, scope="search:read searching SEARCH"), "search"),
        (lambda w: signed(w, scope="ingest"), "search"),
    ],
)
def test_a_sound_credential_does_what_its_scopes_say_and_gets_nothing_of_a_strangers(
    shown: Callable[[World], Headers], lacks: str, world: World
) -> None:
    answer = world.send(shown(world))
    assert (answer.status, answer.code) == (403, "forbidden")
    assert answer.headers["www-authenticate"].endswith(f'error="insufficient_scope", scope="{lacks}"')


ADMIN_ROUTES = [("GET", "/sessions/stats"), ("GET", "/feedback"), ("HEAD", "/sessions/stats")]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (lambda w: bearer(ADMIN), 200),
        (lambda w: [("X-API-Key", ADMIN)], 200),
        (lambda w: signed(w, scope="admin"), 200),
        (lambda w: signed(w, scope=None, roles=["admin"]), 200),
        (lambda w: [], 401),
        (lambda w: bearer("wrong"), 401),
        (lambda w: [("Authorization", "Basic dXNlcjpwYXNz")], 401),
        (lambda w: [("Authorization", ADMIN)], 401),
        (lambda w: bearer(PLAIN), 403),
        (lambda w: signed(w), 403),
        (lambda w: visit_of(w, ("Origin", SITE)), 403),
    ],
)
def test_admin_routes_open_to_the_scope_admin_alone(
    method: str, path: str, shown: Callable[[World], Headers], status: int, world: World
) -> None:
    assert world.send(shown(world), method=method, path=path).status == status


@pytest.mark.parametrize(
    "path", ["/sessions/stats/", "//sessions/stats", "/sessions/%73tats", "/sessions/stats?", "/Sessions/stats"]
)
def test_no_spelling_of_an_admin_route_is_open(path: str, world: World) -> None:
    answer = world.send([], method="GET", path=path)
    assert answer.status in (307, 401, 404), answer
    assert b'"messages"' not in answer.body


COMPLETION = '{"messages": [{"role": "user", "content": "How long is the warranty?"}]}'


@pytest.mark.parametrize(
    ("word", "status"),
    [("nobody-asks-for-it", 200), ("sk-1234", 200), ("", 200), (PLAIN, 200), ("rag_wrong", 401), ("eyJhbGciOi", 401)],
)
def test_openais_clients_may_send_any_word_that_is_no_credential_of_ours(word: str, status: int, world: World) -> None:
    answer = world.send(bearer(word), path="/v1/chat/completions", body=COMPLETION)
    assert answer.status == status
    if status == 401:
        assert json.loads(answer.body)["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_below_v1_too_a_wrong_x_api_key_is_wrong(world: World) -> None:
    answer = world.send([("X-API-Key", "nobody-asks-for-it")], path="/v1/chat/completions", body=COMPLETION)
    assert answer.status == 401


def test_wrong_credentials_of_one_address_are_limited_and_sound_ones_are_not(world: World) -> None:
    address = next(_addresses)
    statuses = [world.send(bearer(f"wrong-{number}"), address=address).status for number in range(34)]
    assert statuses == [401] * 30 + [429] * 4
    refused = world.send(signed(world, exp=1), address=address)
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert world.send(bearer(PLAIN), address=address).status == 200
    assert world.send(bearer("wrong")).status == 401


def test_a_flood_of_invented_key_ids_is_one_fetch_a_minute_for_each_worker(world: World) -> None:
    world.send(signed(world))
    before = len(world.issuer.fetches)
    for number in range(100):
        world.send(signed(world, {"kid": f"flood-{number}"}))
    # Each of the two workers may find out about an unknown id once, and may not have had the set before: the first
    # fetch is one of the description and one of the keys.
    assert len(world.issuer.fetches) - before <= 4
    assert world.send(signed(world)).status == 200


def test_the_log_says_why_and_never_what_was_presented(world: World) -> None:
    token = world.issuer.token(exp=5, sub="somebody@example.com")
    world.send(bearer(token))
    world.send(bearer(PLAIN))
    world.server.wait_ready()
    output = world.server.output
    assert '"token_refused": "ExpiredSignatureError"' in output or '"token_refused":"ExpiredSignatureError"' in output
    for secret in (token, token.split(".")[1], PLAIN, ADMIN, world.key, "somebody@example.com"):
        assert secret not in output

"""Access tokens: what is believed, and how seldom an issuer is asked for its keys, whatever comes."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from rag.access import jwks
from rag.access.jwks import KeySet
from rag.access.tokens import Token, TokenVerifier
from rag.errors import ConfigError, IssuerUnavailable
from rag.settings import Settings
from tests.support.tokens import AUDIENCE, Issuer

ALL = ("RS256", "PS256", "ES256", "EdDSA")
ISSUER = Issuer()
SECRET = "a-secret-of-32-bytes-or-some-more"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def issuer() -> Issuer:
    ISSUER.fetches.clear()
    ISSUER.extra_keys, ISSUER.broken = [], False
    return ISSUER


def keys_of(
    issuer: Issuer, *, url: str = "https://login.example.com/keys", clock: Callable[[], float] = lambda: 1000.0
) -> KeySet:
    return KeySet(issuer=issuer.url, url=url, algorithms=ALL, fetch=issuer.fetch, clock=clock)


def verifier_of(keys: KeySet, algorithms: tuple[str, ...] = ALL) -> TokenVerifier:
    return TokenVerifier(issuer=ISSUER.url, audiences=[AUDIENCE], algorithms=algorithms, keys=keys)


def verified(issuer: Issuer, token: str) -> Token | None:
    return asyncio.run(verifier_of(keys_of(issuer)).verify(token))


@pytest.mark.parametrize("algorithm", ALL)
def test_a_sound_token_of_each_algorithm_is_believed(algorithm: str, issuer: Issuer) -> None:
    assert verified(issuer, issuer.token(algorithm)) == Token("user-7", frozenset({"chat", "search"}))


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "chat  search openid"}, {"chat", "search"}),
        ({"scope": None, "scp": "chat user.read"}, {"chat"}),
        ({"scope": None, "scp": ["search", 5, None]}, {"search"}),
        ({"scope": None, "roles": ["admin", "ingest"]}, {"admin", "ingest"}),
        ({"scope": "chat", "scp": "search", "roles": ["ingest"]}, {"chat", "search", "ingest"}),
        ({"scope": "Chat CHAT chat.read xchat"}, set()),
        ({"scope": {"chat": True}, "roles": 5}, set()),
        ({"scope": None}, set()),
        # Such as some older issuers give out: a nonce, but scopes beside it.
        ({"nonce": "n-1"}, {"chat", "search"}),
    ],
)
def test_scopes_are_the_union_of_scope_scp_and_roles(claims: dict[str, Any], scopes: set[str], issuer: Issuer) -> None:
    token = verified(issuer, issuer.token(**claims))
    assert token is not None
    assert token.scopes == scopes


@pytest.mark.parametrize("claims", [{}, {"iss": None}, {"aud": None}, {"sub": None, "client_id": "job"}])
def test_a_shared_secret_needs_neither_issuer_nor_audience(claims: dict[str, Any], issuer: Issuer) -> None:
    verifier = TokenVerifier(issuer="", audiences=[], secrets=["another-secret-that-is-being-retired", SECRET])
    assert asyncio.run(verifier.verify(issuer.token("HS256", SECRET, **claims))) is not None
    assert asyncio.run(verifier.verify(issuer.token("HS256", SECRET + "x", **claims))) is None
    assert asyncio.run(verifier.verify(issuer.token("HS256", SECRET, exp=None))) is None


def test_keys_are_found_where_the_issuer_says(issuer: Issuer) -> None:
    assert asyncio.run(verifier_of(keys_of(issuer, url="")).verify(issuer.token())) is not None
    assert issuer.fetches == [f"{issuer.url}/.well-known/openid-configuration", f"{issuer.url}/keys"]


@pytest.mark.parametrize(
    "described",
    [{"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"},
     {"issuer": ISSUER.url, "jwks_uri": "http://login.example.com/keys"}, {"issuer": ISSUER.url}, [], "no"],
)  # fmt: skip
def test_a_description_that_names_another_issuer_or_drops_tls_is_not_followed(described: Any, issuer: Issuer) -> None:
    fetched = []

    async def fetch(url: str) -> bytes:
        fetched.append(url)
        return json.dumps(described).encode()

    keys = KeySet(issuer=issuer.url, url="", algorithms=ALL, fetch=fetch)
    with pytest.raises(IssuerUnavailable):
        asyncio.run(keys.find("RS256", "rsa"))
    assert len(fetched) == 1


def test_a_flood_of_unknown_key_ids_costs_one_fetch_a_minute(issuer: Issuer) -> None:
    clock = Clock()

    async def flood() -> list[int]:
        verifier, counts = verifier_of(keys_of(issuer, clock=clock)), []
        for _ in range(3):
            flooding = [issuer.token(header={"kid": f"invented-{number}"}) for number in range(40)]
            assert await asyncio.gather(*map(verifier.verify, flooding)) == [None] * 40
            assert await verifier.verify(issuer.token()) is not None
            counts.append(len(issuer.fetches))
            clock.now_s += 61
        return counts

    assert asyncio.run(flood()) == [1, 2, 3]


def test_two_hundred_first_tokens_at_once_cost_one_fetch(issuer: Issuer) -> None:
    async def all_at_once() -> None:
        verifier = verifier_of(keys_of(issuer))
        assert None not in await asyncio.gather(*(verifier.verify(issuer.token("EdDSA")) for _ in range(200)))

    asyncio.run(all_at_once())
    assert len(issuer.fetches) == 1


def test_a_key_that_the_issuer_rotated_in_is_known_within_a_minute(issuer: Issuer) -> None:
    clock, fresh = Clock(), Issuer(url=issuer.url)

    async def rotate() -> list[bool]:
        verifier = verifier_of(keys_of(issuer, clock=clock))
        assert await verifier.verify(issuer.token()) is not None
        issuer.extra_keys = [{**fresh.key_set()["keys"][0], "kid": "rsa-2"}]
        token, known = fresh.token(header={"kid": "rsa-2"}), []
        for pause_s in (1, 60):
            clock.now_s += pause_s
            known.append(await verifier.verify(token) is not None)
        return known

    assert asyncio.run(rotate()) == [False, True]


def test_an_issuer_that_is_away_ends_no_session_and_is_asked_once_a_minute(issuer: Issuer) -> None:
    clock = Clock()

    async def outage() -> None:
        keys = keys_of(issuer, clock=clock)
        verifier = verifier_of(keys)
        assert await verifier.verify(issuer.token()) is not None
        issuer.broken = True
        for hour in range(48):
            clock.now_s += 3600
            for _ in range(5):
                assert await verifier.verify(issuer.token()) is not None, hour
                await asyncio.sleep(0)
        await keys.close()

    asyncio.run(outage())
    assert 40 < len(issuer.fetches) <= 49


def test_while_no_keys_were_ever_fetched_nothing_is_believed_and_nobody_is_called_wrong(issuer: Issuer) -> None:
    clock = Clock()
    issuer.broken = True

    async def outage() -> int:
        verifier = verifier_of(keys_of(issuer, clock=clock))
        for _ in range(20):
            with pytest.raises(IssuerUnavailable):
                await verifier.verify(issuer.token())
        clock.now_s += jwks.RETRY_EVERY_S + 1
        issuer.broken = False
        assert await verifier.verify(issuer.token()) is not None
        return len(issuer.fetches)

    assert asyncio.run(outage()) == 2


def test_a_visitor_who_leaves_does_not_end_the_fetch_of_the_others(issuer: Issuer) -> None:
    async def leave() -> Token | None:
        gate = asyncio.Event()

        async def fetch(url: str) -> bytes:
            await gate.wait()
            return await issuer.fetch(url)

        keys = KeySet(issuer=issuer.url, url="https://x.example/keys", algorithms=ALL, fetch=fetch)
        verifier = verifier_of(keys)
        first, second = (asyncio.create_task(verifier.verify(issuer.token())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await second

    assert asyncio.run(leave()) is not None


def test_keys_of_a_set_that_cannot_be_trusted_are_passed_over(issuer: Issuer) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from jwt.algorithms import RSAAlgorithm

    short = rsa.generate_private_key(65537, 1024)
    good = issuer.key_set()["keys"][0]
    issuer.extra_keys = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric", "alg": "HS256"},
        {**RSAAlgorithm.to_jwk(short.public_key(), as_dict=True), "kid": "short"},
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "other", "alg": "RS512"},
        {"kty": "RSA", "kid": "empty"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "off-curve"},
        None, "key",
    ]  # fmt: skip
    for key, kid in ((short, "short"), (issuer.rsa, "encrypts"), (issuer.rsa, "other"), (issuer.rsa, "empty")):
        assert verified(issuer, issuer.token(key=key, header={"kid": kid})) is None, kid
    assert verified(issuer, issuer.token()) is not None


def test_a_token_without_a_key_id_is_checked_only_where_there_is_no_choice(issuer: Issuer) -> None:
    assert verified(issuer, issuer.token(header={"kid": None})) is not None
    issuer.extra_keys = [{**Issuer().key_set()["keys"][0], "kid": "rsa-2"}]
    assert verified(issuer, issuer.token(header={"kid": None})) is None


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"JWT_ISSUER": "https://login.example.com"}, "JWT_AUDIENCE"),
        ({"JWT_AUDIENCE": "us"}, "JWT_ISSUER"),
        ({"JWT_JWKS_URL": "https://login.example.com/keys"}, "JWT_ISSUER"),
        ({"JWT_SECRET_KEY": SECRET, "JWT_JWKS_URL": "https://login.example.com/keys"}, "either this or the shared"),
        ({"JWT_SECRET_KEY": "short"}, "32 bytes or more"),
        ({"JWT_SECRET_KEY": f"{SECRET},short"}, "32 bytes or more"),
        ({"JWT_ALGORITHMS": "HS256"}, "out of RS256, PS256, ES256, EdDSA"),
        ({"JWT_ALGORITHMS": "none"}, "out of RS256"),
        ({"JWT_ISSUER": "https://login.microsoftonline.com/common/v2.0", "JWT_AUDIENCE": "us"}, "one tenant"),
        ({"JWT_ISSUER": "login.example.com", "JWT_AUDIENCE": "us"}, "https://"),
        ({"VISIT_PROOF": "altcha"}, "BROWSER_SESSIONS"),
        ({"BROWSER_SESSIONS": "on"}, "ALLOWED_ORIGINS"),
        ({"BROWSER_SESSIONS": "required", "ALLOWED_ORIGINS": "*"}, "ALLOWED_ORIGINS"),
        ({"BROWSER_SESSIONS": "on", "ALLOWED_ORIGINS": "https://a.example", "REDIS_URL": "redis://h"}, "_SECRET"),
        ({"BROWSER_SESSION_SECRET": "short"}, "32 bytes or more"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_faults_and_leave_the_rest_readable(
    environment: dict[str, str], fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    with pytest.raises(ConfigError, match=fault) as caught:
        Settings.from_environment(environment)
    assert SECRET not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings, faults = Settings.with_faults()
    assert faults == caught.value.faults
    assert settings.port == 8000


def test_the_packages_for_tokens_are_loaded_only_where_tokens_are_configured() -> None:
    import subprocess
    import sys

    from tests.support.waiting import REPOSITORY

    program = (
        "import sys; from rag_server import create_app; from rag.settings import Settings; create_app(Settings());"
        "print([name for name in ('jwt', 'cryptography', 'rag.access.tokens') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

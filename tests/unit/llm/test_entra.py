"""Tokens of an identity: when they are renewed, where they are sent, and what is made of what a login answers."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rag.calls import Unobserved
from rag.deadline import Deadline
from rag.errors import UpstreamError
from rag.llm.azure import AzureEmbedder
from rag.llm.client import Upstream
from rag.llm.entra import tokens
from rag.llm.entra.renewal import LONGEST_PAUSE_S, Renewal, authorised
from rag.llm.entra.tokens import NoToken, Token, fetch_token
from rag.llm.http_client import http_client
from rag.llm.resilience import Breaker, RetryBudget
from rag.llm.target import Target
from rag.ops import identity_checks
from rag.settings import Settings
from rag.types import Endpoint
from tests.support.azure import AzureEmulator
from tests.support.entra import APPLICATION, MACHINE_HEADER, EntraEmulator

URL = "https://name.openai.azure.com/openai/deployments/chat/chat/completions?api-version=2024-10-21"
HOUR_S = 3600.0


class Login:
    """Tokens of an hour on a clock of the test's own; `down` while it answers nothing."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.given = 0
        self.asked_at: list[float] = []
        self.down = False
        self.watch: Callable[[], Any] = bool

    async def fetch(self) -> Token:
        self.asked_at.append(self.now)
        self.watch()
        if self.down:
            raise NoToken("the login is down", remedy="wait")
        self.given += 1
        return Token(f"token-{self.given}", self.now + HOUR_S, self.now + 0.8 * HOUR_S)

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)


def a_target() -> Target:
    return Target(Endpoint(URL, "", "", bearer=True, identity=True), Breaker())


def renewal_of(login: Login, *targets: Target) -> Renewal:
    return Renewal(targets=targets, fetch=login.fetch, now=lambda: login.now, sleep=login.sleep)


async def until(renewal: Renewal, condition: Any) -> None:
    task = asyncio.create_task(renewal.run_forever())
    for _ in range(10_000):
        if condition():
            break
        await asyncio.sleep(0)
    task.cancel()
    assert condition()


def test_a_token_is_renewed_at_four_fifths_of_its_life() -> None:
    async def run() -> None:
        login, target = Login(), a_target()
        renewal = renewal_of(login, target)
        await renewal.renew()
        assert target.headers["authorization"] == "Bearer token-1"
        await until(renewal, lambda: login.given == 4)
        assert login.asked_at == [1000.0, 3880.0, 6760.0, 9640.0]
        assert target.headers["authorization"] == "Bearer token-4"

    asyncio.run(run())


def test_while_the_login_is_down_the_old_token_is_used_to_its_end_and_no_longer() -> None:
    async def run() -> None:
        login, target = Login(), a_target()
        renewal = renewal_of(login, target)
        await renewal.renew()
        login.down = True
        ends_at = 1000.0 + HOUR_S
        held: dict[float, bool] = {}
        login.watch = lambda: held.setdefault(login.now, "authorization" in target.headers)
        await until(renewal, lambda: login.now > ends_at + 600)
        # It is looked at in the very second of its end, and never sent after it.
        assert ends_at in held
        assert all(has == (now <= ends_at) for now, has in held.items())
        assert target.barred == "no token: the login is down"
        pauses = [late - early for early, late in itertools.pairwise(login.asked_at[1:])]
        assert pauses[:6] == [1, 2, 4, 8, 16, 30]
        assert max(pauses) == LONGEST_PAUSE_S
        login.down = False
        await until(renewal, lambda: not target.barred)
        assert target.headers["authorization"] == "Bearer token-2"

    asyncio.run(run())


def test_a_token_that_says_it_ends_at_once_is_not_fetched_in_a_circle() -> None:
    async def run() -> None:
        login, target = Login(), a_target()

        async def short() -> Token:
            login.asked_at.append(login.now)
            return Token("short", login.now + 0.01, login.now + 0.008)

        renewal = Renewal(targets=[target], fetch=short, now=lambda: login.now, sleep=login.sleep)
        await renewal.renew()
        await until(renewal, lambda: len(login.asked_at) == 5)
        assert login.asked_at == [1000.0, 1001.0, 1002.0, 1003.0, 1004.0]

    asyncio.run(run())


def test_a_token_is_in_no_repr_and_a_target_without_one_is_called_by_nobody() -> None:
    assert "secret" not in repr(Token("secret", 1.0, 1.0))

    class Heard(Unobserved):
        def __init__(self) -> None:
            self.changes: list[tuple[str, bool]] = []

        def breaker_changed(self, upstream: str, endpoint: str, *, closed: bool) -> None:
            self.changes.append((upstream, closed))

    async def run() -> None:
        async with http_client(connections=1) as client:
            endpoint, heard = Endpoint(URL, "", "", bearer=True, identity=True), Heard()
            upstream = Upstream(kind="chat", endpoints=[endpoint], client=client, budget=RetryBudget(), observer=heard)

            async def read(_: Any) -> None:
                raise AssertionError

            assert upstream.health()["status"] == "unavailable"
            with pytest.raises(UpstreamError, match=r"^chat: no token yet$"):
                await upstream.call({}, deadline=Deadline(5), read=read)
            upstream.targets[0].authorise("a")
            health = upstream.health()
            assert (health["status"], health["endpoints"][0]["token"]) == ("ok", True)
            upstream.targets[0].bar("no token: the login is down")
            # The owner's alert hangs on it.
            assert heard.changes == [("chat", True), ("chat", False)]

    asyncio.run(run())


@pytest.fixture
def entra(azure: AzureEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EntraEmulator]:
    with EntraEmulator(tmp_path, api_key=azure.api_key) as emulator:
        # The machine's identity, which needs no TLS: this process has read its certificates already.
        for name, value in emulator.app_service.items():
            monkeypatch.setenv(name, value)
        yield emulator


def machine(**more: Any) -> Settings:
    return Settings(auth="entra", **more)


def refusal(settings: Settings, **more: Any) -> NoToken:
    with pytest.raises(NoToken) as raised:
        asyncio.run(fetch_token(settings, **more))
    return raised.value


def test_a_new_token_is_fetched_each_time(entra: EntraEmulator) -> None:
    first, second = (asyncio.run(fetch_token(machine())) for _ in range(2))
    assert first.text != second.text
    assert time.time() + 0.7 * HOUR_S < first.renew_at < time.time() + 0.85 * HOUR_S < first.expires_at
    assert [request["query"]["resource"] for request in entra.requests] == ["https://cognitiveservices.azure.com"] * 2


def test_another_identity_of_the_machine_is_asked_for_by_its_id(entra: EntraEmulator) -> None:
    asyncio.run(fetch_token(machine(azure_client_id=APPLICATION)))
    assert entra.requests[0]["query"]["client_id"] == APPLICATION
    error = refusal(machine(azure_client_id="foreign"))
    assert (str(error), error.refused) == ("this machine has no such managed identity", True)
    assert error.remedy.startswith("assign the managed identity AZURE_CLIENT_ID to this machine")


def test_a_login_that_hangs_is_given_up_in_time(entra: EntraEmulator) -> None:
    entra.delay_s = 5.0
    began_at = time.monotonic()
    error = refusal(machine(), within_s=0.3)
    assert (str(error), error.refused) == ("no answer within 0.3 s", False)
    assert time.monotonic() - began_at < 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"access_token": "a\r\nX-Evil: 1", "expires_on": "9999999999"}, "what was answered is no token"),
        ({"access_token": "", "expires_on": "9999999999"}, "what was answered is no token"),
        ({"access_token": "tökén", "expires_on": "9999999999"}, "what was answered is no token"),
        ({"access_token": "sound", "expires_on": "1"}, "the token had ended before it came"),
        ({"expires_on": "9999999999"}, None),
        ({"access_token": "sound", "expires_on": "soon"}, "an answer of a wrong form (ValueError)"),
        ([], None),
        ("x" * 100_000, None),
    ],
)
def test_what_is_no_token_is_no_token(
    answer: Any, reason: str | None, entra: EntraEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"resource": "r", "token_type": "Bearer"} | answer if isinstance(answer, dict) else answer
    monkeypatch.setattr(entra, "answer", lambda *_: (200, answer))
    error = refusal(machine())
    assert len(str(error)) <= tokens.LONGEST_REASON
    assert MACHINE_HEADER not in str(error)
    assert reason is None or str(error) == reason


def test_a_federated_token_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gone"
    settings = machine(azure_tenant_id="t", azure_client_id="c", azure_federated_token_file=file)
    error = refusal(settings)
    assert (str(error), error.refused) == (f"{file}: No such file or directory", True)
    assert error.remedy == "set AZURE_FEDERATED_TOKEN_FILE to a file that this user may read"


def test_without_its_packages_an_identity_is_a_fault_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "is_installed", lambda: False)
    settings = machine(chat_urls=(URL,))
    [(state, subject, sentence, remedy)] = identity_checks.findings(settings, fetch=None, strict=False)
    assert (state, subject) == ("fault", "identity")
    assert sentence == "AZURE_OPENAI_AUTH is entra, but azure-identity is not installed"
    assert remedy.endswith("-m pip install -r " + str(identity_checks.PACKAGES))
    assert identity_checks.PACKAGES.is_file()


def test_nobody_without_an_identity_is_checked_or_loads_the_library() -> None:
    settings = Settings(chat_urls=(URL,), chat_api_keys=("k",))
    assert [*identity_checks.findings(settings, fetch=None, strict=True)] == []

    @asynccontextmanager
    async def upstream() -> AsyncIterator[Upstream]:
        async with http_client(connections=1) as client:
            endpoints = settings.chat_endpoints
            yield Upstream(kind="chat", endpoints=endpoints, client=client, budget=RetryBudget())

    async def run() -> None:
        async with upstream() as one:
            before = asyncio.all_tasks()
            async with authorised(settings, one):
                assert asyncio.all_tasks() == before
                assert one.targets[0].headers["api-key"] == "k"

    asyncio.run(run())


def test_a_fall_back_with_a_key_is_asked_while_there_is_no_token(azure: AzureEmulator) -> None:
    async def run() -> None:
        async with http_client(connections=1) as client:
            endpoints = [
                Endpoint(azure.embeddings_url, "", "", bearer=True, identity=True),
                Endpoint(f"{azure.base_url}/v1/embeddings", azure.api_key, "m", bearer=True),
            ]
            upstream = Upstream(kind="embeddings", endpoints=endpoints, client=client, budget=RetryBudget())
            await AzureEmbedder(upstream=upstream, name="m").embed(["word"], deadline=Deadline(5))
            assert upstream.health()["status"] == "ok"

    asyncio.run(run())
    assert [request["route"] for request in azure.requests()] == ["/v1/embeddings"]

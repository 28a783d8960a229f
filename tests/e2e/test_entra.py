"""Azure by identity, over real HTTP and TLS: a login and a machine on loopback give tokens, and no key is set."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.azure import AzureEmulator
from tests.support.entra import APPLICATION, SCOPE, SECRET, EntraEmulator
from tests.support.server import RagServer, build_index, run_module
from tests.support.small_site import FACTS, SITE_URL
from tests.support.waiting import free_port, wait_until

FACT = FACTS[0]
WAYS = {
    "client_secret": f"application {APPLICATION}, by its secret,",
    "workload_identity": f"workload identity {APPLICATION}",
    "app_service": "managed identity of this machine",
    "virtual_machine": "managed identity of this machine",
}


@pytest.fixture
def entra(azure: AzureEmulator, tmp_path: Path) -> Iterator[EntraEmulator]:
    with EntraEmulator(tmp_path / "entra", api_key=azure.api_key) as emulator:
        yield emulator


def settings_of(azure: AzureEmulator, entra: EntraEmulator, build: Path, way: str = "client_secret") -> dict[str, str]:
    return {
        **azure.without_keys, **getattr(entra, way), "VECTOR_DB_PATH": str(build), "RATE_LIMIT_ENABLED": "false",
        "REQUEST_TIMEOUT_SECONDS": "5",
    }  # fmt: skip


def check(settings: dict[str, str], folder: Path) -> tuple[int, str]:
    done = run_module("run_production.py", "--check", env={**settings, "PORT": str(free_port())}, cwd=folder)
    assert done.stderr == ""
    return done.returncode, done.stdout


def ask(server: RagServer) -> str:
    """`model`, or `quoted` where no model could be asked."""
    with httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client:
        answer = client.post("/chat", json={"message": FACT.question})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generated"])


def tokens_seen(azure: AzureEmulator) -> list[str]:
    """What each call to a model carried; no call may carry a key."""
    seen = [request["headers"] for request in azure.requests()]
    assert not any("api-key" in headers for headers in seen)
    return [headers.get("authorization", "") for headers in seen]


@pytest.mark.parametrize("way", WAYS)
def test_a_check_asks_both_models_by_each_kind_of_identity(
    way: str, azure: AzureEmulator, entra: EntraEmulator, site_build: Path, tmp_path: Path
) -> None:
    code, said = check(settings_of(azure, entra, site_build, way), tmp_path)
    assert code == 0, said
    assert f"✓ identity    {WAYS[way]} has got a token for 60 minutes" in said
    assert {request["kind"] for request in azure.requests()} == {"chat", "embeddings"}
    assert all(token.startswith("Bearer ") for token in tokens_seen(azure))
    login = entra.requests[0]
    scope = login["form"].get("scope") or f"{login['query']['resource']}/.default"
    assert scope == SCOPE


def test_the_indexer_embeds_by_identity(
    azure: AzureEmulator, entra: EntraEmulator, small_site: Path, tmp_path: Path
) -> None:
    env = azure.without_keys | entra.workload_identity
    done = build_index(small_site, env=env, output=tmp_path / "vector_db", extra_args=["--site-url", SITE_URL])
    assert done.returncode == 0, done.stderr
    assert azure.requests("embeddings")
    assert all(token.startswith("Bearer ") for token in tokens_seen(azure))


def test_a_server_renews_its_tokens_before_they_end(
    azure: AzureEmulator, entra: EntraEmulator, site_build: Path, tmp_path: Path
) -> None:
    entra.life_s = 3.0
    with RagServer.start(settings_of(azure, entra, site_build), tmp_path / "server", workers=2) as server:
        azure.clear()
        entra.requests.clear()

        def renewed() -> bool:
            # Asked all the time: no moment is without a token.
            assert ask(server) == "model"
            return len(entra.requests) > 4

        wait_until(renewed, 30, "tokens were renewed five times", interval_s=0.1)
        assert azure.stats()["statuses"].keys() == {"200"}
        assert len(set(tokens_seen(azure))) > 2
        assert "no new token" not in server.output


def test_an_ended_token_is_sent_nowhere_and_a_login_that_comes_back_is_noticed(
    azure: AzureEmulator, entra: EntraEmulator, site_build: Path, tmp_path: Path
) -> None:
    entra.life_s = 3.0
    with RagServer.start(settings_of(azure, entra, site_build), tmp_path / "server", workers=1) as server:
        assert ask(server) == "model"
        entra.broken = "status"
        wait_until(lambda: ask(server) == "quoted", 15, "the token ended")
        azure.clear()
        assert ask(server) == "quoted"
        assert azure.requests() == []
        with httpx.Client(base_url=server.base_url, trust_env=False) as client:
            ready = client.get("/ready").json()
        assert (ready["status"], ready["chat"]["endpoints"][0]["token"]) == ("degraded", False)
        assert "no new token for the models" in server.output
        entra.life_s, entra.broken = 60.0, ""
        wait_until(lambda: ask(server) == "model", 35, "the next token")
        assert azure.stats()["statuses"].keys() == {"200"}


def test_a_login_that_is_down_keeps_no_server_from_starting(
    azure: AzureEmulator, entra: EntraEmulator, site_build: Path, tmp_path: Path
) -> None:
    entra.broken = "silence"
    with RagServer.start(settings_of(azure, entra, site_build), tmp_path / "server", workers=1) as server:
        assert ask(server) == "quoted"
        assert azure.requests() == []
        assert f"! identity    {WAYS['client_secret']} gets no token: " in server.output
        entra.broken = ""
        wait_until(lambda: ask(server) == "model", 35, "the first token")


@pytest.mark.parametrize(
    ("more", "reason", "remedy"),
    [
        ({"AZURE_CLIENT_SECRET": "another-secret-0123456789"}, "AADSTS7000215: Invalid client secret provided",
         "set AZURE_CLIENT_SECRET to the secret's value, which is not its id"),
        ({"AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000000"}, "AADSTS700016: Application with identifier",
         "compare AZURE_CLIENT_ID and AZURE_TENANT_ID"),
        ({"AZURE_TOKEN_SCOPE": "https://other.example/.default"}, "AADSTS500011: The resource principal named",
         "set AZURE_TOKEN_SCOPE to one that this tenant knows"),
        ({"SSL_CERT_FILE": ""}, "CERTIFICATE_VERIFY_FAILED", "let this machine reach https://localhost:"),
    ],
    ids=["secret", "application", "scope", "certificate"],
)  # fmt: skip
def test_a_check_says_why_the_login_refuses_and_what_to_do(
    more: dict[str, str], reason: str, remedy: str, azure: AzureEmulator, entra: EntraEmulator, site_build: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    code, said = check(settings_of(azure, entra, site_build) | more, tmp_path)
    assert code == 1
    [fault] = re.findall(r"✗ identity .*\n.*", said)
    assert reason in fault
    assert f"→ {remedy}" in fault
    assert "Trace ID" not in said
    assert SECRET not in said
    assert more.get("AZURE_CLIENT_SECRET", SECRET) not in said
    # One sentence is enough: no model is asked without a token.
    assert azure.requests() == []


def test_a_check_names_the_role_that_an_identity_lacks(
    azure: AzureEmulator, entra: EntraEmulator, site_build: Path, tmp_path: Path
) -> None:
    azure.fail("status", status=401)
    code, said = check(settings_of(azure, entra, site_build), tmp_path)
    assert code == 1
    assert said.count("→ give this identity the role Cognitive Services OpenAI User on the resource") == 2


def test_the_indexer_says_why_there_is_no_token(
    azure: AzureEmulator, entra: EntraEmulator, small_site: Path, tmp_path: Path
) -> None:
    entra.assertion = "that of another pod"
    env = azure.without_keys | entra.workload_identity
    done = build_index(small_site, env=env, output=tmp_path / "vector_db", extra_args=["--site-url", SITE_URL])
    assert done.returncode == 1
    assert "AADSTS700213: No matching federated identity record found" in done.stderr
    assert "→ compare the subject of the federated credential" in done.stderr
    assert "Traceback" not in done.stderr

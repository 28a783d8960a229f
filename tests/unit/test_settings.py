"""Settings: what each variable accepts, and that every fault is named at once, without a secret in it."""

from dataclasses import fields
from pathlib import Path

import pytest

from rag.errors import ConfigError
from rag.settings import Settings

CHAT = "https://here.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
EMBEDDINGS = "https://here.openai.azure.com/openai/deployments/embed-3/embeddings?api-version=2024-10-21"
KEY = "key-0123456789abcdef"
COMPLETE = {
    "AZURE_OPENAI_CHAT_ENDPOINT": CHAT,
    "AZURE_OPENAI_CHAT_API_KEY": KEY,
    "AZURE_OPENAI_EMBEDDINGS_ENDPOINT": EMBEDDINGS,
    "AZURE_OPENAI_EMBEDDINGS_API_KEY": KEY,
}


def faults_of(environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment(environment)
    return caught.value.faults


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()


def test_what_is_missing_is_named_line_by_line_with_the_remedy() -> None:
    lines = Settings().missing("CHAT", "EMBEDDINGS")
    assert [line.split()[0] for line in lines] == list(COMPLETE)
    assert all(".env" in line and "DEMO=true" in line for line in lines)


def test_a_complete_environment_misses_nothing() -> None:
    assert Settings.from_environment(COMPLETE).missing("CHAT", "EMBEDDINGS") == []


def test_the_demo_needs_no_key() -> None:
    assert Settings.from_environment({"DEMO": "true"}).missing("CHAT", "EMBEDDINGS") == []


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "eighty", "a whole number from 1 to 65535"),
        ("PORT", "80.5", "a whole number from 1 to 65535"),
        ("WORKERS", "0", "a whole number from 1 to 64"),
        ("WORKERS", "-2", "a whole number from 1 to 64"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("LOG_FORMAT", "xml", "one of json, text"),
        ("AZURE_OPENAI_AUTH", "none", "one of key, entra, api-key, bearer"),
        ("AZURE_TOKEN_SCOPE", "https://cognitiveservices.azure.com", "another address that ends in /.default"),
        ("AZURE_TOKEN_SCOPE", "http://cognitiveservices.azure.com/.default", "another address that ends in /.default"),
        ("AZURE_TENANT_ID", "tenant/../other", "an id such as"),
        ("AZURE_AUTHORITY_HOST", "http://login.example.com", "the address of a login"),
        ("AZURE_AUTHORITY_HOST", "login.microsoftonline.com/tenant", "the address of a login"),
        ("DEMO", "maybe", "true or false"),
        ("RATE_LIMIT_ENABLED", "2", "true or false"),
        ("DEGRADED_ANSWERS", "ja", "true or false"),
        ("RATE_LIMIT_CHAT", "often", "limits such as 20/minute"),
        ("RATE_LIMIT_SEARCH", "20", "limits such as 20/minute"),
        ("RATE_LIMIT_HEALTH", "20/minute;", "limits such as 20/minute"),
        ("FORWARDED_ALLOW_IPS", "*", "addresses or networks"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/33", "addresses or networks"),
        ("ALLOWED_ORIGINS", "www.example.com", "origins such as https://www.example.com"),
        ("ALLOWED_ORIGINS", "https://www.example.com/page", "without a path"),
        ("ALLOWED_ORIGINS", "*,https://www.example.com", "either * alone or a list"),
        ("SITE_URL", "example.com", "an address such as https://www.example.com"),
        ("AZURE_OPENAI_CHAT_ENDPOINT", "here.openai.azure.com", "a full URL"),
        ("AZURE_OPENAI_EMBEDDINGS_ENDPOINT", "ftp://here/x", "a full URL"),
        ("MAX_CONVERSATION_HISTORY", "1", "a whole number from 2"),
        ("MAX_VECTOR_RESULTS", "21", "a whole number from 1 to 20"),
        ("MAX_MESSAGE_LENGTH", "1e3", "a whole number from 1"),
        ("SIMILARITY_THRESHOLD", "1.5", "a number from -1 to 1"),
        ("SIMILARITY_THRESHOLD", "nan", "a number from -1 to 1"),
        ("CHAT_TEMPERATURE", "warm", "a number from 0 to 2"),
        ("CHAT_TEMPERATURE", "inf", "a number from 0 to 2"),
        ("REQUEST_TIMEOUT_SECONDS", "0", "a number from 0.1 to 600"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "a collector's base address such as http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://key@collector.example", "keys belong into headers"),
        ("OTEL_RESOURCE_ATTRIBUTES", "production", "name=value"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "parentbased_always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "10%", "a number from 0 to 1"),
        ("SESSION_TIMEOUT_HOURS", "never", "a number from 0.01"),
    ],
)
def test_a_fault_names_the_variable_the_value_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    [fault] = faults_of({variable: value})
    assert fault.startswith(f"{variable}={value!r}: allowed is ")
    assert allowed in fault


def test_all_faults_are_named_at_once() -> None:
    faults = faults_of({"PORT": "x", "WORKERS": "x", "LOG_LEVEL": "x", "ALLOWED_ORIGINS": "x", "DEMO": "x"})
    assert {fault.split("=")[0] for fault in faults} == {"PORT", "WORKERS", "LOG_LEVEL", "ALLOWED_ORIGINS", "DEMO"}


def test_several_endpoints_take_one_key_for_all_or_one_for_each() -> None:
    two = f"{CHAT},{CHAT.replace('here', 'there')}"
    shared = Settings.from_environment({**COMPLETE, "AZURE_OPENAI_CHAT_ENDPOINT": two})
    own = Settings.from_environment({**COMPLETE, "AZURE_OPENAI_CHAT_ENDPOINT": two, "AZURE_OPENAI_CHAT_API_KEY": "a,b"})
    assert [endpoint.api_key for endpoint in shared.chat_endpoints] == [KEY, KEY]
    assert [endpoint.api_key for endpoint in own.chat_endpoints] == ["a", "b"]
    three = {**COMPLETE, "AZURE_OPENAI_CHAT_ENDPOINT": two, "AZURE_OPENAI_CHAT_API_KEY": "first,second,third"}
    [fault] = faults_of(three)
    assert "AZURE_OPENAI_CHAT_API_KEY: 3 values for 2 endpoints" in fault
    assert "second" not in fault


def test_the_key_goes_out_as_the_host_expects_it_unless_a_setting_says_so() -> None:
    other = {**COMPLETE, "AZURE_OPENAI_CHAT_ENDPOINT": "http://localhost:11434/v1/chat/completions"}
    assert [endpoint.bearer for endpoint in Settings.from_environment(COMPLETE).chat_endpoints] == [False]
    assert [endpoint.bearer for endpoint in Settings.from_environment(other).chat_endpoints] == [True]
    forced = Settings.from_environment({**other, "AZURE_OPENAI_AUTH": "api-key"})
    assert [endpoint.bearer for endpoint in forced.chat_endpoints] == [False]


ENTRA = {
    "AZURE_OPENAI_AUTH": "entra",
    "AZURE_OPENAI_CHAT_ENDPOINT": CHAT,
    "AZURE_OPENAI_EMBEDDINGS_ENDPOINT": EMBEDDINGS,
}


def test_with_an_identity_azure_gets_tokens_and_never_a_key() -> None:
    settings = Settings.from_environment(ENTRA)
    assert settings.missing("CHAT", "EMBEDDINGS") == []
    assert settings.needs_identity
    [chat] = Settings.from_environment({**COMPLETE, **ENTRA}).chat_endpoints
    assert (chat.identity, chat.bearer, chat.api_key) == (True, True, "")
    assert not Settings.from_environment(COMPLETE).needs_identity


def test_a_login_is_named_as_azures_own_programs_take_it() -> None:
    for written in (
        "login.microsoftonline.us",
        "https://login.microsoftonline.us/",
        "https://login.microsoftonline.us",
    ):
        settings = Settings.from_environment({"AZURE_AUTHORITY_HOST": written})
        assert settings.azure_authority_host == "https://login.microsoftonline.us"


def test_a_token_of_the_identity_goes_to_azure_alone_and_a_fall_back_elsewhere_has_its_key() -> None:
    both = {**ENTRA, "AZURE_OPENAI_CHAT_ENDPOINT": f"{CHAT},https://api.openai.com/v1"}
    assert [line.split()[0] for line in Settings.from_environment(both).missing("CHAT")] == [
        "AZURE_OPENAI_CHAT_API_KEY"
    ]
    azure, other = Settings.from_environment({**both, "AZURE_OPENAI_CHAT_API_KEY": KEY}).chat_endpoints
    assert (azure.identity, azure.api_key, other.identity, other.api_key) == (True, "", False, KEY)
    hosts = ("https://azure.com.evil.example/v1", "https://evil.example/v1?x=.azure.com", "https://evilazure.com/v1")
    for host in hosts:
        settings = Settings.from_environment({**ENTRA, "AZURE_OPENAI_CHAT_ENDPOINT": host})
        assert not settings.chat_endpoints[0].identity, host


@pytest.mark.parametrize(
    "given",
    [
        {"AZURE_CLIENT_SECRET": "s", "AZURE_TENANT_ID": "t"},
        {"AZURE_CLIENT_SECRET": "s", "AZURE_CLIENT_ID": "c"},
        {"AZURE_FEDERATED_TOKEN_FILE": "/f", "AZURE_TENANT_ID": "t"},
    ],
)
def test_an_application_is_known_by_its_tenant_and_its_id(given: dict[str, str]) -> None:
    [fault] = faults_of({**ENTRA, **given})
    assert fault == f"{next(iter(given))}: allowed is this with AZURE_TENANT_ID and AZURE_CLIENT_ID"
    # Others' programs on this machine may have these variables: without entra they are none of ours.
    Settings.from_environment({**COMPLETE, **given})


def test_the_models_name_is_the_setting_else_the_deployment() -> None:
    assert Settings.from_environment(COMPLETE).embeddings_endpoints[0].model_name == "embed-3"
    named = Settings.from_environment({**COMPLETE, "AZURE_OPENAI_EMBEDDINGS_MODEL": "text-embedding-3-large"})
    assert named.embeddings_endpoints[0].model_name == "text-embedding-3-large"


def test_secrets_are_in_no_repr() -> None:
    secrets = {
        "AZURE_OPENAI_CHAT_API_KEY": "secret-of-chat",
        "AZURE_OPENAI_EMBEDDINGS_API_KEY": "secret-of-embeddings",
        "ADMIN_API_KEY": "secret-of-admin-0123456789abcdef0",
    }
    settings = Settings.from_environment({**COMPLETE, **secrets})
    shown = f"{settings!r} {settings.chat_endpoints!r} {settings.embeddings_endpoints!r}"
    assert "gpt-4o" in shown
    assert "secret-of" not in shown
    assert set(settings.secrets) == set(secrets.values())


def test_every_secret_setting_is_among_the_secrets() -> None:
    marked = {spec.name for spec in fields(Settings) if spec.metadata["secret"]}
    settings = Settings(
        chat_api_keys=("one",), embeddings_api_keys=("two",), admin_api_key="three", redis_url="redis://:four@host",
        otel_headers=(("x-api-key", "five"),), jwt_secret_keys=("six",), browser_session_secrets=("seven",),
        escalation_webhook_secret="eight", smtp_url="smtp://mail:nine@host", database_url="postgresql://u:ten@host/d",
        azure_client_secret="eleven", vector_db_url="postgresql://u:twelve@host/d",
    )  # fmt: skip
    assert marked == {
        "chat_api_keys", "embeddings_api_keys", "admin_api_key", "redis_url", "otel_headers", "jwt_secret_keys",
        "browser_session_secrets", "api_keys", "escalation_webhook_secret", "smtp_url", "database_url",
        "azure_client_secret", "vector_db_url",
    }  # fmt: skip
    # Of the API keys only hashes are kept.
    assert set(settings.secrets) == {
        "one", "two", "three", "four", "redis://:four@host", "five", "six", "seven", "eight", "nine",
        "smtp://mail:nine@host", "ten", "postgresql://u:ten@host/d", "eleven", "twelve", "postgresql://u:twelve@host/d",
    }  # fmt: skip


def test_headers_of_a_collector_are_a_secret_and_a_fault_does_not_show_them() -> None:
    settings = Settings.from_environment({"OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=a%2Cb, x-team = docs"})
    assert settings.otel_headers == (("x-api-key", "a,b"), ("x-team", "docs"))
    [fault] = faults_of({"OTEL_EXPORTER_OTLP_HEADERS": "secret-of-collector"})
    assert fault.startswith("OTEL_EXPORTER_OTLP_HEADERS=(hidden): allowed is name=value")


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "rag-server"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=docs,team=web"}, "docs"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=docs", "OTEL_SERVICE_NAME": "chat"}, "chat"),
    ],
)
def test_the_service_is_called_as_its_own_variable_says_else_as_the_attributes_do(
    environment: dict[str, str], name: str
) -> None:
    assert Settings.from_environment(environment).otel_service_name == name


def test_the_env_file_of_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=8123\nSITE_NAME='Harbour & Sons'\nWORKERS=\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for variable in ("PORT", "SITE_NAME", "WORKERS"):
        monkeypatch.delenv(variable, raising=False)
    settings = Settings.from_environment()
    assert (settings.port, settings.site_name, settings.workers) == (8123, "Harbour & Sons", 4)


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=8123\nWORKERS=2\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "8456")
    monkeypatch.setenv("WORKERS", "")
    settings = Settings.from_environment()
    assert settings.port == 8456
    assert settings.workers == 2, "an empty variable, as Compose passes it, hides no value of the file"


def test_an_empty_value_and_blanks_around_one_do_no_harm() -> None:
    settings = Settings.from_environment({"PORT": "  8001 ", "SITE_URL": "", "MAX_CONCURRENT_SESSIONS": " "})
    assert (settings.port, settings.site_url, settings.max_concurrent_sessions) == (8001, "", None)


def test_systemds_state_directory_is_honoured_unless_ours_is_set() -> None:
    systemd = {"STATE_DIRECTORY": "/var/lib/rag-server:/var/lib/other"}
    assert Settings.from_environment(systemd).state_dir == Path("/var/lib/rag-server")
    assert Settings.from_environment({**systemd, "STATE_DIR": "/srv/state"}).state_dir == Path("/srv/state")


def test_the_demo_keeps_apart_from_the_real_index_and_state() -> None:
    demo, real = Settings.from_environment({"DEMO": "true"}), Settings()
    assert demo.vector_db_path != real.vector_db_path
    assert demo.state_dir != real.state_dir


def test_lists_lose_blanks_and_empty_parts() -> None:
    settings = Settings.from_environment(
        {"ALLOWED_ORIGINS": "https://a.example, ,http://b.example:8080,", "SUGGESTED_QUESTIONS": "How? | Why, then? |"}
    )
    assert settings.allowed_origins == ("https://a.example", "http://b.example:8080")
    assert settings.suggested_questions == ("How?", "Why, then?")


def test_a_name_that_only_looks_like_a_setting_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ALLOWED_ORIGIN=https://a.example\nPORT=8001\nMY_OWN_VARIABLE=1\n")
    assert Settings.misspelt() == {"ALLOWED_ORIGIN": "ALLOWED_ORIGINS"}


def test_the_demo_does_not_read_the_site_s_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=8001\nSITE_NAME=My site\n")
    monkeypatch.delenv("PORT", raising=False)
    monkeypatch.setenv("DEMO", "true")
    settings = Settings.from_environment()
    assert (settings.port, settings.site_name) == (8000, "RAG Server demo")


@pytest.mark.parametrize("demo", ["false", "0", "no"])
def test_a_faulty_value_hides_nothing_else_of_the_env_file_whatever_demo_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMO", demo)
    for name in ("PORT", "SITE_NAME", *COMPLETE):
        monkeypatch.delenv(name, raising=False)
    lines = {**COMPLETE, "PORT": "eighty", "SITE_NAME": "My site"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    settings, faults = Settings.with_faults()
    assert [fault.partition("=")[0] for fault in faults] == ["PORT"]
    assert (settings.port, settings.site_name, settings.missing("CHAT", "EMBEDDINGS")) == (8000, "My site", [])


def test_uploads_do_not_go_with_an_index_in_a_database() -> None:
    [fault] = faults_of({"UPLOADS": "on", "VECTOR_DB_URL": "postgresql://rag@127.0.0.1/rag"})
    assert fault == "UPLOADS: allowed is off with VECTOR_DB_URL: documents are added to an index in files"

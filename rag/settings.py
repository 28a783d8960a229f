"""Every setting: its variable, its default, what is allowed. The only reader of the process environment.

A value is read once, all faults are found together, and a fault names the variable, the value and what is allowed.
Secrets never appear in a `repr` or in a fault.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from rag import setting_types as parse
from rag.errors import ConfigError
from rag.types import Endpoint

SAMPLERS = ("always_on", "always_off", "traceidratio")
"""OpenTelemetry's; with the prefix `parentbased_` they leave a request to its caller where that traces."""
DEMO_ROOT = Path(".demo")
"""Where the demo keeps its index and its state, so that it never touches the real ones."""
DEMO_QUESTIONS = (
    "How do I index my own site?",
    "What happens when Azure is down?",
    "Which file formats can be indexed?",
)


def variable_of(fault: str) -> str:
    """The variable that a line of a `ConfigError` begins with."""
    return fault.split("=")[0].split(":")[0]


def _process_environment() -> dict[str, str]:
    demo = os.environ.get("DEMO", "").lower() in ("true", "1", "yes", "on")
    from_file = {} if demo else {name: value or "" for name, value in dotenv_values(".env").items()}
    return {**from_file, **{k: v for k, v in os.environ.items() if v or k not in from_file}}


def _setting(variable: str, parser: Callable[[str], Any], default: Any, meaning: str, secret: bool = False) -> Any:
    metadata = {"variable": variable, "parser": parser, "meaning": meaning, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, read and checked. `Settings()` holds the defaults; tests pass what they need by name."""

    chat_urls: tuple[str, ...] = _setting(
        "AZURE_OPENAI_CHAT_ENDPOINT", parse.urls, (), "full URL of the chat deployment; several, comma-separated"
    )
    chat_api_keys: tuple[str, ...] = _setting(
        "AZURE_OPENAI_CHAT_API_KEY",
        parse.listed(","),
        (),
        "its key; one for all endpoints, or one for each",
        secret=True,
    )
    chat_models: tuple[str, ...] = _setting(
        "AZURE_OPENAI_CHAT_MODEL", parse.listed(","), (), "model name, for endpoints whose URL names no deployment"
    )
    embeddings_urls: tuple[str, ...] = _setting(
        "AZURE_OPENAI_EMBEDDINGS_ENDPOINT", parse.urls, (), "full URL of the embeddings deployment; several likewise"
    )
    embeddings_api_keys: tuple[str, ...] = _setting(
        "AZURE_OPENAI_EMBEDDINGS_API_KEY", parse.listed(","), (), "its key, likewise", secret=True
    )
    embeddings_models: tuple[str, ...] = _setting(
        "AZURE_OPENAI_EMBEDDINGS_MODEL", parse.listed(","), (), "model name, likewise; the index remembers it"
    )
    auth: str = _setting(
        "AZURE_OPENAI_AUTH",
        parse.choice("auto", "api-key", "bearer"),
        "auto",
        "header that carries the key; auto: by URL",
    )
    demo: bool = _setting("DEMO", parse.flag, False, "true: the embedded models, no key and no network")

    host: str = _setting("HOST", str, "0.0.0.0", "address to listen on")  # noqa: S104
    port: int = _setting("PORT", parse.number(int, 1, 65535), 8000, "port to listen on")
    workers: int = _setting("WORKERS", parse.number(int, 1, 64), 4, "worker processes")
    log_level: str = _setting(
        "LOG_LEVEL", parse.choice("debug", "info", "warning", "error", "critical"), "info", "what is logged"
    )
    log_format: str = _setting("LOG_FORMAT", parse.choice("json", "text"), "json", "json for machines, text for people")
    log_file: Path | None = _setting("LOG_FILE", Path, None, "a file for the log, beside the standard output")
    log_max_size_mb: float = _setting(
        "LOG_MAX_SIZE_MB", parse.number(float, 0.01, 100_000), 100.0, "megabytes after which a new LOG_FILE is begun"
    )
    log_backup_count: int = _setting("LOG_BACKUP_COUNT", parse.number(int, 1, 1000), 10, "full log files that are kept")
    otel_endpoint: str = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT", parse.collector, "", "an OpenTelemetry collector that gets traces of requests"
    )
    otel_headers: tuple[tuple[str, str], ...] = _setting(
        "OTEL_EXPORTER_OTLP_HEADERS", parse.pairs, (), "headers for it, such as its key", secret=True
    )
    otel_service_name: str = _setting("OTEL_SERVICE_NAME", str, "rag-server", "what traces call this server")
    otel_resource_attributes: tuple[tuple[str, str], ...] = _setting(
        "OTEL_RESOURCE_ATTRIBUTES", parse.pairs, (), "what else every trace says of it"
    )
    otel_traces_sampler: str = _setting(
        "OTEL_TRACES_SAMPLER",
        parse.choice(*(f"{prefix}{root}" for prefix in ("", "parentbased_") for root in SAMPLERS)),
        "parentbased_always_on",
        "which requests are traced",
    )
    otel_traces_ratio: float = _setting(
        "OTEL_TRACES_SAMPLER_ARG", parse.number(float, 0, 1), 1.0, "part of the requests, for the traceidratio samplers"
    )
    allowed_origins: tuple[str, ...] = _setting(
        "ALLOWED_ORIGINS", parse.origins, (), "origins of the pages that may call the API, comma-separated"
    )
    forwarded_allow_ips: str = _setting(
        "FORWARDED_ALLOW_IPS", parse.proxies, "127.0.0.1", "proxies whose X-Forwarded-For is believed"
    )
    admin_api_key: str = _setting(
        "ADMIN_API_KEY", str, "", "opens the admin routes; without it they answer 404", secret=True
    )

    vector_db_path: Path = _setting("VECTOR_DB_PATH", Path, Path("vector_db"), "folder of the index")
    state_dir: Path = _setting("STATE_DIR", Path, Path("state"), "folder of conversations and rate limits")
    redis_url: str = _setting(
        "REDIS_URL", parse.redis_url, "", "keeps both for several servers, in place of STATE_DIR", secret=True
    )

    max_conversation_history: int = _setting(
        "MAX_CONVERSATION_HISTORY", parse.number(int, 2, 1000), 20, "messages kept in a conversation"
    )
    session_timeout_hours: float = _setting(
        "SESSION_TIMEOUT_HOURS", parse.number(float, 0.01, 24 * 365), 24.0, "hours until an idle conversation is gone"
    )
    cleanup_interval_minutes: float = _setting(
        "CLEANUP_INTERVAL_MINUTES", parse.number(float, 0.01, 24 * 60), 60.0, "minutes between two prunings"
    )
    max_concurrent_sessions: int | None = _setting(
        "MAX_CONCURRENT_SESSIONS",
        parse.number(int, 1, 10**9),
        None,
        "conversations kept; beyond it the idlest go first",
    )

    rate_limit_enabled: bool = _setting("RATE_LIMIT_ENABLED", parse.flag, True, "whether visitors are limited")
    rate_limit_chat: str = _setting(
        "RATE_LIMIT_CHAT", parse.rate_limit, "20/minute", "chats of one address; several: a;b"
    )
    rate_limit_search: str = _setting("RATE_LIMIT_SEARCH", parse.rate_limit, "30/minute", "searches of one address")
    rate_limit_health: str = _setting(
        "RATE_LIMIT_HEALTH", parse.rate_limit, "60/minute", "health checks of one address"
    )

    site_name: str = _setting("SITE_NAME", str, "RAG Server", "the site's name, as visitors know it")
    site_url: str = _setting("SITE_URL", parse.site_url, "", "the site's address; --site-url of the indexer wins")
    system_prompt_file: Path | None = _setting(
        "SYSTEM_PROMPT_FILE", Path, None, "a text file with instructions for the model, in place of ours"
    )
    suggested_questions: tuple[str, ...] = _setting(
        "SUGGESTED_QUESTIONS", parse.listed("|"), (), "questions offered to visitors, separated by |"
    )

    max_vector_results: int = _setting(
        "MAX_VECTOR_RESULTS", parse.number(int, 1, 20), 5, "passages in the prompt, at most"
    )
    similarity_threshold: float | None = _setting(
        "SIMILARITY_THRESHOLD",
        parse.number(float, -1, 1),
        None,
        "cosine similarity below which nothing fits the question",
    )
    query_rewrite: str = _setting(
        "QUERY_REWRITE", parse.choice("off", "model"), "off", "model: the chat model words what follow-ups search for"
    )
    chat_temperature: float = _setting("CHAT_TEMPERATURE", parse.number(float, 0, 2), 0.1, "sampling temperature")
    chat_max_tokens: int = _setting(
        "CHAT_MAX_TOKENS", parse.number(int, 1, 128_000), 1000, "tokens of an answer, at most"
    )
    request_timeout_s: float = _setting(
        "REQUEST_TIMEOUT_SECONDS",
        parse.number(float, 0.1, 600),
        25.0,
        "seconds for an answer, or a stream's first words",
    )
    degraded_answers: bool = _setting(
        "DEGRADED_ANSWERS", parse.flag, True, "quote passages when the model is down; false: answer 503 or 504"
    )
    max_message_length: int = _setting(
        "MAX_MESSAGE_LENGTH", parse.number(int, 1, 60_000), 4000, "characters of a question, at most"
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the given mapping, or else `.env` below the process environment.

        An empty value counts as absent, as `.env` templates leave them. With `DEMO=true` in the process environment
        `.env` is not read: the demo is nobody's site. Raises `ConfigError` with one line a fault.
        """
        if environment is None:
            environment = _process_environment()
        values: dict[str, Any] = {}
        faults: list[str] = []
        for spec in fields(cls):
            variable = spec.metadata["variable"]
            raw = environment.get(variable, "").strip()
            if not raw:
                continue
            try:
                values[spec.name] = spec.metadata["parser"](raw)
            except ValueError as error:
                shown = "(hidden)" if spec.metadata["secret"] else repr(raw)
                faults.append(f"{variable}={shown}: allowed is {error}")
        if "state_dir" not in values and environment.get("STATE_DIRECTORY"):
            values["state_dir"] = Path(environment["STATE_DIRECTORY"].split(":")[0])
        if values.get("demo"):
            values.setdefault("vector_db_path", DEMO_ROOT / "vector_db")
            values.setdefault("state_dir", DEMO_ROOT / "state")
            values.setdefault("site_name", "RAG Server demo")
            values.setdefault("suggested_questions", DEMO_QUESTIONS)
        # It has a variable of its own, and may stand among the others.
        named = dict(values.get("otel_resource_attributes", ())).get("service.name", "rag-server")
        settings = cls(**{"otel_service_name": named, **values})
        faults += settings._endpoint_faults("CHAT") + settings._endpoint_faults("EMBEDDINGS")
        if faults:
            raise ConfigError(faults)
        return settings

    @classmethod
    def with_faults(cls) -> "tuple[Settings, list[str]]":
        """The settings of the process and what is wrong with them. A faulty value counts as absent, so that all else
        can be looked at too.
        """
        try:
            return cls.from_environment(), []
        except ConfigError as error:
            faulty = {variable_of(line) for line in error.faults}
            sound = {name: value for name, value in _process_environment().items() if name not in faulty}
            return cls.from_environment(sound), error.faults

    @classmethod
    def misspelt(cls) -> dict[str, str]:
        """Names in `.env` that are no setting but look like one, each with the setting that may be meant."""
        known = [spec.metadata["variable"] for spec in fields(cls)]
        close = {name: get_close_matches(name, known, n=1, cutoff=0.85) for name in dotenv_values(".env")}
        return {name: found[0] for name, found in close.items() if found and name not in known}

    @property
    def chat_endpoints(self) -> tuple[Endpoint, ...]:
        """Where answers come from, in the order given."""
        return self._endpoints(self.chat_urls, self.chat_api_keys, self.chat_models)

    @property
    def embeddings_endpoints(self) -> tuple[Endpoint, ...]:
        """Where vectors come from, in the order given."""
        return self._endpoints(self.embeddings_urls, self.embeddings_api_keys, self.embeddings_models)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every value that must never leave the process."""
        passwords = parse.passwords(self.redis_url)
        others = (self.admin_api_key, self.redis_url, *passwords, *(value for _, value in self.otel_headers))
        return (*self.chat_api_keys, *self.embeddings_api_keys, *filter(None, others))

    def missing(self, *kinds: str) -> list[str]:
        """What has to be set before models of these kinds (`CHAT`, `EMBEDDINGS`) can be called; a line each."""
        if self.demo:
            return []
        lines = []
        for kind in kinds:
            for part, shown in (("urls", "ENDPOINT"), ("api_keys", "API_KEY")):
                if not getattr(self, f"{kind.lower()}_{part}"):
                    remedy = "put it into .env, or set DEMO=true to try without a key"
                    lines.append(f"AZURE_OPENAI_{kind}_{shown} is not set: {remedy}")
        return lines

    def _endpoints(self, urls: tuple[str, ...], keys: tuple[str, ...], models: tuple[str, ...]) -> tuple[Endpoint, ...]:
        def one_of(values: tuple[str, ...], place: int) -> str:
            return (values[0] if len(values) == 1 else values[place]) if values else ""

        return tuple(
            Endpoint(url, one_of(keys, place), one_of(models, place), self._bearer(url))
            for place, url in enumerate(urls)
        )

    def _bearer(self, url: str) -> bool:
        if self.auth != "auto":
            return self.auth == "bearer"
        host, path = urlsplit(url).hostname or "", urlsplit(url).path
        azure = host.endswith((".azure.com", ".azure.us", ".azure.cn")) or path.startswith("/openai/")
        return not azure

    def _endpoint_faults(self, kind: str) -> list[str]:
        urls = getattr(self, f"{kind.lower()}_urls")
        faults = []
        for part, shown in (("api_keys", "API_KEY"), ("models", "MODEL")):
            count = len(getattr(self, f"{kind.lower()}_{part}"))
            if urls and count not in (0, 1, len(urls)):
                allowed = "allowed is one for all, or one for each"
                faults.append(f"AZURE_OPENAI_{kind}_{shown}: {count} values for {len(urls)} endpoints; {allowed}")
        return faults

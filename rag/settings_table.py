"""Every setting: its variable, how its text becomes a value, its default, and what it means.

A setting is one entry here, one line in `.env.example` and one in `docs/configuration.md`. `settings` reads them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag import model_addresses
from rag import setting_parsers as parse
from rag.api_keys import VISITORS_SCOPES, ApiKey, parsed_anonymous_scopes, parsed_keys
from rag.types import Budget

SAMPLERS = ("always_on", "always_off", "traceidratio")
"""OpenTelemetry's; with the prefix `parentbased_` they leave a request to its caller where that traces."""


def setting(variable: str, parser: Callable[[str], Any], default: Any, meaning: str, *, secret: bool = False) -> Any:
    """A field of the table. `parser` raises `ValueError` with what is allowed."""
    metadata = {"variable": variable, "parser": parser, "meaning": meaning, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


# fmt: off
@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsTable:
    """The values, as the product uses them."""

    # Models
    chat_urls: tuple[str, ...] = setting("AZURE_OPENAI_CHAT_ENDPOINT", model_addresses.urls, (),
        "full URL of the chat deployment; several, comma-separated")
    chat_api_keys: tuple[str, ...] = setting("AZURE_OPENAI_CHAT_API_KEY", parse.listed(","), (),
        "its key; one for all endpoints, or one for each", secret=True)
    chat_models: tuple[str, ...] = setting("AZURE_OPENAI_CHAT_MODEL", parse.listed(","), (),
        "model name, for endpoints whose URL names no deployment")
    embeddings_urls: tuple[str, ...] = setting("AZURE_OPENAI_EMBEDDINGS_ENDPOINT", model_addresses.urls, (),
        "full URL of the embeddings deployment; several likewise")
    embeddings_api_keys: tuple[str, ...] = setting("AZURE_OPENAI_EMBEDDINGS_API_KEY", parse.listed(","), (),
        "its key, likewise", secret=True)
    embeddings_models: tuple[str, ...] = setting("AZURE_OPENAI_EMBEDDINGS_MODEL", parse.listed(","), (),
        "model name, likewise; the index remembers it")
    embeddings: str = setting("EMBEDDINGS", parse.choice("azure", "local"), "azure",
        "local: a model inside the server, of requirements-local.lock, in place of an embeddings endpoint")
    auth: str = setting("AZURE_OPENAI_AUTH", parse.choice("key", "entra", "api-key", "bearer", "auto"), "key",
        "key: the header by the URL; api-key or bearer: this header; entra: tokens of this server's identity")
    azure_token_scope: str = setting("AZURE_TOKEN_SCOPE", model_addresses.token_scope,
        "https://cognitiveservices.azure.com/.default", "what those tokens are for")
    azure_tenant_id: str = setting("AZURE_TENANT_ID", model_addresses.azure_name, "", "the tenant of an application")
    azure_client_id: str = setting("AZURE_CLIENT_ID", model_addresses.azure_name, "",
        "the application, or a managed identity that is not the machine's own")
    azure_client_secret: str = setting("AZURE_CLIENT_SECRET", str, "", "the application's secret", secret=True)
    azure_federated_token_file: Path | None = setting("AZURE_FEDERATED_TOKEN_FILE", Path, None,
        "a workload identity's own token, which Kubernetes writes")
    azure_authority_host: str = setting("AZURE_AUTHORITY_HOST", model_addresses.authority, "",
        "the login, where it is not https://login.microsoftonline.com")
    demo: bool = setting("DEMO", parse.flag, False, "true: the embedded models, no key and no network")

    # Serving and logs
    host: str = setting("HOST", str, "0.0.0.0", "address to listen on")  # noqa: S104
    port: int = setting("PORT", parse.number(int, 1, 65535), 8000, "port to listen on")
    workers: int = setting("WORKERS", parse.number(int, 1, 64), 4, "worker processes")
    log_level: str = setting("LOG_LEVEL", parse.choice("debug", "info", "warning", "error", "critical"), "info",
        "what is logged")
    log_format: str = setting("LOG_FORMAT", parse.choice("json", "text"), "json", "json for machines, text for people")
    log_file: Path | None = setting("LOG_FILE", Path, None, "a file for the log, beside the standard output")
    log_max_size_mb: float = setting("LOG_MAX_SIZE_MB", parse.number(float, 0.01, 100_000), 100.0,
        "megabytes after which a new LOG_FILE is begun")
    log_backup_count: int = setting("LOG_BACKUP_COUNT", parse.number(int, 1, 1000), 10, "full log files that are kept")

    # Traces
    otel_endpoint: str = setting("OTEL_EXPORTER_OTLP_ENDPOINT", parse.collector, "",
        "an OpenTelemetry collector that gets traces of requests")
    otel_headers: tuple[tuple[str, str], ...] = setting("OTEL_EXPORTER_OTLP_HEADERS", parse.pairs, (),
        "headers for it, such as its key", secret=True)
    otel_service_name: str = setting("OTEL_SERVICE_NAME", str, "rag-server", "what traces call this server")
    otel_resource_attributes: tuple[tuple[str, str], ...] = setting("OTEL_RESOURCE_ATTRIBUTES", parse.pairs, (),
        "what else every trace says of it")
    otel_traces_sampler: str = setting("OTEL_TRACES_SAMPLER",
        parse.choice(*(f"{prefix}{root}" for prefix in ("", "parentbased_") for root in SAMPLERS)),
        "parentbased_always_on", "which requests are traced")
    otel_traces_ratio: float = setting("OTEL_TRACES_SAMPLER_ARG", parse.number(float, 0, 1), 1.0,
        "part of the requests, for the traceidratio samplers")

    # Who is believed and let in
    allowed_origins: tuple[str, ...] = setting("ALLOWED_ORIGINS", parse.origins, (),
        "origins of the pages that may call the API, comma-separated")
    forwarded_allow_ips: str = setting("FORWARDED_ALLOW_IPS", parse.proxies, "127.0.0.1",
        "proxies whose X-Forwarded-For is believed")
    anonymous_scopes: frozenset[str] = setting("ANONYMOUS_SCOPES", parsed_anonymous_scopes,
        VISITORS_SCOPES, "what callers without a credential may do: chat,search, or none")
    admin_api_key: str = setting("ADMIN_API_KEY", parse.secret_key, "",
        "a key with the scope admin; while nobody has it the admin routes answer 404", secret=True)
    api_keys: tuple[ApiKey, ...] = setting("API_KEYS", parsed_keys, (),
        "keys of callers: plain, or NAME:sha256=HEX, each with ;scopes=… and ;expires=…", secret=True)
    api_keys_file: Path | None = setting("API_KEYS_FILE", Path, None,
        "file that python -m rag.keys writes; default: keys.jsonl in STATE_DIR")
    jwt_issuer: str = setting("JWT_ISSUER", parse.issuer, "", "whose access tokens are believed: their iss, exactly")
    jwt_audiences: tuple[str, ...] = setting("JWT_AUDIENCE", parse.listed(","), (),
        "the aud that tokens for this server have; several, comma-separated")
    jwt_jwks_url: str = setting("JWT_JWKS_URL", parse.web_address, "",
        "where the issuer's keys are; default: where its OpenID configuration says")
    jwt_algorithms: tuple[str, ...] = setting("JWT_ALGORITHMS", parse.some_of("RS256", "PS256", "ES256", "EdDSA"),
        ("RS256",), "how its tokens are signed")
    jwt_secret_keys: tuple[str, ...] = setting("JWT_SECRET_KEY", parse.secrets, (),
        "a secret shared with the issuer, for HS256, in place of keys; several, comma-separated", secret=True)
    browser_sessions: str = setting("BROWSER_SESSIONS", parse.choice("off", "on", "required"), "off",
        "on: pages get a token for visitors; required: nobody asks without a credential")
    browser_session_secrets: tuple[str, ...] = setting("BROWSER_SESSION_SECRET", parse.secrets, (),
        "signs those tokens; several: the first signs, all verify; default: one in STATE_DIR", secret=True)
    visit_proof: str = setting("VISIT_PROOF", parse.choice("off", "altcha"), "off",
        "altcha: a proof of work for each token")

    # Where things are kept
    vector_db_path: Path = setting("VECTOR_DB_PATH", Path, Path("vector_db"), "folder of the index")
    vector_db_url: str = setting("VECTOR_DB_URL", parse.database_url, "",
        "a PostgreSQL with pgvector that keeps the index in its place", secret=True)
    state_dir: Path = setting("STATE_DIR", Path, Path("state"), "folder of conversations and rate limits")
    redis_url: str = setting("REDIS_URL", parse.redis_url, "", "keeps both for several servers, in place of STATE_DIR",
        secret=True)
    database_url: str = setting("DATABASE_URL", parse.database_url, "",
        "a PostgreSQL that keeps conversations, limits, feedback and spending for several servers", secret=True)
    database_pool_size: int = setting("DATABASE_POOL_SIZE", parse.number(int, 1, 100), 5,
        "its connections of each worker, beside one for the limits")

    # Uploads
    uploads: str = setting("UPLOADS", parse.choice("off", "on"), "off",
        "on: callers with the scope ingest add documents while the server runs")
    max_file_size: int = setting("MAX_FILE_SIZE", parse.file_size, 10_000_000,
        "the largest file that is taken: 500kB, 10MB")
    max_files_per_request: int = setting("MAX_FILES_PER_REQUEST", parse.number(int, 1, 100), 5,
        "files of one request, at most")
    allowed_file_types: tuple[str, ...] = setting("ALLOWED_FILE_TYPES", parse.some_of(*parse.UPLOADED_TYPES),
        ("pdf", "docx", "txt", "md", "csv", "html"), "types of files that are taken, comma-separated")
    keep_uploads: bool = setting("KEEP_UPLOADS", parse.flag, True,
        "keep the original files, in STATE_DIR and in backups")

    upload_scan: str = setting("UPLOAD_SCAN", parse.scanner_address, "",
        "a ClamAV that looks at each file first: clamd://127.0.0.1:3310, or clamd:///PATH of its socket")

    # Conversations
    max_conversation_history: int = setting("MAX_CONVERSATION_HISTORY", parse.number(int, 2, 1000), 20,
        "messages kept in a conversation")
    session_timeout_hours: float = setting("SESSION_TIMEOUT_HOURS", parse.number(float, 0.01, 24 * 365), 24.0,
        "hours until an idle conversation is gone")
    cleanup_interval_minutes: float = setting("CLEANUP_INTERVAL_MINUTES", parse.number(float, 0.01, 24 * 60), 60.0,
        "minutes between two prunings")
    max_concurrent_sessions: int | None = setting("MAX_CONCURRENT_SESSIONS", parse.number(int, 1, 10**9), None,
        "conversations kept; beyond it the idlest go first")

    max_conversations_mb: float = setting("MAX_CONVERSATIONS_MB", parse.number(float, 0.01, 10**6), 1024.0,
        "megabytes of conversations kept; beyond it the idlest go first")

    # Limits
    rate_limit_enabled: bool = setting("RATE_LIMIT_ENABLED", parse.flag, True, "whether visitors are limited")
    rate_limit_chat: str = setting("RATE_LIMIT_CHAT", parse.rate_limit, "20/minute;300/day",
        "chats of one address; several: a;b")
    rate_limit_search: str = setting("RATE_LIMIT_SEARCH", parse.rate_limit, "30/minute", "searches of one address")
    rate_limit_health: str = setting("RATE_LIMIT_HEALTH", parse.rate_limit, "60/minute", "health checks of one address")

    # The cap
    budget_site: Budget | None = setting("BUDGET_SITE", parse.budget, None, "the most that a day may cost, in all")
    budget_visitor: Budget | None = setting("BUDGET_VISITOR", parse.budget, None,
        "the same for one address without a key")
    budget_key: Budget | None = setting("BUDGET_KEY", parse.budget, None, "the same for one key, or subject of tokens")
    budget_at_cap: str = setting("BUDGET_AT_CAP", parse.choice("quote", "refuse"), "quote",
        "what a visitor gets then: the best passages quoted, or 429")
    price_input: float | None = setting("PRICE_INPUT", parse.number(float, 0, 10_000), None,
        "price of a million tokens that the chat model reads")
    price_output: float | None = setting("PRICE_OUTPUT", parse.number(float, 0, 10_000), None,
        "price of a million tokens that it writes")
    price_embedding: float = setting("PRICE_EMBEDDING", parse.number(float, 0, 10_000), 0.0,
        "price of a million tokens that are embedded")

    # What the owner sees
    question_log: str = setting("QUESTION_LOG", parse.choice("off", "gaps", "all"), "gaps",
        "questions that are kept for the owner: off, gaps (those not answered well) or all")
    question_log_days: int = setting("QUESTION_LOG_DAYS", parse.number(int, 1, 3650), 30, "days that they are kept")

    weekly_summary: bool = setting("WEEKLY_SUMMARY", parse.flag, False,
        "whether each week is summed up in a message, on the way of visitors' messages")

    # A way to a person
    escalation_url: str = setting("ESCALATION_URL", parse.contact, "",
        "a page or mailto: address that the chat leads to where a person can help better")
    escalation_webhook_url: str = setting("ESCALATION_WEBHOOK_URL", parse.web_address, "",
        "gets visitors' messages as signed webhooks")
    escalation_webhook_secret: str = setting("ESCALATION_WEBHOOK_SECRET", parse.webhook_secret, "",
        "signs them: whsec_ and base64", secret=True)
    escalation_email: str = setting("ESCALATION_EMAIL", parse.mail_address, "", "gets visitors' messages by mail")
    smtp_url: str = setting("SMTP_URL", parse.smtp_url, "", "the mail server that sends them", secret=True)
    escalation_classifier: str = setting("ESCALATION_CLASSIFIER", parse.choice("rules", "model"), "rules",
        "who tells when a person could help better: rules, or also the chat model in the answer's own call")
    escalation_allow_private: bool = setting("ESCALATION_ALLOW_PRIVATE", parse.flag, False,
        "whether the webhook may be on loopback or a private network")

    # The site's voice
    site_name: str = setting("SITE_NAME", str, "RAG Server", "the site's name, as visitors know it")
    site_url: str = setting("SITE_URL", parse.site_url, "", "the site's address; --site-url of the indexer wins")
    system_prompt_file: Path | None = setting("SYSTEM_PROMPT_FILE", Path, None,
        "a text file with instructions for the model, in place of ours")
    suggested_questions: tuple[str, ...] = setting("SUGGESTED_QUESTIONS", parse.listed("|"), (),
        "questions offered to visitors, separated by |")
    ai_notice: str = setting("AI_NOTICE", parse.notice, "on",
        "what the chat says of the AI that answers: on (our words), off, or your words")
    texts_file: Path | None = setting("TEXTS_FILE", Path, None,
        "a JSON file with sentences of your own for the chat, by language and code")
    privacy_url: str = setting("PRIVACY_URL", parse.web_address, "", "your privacy statement, linked in the chat")

    # Answers
    max_vector_results: int = setting("MAX_VECTOR_RESULTS", parse.number(int, 1, 20), 5,
        "passages in the prompt, at most")
    similarity_threshold: float | None = setting("SIMILARITY_THRESHOLD", parse.number(float, -1, 1), None,
        "cosine similarity below which nothing fits the question")
    query_rewrite: str = setting("QUERY_REWRITE", parse.choice("off", "model"), "off",
        "model: the chat model words what follow-ups search for")
    chat_temperature: float = setting("CHAT_TEMPERATURE", parse.number(float, 0, 2), 0.1, "sampling temperature")
    chat_max_tokens: int = setting("CHAT_MAX_TOKENS", parse.number(int, 1, 128_000), 1000,
        "tokens of an answer, at most")
    request_timeout_s: float = setting("REQUEST_TIMEOUT_SECONDS", parse.number(float, 0.1, 600), 25.0,
        "seconds for an answer, or a stream's first words")
    degraded_answers: bool = setting("DEGRADED_ANSWERS", parse.flag, True,
        "quote passages when the model is down; false: answer 503 or 504")
    enable_caching: bool = setting("ENABLE_CACHING", parse.flag, True,
        "keep the answer to a question that is asked again, word for word")
    cache_ttl_s: float = setting("CACHE_TTL", parse.number(float, 1, 30 * 86_400), 3600.0, "seconds that it is kept")
    cache_max_mb: float = setting("CACHE_MAX_MB", parse.number(float, 0.01, 100_000), 64.0,
        "megabytes of answers that are kept")
    max_message_length: int = setting("MAX_MESSAGE_LENGTH", parse.number(int, 1, 60_000), 4000,
        "characters of a question, at most")
# fmt: on

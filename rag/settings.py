"""Reads the settings of `settings_table`. The only reader of the process environment.

A value is read once, all faults are found together, and a fault names the variable, the value and what is allowed.
Secrets never appear in a `repr` or in a fault.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from rag import model_addresses
from rag import setting_parsers as parse
from rag.errors import ConfigError
from rag.settings_table import SettingsTable
from rag.types import Endpoint

LOCAL_MODEL = "universal-sentence-encoder-multilingual-3"
"""What an index says it was made with where `EMBEDDINGS` is `local`."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(SettingsTable):
    """All settings, read and checked. `Settings()` holds the defaults; tests pass what they need by name."""

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
        faults += settings._access_faults() + settings._budget_faults() + settings._escalation_faults()
        faults += settings._upload_faults()
        if faults:
            raise ConfigError(faults)
        return settings

    @classmethod
    def with_faults(cls) -> "tuple[Settings, list[str]]":
        """The settings of the process and what is wrong with them. A faulty value counts as absent, so that all else
        can be looked at too.
        """
        environment = _process_environment()
        faults: list[str] = []
        while True:
            try:
                return cls.from_environment(environment), faults
            except ConfigError as error:
                # What lacks one that was faulty is no fault of its own.
                faults = faults or error.faults
                faulty = {variable_of(line) for line in error.faults}
                environment = {name: value for name, value in environment.items() if name not in faulty}

    @classmethod
    def misspelt(cls) -> dict[str, str]:
        """Names in `.env` that are no setting but look like one, each with the setting that may be meant."""
        known = [spec.metadata["variable"] for spec in fields(cls)]
        close = {name: get_close_matches(name, known, n=1, cutoff=0.85) for name in dotenv_values(".env")}
        return {name: found[0] for name, found in close.items() if found and name not in known}

    @property
    def chat_endpoints(self) -> tuple[Endpoint, ...]:
        """Where answers come from, in the order given."""
        return self._endpoints("CHAT", self.chat_urls, self.chat_api_keys, self.chat_models)

    @property
    def embeddings_endpoints(self) -> tuple[Endpoint, ...]:
        """Where vectors come from, in the order given; nowhere outside with the local model."""
        if self.embeddings == "local":
            return ()
        return self._endpoints("EMBEDDINGS", self.embeddings_urls, self.embeddings_api_keys, self.embeddings_models)

    @property
    def embedding_model(self) -> str | None:
        """The name of the model that an index must be made with; None where nothing says so."""
        if self.embeddings == "local":
            return LOCAL_MODEL
        return None if self.demo or not self.embeddings_urls else self.embeddings_endpoints[0].model_name

    @property
    def keys_file(self) -> Path:
        """Where `python -m rag.keys` keeps the hashes of keys."""
        return self.api_keys_file or self.state_dir / "keys.jsonl"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every value that must never leave the process."""
        urls = (self.redis_url, self.database_url, self.vector_db_url)
        passwords = [password for url in urls for password in parse.passwords(url)]
        signing = (*self.jwt_secret_keys, *self.browser_session_secrets)
        mail = (self.escalation_webhook_secret, self.smtp_url, *parse.passwords(self.smtp_url))
        others = (
            self.admin_api_key,
            self.azure_client_secret,
            *urls,
            *passwords,
            *mail,
            *signing,
            *(value for _, value in self.otel_headers),
        )
        return (*self.chat_api_keys, *self.embeddings_api_keys, *filter(None, others))

    @property
    def needs_identity(self) -> bool:
        """Whether tokens of this server's identity are sent to a model."""
        return any(one.identity for one in (*self.chat_endpoints, *self.embeddings_endpoints))

    def missing(self, *kinds: str) -> list[str]:
        """What has to be set before models of these kinds (`CHAT`, `EMBEDDINGS`) can be called; a line each."""
        if self.demo:
            return []
        lines = []
        for kind in kinds:
            if kind == "EMBEDDINGS" and self.embeddings == "local":
                continue
            urls = getattr(self, f"{kind.lower()}_urls")
            # Where all of them take tokens nobody needs a key.
            needs_keys = not urls or not all(self._takes_tokens(url) for url in urls)
            for part, shown in (("urls", "ENDPOINT"), *([("api_keys", "API_KEY")] if needs_keys else [])):
                if not getattr(self, f"{kind.lower()}_{part}"):
                    remedy = "put it into .env, or set DEMO=true to try without a key"
                    lines.append(f"AZURE_OPENAI_{kind}_{shown} is not set: {remedy}")
        return lines

    def _endpoints(
        self, kind: model_addresses.Kind, urls: tuple[str, ...], keys: tuple[str, ...], models: tuple[str, ...]
    ) -> tuple[Endpoint, ...]:
        def one_of(values: tuple[str, ...], place: int) -> str:
            return (values[0] if len(values) == 1 else values[place]) if values else ""

        def endpoint(place: int, url: str) -> Endpoint:
            address, model = model_addresses.completed(url, kind), one_of(models, place)
            if self._takes_tokens(url):
                return Endpoint(address, "", model, bearer=True, identity=True)
            return Endpoint(address, one_of(keys, place), model, self._bearer(url))

        return tuple(endpoint(place, url) for place, url in enumerate(urls))

    def _takes_tokens(self, url: str) -> bool:
        # A token of this identity is nobody else's business: a fall-back outside of Azure has a key.
        return self.auth == "entra" and model_addresses.is_azure(url)

    def _bearer(self, url: str) -> bool:
        if self.auth in ("api-key", "bearer"):
            return self.auth == "bearer"
        return not model_addresses.is_azure(url)

    def _endpoint_faults(self, kind: model_addresses.Kind) -> list[str]:
        urls = getattr(self, f"{kind.lower()}_urls")
        faults = []
        for url in urls:
            try:
                model_addresses.completed(url, kind)
            except ValueError as error:
                faults.append(f"AZURE_OPENAI_{kind}_ENDPOINT={url!r}: allowed is {error}")
        for part, shown in (("api_keys", "API_KEY"), ("models", "MODEL")):
            count = len(getattr(self, f"{kind.lower()}_{part}"))
            if urls and count not in (0, 1, len(urls)):
                allowed = "allowed is one for all, or one for each"
                faults.append(f"AZURE_OPENAI_{kind}_{shown}: {count} values for {len(urls)} endpoints; {allowed}")
        return faults

    def _access_faults(self) -> list[str]:
        """Settings that do not go together. Each fault names one that is set, so that all else holds without it."""
        faults = []
        if self.jwt_secret_keys and self.jwt_jwks_url:
            faults.append("JWT_JWKS_URL: allowed is either this or the shared secret of JWT_SECRET_KEY")
        elif self.jwt_issuer and not self.jwt_secret_keys and not self.jwt_audiences:
            faults.append("JWT_ISSUER: allowed is this with JWT_AUDIENCE, or tokens for others would hold here too")
        elif not self.jwt_issuer and not self.jwt_secret_keys and (self.jwt_audiences or self.jwt_jwks_url):
            name = "JWT_AUDIENCE" if self.jwt_audiences else "JWT_JWKS_URL"
            faults.append(f"{name}: allowed is this with JWT_ISSUER, or with JWT_SECRET_KEY")
        if self.browser_sessions == "off":
            if self.visit_proof != "off":
                faults.append("VISIT_PROOF: allowed is off while BROWSER_SESSIONS is off")
        elif not self.allowed_origins or "*" in self.allowed_origins:
            faults.append("BROWSER_SESSIONS: allowed is off, unless ALLOWED_ORIGINS lists the sites that it is for")
        elif (self.redis_url or self.database_url) and not self.browser_session_secrets:
            faults.append("BROWSER_SESSIONS: allowed is off, unless all servers share one BROWSER_SESSION_SECRET")
        if self.auth == "entra" and (self.azure_client_secret or self.azure_federated_token_file):
            shown = "AZURE_CLIENT_SECRET" if self.azure_client_secret else "AZURE_FEDERATED_TOKEN_FILE"
            if not (self.azure_tenant_id and self.azure_client_id):
                faults.append(f"{shown}: allowed is this with AZURE_TENANT_ID and AZURE_CLIENT_ID")
        return faults

    def _budget_faults(self) -> list[str]:
        budgets = {"SITE": self.budget_site, "VISITOR": self.budget_visitor, "KEY": self.budget_key}
        in_money = {name: one.currency for name, one in budgets.items() if one and one.currency}
        if None in (self.price_input, self.price_output):
            return [f"BUDGET_{name}: allowed is money only with PRICE_INPUT and PRICE_OUTPUT" for name in in_money]
        if len(set(in_money.values())) > 1:
            return [f"BUDGET_{name}: allowed is one currency for all, that of the prices" for name in in_money]
        return []

    def _escalation_faults(self) -> list[str]:
        if self.escalation_email and not self.smtp_url:
            return ["ESCALATION_EMAIL: allowed is this with SMTP_URL"]
        if self.escalation_webhook_url and not self.escalation_webhook_secret:
            return ["ESCALATION_WEBHOOK_URL: allowed is this with ESCALATION_WEBHOOK_SECRET"]
        if self.weekly_summary and not self.takes_handoffs:
            return ["WEEKLY_SUMMARY: allowed is this with ESCALATION_EMAIL or ESCALATION_WEBHOOK_URL"]
        return []

    def _upload_faults(self) -> list[str]:
        shared = "REDIS_URL" if self.redis_url else "DATABASE_URL" if self.database_url else ""
        if self.uploads == "on" and shared:
            remedy = "off with several servers: run python -m indexer add on each, or build on one and copy the index"
            return [f"UPLOADS: allowed is {remedy} ({shared} is set, and each server has an index of its own)"]
        if self.uploads == "on" and self.vector_db_url:
            return ["UPLOADS: allowed is off with VECTOR_DB_URL: documents are added to an index in files"]
        return []

    @property
    def leads_to_a_person(self) -> bool:
        """Whether visitors are offered a way to one."""
        return bool(self.escalation_url) or self.takes_handoffs

    @property
    def takes_handoffs(self) -> bool:
        """Whether visitors' messages can reach somebody."""
        return bool(self.escalation_webhook_url or self.escalation_email)

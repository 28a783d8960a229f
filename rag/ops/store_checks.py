"""What the check before the start says of the services in the network: Redis, PostgreSQL, a collector of traces.

A bad hour of theirs is a warning, since it must not keep a restarted server from starting. A database with another
schema than this release's is a fault: it stays so until somebody acts.
"""

import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rag.errors import StateUnavailable
from rag.setting_parsers import shown_address
from rag.settings import Settings

State = Literal["ok", "warning", "fault"]
Found = tuple[State, str, str, str]
"""A finding: its state, its subject, a sentence, and the remedy."""
PACKAGES = Path(__file__).resolve().parents[2] / "requirements-postgres.lock"
TRACING_PACKAGES = PACKAGES.with_name("requirements-otel.lock")
COLLECTOR_S = 2.0
"""How long a collector may take to accept a connection, in seconds."""
GRPC_PORT = 4317
UNTIL = "until it answers, nothing is remembered and each worker limits for itself"
OTHERS_CONNECTIONS = 10
"""What is left to a superuser, backups and a look by hand."""


def findings(settings: Settings, *, running: bool) -> Iterator[Found]:
    """Of a `running` server only the database's schema. Waits for two seconds at most for each store."""
    if settings.redis_url and not running:
        yield _redis(settings.redis_url)
    if settings.database_url:
        yield from _database(settings)
    if settings.otel_endpoint:
        yield _traces(settings.otel_endpoint, running=running)


def _redis(url: str) -> Found:
    from rag.stores.redis import link  # a client is loaded only where it is wanted

    try:
        version = link.probe(url)
    except StateUnavailable as error:
        return _away("redis", error)
    return "ok", "redis", f"{shown_address(url)} answers, version {version}", ""


def _database(settings: Settings) -> Iterator[Found]:
    if missing := [name for name in ("psycopg", "psycopg_binary", "psycopg_pool") if find_spec(name) is None]:
        what = f"DATABASE_URL is set, but {', '.join(missing)} is not installed"
        yield "fault", "database", what, f"{sys.executable} -m pip install -r {PACKAGES}"
        return
    from rag.stores.postgres import link, migrating, schema

    url = settings.database_url
    try:
        with link.connected(url) as connection:
            version, most = connection.execute(
                "SELECT current_setting('server_version'), current_setting('max_connections')::integer"
            ).fetchall()[0]
            applied = migrating.applied_in(connection)
    except StateUnavailable as error:
        yield _away("database", error)
        return
    if wrong := schema.fault(applied):
        what, _, remedy = wrong.partition("; ")
        yield "fault", "database", f"{shown_address(url)}: {what}", remedy.removeprefix("run: ")
        return
    yield "ok", "database", f"{shown_address(url)} answers, version {version}, schema {applied[-1].version}", ""
    ours = settings.workers * (settings.database_pool_size + 1)
    if ours > most - OTHERS_CONNECTIONS:
        what = f"{settings.workers} workers may open {ours} connections, the database allows {most} in all"
        yield "warning", "database", what, "lower WORKERS or DATABASE_POOL_SIZE, or put PgBouncer before it"


def _away(subject: str, error: StateUnavailable) -> Found:
    what, _, remedy = str(error).rpartition("; ")
    return "warning", subject, f"{what}; {UNTIL}", remedy


def _traces(endpoint: str, *, running: bool) -> Found:
    try:
        from rag.telemetry import tracing  # noqa: F401 - optional packages, loaded only where they are wanted
    except ModuleNotFoundError as missing:
        what = f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {missing.name} is not installed"
        return "fault", "traces", what, f"{sys.executable} -m pip install -r {TRACING_PACKAGES}, or unset it"
    address = urlsplit(endpoint)
    port = address.port or (443 if address.scheme == "https" else 80)
    if port == GRPC_PORT:
        what = f"{endpoint}: at port {GRPC_PORT} collectors mostly speak gRPC, and this server speaks HTTP"
        return "warning", "traces", what, "set the port at which it takes HTTP, mostly 4318"
    try:
        if not running:
            socket.create_connection((address.hostname, port), timeout=COLLECTOR_S).close()
    except OSError:
        what = f"{endpoint} cannot be reached at the moment; until it can, traces are lost"
        return "warning", "traces", what, ""
    return "ok", "traces", f"go to {endpoint}", ""

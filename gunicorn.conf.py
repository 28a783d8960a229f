"""Workers, timeouts, sockets and hooks of the production server. No application logic.

    gunicorn --config gunicorn.conf.py rag_server:app

gunicorn runs this file at the start and again on SIGHUP.
"""

import atexit
import contextlib
import gc
import math
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    # The working directory belongs to the operator (.env and relative paths are read there); the code is here.
    sys.path.insert(0, str(ROOT))

from rag.access import callers  # noqa: E402
from rag.deadline import STREAM_LENGTH_S  # noqa: E402
from rag.errors import BuildMismatch, BuildUnreachable, ConfigError, IndexUnavailable  # noqa: E402
from rag.ops import gunicorn_master  # noqa: E402
from rag.ops.gunicorn_worker import DRAIN_S, ProcessLog, Worker  # noqa: E402
from rag.search.backends import opening  # noqa: E402
from rag.settings import Settings, variable_of  # noqa: E402
from rag.telemetry import metric_files  # noqa: E402
from rag.telemetry.logs import logging_config  # noqa: E402

LIBRARIES = (
    "anyio._backends._asyncio", "anyio.streams.tls", "encodings.idna", "faiss", "fastapi.openapi.utils",
    "httpx_aiohttp", "markdown_it", "numpy", "slowapi", "starlette.middleware.cors", "uvicorn",
)  # fmt: skip
"""Loaded before any request; the first three would load in the midst of one, and where files are short not at all."""
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
COUNT_TOGETHER = "PROMETHEUS_MULTIPROC_DIR"
"""Where it names a folder, prometheus-client counts in files there; it looks once, when it is imported."""

_settings, _faults = Settings.with_faults()
_faults += [
    line for line in _settings.missing("CHAT", "EMBEDDINGS") if line.split()[0] not in map(variable_of, _faults)
]
if _faults:
    print("The settings cannot work:", *_faults, sep="\n  ", file=sys.stderr)
    raise SystemExit(1)

_stop_s = math.ceil(_settings.request_timeout_s) + 2
"""A chat that began just before the stop may use up its own deadline; two seconds for the answer to leave."""
_leave_s = _stop_s + math.ceil(STREAM_LENGTH_S)
"""At a reload nobody waits for the old workers: a stream that begins at the end of its deadline may take its time."""


class RagWorker(Worker):
    STOP_S: ClassVar[float] = _stop_s
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **Worker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": _leave_s,
        # gunicorn's own list never reaches the address rewriting.
        "forwarded_allow_ips": callers.trusted_proxies(_settings.forwarded_allow_ips),
    }

    def load_wsgi(self) -> None:
        # The settings that were checked, not those of the moment: a worker that replaces a dead one must not stumble
        # over a .env that is being edited. Imported here, in the worker, so that a reload takes up new code.
        from rag_server import create_app

        self.wsgi = create_app(_settings, metrics_folder=Path(os.environ[COUNT_TOGETHER]))


class RagLog(ProcessLog):
    CONFIG: ClassVar[dict[str, Any]] = logging_config(
        _settings.log_level, _settings.log_format, _settings.secrets,
        colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        file=_settings.log_file, max_bytes=int(_settings.log_max_size_mb * 1_000_000),
        backups=_settings.log_backup_count,
    )  # fmt: skip


bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = RagWorker
logger_class = RagLog
loglevel = _settings.log_level
proc_name = "rag-server"

# Waiting connections: a burst of visitors should wait a moment, not be refused. The kernel's somaxconn caps it.
backlog = 2048

# Seconds without a heartbeat. The event loop beats by itself, however long an answer takes; only a loop that stands
# still stops it, and then the worker serves nobody.
timeout = 30

# Of a stop. Above the worker's own deadline (drain, then finish), else the master kills it with streams open, and
# neither a stream's `finally` nor the lifespan's closing runs.
graceful_timeout = math.ceil(DRAIN_S) + _stop_s + 5

# Seconds an idle connection stays: longer than a page's requests are apart. A reverse proxy in front should drop its
# idle connections earlier (deploy notes), else it may write into one that just closed.
keepalive = 15

# SIGHUP would reload no code.
preload_app = False

# Recycling workers by count cuts off open streams; memory is watched instead.
max_requests = 0

# Two servers on one machine would share its path, and nothing here speaks to it.
control_socket_disable = True

# The heartbeat is a file: on a slow disk, writing it can stall longer than `timeout`.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

# Ours is in the JSON log, written by rag/telemetry/logs.py.
accesslog = None


def on_starting(server: Any) -> None:
    """Refuse to start without a good build, and let nothing that cannot work take the running server down later."""
    try:
        _require_a_good_build()
    except BuildUnreachable as error:
        # A database's bad hour must not keep a restarted server from starting: workers wait for it.
        print("The index cannot be reached at the moment:", error, sep="\n  ", file=sys.stderr)
    except (ConfigError, IndexUnavailable) as error:
        # A worker starts without one, because it may replace another; from the beginning that helps nobody.
        print("Nothing was started:", error, sep="\n  ", file=sys.stderr)
        raise SystemExit(1) from None
    _open_metrics()
    _import_libraries()
    _guard_reload(server)
    gunicorn_master.replace_gently(server)
    # Workers inherit all this: they need not look through it for garbage, and the pages stay shared.
    gc.collect()
    gc.freeze()


def child_exit(server: Any, worker: Any) -> None:
    """Keep what a worker counted that has ended. Nothing may come out of here: it would end the server."""
    try:
        metric_files.retire(Path(os.environ[COUNT_TOGETHER]), alive=server.WORKERS)
    except Exception:
        server.log.exception("counts of an ended worker are not retired yet")


def _require_a_good_build() -> None:
    """Raises `IndexUnavailable`. Opens no build: what faiss holds must not be there when workers are forked."""
    with contextlib.closing(opening.backend(_settings)) as backend:
        manifest = backend.verify()
    made_with = manifest.get("embedding", {}).get("model")
    wanted = _settings.embedding_model
    if wanted is not None and made_with != wanted:
        raise BuildMismatch(
            f"the build in {backend.where} was made with the embedding model {made_with!r}, the settings name "
            f"{wanted!r}; run: python -m indexer build SOURCE, or set the model it was made with"
        )


def _open_metrics() -> None:
    """Once in the life of a master, and not where this file is read again on SIGHUP: counters must not start over."""
    try:
        folder = metric_files.open_folder(_settings.state_dir)
    except OSError as error:
        print("Nothing was started:", f"there is no place for the metrics: {error}", sep="\n  ", file=sys.stderr)
        raise SystemExit(1) from None
    os.environ[COUNT_TOGETHER] = str(folder)
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: Path, master: int) -> None:
    # Workers inherit what is to be done at the end; only the end of the master is the end.
    if os.getpid() == master:
        shutil.rmtree(folder, ignore_errors=True)


def _import_libraries() -> None:
    """Once, for all workers: one that replaces a dead one serves sooner, and they share the memory.

    Only what starts no thread, which a fork would lose, and none of our own code, which a reload has to take up anew.
    """
    # numpy looks once, when it is loaded, how many threads it may start. Workers share the processors anyhow.
    threads = os.environ.get(BLAS_THREADS)
    os.environ[BLAS_THREADS] = "1"
    for library in LIBRARIES:
        import_module(library)
    os.environ.pop(BLAS_THREADS)
    if threads is not None:
        os.environ[BLAS_THREADS] = threads
    for is_wanted, library, variable, kind in (
        (_settings.needs_identity, "azure.identity.aio", "AZURE_OPENAI_AUTH", "entra"),
        (_settings.otel_endpoint, "opentelemetry.exporter.otlp.proto.http.trace_exporter",
         "OTEL_EXPORTER_OTLP_ENDPOINT", "otel"),
        (_settings.database_url, "psycopg_pool", "DATABASE_URL", "postgres"),
    ):  # fmt: skip
        try:
            _ = is_wanted and import_module(library)
        except ModuleNotFoundError as missing:
            what = f"{variable} is set, but {missing.name} is not installed; see requirements-{kind}.lock"
            print("Nothing was started:", what, sep="\n  ", file=sys.stderr)
            raise SystemExit(1) from None


def _guard_reload(server: Any) -> None:
    """gunicorn would leave on the first worker that does not boot, and the old workers with it."""
    reload = server.handle_hup

    def reload_if_sound() -> None:
        command = [sys.executable, str(ROOT / "run_production.py"), "--check", "--running"]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        try:
            check = subprocess.run(  # noqa: S603
                command, capture_output=True, encoding="utf-8", env=environment, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            server.log.error("reload refused, the old workers keep serving: the checks took over %s s", timeout)
            return
        if check.returncode:
            faults = [line.strip() for line in check.stdout.splitlines() if line.lstrip().startswith(("✗", "→"))]
            server.log.error("reload refused, the old workers keep serving", extra={"faults": faults})
            return
        reload()

    server.handle_hup = reload_if_sound

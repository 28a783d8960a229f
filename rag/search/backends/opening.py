"""Which backend keeps the index, by the settings: a folder, or the database of VECTOR_DB_URL."""

import sys
from pathlib import Path

from rag.errors import ConfigError
from rag.search.backends.files import FileBackend
from rag.search.backends.protocol import Backend
from rag.settings import Settings

PACKAGES = Path(__file__).resolve().parents[3] / "requirements-postgres.lock"


def _in_files(settings: Settings) -> Backend:
    return FileBackend(settings.vector_db_path)


def _in_postgres(settings: Settings) -> Backend:
    try:
        # Its client is installed only where it is wanted.
        from rag.search.postgres.backend import PostgresBackend
    except ModuleNotFoundError as missing:
        remedy = f"{sys.executable} -m pip install -r {PACKAGES}"
        raise ConfigError([f"VECTOR_DB_URL is set, but {missing.name} is not installed; run: {remedy}"]) from None
    return PostgresBackend(settings.vector_db_url)


BACKENDS = {"": _in_files, "postgresql": _in_postgres, "postgres": _in_postgres}
"""By the scheme of VECTOR_DB_URL; empty where it is not set."""


def backend(settings: Settings, *, output: Path | None = None) -> Backend:
    """Where the settings keep the index, or the folder `output`; nothing is opened yet.

    Raises `ConfigError` where a package is missing.
    """
    if output is not None:
        return FileBackend(output)
    return BACKENDS[settings.vector_db_url.partition(":")[0]](settings)

"""Builds in the PostgreSQL of VECTOR_DB_URL. What loads numpy is imported when it is needed."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from rag.errors import BuildMismatch, BuildUnreachable, IndexUnavailable
from rag.search.backends.protocol import NothingAdded, Overlay
from rag.search.postgres.catalogue import LOCK, MADE, Catalogue
from rag.search.postgres.link import Link

if TYPE_CHECKING:
    import numpy as np

    from rag.search.hybrid import Build
    from rag.search.postgres.building import PostgresDraft

OLDEST = (0, 7)
"""The first pgvector with halfvec."""
SAFE_IN_PARALLEL = (0, 8, 2)
"""Earlier ones may read beyond their memory when several processes build one HNSW index (CVE-2026-3172)."""
_NOW = sql.SQL("""
    SELECT to_char(now, 'YYYYMMDD"T"HH24MISS.US"Z"'), to_char(now, 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00')
    FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now)
""")


class PostgresBackend:
    """See `rag.search.backends.protocol.Backend`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link = Link(url)
        self._catalogue = Catalogue(self._link)
        self.where = self._link.where
        self.added_in: Path | None = None
        self.live_id = self._catalogue.live_id
        self.kept_ids = self._catalogue.kept_ids
        self.manifest = self._catalogue.manifest
        self.rollback = self._catalogue.rollback
        self.serving = self._catalogue.serving

    def verify(self, *, anew: bool = False) -> dict[str, Any]:
        live = self.live_id()
        return self._catalogue.verified(live) if anew else self._catalogue.counted(live)

    def open(self, *, model: str | None = None, build_id: str | None = None) -> "Build":
        from rag.search.postgres.searching import PostgresBuild

        while True:
            wanted = build_id or self.live_id()
            try:
                manifest = self._catalogue.counted(wanted)
                break
            except BuildUnreachable:
                raise
            except IndexUnavailable:
                # Others may have been published meanwhile, and this one removed.
                if build_id or self.live_id() == wanted:
                    raise
        made_with = manifest["embedding"]["model"]
        if model is not None and made_with != model:
            raise BuildMismatch(
                f"build {wanted} in {self.where}: made with the embedding model {made_with!r}, the settings name "
                f"{model!r}; run: python -m indexer build SOURCE, or set the model it was made with"
            )
        return PostgresBuild(link=self._link, build_id=wanted, manifest=manifest)

    def overlay(self) -> Overlay:
        return NothingAdded()

    def known_vectors(self, *, model: str) -> "Mapping[str, np.ndarray]":
        from rag.search.postgres.searching import KnownVectors

        try:
            live = self.live_id()
            manifest = self.manifest(live)
        except BuildUnreachable:
            raise
        except IndexUnavailable:
            return {}
        return KnownVectors(self._link, live) if manifest["embedding"]["model"] == model else {}

    @contextlib.contextmanager
    def writing(self) -> "Iterator[PostgresDraft]":
        from rag.search.postgres.building import PostgresDraft

        with self._link.holding(LOCK) as is_held, tempfile.TemporaryDirectory(prefix="rag-build-") as folder:
            if not is_held:
                raise BlockingIOError
            version = self._prepared()
            self._catalogue.remove_interrupted()
            [(build_id, created_at)] = self._link.rows(_NOW)
            draft = PostgresDraft(
                self._link, self._catalogue, folder=Path(folder), build_id=build_id, created_at=created_at,
                in_parallel=version >= SAFE_IN_PARALLEL,
            )  # fmt: skip
            try:
                yield draft
            finally:
                with contextlib.suppress(IndexUnavailable):
                    self._catalogue.remove_interrupted()

    def output(self) -> tuple[Sequence[str], Mapping[str, str]]:
        return [], {"VECTOR_DB_URL": self._url}

    def close(self) -> None:
        self._link.close()

    def _prepared(self) -> tuple[int, ...]:
        """Make what is the same for all builds, where it is missing; return pgvector's version."""
        with self._link.transaction() as connection:
            connection.execute(MADE)
            found = _vector_version(connection)
            if found is None:
                connection.execute("CREATE EXTENSION vector")
                found = _vector_version(connection) or ()
        if found < OLDEST:
            raise BuildUnreachable(
                f"{self.where}: pgvector {'.'.join(map(str, found))} is too old; update it to 0.8.2 or later"
            )
        return found


def _vector_version(connection: Connection[Any]) -> tuple[int, ...] | None:
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchall()
    return tuple(int(part) for part in found[0][0].split(".") if part.isdecimal()) if found else None

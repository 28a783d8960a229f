"""Which builds a database holds, which one is live, and who serves which. Knows nothing of what is in a build.

    rag_index.builds    every complete build, with its manifest
    rag_index.live      one row: the live build, and the order in which builds went live
    rag_index.servers   which build each process served when, so that none is removed that is searched
    rag_build_<id>      the schema of one build

A build is complete or absent: its row comes after all of its schema, and a schema without a row belongs to a build that
is being made, or was interrupted. What is live is one row, changed by one UPDATE.
"""

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import orjson
from psycopg import Connection, sql
from psycopg import errors as postgres_errors

from rag.errors import BuildDamaged, BuildMismatch, BuildMissing, IndexUnavailable
from rag.search import history
from rag.search.builds import ID, KEPT
from rag.search.postgres.link import Link

log = logging.getLogger(__name__)

FORMAT: Final = 1
"""Rises when the tables of a build change their meaning; a server refuses a format that it does not know."""
TELL_EVERY_S: Final = 30.0
"""How often a process says which build it serves."""
SERVED_WITHIN: Final = "5 minutes"
"""Whoever has not said so for that long does not serve it any more."""

MADE: Final = sql.SQL("""
CREATE SCHEMA IF NOT EXISTS rag_index;
CREATE TABLE IF NOT EXISTS rag_index.builds (id text PRIMARY KEY, manifest json NOT NULL);
CREATE TABLE IF NOT EXISTS rag_index.live (
    is_it boolean PRIMARY KEY DEFAULT true CHECK (is_it),
    build text REFERENCES rag_index.builds, went_live text[] NOT NULL DEFAULT '{}'
);
INSERT INTO rag_index.live DEFAULT VALUES ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS rag_index.servers (
    process text PRIMARY KEY, build text NOT NULL, seen_at timestamptz NOT NULL
)
""")
LOCK: Final = sql.SQL("SELECT pg_try_advisory_xact_lock(hashtextextended('rag index', 0))")
_BUILD: Final = "run: python -m indexer build SOURCE"


def schema_of(build_id: str) -> sql.Identifier:
    """The schema of a build, whose id is well-formed."""
    return sql.Identifier(name_of_schema(build_id))


def name_of_schema(build_id: str) -> str:
    if not ID.fullmatch(build_id):
        raise BuildMissing(f"{build_id!r} is no build's id; run: python -m indexer info")
    return f"rag_build_{build_id.lower().replace('.', '_')}"


class Catalogue:
    """One database's builds."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._process = secrets.token_hex(8)
        self._told: tuple[str, float] = ("", 0.0)
        self._telling = threading.Lock()

    def live_id(self) -> str:
        try:
            found = self._link.rows(sql.SQL("SELECT build FROM rag_index.live"))
        except BuildMissing:
            found = []
        if not found or found[0][0] is None:
            raise BuildMissing(f"no build in {self._link.where}; {_BUILD}")
        return str(found[0][0])

    def kept_ids(self) -> list[str]:
        """Newest first."""
        try:
            return [row[0] for row in self._link.rows(sql.SQL("SELECT id FROM rag_index.builds ORDER BY id DESC"))]
        except BuildMissing:
            return []

    def manifest(self, build_id: str) -> dict[str, Any]:
        """Raises `BuildMissing`, or `BuildMismatch` for a format that is not known."""
        found = self._link.rows(sql.SQL("SELECT manifest::text FROM rag_index.builds WHERE id = %s"), [build_id])
        if not found:
            raise BuildMissing(f"no build {build_id} in {self._link.where}; run: python -m indexer info")
        manifest = dict(orjson.loads(found[0][0]))
        if manifest.get("format") != FORMAT:
            raise BuildMismatch(
                f"build {build_id} in {self._link.where}: format {manifest.get('format')}, "
                f"this version reads {FORMAT}; build again, or upgrade"
            )
        return manifest

    def counted(self, build_id: str) -> dict[str, Any]:
        """The manifest, once each of the build's tables was found to have as many rows as it says."""
        manifest = self.manifest(build_id)
        parts = manifest["files"]
        counts = sql.SQL(", ").join(
            sql.SQL("(SELECT count(*) FROM {}.{})").format(schema_of(build_id), sql.Identifier(name)) for name in parts
        )
        try:
            [found] = self._link.rows(sql.SQL("SELECT {}").format(counts), timeout_s=60)
        except BuildMissing:
            raise BuildDamaged(f"build {build_id} in {self._link.where}: a table is gone; {_REMEDY}") from None
        for (name, about), count in zip(parts.items(), found, strict=True):
            if count != about["rows"]:
                raise BuildDamaged(
                    f"build {build_id} in {self._link.where}: {name} has {count:,} rows instead of {about['rows']:,}; "
                    f"{_REMEDY}"
                )
        return manifest

    def verified(self, build_id: str) -> dict[str, Any]:
        """The manifest, once everything in the build's tables was found to have its checksum."""
        manifest = self.counted(build_id)
        for name, about in manifest["files"].items():
            [(found,)] = self._link.rows(DIGESTS[name].format(schema_of(build_id)), timeout_s=None)
            if found != about["sha256"]:
                raise BuildDamaged(
                    f"build {build_id} in {self._link.where}: {name} does not have the checksum of the manifest; "
                    f"{_REMEDY}"
                )
        return manifest

    def serving(self, build_id: str) -> None:
        """Say which build this process serves. A replica, which takes no writes, is told nothing."""
        with self._telling:
            build, told_at_s = self._told
            if build == build_id and time.monotonic() < told_at_s + TELL_EVERY_S:
                return
            self._told = (build_id, time.monotonic())
        try:
            self._link.rows(
                sql.SQL("""
                    WITH gone AS (DELETE FROM rag_index.servers WHERE seen_at < clock_timestamp() - interval '1 day')
                    INSERT INTO rag_index.servers VALUES (%s, %s, clock_timestamp())
                    ON CONFLICT (process) DO UPDATE SET build = EXCLUDED.build, seen_at = EXCLUDED.seen_at
                """),
                [self._process, build_id],
            )
        except IndexUnavailable as error:
            if not isinstance(error.__cause__, postgres_errors.ReadOnlySqlTransaction):
                log.warning("database not told which build is served", extra={"reason": str(error)})

    def add(self, connection: Connection[Any], build_id: str, manifest: dict[str, Any]) -> None:
        """Make the build in the schema of `build_id` a complete one."""
        connection.execute("INSERT INTO rag_index.builds VALUES (%s, %s)", [build_id, orjson.dumps(manifest).decode()])

    def make_live(self, build_id: str) -> None:
        """By one UPDATE, whoever else changes the same at the same time."""
        with self._link.transaction() as connection:
            live, went_live = self._state(connection)
            connection.execute(
                "UPDATE rag_index.live SET build = %s, went_live = %s",
                [build_id, history.after(self._order(connection, live, went_live), build_id)],
            )

    def rollback(self, build_id: str | None = None) -> str:
        """See `rag.search.builds.rollback`."""
        kept = self.kept_ids()
        if not kept:
            raise BuildMissing(f"no build is kept in {self._link.where}; {_BUILD}")
        if build_id is None:
            with self._link.transaction() as connection:
                live, went_live = self._state(connection)
                earlier = [one for one in self._order(connection, live, went_live) if one != live]
            if not earlier:
                others = ", ".join(one for one in kept if one != live) or "none"
                raise BuildMissing(
                    f"no build before the live one is kept in {self._link.where}; others are: {others}; "
                    "name one: rollback BUILD"
                )
            build_id = earlier[-1]
        elif build_id not in kept:
            raise BuildMissing(f"no build {build_id} in {self._link.where}; kept are: {', '.join(kept)}")
        self.verified(build_id)
        self.make_live(build_id)
        return build_id

    def remove_old(self) -> list[str]:
        """Drop what is kept beyond `KEPT` and served by nobody; return the ids. What is being read stays until then."""
        removed = []
        with self._link.transaction() as connection:
            live, went_live = self._state(connection)
            order = self._order(connection, live, went_live)
            kept = [row[0] for row in connection.execute("SELECT id FROM rag_index.builds ORDER BY id").fetchall()]
            served = connection.execute(
                "SELECT build FROM rag_index.servers WHERE seen_at > clock_timestamp() - %s::interval", [SERVED_WITHIN]
            )
            needed = {live, *(row[0] for row in served.fetchall())}
            never = [one for one in kept if one not in order]
            for old in [*never, *order][:-KEPT]:
                if old not in needed:
                    try:
                        with connection.transaction():
                            connection.execute("SET LOCAL lock_timeout = '2s'")
                            connection.execute("DELETE FROM rag_index.builds WHERE id = %s", [old])
                            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema_of(old)))
                    except postgres_errors.LockNotAvailable:
                        continue
                    removed.append(old)
        return removed

    def remove_interrupted(self) -> None:
        """Drop schemas of builds that were never completed, by whoever has the lock of the one that makes builds."""
        with self._link.transaction() as connection:
            found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^rag_build_\\d{8}t'")
            complete = connection.execute("SELECT id FROM rag_index.builds").fetchall()
            named = {name_of_schema(row[0]) for row in complete}
            for (schema,) in found.fetchall():
                if schema not in named:
                    connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))

    def _state(self, connection: Connection[Any]) -> tuple[str | None, Sequence[str]]:
        """The live build, and the recorded order; nobody else changes them until the transaction ends."""
        found = connection.execute("SELECT build, went_live FROM rag_index.live FOR UPDATE").fetchall()
        return found[0] if found else (None, [])

    def _order(self, connection: Connection[Any], live: str | None, went_live: Sequence[str]) -> list[str]:
        kept = {row[0] for row in connection.execute("SELECT id FROM rag_index.builds").fetchall()}
        order = [one for one in went_live if one in kept]
        return order if live is None else history.after(order, live)


DIGESTS: Final = {
    "passages": sql.SQL("""
        SELECT encode(sha256(coalesce(string_agg(
            sha256(int4send(row) || content || convert_to(passage::text, 'UTF8') || halfvec_send(vector)),
            '' ORDER BY row
        ), '')), 'hex') FROM {}.passages
    """),
    "postings": sql.SQL("""
        SELECT encode(sha256(coalesce(string_agg(sha256(int8send(term) || postings), '' ORDER BY term), '')), 'hex')
        FROM {}.postings
    """),
    "spelling": sql.SQL("""
        SELECT encode(sha256(coalesce(string_agg(
            sha256(convert_to(name, 'UTF8') || content), '' ORDER BY name COLLATE "C"
        ), '')), 'hex') FROM {}.spelling
    """),
}
"""Of each table of a build, SHA-256 over the SHA-256 of its rows, in their order."""
_REMEDY: Final = "run: python -m indexer build SOURCE, or: python -m indexer rollback"

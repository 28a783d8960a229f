"""Applies the numbered SQL files to a database, and takes them back. What they are stands in `schema`."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg

from rag.errors import StateUnavailable
from rag.setting_parsers import shown_address
from rag.stores.postgres.link import connected
from rag.stores.postgres.schema import APPLIED, NO_SCHEMA, Applied, Migration, fault, migrations

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('rag schema', 0))"
_HISTORY: Final = """
CREATE SCHEMA IF NOT EXISTS rag;
CREATE TABLE IF NOT EXISTS rag.schema_version (
    version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, needs integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


def applied_in(connection: psycopg.Connection[Any]) -> list[Applied]:
    """None where there is no schema yet."""
    try:
        return [Applied(*row) for row in connection.execute(APPLIED).fetchall()]
    except NO_SCHEMA:
        return []


class Schema:
    """One database's schema, for a command that changes it. Methods raise StateUnavailable; two at once take turns."""

    def __init__(self, url: str, known: Sequence[Migration] | None = None) -> None:
        self._url = url
        self.known = migrations() if known is None else known

    def applied(self) -> list[Applied]:
        with connected(self._url) as connection:
            return applied_in(connection)

    def migrate(self, told: Callable[[Migration], None]) -> None:
        """Applies what is missing, each in a transaction of its own; `told` hears of each once it stands."""
        with connected(self._url) as connection:
            for migration in self.known:
                with connection.transaction():
                    connection.execute(_LOCK)
                    connection.execute(_HISTORY)
                    applied = applied_in(connection)
                    if migration.version <= len(applied):
                        if applied[migration.version - 1].sha256 != migration.sha256:
                            raise StateUnavailable(f"{shown_address(self._url)}: {fault(applied, self.known)}")
                        continue
                    connection.execute(migration.script.encode())
                    connection.execute(
                        "INSERT INTO rag.schema_version (version, name, sha256, needs) VALUES (%s, %s, %s, %s)",
                        (migration.version, migration.name, migration.sha256, migration.needs),
                    )
                told(migration)

    def undo(self, *, may_lose: bool) -> Migration | None:
        """Takes the newest migration back; None where there is none. Refuses to lose data unless `may_lose`."""
        with connected(self._url) as connection, connection.transaction():
            connection.execute(_LOCK)
            connection.execute(_HISTORY)
            applied = applied_in(connection)
            if not applied:
                return None
            if applied[-1].version > len(self.known):
                raise StateUnavailable(
                    f"schema version {applied[-1].version} is not of this release; run the newer one"
                )
            newest = self.known[applied[-1].version - 1]
            if newest.loses and not may_lose:
                raise StateUnavailable(f"undoing {newest.name} loses {newest.loses}; to do it all the same, add --yes")
            connection.execute(newest.undo.encode())
            connection.execute("DELETE FROM rag.schema_version WHERE version = %s", (newest.version,))
            return newest

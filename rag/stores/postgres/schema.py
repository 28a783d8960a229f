"""The schema's numbered SQL files, and which of them a database has.

A file `migrations/0001_name.sql` begins with comments: `needs: N`, the oldest schema version whose releases still work
once it is applied, and `undo loses: …`, where undoing it loses data. Below a line `-- undo` stands what takes it back.

Expand, then contract: a migration only adds as long as releases run that do not know it, and a later one, with a higher
`needs`, removes what no release in use asks for. So the old and the new release run side by side during a deployment.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from psycopg import errors

_FOLDER: Final = Path(__file__).with_name("migrations")
APPLIED: Final = "SELECT version, sha256, needs FROM rag.schema_version ORDER BY version"
NO_SCHEMA: Final = (errors.UndefinedTable, errors.InvalidSchemaName)
MIGRATE: Final = "python -m rag.database migrate"


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    version: int
    name: str
    sha256: str
    needs: int
    script: str
    undo: str
    loses: str
    """What undoing it loses; empty where nothing."""


class Applied(NamedTuple):
    """One row of a database's history."""

    version: int
    sha256: str
    needs: int


def _read(path: Path) -> Migration:
    text = path.read_text("utf-8")
    script, _, undo = text.partition("\n-- undo\n")
    needs = re.search(r"^-- needs: (\d+)$", script, re.MULTILINE)
    loses = re.search(r"^-- undo loses: (.+)$", script, re.MULTILINE)
    if needs is None or not undo:
        raise ValueError(f"{path.name} does not say what it needs, or how it is undone")
    return Migration(
        int(path.name[:4]), path.stem, hashlib.sha256(text.encode()).hexdigest(), int(needs[1]), script, undo,
        loses[1] if loses else "",
    )  # fmt: skip


def migrations(folder: Path = _FOLDER) -> tuple[Migration, ...]:
    """Those of this release, by version: 1, 2, 3, …"""
    found = tuple(_read(path) for path in sorted(folder.glob("*.sql")))
    if [one.version for one in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations in {folder} are not numbered 1, 2, 3, …")
    return found


def fault(applied: Sequence[Applied], known: Sequence[Migration] | None = None) -> str | None:
    """Why this release cannot work with a database that has these migrations, with the remedy; None where it can."""
    known = migrations() if known is None else known
    newest = applied[-1].version if applied else 0
    for have, meant in zip(applied, known, strict=False):
        if have.sha256 != meant.sha256:
            return f"{meant.name} was applied from another file; run the release that applied it, or a later one"
    if newest < len(known):
        return f"schema version {newest}, this release needs {len(known)}; run: {MIGRATE}"
    if applied[-1].needs > len(known):
        return (
            f"schema version {newest}, this release knows {len(known)}; run the newer release, or with the newer "
            "release: python -m rag.database undo"
        )
    return None

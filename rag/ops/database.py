"""The command line of PostgreSQL: `python -m rag.database migrate | status | undo | import STATE_DIR`.

Reads the address from the settings; what a migration is, and what is brought over, stands in `rag.stores.postgres`.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rag.errors import ConfigError, RagError
from rag.ops.store_checks import PACKAGES
from rag.settings import Settings


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rag.database", description="PostgreSQL, where DATABASE_URL is.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, meaning: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=meaning, description=meaning)

    command("migrate", "bring the schema to this release's; servers may run meanwhile")
    command("status", "which migrations the database has; status 1 where this release cannot work with it")
    undoing = command("undo", "take the newest migration back")
    undoing.add_argument("--yes", action="store_true", help="also where that loses data")
    bringing = command("import", "bring over what SQLite files hold, all but hits of limits and kept answers")
    bringing.add_argument("state_dir", type=Path, metavar="STATE_DIR", help="of a server that is stopped")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 with one clear sentence when it could not."""
    options = _arguments(argv)
    try:
        settings = Settings.from_environment()
        if not settings.database_url:
            raise ConfigError(["DATABASE_URL is not set: put the database's address into .env"])
        if find_spec("psycopg") is None:
            raise ConfigError([f"psycopg is not installed; run: {sys.executable} -m pip install -r {PACKAGES}"])
        return _run(options, settings)
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
    except RagError as error:
        print(str(error), file=sys.stderr)
    return 1


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from rag.stores.postgres import importing, schema  # psycopg is loaded only where it is wanted
    from rag.stores.postgres.migrating import Schema

    database = Schema(settings.database_url)
    if options.command == "migrate":
        database.migrate(lambda migration: print(f"applied {migration.name}"))
        print(f"the schema has version {len(database.known)}")
    elif options.command == "undo":
        undone = database.undo(may_lose=options.yes)
        print("there is nothing to undo" if undone is None else f"took back {undone.name}")
    elif options.command == "import":
        timeout_s = settings.session_timeout_hours * 3600
        for kind, compared in importing.bring_over(options.state_dir, url=settings.database_url, timeout_s=timeout_s):
            print(f"{kind}: {compared}")
    else:
        applied = database.applied()
        for migration in database.known:
            print(f"{migration.name}  {'applied' if migration.version <= len(applied) else 'missing'}")
        for newer in applied[len(database.known) :]:
            print(f"{newer.version:04}  applied by a newer release")
        if wrong := schema.fault(applied, database.known):
            print(wrong, file=sys.stderr)
            return 1
    return 0

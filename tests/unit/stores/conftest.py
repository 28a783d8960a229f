"""One PostgreSQL for the tests of a process; each test has a database of its own."""

from collections.abc import Iterator

import pytest

from tests.support.postgres_server import PgBouncer, PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_server) as running:
        yield running


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> str:
    """An empty database with this release's schema."""
    return postgres_server.database()


@pytest.fixture
def emptied_database_url(postgres_server: PostgresServer) -> str:
    """One database for all tests that leave its schema as it is, without any rows."""
    return postgres_server.emptied_database()

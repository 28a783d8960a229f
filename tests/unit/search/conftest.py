"""One PostgreSQL with pgvector for the tests of a process; each test has a database of its own."""

from collections.abc import Iterator

import pytest

from tests.support.postgres_server import PgBouncer, PgvectorServer


@pytest.fixture(scope="session")
def pgvector_server() -> Iterator[PgvectorServer]:
    with PgvectorServer() as server:
        yield server


@pytest.fixture(scope="session")
def pgvector_bouncer(pgvector_server: PgvectorServer) -> Iterator[PgBouncer]:
    with PgBouncer(pgvector_server) as running:
        yield running


@pytest.fixture
def vector_db_url(pgvector_server: PgvectorServer) -> str:
    """A database with nothing in it."""
    return pgvector_server.empty_database()

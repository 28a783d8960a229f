"""The PostgreSQL of the stores' tests."""

from tests.unit.stores.conftest import database_url, postgres_server

__all__ = ["database_url", "postgres_server"]

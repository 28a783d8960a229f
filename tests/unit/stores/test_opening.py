"""Which store keeps what, by the settings."""

from pathlib import Path

import pytest

from rag.settings import Settings
from rag.stores import opening

REDIS, POSTGRES = "redis://127.0.0.1:1/0", "postgresql://127.0.0.1:1/rag"
KINDS = ("conversations", "feedback", "spending", "answers", "questions", "outbox")
ALL_LOCAL, ALL_POSTGRES = dict.fromkeys(KINDS, "Sqlite"), dict.fromkeys(KINDS, "Postgres")
IN_REDIS = {"spending": "Redis", "answers": "Redis"}


@pytest.mark.parametrize(
    ("redis_url", "database_url", "kept_by", "counted_at"),
    [
        ("", "", ALL_LOCAL, "rag-sqlite:"),
        (REDIS, "", {**ALL_LOCAL, **IN_REDIS, "conversations": "Redis"}, "rag-redis:"),
        ("", POSTGRES, ALL_POSTGRES, "rag-postgresql:"),
        (REDIS, POSTGRES, {**ALL_POSTGRES, **IN_REDIS}, "rag-redis:"),
    ],
)
def test_what_lasts_is_in_postgresql_and_what_is_counted_in_redis_where_there_are_both(
    tmp_path: Path, redis_url: str, database_url: str, kept_by: dict[str, str], counted_at: str
) -> None:
    stores = opening.stores(Settings(state_dir=tmp_path, redis_url=redis_url, database_url=database_url))
    opened = {name: type(getattr(stores, name)()).__name__ for name in kept_by}
    assert {name: kind.removesuffix(name.capitalize()) for name, kind in opened.items()} == kept_by
    assert stores.limits_uri().startswith(counted_at)
    assert bool(stores.connections()) is bool(database_url)

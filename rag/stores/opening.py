"""Which store keeps what, by the settings: SQLite files for one machine, a Redis or a PostgreSQL for several.

Each class keeps what it can for several servers, and leaves the rest to the one that it builds on. A store for more of
it is one file, and one method here.
"""

from collections.abc import Mapping
from typing import Any

from rag.settings import Settings
from rag.stores.outbox import Outbox
from rag.stores.protocols import Answers, Conversations, FeedbackStore, QuestionStore, Spending
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.feedback import SqliteFeedback
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.limits import sqlite_storage_uri

# A client of a network's store is imported where it is wanted: Redis' costs each worker 6 MB and 0.15 s of its start.


class Stores:
    """In files of STATE_DIR, for one machine. Whoever opens a store closes it, and this at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def limits_uri(self) -> str:
        """Where requests are counted, as slowapi names stores."""
        return sqlite_storage_uri(self._settings.state_dir / "rate_limits.sqlite3")

    def conversations(self) -> Conversations:
        return SqliteConversations(**self._file("conversations"), **self._conversation_bounds())

    def feedback(self) -> FeedbackStore:
        return SqliteFeedback(**self._file("feedback"))

    def spending(self) -> Spending:
        from rag.stores.sqlite.spending import SqliteSpending

        return SqliteSpending(**self._file("spending"))

    def answers(self) -> Answers:
        from rag.stores.sqlite.answers import SqliteAnswers

        return SqliteAnswers(**self._file("answers"), **self._answer_bounds())

    def questions(self) -> QuestionStore:
        from rag.stores.sqlite.questions import SqliteQuestions

        return SqliteQuestions(**self._file("questions"), days=self._settings.question_log_days)

    def outbox(self) -> Outbox:
        from rag.stores.sqlite.outbox import SqliteOutbox

        return SqliteOutbox(**self._file("outbox"))

    def connections(self) -> Mapping[str, int]:
        """Of a pool that the stores share, by state, for the metrics; none where there is no pool."""
        return {}

    async def close(self) -> None:
        """What the stores share."""

    def _file(self, name: str) -> dict[str, Any]:
        return {"path": self._settings.state_dir / f"{name}.sqlite3", "clocks": Clocks.system()}

    def _conversation_bounds(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "max_messages": settings.max_conversation_history,
            "timeout_s": settings.session_timeout_hours * 3600,
            "max_sessions": settings.max_concurrent_sessions,
            "max_bytes": round(settings.max_conversations_mb * 1024 * 1024),
        }

    def _answer_bounds(self) -> dict[str, Any]:
        return {"ttl_s": self._settings.cache_ttl_s, "max_bytes": round(self._settings.cache_max_mb * 1024 * 1024)}


class _InRedis(Stores):
    """Conversations, and what is counted or kept for a short time, in the Redis of REDIS_URL."""

    def limits_uri(self) -> str:
        from rag.stores.redis.limits import redis_storage_uri

        return redis_storage_uri(self._settings.redis_url)

    def conversations(self) -> Conversations:
        from rag.stores.redis.conversations import RedisConversations

        return RedisConversations(url=self._settings.redis_url, **self._conversation_bounds())

    def spending(self) -> Spending:
        from rag.stores.redis.spending import RedisSpending

        return RedisSpending(url=self._settings.redis_url)

    def answers(self) -> Answers:
        from rag.stores.redis.answers import RedisAnswers

        return RedisAnswers(url=self._settings.redis_url, **self._answer_bounds())


class _InPostgres(Stores):
    """All of it in the database of DATABASE_URL."""

    def __init__(self, settings: Settings) -> None:
        from rag.stores.postgres.link import Database

        super().__init__(settings)
        self._database = Database(url=settings.database_url, pool_size=settings.database_pool_size)

    def limits_uri(self) -> str:
        from rag.stores.postgres.limits import postgres_storage_uri

        return postgres_storage_uri(self._settings.database_url)

    def conversations(self) -> Conversations:
        from rag.stores.postgres.conversations import PostgresConversations

        return PostgresConversations(database=self._database, **self._conversation_bounds())

    def feedback(self) -> FeedbackStore:
        from rag.stores.postgres.feedback import PostgresFeedback

        return PostgresFeedback(database=self._database)

    def spending(self) -> Spending:
        from rag.stores.postgres.spending import PostgresSpending

        return PostgresSpending(database=self._database)

    def answers(self) -> Answers:
        from rag.stores.postgres.answers import PostgresAnswers

        return PostgresAnswers(database=self._database, **self._answer_bounds())

    def questions(self) -> QuestionStore:
        from rag.stores.postgres.questions import PostgresQuestions

        return PostgresQuestions(database=self._database, days=self._settings.question_log_days)

    def outbox(self) -> Outbox:
        from rag.stores.postgres.outbox import PostgresOutbox

        return PostgresOutbox(database=self._database)

    def connections(self) -> Mapping[str, int]:
        return self._database.connections()

    async def close(self) -> None:
        await self._database.close()


class _InBoth(_InPostgres, _InRedis):
    """What lasts in PostgreSQL; what is counted, or kept for a short time, in Redis."""

    limits_uri = _InRedis.limits_uri
    spending = _InRedis.spending
    answers = _InRedis.answers


def stores(settings: Settings) -> Stores:
    """The stores that the settings ask for; none is opened yet."""
    if settings.database_url:
        return _InBoth(settings) if settings.redis_url else _InPostgres(settings)
    return _InRedis(settings) if settings.redis_url else Stores(settings)

"""Which store keeps what, by the settings: SQLite files for one machine, a Redis for several."""

from typing import Any

from rag.settings import Settings
from rag.stores.protocols import Answers, Conversations, QuestionStore, Spending
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.limits import sqlite_storage_uri
from rag.stores.sqlite.outbox import Outbox

# A client of a network's store is imported where it is wanted: Redis' costs each worker 6 MB and 0.15 s of its start.


def limits_uri(settings: Settings) -> str:
    """Where requests are counted, as slowapi names stores."""
    if not settings.redis_url:
        return sqlite_storage_uri(settings.state_dir / "rate_limits.sqlite3")
    from rag.stores.redis.limits import redis_storage_uri

    return redis_storage_uri(settings.redis_url)


def conversations(settings: Settings) -> Conversations:
    bounds: dict[str, Any] = {
        "max_messages": settings.max_conversation_history,
        "timeout_s": settings.session_timeout_hours * 3600,
        "max_sessions": settings.max_concurrent_sessions,
        "max_bytes": round(settings.max_conversations_mb * 1024 * 1024),
    }
    if not settings.redis_url:
        return SqliteConversations(path=settings.state_dir / "conversations.sqlite3", clocks=Clocks.system(), **bounds)
    from rag.stores.redis.conversations import RedisConversations

    return RedisConversations(url=settings.redis_url, **bounds)


def spending(settings: Settings) -> Spending:
    if not settings.redis_url:
        from rag.stores.sqlite.spending import SqliteSpending

        return SqliteSpending(path=settings.state_dir / "spending.sqlite3", clocks=Clocks.system())
    from rag.stores.redis.spending import RedisSpending

    return RedisSpending(url=settings.redis_url)


def answers(settings: Settings) -> Answers:
    bounds: dict[str, Any] = {"ttl_s": settings.cache_ttl_s, "max_bytes": round(settings.cache_max_mb * 1024 * 1024)}
    if not settings.redis_url:
        from rag.stores.sqlite.answers import SqliteAnswers

        return SqliteAnswers(path=settings.state_dir / "answers.sqlite3", clocks=Clocks.system(), **bounds)
    from rag.stores.redis.answers import RedisAnswers

    return RedisAnswers(url=settings.redis_url, **bounds)


def questions(settings: Settings) -> QuestionStore:
    """On each machine its own, with Redis too."""
    from rag.stores.sqlite.questions import SqliteQuestions

    return SqliteQuestions(
        path=settings.state_dir / "questions.sqlite3", clocks=Clocks.system(), days=settings.question_log_days
    )


def outbox(settings: Settings) -> Outbox:
    """On each machine its own, with Redis too: what a server takes it delivers."""
    return Outbox(path=settings.state_dir / "outbox.sqlite3", clocks=Clocks.system())

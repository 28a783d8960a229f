"""What several servers share in a real PostgreSQL, also through PgBouncer: frozen, killed and started again."""

import asyncio
import hashlib
import random
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rag.errors import ConfigError, StateUnavailable
from rag.ops import preflight
from rag.settings import Settings
from rag.stores.postgres import link
from rag.stores.postgres.feedback import PostgresFeedback
from rag.stores.postgres.limits import PostgresStorage, postgres_storage_uri
from rag.stores.postgres.link import ANSWER_TIMEOUT_S, Database
from rag.stores.protocols import DELETION_KNOWN_S, Conversations, Feedback
from rag.stores.sqlite.file import Clocks
from rag.types import Message
from tests.support.postgres_server import PgBouncer, PostgresServer
from tests.unit.stores.stories import all_pairs, limited, passes, seconds_to_fail, told, turn, until

DAY_S = 86_400.0
RECOVERY_S = 5.0
"""How long a database that is back may go unused, at most."""


@pytest.fixture(params=["direct", "pgbouncer"])
def url(request: pytest.FixtureRequest, database_url: str, bouncer: PgBouncer) -> str:
    return database_url if request.param == "direct" else bouncer.url(database_url)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """For a test that takes it away."""
    with PostgresServer() as running:
        yield running


def looked_up(url: str, statement: str) -> list[Any]:
    """Beside the code under test."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def pass_time(url: str, seconds: float) -> None:
    """As if all that is stored had been stored that much earlier."""
    for table, columns in (("conversations", ("began_at", "used_at")), ("deletions", ("deleted_at",))):
        changed = ", ".join(f"{column} = {column} - make_interval(secs => {seconds})" for column in columns)
        looked_up(url, f"UPDATE rag.{table} SET {changed}")


# --- Conversations ---------------------------------------------------------------------------------------------------


def test_pruning_removes_the_idlest_of_what_is_too_large_and_a_claim_stays_one(url: str) -> None:
    async def story(conversations: Conversations) -> None:
        for name in ("first", "second", "third"):
            await conversations.append(name, [Message("user", "x" * 700)])
        await conversations.restore("claimed", [Message("assistant", "said", is_claimed=True)])
        await conversations.append("first", [Message("user", "x" * 700)])
        assert await conversations.prune_if_due(0) == 1
        assert [len(await conversations.history(name)) for name in ("first", "second", "third")] == [2, 0, 1]
        assert [message.is_claimed for message in await conversations.history("claimed")] == [True]

    told(story, url, max_bytes=2_300)


def test_a_conversation_expires_after_its_last_answer_even_where_nothing_prunes(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        pass_time(database_url, DAY_S - 10)
        assert await conversations.history("one") == turn("1")
        await conversations.append("one", turn("2"))
        pass_time(database_url, DAY_S - 10)
        assert await conversations.history("one") == [*turn("1"), *turn("2")]
        pass_time(database_url, 11)
        assert await conversations.history("one") == []
        assert await conversations.count() == 0
        assert await conversations.stats() == {"sessions": 0, "messages": 0, "oldest": None}
        assert await conversations.restore("one", []) == []
        await conversations.append("one", turn("anew"))
        assert await conversations.history("one") == turn("anew")

    told(story, database_url)


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_to_a_conversation_that_was_deleted_meanwhile_is_not_remembered(
    database_url: str, known: bool
) -> None:
    async def story(conversations: Conversations) -> None:
        if known:
            await conversations.append("one", turn("before"))
        await conversations.append("two", turn("kept"))
        await conversations.delete("one")
        await conversations.delete("one")
        pass_time(database_url, 10)
        await conversations.append("one", turn("late"), asked_s_ago=15)
        assert await conversations.restore("one", turn("late"), asked_s_ago=15) == []
        assert await conversations.history("one") == []
        await conversations.append("one", turn("after"), asked_s_ago=5)
        assert await conversations.history("one") == turn("after")
        assert await conversations.history("two") == turn("kept")
        pass_time(database_url, DELETION_KNOWN_S)
        await conversations.prune_if_due(0)
        assert looked_up(database_url, "SELECT count(*) FROM rag.deletions") == [(0,)]

    told(story, database_url)


def test_the_counts_say_when_the_oldest_conversation_began(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        for name in ("one", "two", "one"):
            await conversations.append(name, turn(name))
        looked_up(database_url, "UPDATE rag.conversations SET began_at = '2023-11-14T22:13:20Z' WHERE newest = 2")
        assert await conversations.stats() == {"sessions": 2, "messages": 6, "oldest": "2023-11-14T22:13:20+00:00"}
        assert await conversations.count() == 2

    told(story, database_url)


def test_a_session_id_is_nowhere_in_the_database(database_url: str) -> None:
    session_id = "a-session-id-that-nobody-guesses"

    async def story(conversations: Conversations) -> None:
        await conversations.append(session_id, turn("1"))
        await conversations.delete("another")

    told(story, database_url)
    dumped = subprocess.run(["pg_dump", "--inserts", database_url], capture_output=True, check=True, timeout=30).stdout
    assert hashlib.sha256(session_id.encode()).hexdigest().encode() in dumped
    assert session_id.encode() not in dumped
    assert session_id.encode().hex().encode() not in dumped


def test_one_server_prunes_per_interval(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        for number in range(450):
            await conversations.append(f"old {number}", turn(str(number)))
        pass_time(database_url, DAY_S + 1)
        await conversations.append("young", turn("1"))
        turns = await asyncio.gather(*(conversations.prune_if_due(3_600) for _ in range(20)))
        assert sorted(removed for removed in turns if removed is not None) == [450]
        assert looked_up(database_url, "SELECT count(*) FROM rag.messages") == [(2,)]
        assert await conversations.prune_if_due(0) == 0

    told(story, database_url)


def test_callers_that_are_cancelled_leave_whole_turns_and_take_no_foreign_answer_with_them(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        for number in range(20):
            await conversations.append(f"session {number}", turn(f"{number} first"))
        for round_number in range(20):
            tasks = [asyncio.create_task(conversations.history(f"session {n}")) for n in range(10)]
            tasks += [asyncio.create_task(conversations.append("one", turn(f"{round_number}.{i}"))) for i in range(10)]
            for _ in range(random.randrange(12)):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert all_pairs([message.content for message in await conversations.history("one")])
        found = await asyncio.gather(*(conversations.history(f"session {number}") for number in range(20)))
        assert found == [turn(f"{number} first") for number in range(20)]
        await until(few_connections)

    async def few_connections() -> bool:
        [(found,)] = looked_up(
            database_url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'rag-server'",
        )  # fmt: skip
        return int(found) <= 5

    told(story, database_url, max_messages=1_000)


def test_four_hundred_visitors_at_once_are_all_remembered_by_two_connections(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        await asyncio.gather(*(conversations.append(f"visitor {number}", turn("x")) for number in range(400)))
        assert await conversations.count() == 400

    told(story, database_url, pool_size=2)


def test_a_thumb_that_is_given_again_replaces_the_one_before_and_goes_with_its_conversation(url: str) -> None:
    def thumb(rating: Any, answer: str = "From nine \0 to \ud800 six.") -> Feedback:
        return Feedback(rating=rating, reason="", question="When are you open?", answer=answer)

    async def story() -> None:
        database = Database(url=url, pool_size=2)
        thumbs = PostgresFeedback(database=database)
        for rating in ("up", "up", "down"):
            await thumbs.add(thumb(rating), session_id="one")
        await thumbs.add(thumb("up"), session_id="two")
        await thumbs.add(thumb("up", "Until six."), session_id="one")
        found = [(one.rating, one.answer) for one in await thumbs.newest(100)]
        assert found == [("up", "Until six."), ("up", thumb("up").answer), ("down", thumb("up").answer)]
        assert [await thumbs.disliked(session) for session in ("one", "two", "three")] == [1, 0, 0]
        await thumbs.forget("one")
        [left] = await thumbs.newest(100)
        assert left.given_at.startswith("20")
        await database.close()

    asyncio.run(story())


# --- When the database is away ---------------------------------------------------------------------------------------


def test_a_frozen_database_costs_those_who_wait_one_timeout_and_nobody_after_them_anything(
    own_server: PostgresServer,
) -> None:
    async def story(conversations: Conversations) -> None:
        await asyncio.gather(*(conversations.append(str(number), turn("x")) for number in range(20)))
        await conversations.append("one", turn("1"))
        own_server.freeze()
        waits = await asyncio.gather(*(seconds_to_fail(conversations.history("one")) for _ in range(100)))
        assert max(waits) < ANSWER_TIMEOUT_S + 0.5
        later = [await seconds_to_fail(conversations.append("one", turn("lost"))) for _ in range(50)]
        assert sum(later) < 0.25
        own_server.thaw()
        assert await until(lambda: conversations.history("one")) < RECOVERY_S
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == [*turn("1"), *turn("2")]

    told(story, own_server.database())


def test_a_database_that_was_killed_and_started_again_is_used_again_by_itself_and_has_lost_nothing(
    own_server: PostgresServer,
) -> None:
    async def reached(conversations: Conversations) -> bool:
        await conversations.check()
        return True

    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        await asyncio.to_thread(own_server.kill)
        with pytest.raises(StateUnavailable, match=f"127.0.0.1:{own_server.port}"):
            await conversations.append("one", turn("refused"))
        assert await seconds_to_fail(conversations.check()) < 0.5
        await asyncio.to_thread(own_server.start)
        assert await until(lambda: reached(conversations)) < RECOVERY_S
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == [*turn("1"), *turn("2")]
        # And one that is restarted between two questions is not noticed.
        await asyncio.gather(*(conversations.append(str(number), turn("1")) for number in range(20)))
        await asyncio.to_thread(own_server.stop)
        await asyncio.to_thread(own_server.start)
        await conversations.append("one", turn("3"))
        assert await conversations.history("one") == [*turn("1"), *turn("2"), *turn("3")]

    told(story, own_server.database())


def test_a_primary_that_became_a_replica_is_left_and_found_again_when_it_takes_writes(database_url: str) -> None:
    name = database_url.rpartition("/")[2]

    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        looked_up(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        looked_up(database_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                  "WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
        assert await until(lambda: refused(conversations)) < RECOVERY_S
        with pytest.raises(StateUnavailable):
            await conversations.check()
        with psycopg.connect(database_url.replace(name, "postgres"), autocommit=True) as elsewhere:
            elsewhere.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
        assert await until(lambda: conversations.history("one")) < RECOVERY_S

    async def refused(conversations: Conversations) -> bool:
        try:
            await conversations.append("two", turn("refused"))
        except StateUnavailable:
            return True
        return False

    told(story, database_url)


def test_what_the_owner_asks_for_may_take_longer_and_keeps_nobody_else_waiting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "ANSWER_TIMEOUT_S", 0.3)

    async def story() -> None:
        database = Database(url=database_url, pool_size=2)
        assert await database.rows("SELECT 1 FROM pg_sleep(0.6)", timeout_s=10) == [(1,)]
        with pytest.raises(StateUnavailable):
            await database.rows("SELECT pg_sleep(5)", timeout_s=0.6)
        assert await database.rows("SELECT 1") == [(1,)]
        with pytest.raises(StateUnavailable):
            await database.rows("SELECT pg_sleep(5)")
        with pytest.raises(StateUnavailable, match="silent"):
            await database.rows("SELECT 1")
        await database.close()

    asyncio.run(story())


def test_who_holds_a_lock_delays_one_conversation_for_a_second_and_the_others_not_at_all(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        with psycopg.connect(database_url) as other:
            other.execute("SELECT 1 FROM rag.conversations FOR UPDATE")
            assert 0.9 < await seconds_to_fail(conversations.append("one", turn("2"))) < ANSWER_TIMEOUT_S
            await conversations.append("two", turn("1"))
        await conversations.append("one", turn("3"))
        assert await conversations.history("one") == [*turn("1"), *turn("3")]

    told(story, database_url)


def test_of_several_hosts_the_one_that_takes_writes_is_used(database_url: str) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        assert await conversations.history("one") == turn("1")

    told(story, database_url.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:") + "?target_session_attrs=read-write")


def test_a_wrong_password_is_unavailable_and_is_not_told(database_url: str) -> None:
    wrong = database_url.replace("rag@", "nobody:wrong-password@")

    async def story(conversations: Conversations) -> None:
        with pytest.raises(StateUnavailable, match=r"127\.0\.0\.1") as refused:
            await conversations.history("one")
        assert "wrong-password" not in f"{refused.value} {refused.value.__cause__!r}"

    told(story, wrong)


# --- Limits ----------------------------------------------------------------------------------------------------------


def test_a_fixed_window_begins_with_its_first_hit(database_url: str) -> None:
    storage = PostgresStorage(postgres_storage_uri(database_url), clocks=Clocks.system())
    try:
        assert [storage.incr("key", 60), storage.incr("key", 60, amount=2), storage.get("key")] == [1, 3, 3]
        assert 50 < storage.get_expiry("key") - time.time() <= 60
        assert (storage.get("other"), storage.incr("other", 60)) == (0, 1)
    finally:
        storage.close()


def test_the_headers_count_down_the_window_moves_and_hits_name_no_visitor_and_are_pruned(database_url: str) -> None:
    async def story() -> None:
        limits = limited(database_url, chat="2/second")
        first = await limits.check("chat", "192.0.2.77")
        second = await limits.check("chat", "192.0.2.77")
        assert (first["X-RateLimit-Limit"], first["X-RateLimit-Remaining"]) == ("2", "1")
        assert second["X-RateLimit-Remaining"] == "0"
        assert not await passes(limits, "192.0.2.77")
        assert await passes(limits, "b")
        assert "192.0.2.77" not in str(looked_up(database_url, "SELECT key FROM rag.hits"))
        assert await until(lambda: passes(limits, "192.0.2.77")) < 2.0
        looked_up(database_url, "UPDATE rag.hits SET expires_at = now() - interval '1 second'")
        assert await limits.prune() > 0
        assert looked_up(database_url, "SELECT count(*) FROM rag.hits") == [(0,)]
        await limits.close()

    asyncio.run(story())


def test_while_the_database_is_frozen_each_worker_counts_for_itself_without_holding_up_the_event_loop(
    own_server: PostgresServer,
) -> None:
    url = own_server.database()

    async def story() -> None:
        limits = limited(url, chat="3/minute")
        assert await passes(limits, "before")
        own_server.freeze()
        began, longest = time.monotonic(), 0.0
        waiting = asyncio.gather(*(passes(limits, f"visitor {number}") for number in range(100)))
        while not waiting.done():
            at = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - at)
        assert all(await waiting)
        assert time.monotonic() - began < 1.0, "all of them waited for one time-out together"
        assert longest < 0.2
        assert [await passes(limits, "one") for _ in range(5)] == [True, True, True, False, False]
        with pytest.raises(StateUnavailable, match="check DATABASE_URL"):
            await limits.check_store()
        own_server.thaw()

        async def counted_there_again() -> bool:
            await passes(limits, "after")
            return (hashlib.sha256(b"after").hexdigest()[:32]) in str(looked_up(url, "SELECT key FROM rag.hits"))

        assert await until(counted_there_again) < RECOVERY_S
        await limits.close()

    asyncio.run(story())


# --- The setting and the check before the start ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.internal/rag", "postgres://rag:p%40ss@10.0.0.7:6432/rag?sslmode=require",
        "postgresql://a.example:5432,b.example:5433/rag?target_session_attrs=read-write",
        "postgresql:///rag?host=/var/run/postgresql", "postgresql://rag@[::1]:5432/rag",
    ],
)  # fmt: skip
def test_addresses_of_databases_are_taken_as_they_are(url: str) -> None:
    assert Settings.from_environment({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "db.internal:5432", "mysql://root:hidden@db/rag", "postgresql://db", "postgresql:///rag",
        "postgresql://u:hidden@db:port/rag", "postgresql://db/rag?connect_timeout=60", "postgresql://u:hid#den@db/rag",
        "postgresql://db/rag?password=hidden", "postgresql://db/rag/more", "postgresql://db/rag?options=-cfsync%3Doff",
    ],
)  # fmt: skip
def test_an_address_that_cannot_work_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.from_environment({"DATABASE_URL": url})
    [fault] = refused.value.faults
    assert fault.startswith("DATABASE_URL=(hidden): allowed is postgresql://")
    assert "hid" not in fault.removeprefix("DATABASE_URL=(hidden)")


def test_the_password_counts_as_a_secret_in_every_form() -> None:
    settings = Settings(database_url="postgresql://rag:p%40ss@db/rag")
    assert {"p%40ss", "p@ss", settings.database_url} == set(settings.secrets)
    assert "p%40ss" not in repr(settings)


def test_the_check_before_the_start_knows_the_database_and_stops_only_where_somebody_has_to_act(
    postgres_server: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def findings(url: str, **given: Any) -> list[preflight.Finding]:
        settings = Settings(database_url=url.replace("rag@", "rag:hidden@"), state_dir=tmp_path, demo=True, **given)
        found = preflight.check_all(settings, (), running=False, probe=lambda settings: 0)
        assert "hidden" not in str(found)
        return [each for each in found if each.subject == "database"]

    [sound] = findings(database_url)
    assert (sound.state, f"127.0.0.1:{postgres_server.port}" in sound.sentence) == ("ok", True)
    [_, many] = findings(database_url, workers=20)
    assert (many.state, "allows 100" in many.sentence) == ("warning", True)
    [without] = findings(postgres_server.empty_database())
    assert (without.state, without.remedy) == ("fault", "python -m rag.database migrate")
    [away] = findings("postgresql://rag@127.0.0.1:1/rag")
    assert (away.state, "each worker limits for itself" in away.sentence, "DATABASE_URL" in away.remedy) == (
        "warning", True, True,
    )  # fmt: skip
    monkeypatch.setattr("rag.ops.store_checks.find_spec", lambda name: None)
    [missing] = findings(database_url)
    assert (missing.state, "requirements-postgres.lock" in missing.remedy) == ("fault", True)

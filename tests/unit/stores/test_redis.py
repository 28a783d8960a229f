"""Conversations and limits that several servers share: a real redis-server, frozen, killed and started again."""

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.errors import ConfigError, StateUnavailable
from rag.ops import preflight
from rag.settings import Settings
from rag.stores.protocols import DELETION_KNOWN_S, Conversations
from rag.stores.redis.conversations import RedisConversations
from rag.types import Message
from tests.support.redis_server import RedisServer
from tests.unit.stores.stories import all_pairs, limited, passes, seconds_to_fail, told, turn, until

DAY_S = 86_400.0
RECOVERY_S = 5.0
"""How long a Redis that is back may go unused, at most."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


# --- Conversations ---------------------------------------------------------------------------------------------------


def test_a_unix_socket_is_an_address_too(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        assert await conversations.history("one") == turn("1")
        assert redis.client.dbsize() == 0
        assert redis.client.execute_command("SELECT", 3)

    told(story, f"{redis.socket_url}?db=3")


def test_the_idlest_conversations_go_first_when_they_are_too_large(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        for name in ("first", "second", "first", "third", "fourth"):
            await conversations.append(name, [Message("user", "x" * 700)])
        assert await conversations.history("second") == []
        assert [len(await conversations.history(name)) for name in ("first", "third", "fourth")] == [2, 1, 1]
        await conversations.append("fifth", [Message("user", "水" * 2_000)])
        assert [len(await conversations.history(name)) for name in ("first", "third", "fourth", "fifth")] == [
            0,
            0,
            0,
            1,
        ]
        await conversations.delete("fifth")
        assert int(redis.client.get("rag:conversations:bytes")) == 0
        await conversations.restore("sixth", [Message("assistant", "said", is_claimed=True)])
        assert [message.is_claimed for message in await conversations.history("sixth")] == [True]

    told(story, redis.url, max_bytes=3_000, max_messages=4)


def test_a_conversation_expires_by_itself_and_leaves_the_counts(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        assert await until(lambda: empty(conversations, "one")) > 0.1
        assert await conversations.stats() == {"sessions": 0, "messages": 0, "oldest": None}
        await conversations.append("one", turn("anew"))
        assert await conversations.history("one") == turn("anew")
        assert (await conversations.stats())["messages"] == 2

    told(story, redis.url, timeout_s=0.3)


async def empty(conversations: Conversations, session_id: str) -> bool:
    return not await conversations.history(session_id)


def test_each_answer_gives_a_conversation_its_whole_time_again_and_reading_gives_none(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        [key] = redis.client.keys("rag:conversation:*")
        assert 0.99 * DAY_S < redis.client.ttl(key) <= DAY_S
        redis.client.expire(key, 100)
        await conversations.history("one")
        assert await conversations.restore("one", turn("a lie")) == turn("1")
        assert redis.client.ttl(key) <= 100
        await conversations.append("one", turn("2"))
        assert redis.client.ttl(key) > 0.99 * DAY_S

    told(story, redis.url)


def test_an_expired_conversation_is_not_counted_even_where_nothing_prunes(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        assert await conversations.count() == 1
        assert await until(lambda: none_left(conversations)) > 0
        assert redis.client.zcard("rag:conversations:used") == 1

    async def none_left(conversations: Conversations) -> bool:
        return await conversations.count() == 0

    told(story, redis.url, timeout_s=0.3)


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_to_a_conversation_that_was_deleted_meanwhile_is_not_remembered(
    redis: RedisServer, known: bool
) -> None:
    async def story(conversations: Conversations) -> None:
        if known:
            await conversations.append("one", turn("before"))
        began = time.monotonic()
        await conversations.delete("one")
        await conversations.append("one", turn("late"), asked_s_ago=time.monotonic() - began + 0.5)
        assert await conversations.history("one") == []
        await conversations.append("one", turn("after"))
        assert await conversations.history("one") == turn("after")
        assert 0 < redis.client.ttl(f"rag:deletion:{hashlib.sha256(b'one').hexdigest()}") <= DELETION_KNOWN_S

    told(story, redis.url)


def test_the_counts_say_when_the_oldest_conversation_began(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        assert await conversations.stats() == {"sessions": 0, "messages": 0, "oldest": None}
        for name in ("one", "two", "one"):
            await conversations.append(name, turn(name))
        index = "rag:conversations:began"
        redis.client.zadd(index, {hashlib.sha256(b"one").hexdigest(): 1_800_000_000_000_000})
        assert await conversations.stats() == {"sessions": 2, "messages": 6, "oldest": began_at("two")}
        assert await conversations.count() == 2
        redis.client.zadd(index, {hashlib.sha256(b"one").hexdigest(): 1_700_000_000_000_000})
        assert (await conversations.stats())["oldest"] == "2023-11-14T22:13:20+00:00"

    def began_at(name: str) -> str:
        seconds = redis.client.zscore("rag:conversations:began", hashlib.sha256(name.encode()).hexdigest()) / 1e6
        return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))

    told(story, redis.url)


def test_a_session_id_is_nowhere_in_redis_and_every_key_is_ours(redis: RedisServer) -> None:
    session_id = "a-session-id-that-nobody-guesses"

    async def story(conversations: Conversations) -> None:
        await conversations.append(session_id, turn("1"))
        await conversations.prune_if_due(0)
        keys = redis.client.keys("*")
        assert len(keys) == 8
        assert all(key.startswith("rag:") for key in keys)
        redis.client.connection_pool.connection_kwargs["decode_responses"] = False
        redis.client.connection_pool.reset()
        stored = b"".join([*redis.client.keys("*"), *(redis.client.dump(key) for key in keys)])
        assert hashlib.sha256(session_id.encode()).hexdigest().encode() in stored
        assert session_id.encode() not in stored

    told(story, redis.url)


def test_one_server_prunes_per_interval(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        short = RedisConversations(url=redis.url, timeout_s=0.001)
        for number in range(450):
            await short.append(f"old {number}", turn(str(number)))
        await until(lambda: empty(short, "old 449"))
        servers = [RedisConversations(url=redis.url, timeout_s=10.0) for _ in range(4)]
        for server in servers:
            await server.append("young", turn("1"))
        turns = await asyncio.gather(*(short.prune_if_due(3_600) for _ in range(10)))
        turns += await asyncio.gather(*(server.prune_if_due(3_600) for server in servers for _ in range(10)))
        assert sorted(removed for removed in turns if removed is not None) == [451]
        assert redis.client.zcard("rag:conversations:used") == 0
        assert redis.client.get("rag:conversations:messages") == "0"
        assert await conversations.prune_if_due(0) == 0
        await asyncio.gather(*(each.close() for each in (short, *servers)))

    told(story, redis.url)


def test_a_full_redis_takes_no_more_and_keeps_deletions(tmp_path: Path) -> None:
    large = [Message("user", "x" * 70_000), Message("assistant", "y")]

    async def story(conversations: Conversations) -> None:
        await conversations.append("mine", turn("1"))
        refused = 0
        for number in range(200):
            try:
                await conversations.append(f"claimed-{number}", large)
            except StateUnavailable:
                refused += 1
        assert 0 < refused < 200
        await conversations.delete("mine")
        await conversations.append("mine", turn("late"), asked_s_ago=60)
        assert await conversations.history("mine") == []

    with RedisServer(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction") as small:
        told(story, small.url)
        assert int(small.client.info("memory")["used_memory"]) < 10_000_000


def test_counts_recover_when_redis_itself_evicts_a_conversation(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        redis.client.delete(*redis.client.keys("rag:conversation:*"))
        assert await conversations.history("one") == []
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == turn("2")
        counts = await conversations.stats()
        assert (counts["sessions"], counts["messages"]) == (1, 2)

    told(story, redis.url)


def test_callers_that_are_cancelled_leave_whole_turns_and_take_no_connection_or_foreign_answer_with_them(
    redis: RedisServer,
) -> None:
    async def story(conversations: Conversations) -> None:
        for number in range(40):
            await conversations.append(f"session {number}", turn(f"{number} first"))
        for round_number in range(25):
            tasks = [asyncio.create_task(conversations.history(f"session {n}")) for n in range(20)]
            tasks += [asyncio.create_task(conversations.append("one", turn(f"{round_number}.{i}"))) for i in range(20)]
            for _ in range(round_number % 7):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert all_pairs([message.content for message in await conversations.history("one")])
        found = await asyncio.gather(*(conversations.history(f"session {number}") for number in range(40)))
        assert found == [turn(f"{number} first") for number in range(40)]
        assert redis.client.info("clients")["connected_clients"] <= 6

    told(story, redis.url, max_messages=1_000)


# --- When Redis is away ----------------------------------------------------------------------------------------------


def test_a_frozen_redis_costs_those_who_wait_one_timeout_and_nobody_after_them_anything(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        redis.freeze()
        waits = await asyncio.gather(*(seconds_to_fail(conversations.history("one")) for _ in range(100)))
        assert max(waits) < 1.0
        later = [await seconds_to_fail(conversations.append("one", turn("lost"))) for _ in range(50)]
        assert sum(later) < 0.25
        redis.thaw()
        assert await until(lambda: conversations.history("one")) < RECOVERY_S
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == [*turn("1"), *turn("2")]

    told(story, redis.url)


def test_a_silent_redis_is_asked_by_one_task_and_by_no_visitor() -> None:
    opened: list[socket.socket] = []

    async def story(conversations: Conversations) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 2.8:
            await asyncio.gather(*(seconds_to_fail(conversations.history(str(number))) for number in range(50)))
            await asyncio.sleep(0.02)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        listener.setblocking(False)
        told(story, f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        try:
            while True:
                opened.append(listener.accept()[0])
        except BlockingIOError:
            for each in opened:
                each.close()
    assert 5 <= len(opened) <= 7, "those who waited first shared four connections; a probe a second after that"


def test_a_redis_that_was_killed_and_started_again_is_used_again_by_itself(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        redis.kill()
        with pytest.raises(StateUnavailable, match=f"127.0.0.1:{redis.port}"):
            await conversations.append("one", turn("refused"))
        with pytest.raises(StateUnavailable):
            await conversations.check()
        redis.start()
        assert await until(lambda: reached(conversations)) < RECOVERY_S
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == turn("2")

    told(story, redis.url)


async def reached(conversations: Conversations) -> bool:
    await conversations.check()
    return True


def test_a_restart_between_two_questions_is_not_noticed(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await asyncio.gather(*(conversations.append(str(number), turn("1")) for number in range(20)))
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start)
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == turn("2")

    told(story, redis.url)


def test_a_redis_without_room_refuses_to_remember_and_still_reads(redis: RedisServer) -> None:
    async def story(conversations: Conversations) -> None:
        await conversations.append("one", turn("1"))
        redis.client.config_set("maxmemory", 1)
        for refused in (conversations.append("one", turn("2")), conversations.check()):
            with pytest.raises(StateUnavailable, match="maxmemory"):
                await refused
        assert await conversations.history("one") == turn("1")
        redis.client.config_set("maxmemory", 0)
        await conversations.append("one", turn("3"))
        assert await conversations.history("one") == [*turn("1"), *turn("3")]

    told(story, redis.url)


def test_a_wrong_password_is_unavailable_and_is_not_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "right-password") as redis:
        address = f"127.0.0.1:{redis.port}/0"

        async def story(conversations: Conversations) -> None:
            with pytest.raises(StateUnavailable, match=address) as refused:
                await conversations.history("one")
            assert "wrong-password" not in f"{refused.value} {refused.value.__cause__!r}"

        told(story, f"redis://:wrong-password@{address}")

        async def admitted(conversations: Conversations) -> None:
            await conversations.check()

        told(admitted, f"redis://:right-password@{address}")


# --- Limits ----------------------------------------------------------------------------------------------------------


def test_the_headers_count_down_and_the_window_moves(redis: RedisServer) -> None:
    async def story() -> None:
        limits = limited(redis.url, chat="2/second")
        first = await limits.check("chat", "a")
        second = await limits.check("chat", "a")
        assert (first["X-RateLimit-Limit"], first["X-RateLimit-Remaining"]) == ("2", "1")
        assert second["X-RateLimit-Remaining"] == "0"
        assert not await passes(limits, "a")
        assert await passes(limits, "b")
        assert await until(lambda: passes(limits, "a")) < 2.0
        await limits.close()

    asyncio.run(story())


def test_hits_expire_by_themselves_and_name_no_visitor(redis: RedisServer) -> None:
    async def story() -> None:
        limits = limited(redis.url, chat="5/minute;9/hour")
        for _ in range(3):
            assert await passes(limits, "192.0.2.77")
        await limits.close()

    asyncio.run(story())
    keys = redis.client.keys("*")
    assert len(keys) == 2
    assert all(key.startswith("rag:limit:") and "192.0.2.77" not in key for key in keys)
    assert sorted(round(redis.client.ttl(key), -2) for key in keys) == [100, 3_600]
    assert [redis.client.zcard(key) for key in keys] == [3, 3]


def test_while_redis_is_frozen_each_worker_counts_for_itself_without_holding_up_the_event_loop(
    redis: RedisServer,
) -> None:
    async def story() -> None:
        limits = limited(redis.url, chat="3/minute")
        assert await passes(limits, "before")
        redis.freeze()
        began, turns_of_the_loop, longest = time.monotonic(), 0, 0.0
        waiting = asyncio.gather(*(passes(limits, f"visitor {number}") for number in range(100)))
        while not waiting.done():
            at = time.monotonic()
            await asyncio.sleep(0.001)
            longest, turns_of_the_loop = max(longest, time.monotonic() - at), turns_of_the_loop + 1
        assert all(await waiting)
        assert time.monotonic() - began < 1.0, "all of them waited for one time-out together"
        assert turns_of_the_loop > 30
        assert longest < 0.2
        assert [await passes(limits, "one") for _ in range(5)] == [True, True, True, False, False]
        with pytest.raises(StateUnavailable, match="check REDIS_URL"):
            await limits.check_store()
        redis.thaw()

        async def counted_in_redis_again() -> bool:
            await passes(limits, "after")
            return any(redis.client.zcard(key) for key in redis.client.keys("rag:limit:*") if hashed("after") in key)

        assert await until(counted_in_redis_again) < RECOVERY_S
        await limits.close()

    def hashed(bucket: str) -> str:
        return hashlib.sha256(bucket.encode()).hexdigest()[:32]

    asyncio.run(story())


def test_a_start_without_redis_limits_all_the_same_and_finds_it_when_it_comes(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)

    async def story() -> None:
        limits = limited(redis.url, chat="1/minute")
        assert [await passes(limits), await passes(limits)] == [True, False]
        with redis:
            assert await until(lambda: passes(limits)) < RECOVERY_S
            assert not await passes(limits)
            assert len(redis.client.keys("rag:limit:*")) == 1
        await limits.close()

    asyncio.run(story())


# --- The setting and the check before the start ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache.internal", "redis://:p%40ss@10.0.0.7:6380/2", "rediss://user:pass@cache.example:6380?db=1",
        "rediss://cache.example/0?ssl_ca_certs=/etc/ca.pem", "unix:///run/redis.sock?db=1&password=x",
        "redis://[::1]:6379",
    ],
)  # fmt: skip
def test_addresses_of_redis_are_taken_as_they_are(url: str) -> None:
    assert Settings.from_environment({"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "cache.internal:6379", "http://:hidden@cache.internal", "redis://", "redis://:hidden@cache:port",
        "redis://cache/one", "redis://:hidden@cache?socket_timeout=60", "redis://cache?db=one", "unix://",
        "redis://:hid#den@cache", "redis://cache?ssl_ca_certs=/etc/ca.pem",
    ],
)  # fmt: skip
def test_an_address_that_cannot_work_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.from_environment({"REDIS_URL": url})
    [fault] = refused.value.faults
    assert fault.startswith("REDIS_URL=(hidden): allowed is redis://")
    assert "hid" not in fault.removeprefix("REDIS_URL=(hidden)")


def test_the_password_counts_as_a_secret_in_every_form() -> None:
    settings = Settings(redis_url="redis://:p%40ss@cache/0")
    assert {"p%40ss", "p@ss", settings.redis_url} == set(settings.secrets)
    assert "p%40ss" not in repr(settings)
    assert {"a b", "a%20b"} <= set(Settings(redis_url="unix:///run/r.sock?db=1&password=a%20b").secrets)


def test_the_check_before_the_start_names_redis_and_only_warns_where_it_is_away(
    redis: RedisServer, tmp_path: Path
) -> None:
    def finding(**given: Any) -> preflight.Finding | None:
        settings = Settings(redis_url=redis.url.replace("//", "//:hidden@"), state_dir=tmp_path, demo=True)
        findings = preflight.check_all(settings, (), **{"running": False, "probe": lambda settings: 0, **given})
        return next((each for each in findings if each.subject == "redis"), None)

    redis.client.config_set("requirepass", "hidden")
    found = finding()
    assert found is not None
    assert (found.state, f"127.0.0.1:{redis.port}" in found.sentence) == ("ok", True)
    redis.kill()
    away = finding()
    assert away is not None
    assert away.state == "warning"
    assert "each worker limits for itself" in away.sentence
    assert "REDIS_URL" in away.remedy
    assert "hidden" not in f"{found} {away}"
    assert finding(running=True) is None

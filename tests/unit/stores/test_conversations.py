"""Conversations that worker processes share: real files, real processes, clocks whose hands a test moves."""

import asyncio
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from rag.deadline import STREAM_LENGTH_S
from rag.errors import StateUnavailable
from rag.stores.protocols import DELETION_KNOWN_S
from rag.stores.sqlite import conversations as sqlite_conversations
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.file import Clocks
from rag.types import Message
from tests.support.waiting import REPOSITORY
from tests.unit.stores.stories import all_pairs, turn

DAY_S = 86_400.0


@dataclass
class Hands:
    """Clocks whose hands a test moves."""

    wall: float = 1_800_000_000.0
    monotonic: float = 500.0

    def clocks(self, boot_id: str = "first boot") -> Clocks:
        return Clocks(wall_s=lambda: self.wall, monotonic_s=lambda: self.monotonic, boot_id=boot_id)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def contents(messages: list[Message]) -> list[str]:
    return [message.content for message in messages]


def opened(path: Path, clocks: Clocks | None = None, **options: Any) -> SqliteConversations:
    return SqliteConversations(path=path, clocks=clocks or Clocks.system(), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.sqlite3"


def test_the_idlest_conversations_go_first_when_they_are_too_large(path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        conversations = opened(path, hands.clocks(), max_bytes=3_000, max_messages=4)
        for name in ("first", "second", "first", "third", "fourth"):
            hands.pass_time(1)
            await conversations.append(name, [Message("user", "x" * 700)])
        assert await conversations.history("second") == []
        assert [len(await conversations.history(name)) for name in ("first", "third", "fourth")] == [2, 1, 1]
        # One alone may be larger: what is being said now is kept.
        await conversations.append("fifth", [Message("user", "水" * 2_000)])
        assert [len(await conversations.history(name)) for name in ("first", "third", "fourth", "fifth")] == [
            0,
            0,
            0,
            1,
        ]
        await conversations.delete("fifth")
        await conversations.append("sixth", [Message("user", "x" * 2_900)])
        await conversations.append("seventh", turn("short"))
        assert await conversations.history("sixth") != []

    asyncio.run(story())


def test_what_only_a_client_claims_stays_a_claim(path: Path) -> None:
    async def story() -> None:
        conversations = opened(path)
        claimed = [Message("user", "asked", is_claimed=True), Message("assistant", "said", is_claimed=True)]
        await conversations.restore("one", claimed)
        await conversations.append("one", turn("real"))
        said = await conversations.history("one")
        assert [message.is_claimed for message in said] == [True, True, False, False]
        assert [message.role for message in said] == ["user", "assistant"] * 2

    asyncio.run(story())


def test_a_conversation_expires_after_its_last_answer_even_where_nothing_prunes(path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        conversations = opened(path, hands.clocks())
        await conversations.append("one", turn("1"))
        hands.pass_time(DAY_S)
        assert await conversations.history("one") == turn("1")
        await conversations.append("one", turn("2"))
        hands.pass_time(DAY_S)
        assert await conversations.history("one") == [*turn("1"), *turn("2")]
        hands.pass_time(1)
        assert await conversations.history("one") == []
        assert await conversations.stats() == {"sessions": 0, "messages": 0, "oldest": None}
        await conversations.append("one", turn("anew"))
        assert await conversations.history("one") == turn("anew")

    asyncio.run(story())


@pytest.mark.parametrize("jump_s", [DAY_S, 30 * DAY_S, -DAY_S])
def test_a_jump_of_the_clock_ends_no_conversation_and_prolongs_none(path: Path, jump_s: float) -> None:
    hands = Hands()

    async def story() -> None:
        conversations = opened(path, hands.clocks())
        await conversations.append("one", turn("1"))
        hands.wall += jump_s
        assert await opened(path, hands.clocks()).history("one") == turn("1")
        assert await conversations.prune_if_due(0) == 0
        hands.pass_time(DAY_S - 1)
        assert await conversations.history("one") == turn("1")
        hands.pass_time(2)
        assert await conversations.history("one") == []

    asyncio.run(story())


def test_a_reboot_ends_no_conversation_early(path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        before = opened(path, hands.clocks())
        await before.append("one", turn("1"))
        hands.pass_time(DAY_S / 2)
        await before.close()
        hands.wall += DAY_S / 2 - 10
        hands.monotonic = 3.0
        after = opened(path, hands.clocks("second boot"))
        assert await after.history("one") == turn("1")
        hands.pass_time(11)
        assert await after.history("one") == []

    asyncio.run(story())


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_to_a_conversation_that_was_deleted_meanwhile_is_not_remembered(path: Path, known: bool) -> None:
    hands = Hands()

    async def story() -> None:
        one_worker, another = opened(path, hands.clocks()), opened(path, hands.clocks())
        if known:
            await one_worker.append("one", turn("before"))
        hands.pass_time(20)
        await another.delete("one")
        hands.pass_time(10)
        await one_worker.append("one", turn("late"), asked_s_ago=10.5)
        assert await another.history("one") == []
        await one_worker.append("one", turn("after"), asked_s_ago=9.5)
        assert await another.history("one") == turn("after")

    asyncio.run(story())


def stored(path: Path) -> bytes:
    return b"".join(found.read_bytes() for found in path.parent.iterdir())


async def is_gone(path: Path, words: bytes) -> None:
    """Waits until the words stand in no file."""
    give_up_at = time.monotonic() + 10
    while words in stored(path):
        assert time.monotonic() < give_up_at, "still to be read"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["deleted", "pruned", "deleted just before the end"])
def test_what_is_forgotten_stands_in_no_file_any_more(path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    hands = Hands()
    if how != "deleted just before the end":
        monkeypatch.setattr(sqlite_conversations, "WIPE_AFTER_S", 0.01)

    async def story() -> None:
        conversations, another = opened(path, hands.clocks()), opened(path, hands.clocks())
        long = Message("assistant", "a secret on pages of its own " * 400)
        await conversations.append("one", [*turn("of a secret"), long])
        assert b"secret" in stored(path)
        if how == "pruned":
            hands.pass_time(DAY_S + 1)
        await another.append("two", turn("kept"))
        if how == "pruned":
            assert await conversations.prune_if_due(0) == 1
        else:
            await conversations.delete("one")
        if how == "deleted just before the end":
            await conversations.close()
        await is_gone(path, b"secret")
        assert await another.history("two") == turn("kept")

    asyncio.run(story())


def test_whoever_reads_meanwhile_only_delays_that_and_holds_up_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_conversations, "WIPE_AFTER_S", 0.01)

    async def story() -> None:
        conversations = opened(path)
        await conversations.append("one", turn("of a secret"))
        reader = apsw.Connection(str(path))
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM messages").get == 2
        await conversations.delete("one")
        await conversations.append("two", turn("kept"))
        longest_s = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert await conversations.history("two") == turn("kept")
            longest_s = max(longest_s, time.monotonic() - began)
            await asyncio.sleep(0.01)
        assert b"secret" in stored(path)
        assert longest_s < 1.0  # the store's own patience with a lock is two seconds
        reader.execute("ROLLBACK")
        await is_gone(path, b"secret")

    asyncio.run(story())


def test_deletions_are_known_for_longer_than_any_answer_takes_and_not_for_ever(path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        conversations = opened(path, hands.clocks())
        await conversations.delete("one")
        hands.pass_time(600 + STREAM_LENGTH_S)  # the longest REQUEST_TIMEOUT_SECONDS, and the stream after it
        await conversations.delete("two")
        await conversations.append("one", turn("late"), asked_s_ago=601 + STREAM_LENGTH_S)
        assert await conversations.history("one") == []
        hands.pass_time(DELETION_KNOWN_S)
        await conversations.prune_if_due(0)
        assert apsw.Connection(str(path)).execute("SELECT count(*) FROM deletions").get == 1
        await conversations.delete("two")
        assert apsw.Connection(str(path)).execute("SELECT count(*) FROM deletions").get == 1

    asyncio.run(story())


def test_the_counts_say_when_the_oldest_conversation_began_on_todays_wall_clock(path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        conversations = opened(path, hands.clocks())
        await conversations.append("one", turn("1"))
        hands.wall += DAY_S  # corrected by the operator: the beginning is told on the corrected clock
        hands.pass_time(60)
        await conversations.append("two", turn("2"))
        assert await conversations.stats() == {"sessions": 2, "messages": 4, "oldest": "2027-01-16T08:00:00+00:00"}

    asyncio.run(story())


def test_conversations_are_counted_without_a_look_at_what_was_said(path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        conversations = opened(path, hands.clocks())
        await conversations.append("old", turn("1"))
        hands.pass_time(DAY_S / 2)
        for name in ("one", "two", "one"):
            await conversations.append(name, turn(name))
        assert await conversations.count() == 3
        apsw.Connection(str(path)).execute("DROP TABLE messages")
        assert await conversations.count() == 3
        hands.pass_time(DAY_S / 2 + 1)
        assert await conversations.count() == 2

    asyncio.run(story())


def test_a_session_id_is_nowhere_in_the_files(path: Path) -> None:
    session_id = "a-session-id-that-nobody-guesses"

    async def story() -> None:
        conversations = opened(path)
        await conversations.append(session_id, turn("1"))
        stored = b"".join(found.read_bytes() for found in path.parent.iterdir())
        assert b"question 1" in stored
        assert hashlib.sha256(session_id.encode()).digest() in stored
        assert session_id.encode() not in stored
        await conversations.close()

    asyncio.run(story())


def test_a_locked_store_is_unavailable_without_holding_up_the_event_loop(path: Path) -> None:
    async def story() -> None:
        conversations = opened(path, busy_timeout_ms=300)
        await conversations.append("one", turn("1"))
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(conversations.append("one", turn("refused")))
        turns_of_the_loop = 0
        while not waiting.done():
            await asyncio.sleep(0.001)
            turns_of_the_loop += 1
        with pytest.raises(StateUnavailable, match="locked"):
            await waiting
        assert turns_of_the_loop > 50
        assert await conversations.history("one") == turn("1")
        with pytest.raises(StateUnavailable):
            await conversations.check()
        other.execute("ROLLBACK")
        await conversations.check()
        await conversations.append("one", turn("2"))
        assert await conversations.history("one") == [*turn("1"), *turn("2")]

    asyncio.run(story())


def test_callers_that_are_cancelled_leave_whole_turns(path: Path) -> None:
    async def story() -> None:
        conversations = opened(path, max_messages=10_000)
        await conversations.append("one", turn("first"))
        for round_number in range(20):
            tasks = [asyncio.create_task(conversations.append("one", turn(f"{round_number}.{i}"))) for i in range(10)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await conversations.append("one", turn("last"))
        said = contents(await conversations.history("one"))
        assert all_pairs(said)
        assert said[:2] + said[-2:] == contents([*turn("first"), *turn("last")])

    asyncio.run(story())


def test_a_closed_store_says_so(path: Path) -> None:
    async def story() -> None:
        conversations = opened(path)
        await conversations.append("one", turn("1"))
        await conversations.close()
        await conversations.close()
        with pytest.raises(StateUnavailable, match="closed"):
            await conversations.append("one", turn("2"))
        assert await opened(path).history("one") == turn("1")

    asyncio.run(story())


@pytest.mark.parametrize("max_messages", [20, 4_000])
def test_four_processes_that_append_to_one_conversation_lose_and_mix_up_nothing(path: Path, max_messages: int) -> None:
    with workers("append_many", path, max_messages, 500) as processes:
        start(processes)
        for process in processes:
            assert process.wait(timeout=60) == 0
    said = contents(asyncio.run(opened(path, max_messages=max_messages).history("shared")))
    assert len(said) == max_messages
    assert all_pairs(said)
    rows = apsw.Connection(str(path)).execute("SELECT max(position), count(*) FROM messages").fetchall()
    assert rows == [(4_000, max_messages)]
    for worker in range(4):
        own = [int(text.split()[-1]) for text in said if text.startswith(f"answer {worker} ")]
        assert own == list(range(500 - len(own), 500))


def test_fifty_conversations_over_four_processes_never_meet(path: Path) -> None:
    sessions = [f"conversation-{number}" for number in range(50)]
    with workers("converse", path) as processes:
        start(processes)
        for number in range(6):
            asked = {worker: sessions[(worker + number) % 4 :: 4] for worker in range(4)}
            for worker, process in enumerate(processes):
                say(process, json.dumps([[session, f"{session} {number}"] for session in asked[worker]]))
            for worker, process in enumerate(processes):
                heard = json.loads(hear(process))
                for session in asked[worker]:
                    assert heard[session] == [said for n in range(number) for said in contents(turn(f"{session} {n}"))]


def test_processes_that_restore_one_conversation_at_once_store_it_once(path: Path) -> None:
    with workers("restore", path) as processes:
        start(processes)
        answers = [json.loads(hear(process)) for process in processes]
    assert answers == [answers[0]] * 4
    assert answers[0] in [contents([*turn(f"{worker} a"), *turn(f"{worker} b")]) for worker in range(4)]


def test_one_process_prunes_per_interval(path: Path) -> None:
    hands = Hands(monotonic=1_000)

    async def fill() -> None:
        conversations = opened(path, hands.clocks())
        for number in range(450):
            await conversations.append(f"old {number}", turn(str(number)))
        hands.pass_time(DAY_S)
        await conversations.append("young", turn("1"))
        await conversations.close()

    asyncio.run(fill())
    results = []
    for seconds_later in (1, 3_601):
        with workers("prune", path, hands.wall + seconds_later, hands.monotonic + seconds_later) as processes:
            start(processes)
            answers = [answer for process in processes for answer in json.loads(hear(process))]
        results.append([answer for answer in answers if answer is not None])
        assert len(answers) == 40
    assert results == [[450], [0]]
    rows = (
        apsw.Connection(str(path)).execute("SELECT count(*), (SELECT count(*) FROM messages) FROM sessions").fetchall()
    )
    assert rows == [(1, 2)]


def test_a_killed_worker_loses_no_remembered_message_and_leaves_no_half_turn(path: Path) -> None:
    acknowledged = 0
    for _ in range(5):
        with workers("append_forever", path, count=1) as (process,):
            start([process])
            for _ in range(40):
                hear(process)
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            acknowledged += 40 + len(process.stdout.readlines())
            said = contents(asyncio.run(opened(path, max_messages=10**6).history("shared")))
            assert all_pairs(said)
            assert len(said) // 2 >= acknowledged
            acknowledged = len(said) // 2


def test_a_full_disk_is_unavailable_and_space_that_returns_heals_it(path: Path) -> None:
    with workers("fill_the_disk", path, count=1) as (process,):
        start([process])
        told = json.loads(hear(process))
    assert str(path) in told["error"]
    assert "disk" in told["error"]
    assert told["turns_before"] > 10
    assert told["turns_while_full"] == told["turns_before"]
    assert told["check_while_full"] == "StateUnavailable"
    assert told["turns_after"] == told["turns_before"] + 1


@contextmanager
def workers(role: str, *arguments: object, count: int = 4) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that run a role of this file; they end with the block, whatever happens."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, role, str(number), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def start(processes: list[subprocess.Popen[str]]) -> None:
    """Lets all of them begin at once."""
    for process in processes:
        assert hear(process) == "ready"
    for process in processes:
        say(process, "go")


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().removesuffix("\n")


async def append_many(worker: str, path: str, max_messages: str, count: str) -> None:
    conversations = opened(Path(path), max_messages=int(max_messages), busy_timeout_ms=10_000)
    for number in range(int(count)):
        await conversations.append("shared", turn(f"{worker} {number}"))
    await conversations.close()


async def append_forever(worker: str, path: str) -> None:
    conversations = opened(Path(path), max_messages=10**6)
    number = 0
    while True:
        await conversations.append("shared", turn(f"{os.getpid()} {number}"))
        print("remembered", flush=True)
        number += 1


async def converse(worker: str, path: str) -> None:
    conversations = opened(Path(path), busy_timeout_ms=10_000)
    for line in sys.stdin:
        questions = dict(json.loads(line))
        histories = await asyncio.gather(*(conversations.history(session) for session in questions))
        await asyncio.gather(*(conversations.append(session, turn(text)) for session, text in questions.items()))
        print(json.dumps(dict(zip(questions, map(contents, histories), strict=True))), flush=True)


async def restore(worker: str, path: str) -> None:
    conversations = opened(Path(path), busy_timeout_ms=10_000)
    found = await conversations.restore("shared", [*turn(f"{worker} a"), *turn(f"{worker} b")])
    print(json.dumps(contents(found)), flush=True)


async def prune(worker: str, path: str, wall: str, monotonic: str) -> None:
    hands = Hands(wall=float(wall), monotonic=float(monotonic))
    conversations = opened(Path(path), hands.clocks(), busy_timeout_ms=10_000)
    print(json.dumps([await conversations.prune_if_due(3_600) for _ in range(10)]), flush=True)


async def fill_the_disk(worker: str, path: str) -> None:
    conversations = opened(Path(path), max_messages=10**6)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    number, error, check = 0, "", ""
    while not error:
        try:
            await conversations.append("shared", turn(f"{number} {'long ' * 400}{number}"))
            number += 1
        except StateUnavailable as refusal:
            error = str(refusal)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        await conversations.check()
    except StateUnavailable as refusal:
        check = type(refusal).__name__
    while_full = contents(await conversations.history("shared"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await conversations.append("shared", turn("after"))
    after = contents(await conversations.history("shared"))
    told = {
        "error": error,
        "turns_before": number,
        "turns_while_full": len(while_full) // 2 if all_pairs(while_full) else None,
        "check_while_full": check,
        "turns_after": len(after) // 2 if all_pairs(after) else None,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    roles = {each.__name__: each for each in (append_many, append_forever, converse, restore, prune, fill_the_disk)}
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))  # type: ignore[operator]

"""Limits that worker processes share: real files, real processes, slowapi itself, clocks whose hands a test moves."""

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from rag.access.limits import LimitExceeded, RateLimits, SqliteStorage, sqlite_storage_uri
from rag.errors import ConfigError, StateUnavailable
from rag.stores.sqlite.file import Clocks
from tests.support.waiting import REPOSITORY, wait_until

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rate_limits.sqlite3"


def limited(path: Path, clocks: Clocks | None = None, *, enabled: bool = True, **limits: str) -> RateLimits:
    return RateLimits(
        limits=limits or {"chat": "20/minute"},
        storage_uri=sqlite_storage_uri(path),
        enabled=enabled,
        clocks=clocks or Clocks.system(),
    )


def hit(limits: RateLimits, bucket: str = "192.0.2.1", name: str = "chat") -> dict[str, str] | LimitExceeded:
    try:
        return asyncio.run(limits.check(name, bucket))
    except LimitExceeded as error:
        return error


def passes(limits: RateLimits, bucket: str = "192.0.2.1", name: str = "chat") -> bool:
    return not isinstance(hit(limits, bucket, name), LimitExceeded)


def rows(path: Path) -> int:
    count: int = apsw.Connection(str(path)).execute("SELECT count(*) FROM hits").get
    return count


def test_two_hundred_hits_at_once_over_four_processes_pass_exactly_twenty(path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(path)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        answers = [answer for worker in workers for answer in json.loads(worker.communicate(timeout=60)[0])]
    finally:
        for worker in workers:
            worker.kill()
    passed = [answer for answer in answers if answer is not None]
    assert len(answers) == 200
    assert len(passed) == 20


def test_no_sixty_seconds_ever_hold_more_than_the_limit_and_none_is_refused_below_it(path: Path) -> None:
    hands = Hands()
    limits = limited(path, hands.clocks())
    chance = random.Random(4)
    passed: list[float] = []
    for _ in range(600):
        hands.pass_time(chance.choice([0.001, 0.01, 0.5, 3.0]))
        in_window = sum(1 for at in passed if hands.monotonic - at < 60)
        if passes(limits):
            passed.append(hands.monotonic)
            assert in_window < 20
        else:
            assert in_window == 20
    assert len(passed) > 100


def test_a_burst_across_the_turn_of_a_minute_gains_nothing(path: Path) -> None:
    hands = Hands(wall=1_800_000_000.0 + 59)
    limits = limited(path, hands.clocks())
    assert sum(passes(limits) for _ in range(30)) == 20
    hands.pass_time(2)
    assert not passes(limits)
    hands.pass_time(57.5)
    assert not passes(limits)
    hands.pass_time(0.5)
    assert sum(passes(limits) for _ in range(30)) == 20


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_jump_of_the_clock_gives_no_quota_and_takes_none(path: Path, jump_s: float) -> None:
    hands = Hands()
    limits = limited(path, hands.clocks())
    assert sum(passes(limits) for _ in range(21)) == 20
    hands.wall += jump_s
    refusal = hit(limits)
    assert isinstance(refusal, LimitExceeded)
    assert refusal.headers["X-RateLimit-Reset"] == f"{hands.wall + 60:.0f}"
    assert refusal.retry_after_s == 60
    assert not passes(limited(path, hands.clocks()))
    hands.pass_time(60)
    assert sum(passes(limits) for _ in range(21)) == 20


def test_a_reboot_gives_no_quota(path: Path) -> None:
    hands = Hands()
    before = limited(path, hands.clocks())
    assert sum(passes(before) for _ in range(20)) == 20
    asyncio.run(before.close())
    hands.wall += 30
    hands.monotonic = 1.0
    after = limited(path, hands.clocks("second boot"))
    assert not passes(after)
    hands.pass_time(30.001)
    assert passes(after)


def test_the_headers_count_down_and_tell_when_a_refused_visitor_may_return(path: Path) -> None:
    hands = Hands(wall=1_800_000_000.5)
    limits = limited(path, hands.clocks(), chat="2/minute")
    assert hit(limits) == {
        "X-RateLimit-Limit": "2",
        "X-RateLimit-Remaining": "1",
        "X-RateLimit-Reset": "1800000061",
    }
    hands.pass_time(10)
    second = hit(limits)
    assert isinstance(second, dict)
    assert (second["X-RateLimit-Remaining"], second["X-RateLimit-Reset"]) == ("0", "1800000061")
    hands.pass_time(10)
    refusal = hit(limits)
    assert isinstance(refusal, LimitExceeded)
    assert refusal.status == 429
    assert refusal.retry_after_s == 40
    assert refusal.headers == {**second, "X-RateLimit-Remaining": "0"}
    assert "192.0.2.1" not in str(refusal)
    hands.pass_time(40)
    assert passes(limits)


def test_visitors_and_names_are_counted_apart(path: Path) -> None:
    limits = limited(path, chat="1/minute", search="1/minute")
    assert [passes(limits, "a", "chat"), passes(limits, "b", "chat"), passes(limits, "a", "search")] == [True] * 3
    assert [passes(limits, "a", "chat"), passes(limits, "b", "chat"), passes(limits, "a", "search")] == [False] * 3


def test_of_several_limits_the_tightest_is_told(path: Path) -> None:
    hands = Hands()
    limits = limited(path, hands.clocks(), chat="3/minute;4/hour")
    told = []
    for wait_s in (0, 0, 60, 0, 0):
        hands.pass_time(wait_s)
        answer = hit(limits)
        headers = answer.headers if isinstance(answer, LimitExceeded) else answer
        told.append((headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"], isinstance(answer, LimitExceeded)))
    assert told == [("3", "2", False), ("3", "1", False), ("4", "1", False), ("4", "0", False), ("4", "0", True)]
    refusal = hit(limits)
    assert isinstance(refusal, LimitExceeded)
    assert refusal.retry_after_s == 3_540


def test_hammering_against_the_minute_costs_nothing_of_the_hour_however_they_are_written(path: Path) -> None:
    hands = Hands()
    limits = limited(path, hands.clocks(), chat="6/hour;2/minute")
    assert sum(passes(limits) for _ in range(50)) == 2
    for _ in range(2):
        hands.pass_time(60)
        assert sum(passes(limits) for _ in range(50)) == 2
    hands.pass_time(60)
    assert not passes(limits)


def test_a_visitors_address_is_nowhere_in_the_files_nor_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = limited(path, chat="1/minute")
    with caplog.at_level("DEBUG"):
        assert [passes(limits, "192.0.2.77") for _ in range(3)] == [True, False, False]
    stored = b"".join(found.read_bytes() for found in path.parent.iterdir())
    hashed = hashlib.sha256(b"192.0.2.77").hexdigest()[:32]
    assert hashed.encode() in stored
    assert b"192.0.2.77" not in stored
    assert "192.0.2.77" not in caplog.text
    assert hashed not in caplog.text


def test_a_store_that_is_locked_stops_no_visitor_but_still_limits_and_recovers_by_itself(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = limited(path, chat="3/minute")
    assert passes(limits, "before")
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    assert [passes(limits) for _ in range(5)] == [True, True, True, False, False]
    headers = hit(limits, "second visitor")
    assert isinstance(headers, dict)
    assert headers["X-RateLimit-Remaining"] == "2"
    assert "falling back" in caplog.text
    with pytest.raises(StateUnavailable, match="locked"):
        asyncio.run(limits.check_store())
    other.execute("ROLLBACK")

    def counts_in_the_file_again() -> bool:
        hit(limits, "after")
        return rows(path) > 1

    wait_until(counts_in_the_file_again, timeout_s=40, message="the store is used again")


def test_a_healthy_check_ends_the_fallback_at_once(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"certainly no database " * 500)
    limits = limited(path, chat="1/minute")
    assert [passes(limits), passes(limits)] == [True, False]
    with pytest.raises(StateUnavailable, match="move the file aside") as unavailable:
        asyncio.run(limits.check_store())
    assert str(path) in str(unavailable.value)
    path.unlink()
    asyncio.run(limits.check_store())
    assert [passes(limits), passes(limits)] == [True, False]
    assert rows(path) == 1


def test_a_newer_store_is_not_touched_and_visitors_are_limited_all_the_same(path: Path) -> None:
    path.parent.mkdir()
    newer = apsw.Connection(str(path))
    newer.execute("CREATE TABLE hits (something_else); PRAGMA user_version = 99")
    limits = limited(path, chat="1/minute")
    assert [passes(limits), passes(limits)] == [True, False]
    with pytest.raises(StateUnavailable, match="schema version 99"):
        asyncio.run(limits.check_store())
    assert rows(path) == 0


def test_no_variable_and_no_env_file_but_ours_changes_the_limits(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    for name, value in {
        "RATELIMIT_ENABLED": "false",
        "RATELIMIT_STRATEGY": "no such strategy",
        "RATELIMIT_DEFAULT": "1/day",
        "RATELIMIT_KEY_PREFIX": "other",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_bytes(b"RATELIMIT_HEADERS_ENABLED=true\nNAME=\xff\n")
    monkeypatch.chdir(tmp_path)
    limits = limited(path, chat="2/minute")
    assert [passes(limits) for _ in range(3)] == [True, True, False]
    assert not recwarn.list


@pytest.mark.parametrize("value", ["", "many", "20/fortnight", "20/minute;", "-1/minute"])
def test_a_limit_that_cannot_be_read_is_refused_instead_of_ignored(path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="the rate limit of chat") as refused:
        limited(path, chat=value)
    assert repr(value) in refused.value.faults[0]


def test_a_limit_of_none_lets_none_pass(path: Path) -> None:
    refusal = hit(limited(path, Hands().clocks(), chat="0/minute"))
    assert isinstance(refusal, LimitExceeded)
    assert refusal.retry_after_s == 60


def test_limits_that_are_switched_off_count_nothing(path: Path) -> None:
    limits = limited(path, enabled=False, chat="1/minute")
    assert [hit(limits), hit(limits)] == [{}, {}]
    assert not path.exists()


def test_hits_sweep_up_what_others_left(path: Path) -> None:
    hands = Hands()
    limits = limited(path, hands.clocks())
    for number in range(200):
        hit(limits, f"visitor {number}")
    assert rows(path) == 200
    hands.pass_time(60)
    for number in range(70):
        hit(limits, f"later visitor {number}")
    assert rows(path) == 70


def test_pruning_removes_all_that_no_longer_counts(path: Path) -> None:
    hands = Hands()
    limits = limited(path, hands.clocks(), chat="5/minute", search="5/hour")
    for name in ("chat", "chat", "search"):
        hands.pass_time(1)
        hit(limits, name=name)
    hands.pass_time(60)
    assert asyncio.run(limits.prune()) == 2
    assert rows(path) == 1


def test_the_stores_fixed_windows_count_expire_and_clear(path: Path) -> None:
    hands = Hands()
    storage = SqliteStorage(sqlite_storage_uri(path), clocks=hands.clocks())
    assert (storage.get("key"), storage.get_expiry("key")) == (0, pytest.approx(hands.wall, abs=1e-6))
    assert [storage.incr("key", 10), storage.incr("key", 10, amount=3)] == [1, 4]
    hands.pass_time(4)
    assert (storage.get("key"), storage.get_expiry("key")) == (4, pytest.approx(hands.wall + 6, abs=1e-6))
    hands.pass_time(6)
    assert (storage.get("key"), storage.incr("key", 10)) == (0, 1)
    storage.incr("other", 10)
    storage.clear("key")
    assert (storage.get("key"), storage.get("other")) == (0, 1)
    assert storage.acquire_entry("window", 5, 60, amount=3)
    assert not storage.acquire_entry("window", 5, 60, amount=3)
    assert storage.get_moving_window("window", 5, 60)[1] == 3
    assert storage.reset() >= 2
    assert (storage.get("other"), storage.get_moving_window("window", 5, 60)[1]) == (0, 0)
    assert storage.check()


async def hit_fifty_times(path: Path) -> None:
    limits = limited(path)
    print("ready", flush=True)
    sys.stdin.readline()
    answers = await asyncio.gather(*(limits.check("chat", "192.0.2.1") for _ in range(50)), return_exceptions=True)
    unexpected = [each for each in answers if isinstance(each, BaseException) and not isinstance(each, LimitExceeded)]
    if unexpected:
        raise unexpected[0]
    print(json.dumps([answer if isinstance(answer, dict) else None for answer in answers]), flush=True)


if __name__ == "__main__":
    asyncio.run(hit_fifty_times(Path(sys.argv[1])))

"""What the tests of all stores share: a store at any place, time-outs, and processes that begin together."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rag.access.limits import LimitExceeded, RateLimits
from rag.errors import StateUnavailable
from rag.stores.postgres.conversations import PostgresConversations
from rag.stores.postgres.limits import postgres_storage_uri
from rag.stores.postgres.link import Database
from rag.stores.protocols import Conversations
from rag.stores.redis.conversations import RedisConversations
from rag.stores.redis.limits import redis_storage_uri
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.file import Clocks
from rag.types import Message
from tests.support.waiting import REPOSITORY

Story = Callable[[Any], Awaitable[None]]


def turn(text: str) -> list[Message]:
    return [Message("user", f"question {text}"), Message("assistant", f"answer {text}")]


def all_pairs(said: list[str]) -> bool:
    """Whether each question is followed by its own answer, and by nothing twice."""
    questions, answers = said[::2], said[1::2]
    return [text.replace("question", "answer") for text in questions] == answers and len(set(said)) == len(said)


@asynccontextmanager
async def opened(place: str, *, pool_size: int = 5, **options: Any) -> AsyncIterator[Conversations]:
    """Conversations at an address of Redis or PostgreSQL, or in a file; closed twice, which does no harm."""
    store: Conversations
    close: Callable[[], Awaitable[None]]
    if place.startswith("postgresql:"):
        database = Database(url=place, pool_size=pool_size)
        store, close = PostgresConversations(database=database, **options), database.close
    elif place.startswith(("redis:", "unix:")):
        store = RedisConversations(url=place, **options)
        close = store.close
    else:
        store = SqliteConversations(path=Path(place), clocks=Clocks.system(), **options)
        close = store.close
    try:
        yield store
    finally:
        await close()
        await close()


def told(story: Story, place: str, **options: Any) -> None:
    """Runs a story on a store that is closed afterwards."""

    async def run() -> None:
        async with opened(place, **options) as conversations:
            await story(conversations)

    asyncio.run(run())


async def until(condition: Callable[[], Awaitable[Any]], timeout_s: float = 10.0) -> float:
    """The seconds until the condition held; a store that does not answer counts as not yet."""
    began = time.monotonic()
    while True:
        try:
            if await condition():
                return time.monotonic() - began
        except StateUnavailable:
            pass
        assert time.monotonic() - began < timeout_s, "not in time"
        await asyncio.sleep(0.01)


async def seconds_to_fail(call: Awaitable[Any]) -> float:
    began = time.monotonic()
    with pytest.raises(StateUnavailable):
        await call
    return time.monotonic() - began


def limited(url: str, wall_s: Callable[[], float] = time.time, **limits: str) -> RateLimits:
    clocks = Clocks(wall_s=wall_s, monotonic_s=time.monotonic, boot_id="any")
    uri = postgres_storage_uri(url) if url.startswith("postgresql:") else redis_storage_uri(url)
    return RateLimits(limits=limits or {"chat": "20/minute"}, storage_uri=uri, enabled=True, clocks=clocks)


async def passes(limits: RateLimits, bucket: str = "192.0.2.1") -> bool:
    try:
        await limits.check("chat", bucket)
    except LimitExceeded:
        return False
    return True


def run_workers(role: str, *arguments: object, count: int = 4) -> list[list[Any]]:
    """What each of the processes printed that run a role of this file; all begin at once."""
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, role, str(number), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


async def append_many(worker: str, place: str, max_messages: str, count: str) -> list[str]:
    async with opened(place, pool_size=2, max_messages=int(max_messages)) as conversations:
        for number in range(int(count)):
            await conversations.append("shared", turn(f"{worker} {number}"))
    return ["done"]


async def hit_fifty_times(worker: str, url: str) -> list[bool]:
    limits = limited(url)
    answers = await asyncio.gather(*(passes(limits) for _ in range(50)))
    await limits.close()
    return answers


if __name__ == "__main__":
    roles = {each.__name__: each for each in (append_many, hit_fifty_times)}
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))), flush=True)  # type: ignore[operator]

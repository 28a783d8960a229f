"""Visitors who ask without a pause while something is done to the server, and what they saw. Knows no scenario."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.nginx import Proxy
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

TURNS = 8
"""Turns of a conversation: the server keeps 20 messages, and what it forgot on purpose must not look lost."""
GONE_AFTER_S = 1.0
"""How long after a worker's end a visitor may still learn that the request in its hands is lost."""

BAD_GATEWAY = 502
"""What nginx says where the connection to the server ended."""


@dataclass
class Conversation:
    """What a visitor was told under one id. `open_question` was asked last and never answered."""

    session_id: str = field(default_factory=lambda: f"soak-{secrets.token_hex(12)}")
    told: list[tuple[str, str]] = field(default_factory=list)
    open_question: str | None = None


@dataclass(frozen=True)
class Failure:
    """A request that was not answered with 200. Times are those of `time.monotonic`."""

    began_s: float
    ended_s: float
    reason: str
    lost: bool
    """The connection ended; False: the server itself gave another answer."""


class Visitors:
    """`with Visitors(server) as visitors:` keeps so many of them asking; look at what they saw afterwards.

    Every question goes over a new connection, so that any worker may get it and a dead one keeps none.
    """

    def __init__(self, server: RagServer | Proxy, *, count: int = 4, pause_s: float = 0.02) -> None:
        self.conversations: list[Conversation] = []
        self.failures: list[Failure] = []
        self.answered = 0
        self._way: dict[str, Any] = {
            "base_url": server.base_url, "verify": server.trust if isinstance(server, Proxy) else True,
            "timeout": 30, "trust_env": False, "limits": httpx.Limits(max_keepalive_connections=0),
        }  # fmt: skip
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit) for _ in range(count)]

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.answered > 4 * len(self._threads), 30, "the load is on")
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def failures_not_of(self, killed_at_s: list[float], *, noticed_s: float = 0.0) -> list[Failure]:
        """Those that no kill explains: not lost, or not in a worker's hands when one was killed.

        A proxy needs `noticed_s` to see that a connection that it keeps has ended.
        """
        return [
            one for one in self.failures
            if not one.lost
            or not any(one.began_s - noticed_s <= at <= one.ended_s <= at + GONE_AFTER_S for at in killed_at_s)
        ]  # fmt: skip

    def forgotten(self) -> list[str]:
        """Ids of conversations in which not exactly that is remembered which was told.

        A question whose answer got lost on the way may be remembered, with its answer.
        """
        wrong = []
        with httpx.Client(**self._way) as client:
            for one in self.conversations:
                history = client.get(f"/sessions/{one.session_id}/history").json()["history"]
                said = [turn["content"] for turn in history]
                told = [text for turn in one.told for text in turn]
                rest = said[len(told) :]
                if said[: len(told)] != told or (rest and (len(rest) != 2 or rest[0] != one.open_question)):
                    wrong.append(one.session_id)
        return wrong

    def _visit(self) -> None:
        with httpx.Client(**self._way) as client:
            while not self._stop.is_set():
                one = Conversation()
                with self._lock:
                    self.conversations.append(one)
                for turn in range(TURNS):
                    if self._stop.is_set() or not self._ask(client, one, f"{FACTS[turn].question} {turn}"):
                        break
                    self._stop.wait(self._pause_s)

    def _ask(self, client: httpx.Client, one: Conversation, question: str) -> bool:
        one.open_question, began_s, lost = question, time.monotonic(), False
        try:
            answer = client.post("/chat", json={"message": question, "session_id": one.session_id})
            reason = "" if answer.status_code == 200 and not answer.json()["degraded"] else answer.text[:500]
            lost = answer.status_code == BAD_GATEWAY
        except httpx.TransportError as error:
            reason, lost = repr(error), True
        with self._lock:
            if reason:
                self.failures.append(Failure(began_s, time.monotonic(), reason, lost))
                return False
            self.answered += 1
        one.told.append((question, answer.json()["response"]))
        one.open_question = None
        return True


class LogTail:
    """How often a line with `words` was logged since this was made; reads only what is new."""

    def __init__(self, server: RagServer, words: str) -> None:
        self._file = server.folder / f"server-{server.port}.log"
        self._words = words.encode()
        self._read_bytes = self._file.stat().st_size
        self._found = 0

    def count(self) -> int:
        with self._file.open("rb") as file:
            file.seek(self._read_bytes)
            whole_lines, _, _ = file.read().rpartition(b"\n")
        if whole_lines:
            self._read_bytes += len(whole_lines) + 1
            self._found += whole_lines.count(self._words)
        return self._found

    def wait_for(self, times: int, timeout_s: float) -> None:
        wait_until(lambda: self.count() == times, timeout_s, f"{self._words.decode()} is logged {times} times")


def resident_bytes(pid: int) -> int:
    """What the process occupies in memory, pages that it shares included."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))

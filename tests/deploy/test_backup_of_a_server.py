"""A server that is being talked to, its backup, and another server that goes on from it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.server import run_module
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

ADMIN = {"Authorization": f"Bearer {ADMIN_API_KEY}"}
BEFORE = 20
"""Conversations that are over when the backup begins."""

History = list[dict[str, str]]


class Visitors:
    """They ask one question after another, each in a conversation of its own, until they are told to stop."""

    def __init__(self, address: str) -> None:
        self.answered: dict[str, History] = {}
        """What each conversation holds, as its visitor saw it; in the order in which they were answered."""
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> "Visitors":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _talk(self) -> None:
        with httpx.Client(base_url=self._address, timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                number = len(self.answered)
                session, question = f"example-session-{number:05}", FACTS[number % len(FACTS)].question
                answer = client.post("/chat", json={"message": question, "session_id": session}).json()
                said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer["response"]}]
                client.post("/feedback", json={"session_id": session, "rating": "up", "reason": session})
                self.answered[session] = said


def history(address: str, session: str) -> History:
    answer = httpx.get(f"{address}/sessions/{session}/history", timeout=10, trust_env=False)
    return [{"role": turn["role"], "content": turn["content"]} for turn in answer.json()["history"]]


def thumbs(address: str) -> set[str]:
    answer = httpx.get(f"{address}/feedback", headers=ADMIN, params={"limit": 1000}, timeout=10, trust_env=False)
    return {entry["reason"] for entry in answer.json()["feedback"]}


def test_a_backup_of_a_busy_server_brings_back_everything_that_was_said_before_it(
    start_server: StartServer, site_build: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    busy = start_server(folder=tmp_path / "busy", ADMIN_API_KEY=ADMIN_API_KEY)
    settings = {"STATE_DIR": str(tmp_path / "busy" / "state"), "VECTOR_DB_PATH": str(site_build)}
    with Visitors(busy.base_url) as visitors:
        wait_until(lambda: len(visitors.answered) >= BEFORE, 60, "visitors were answered")
        before = dict(visitors.answered)
        saved = run_module("rag.backup", "create", env=settings, cwd=tmp_path)
        assert saved.returncode == 0, saved.stderr
        during = len(visitors.answered)
        wait_until(lambda: len(visitors.answered) > during, 30, "the server goes on answering")
    assert during > len(before), "visitors were answered while the backup ran"
    everything = dict(visitors.answered)
    busy.kill()

    lost = time.monotonic()
    back = tmp_path / "back"
    places = ("--state-dir", str(back / "state"), "--index", str(back / "vector_db"))
    restored = run_module("rag.backup", "restore", *places, env=settings, cwd=tmp_path)
    assert restored.returncode == 0, restored.stderr
    again = start_server(folder=back, ADMIN_API_KEY=ADMIN_API_KEY, VECTOR_DB_PATH=str(back / "vector_db"))
    record_property("seconds from nothing to ready", round(time.monotonic() - lost, 1))

    assert {session: history(again.base_url, session) for session in before} == before
    assert before.keys() <= thumbs(again.base_url)
    # What was said while the backup ran is there whole or not at all.
    later = everything.keys() - before.keys()
    assert all(history(again.base_url, session) in ([], everything[session]) for session in later)
    question = FACTS[0]
    answer = httpx.post(f"{again.base_url}/chat", json={"message": question.question}, timeout=30, trust_env=False)
    assert question.words in answer.json()["sources"][0]["content_full"]

"""Many documents into a running server, while visitors chat and search."""

import os
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conftest import StartServer
from tests.e2e.test_uploads import Uploads, settings_of
from tests.soak.load import LogTail, Visitors
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

DOCUMENTS = int(os.environ.get("SOAK_UPLOADS", "1000"))
BEFORE_S = 15.0
MOST_SLOWER = 4
"""p99 of a search while documents come in, over the one before."""
PAGE = (
    "# Tank {0}\n\nThe tank {0} holds {1} litres, and its pump runs {2} hours.\n\n## Care\n\nChange a third weekly.\n"
)


class Searches:
    """One visitor who searches fifty times a second, and how long each search took."""

    def __init__(self, server_url: str) -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._url = server_url

    @contextmanager
    def going_on(self) -> Iterator["Searches"]:
        stop = threading.Event()

        def search() -> None:
            with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
                while not stop.wait(0.02):
                    fact, began_s = FACTS[len(self.seconds) % len(FACTS)], time.monotonic()
                    answer = client.post("/search", json={"query": fact.question}, headers={"Connection": "close"})
                    self.seconds.append(time.monotonic() - began_s)
                    if answer.status_code != 200 or answer.json()["degraded"]:
                        self.failures.append(answer.text[:300])

        thread = threading.Thread(target=search)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def taken(self) -> list[float]:
        """What was measured since the last time, in milliseconds."""
        taken, self.seconds = self.seconds, []
        return [1000 * one for one in taken]


def p(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def test_1000_documents_come_in_while_visitors_chat_and_search(
    start_server: StartServer, site_build: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(site_build, tmp_path / "vector_db")
    uploads = Uploads(start_server(workers=2, **settings_of(root)), root)
    generations = LogTail(uploads.server, "added documents are live")
    searches = Searches(uploads.server.base_url)
    with Visitors(uploads.server, count=2, pause_s=0.1) as visitors, searches.going_on():
        searches.taken()
        time.sleep(BEFORE_S)  # long enough to see what is usual
        before = searches.taken()
        began_s = time.monotonic()
        for first in range(0, DOCUMENTS, 5):
            pages = [(f"tank{n}.md", PAGE.format(n, n % 97, n % 23).encode()) for n in range(first, first + 5)]
            assert uploads.post(*pages).status_code == 202
        taken_s = time.monotonic() - began_s
        wait_until(lambda: uploads.figures()['rag_uploads{status="live"}'] == DOCUMENTS, 900, "all are live", 1.0)
        during, live_s = searches.taken(), time.monotonic() - began_s
    assert visitors.failures == []
    assert searches.failures == []
    print(
        f"\n{DOCUMENTS} documents taken in {taken_s:.0f} s, live after {live_s:.0f} s, in "
        f"{generations.count() / 2:.0f} generations; {visitors.answered} chats; a search took, median and p99: "
        f"{p(before, 50):.1f} and {p(before, 99):.1f} ms before, {p(during, 50):.1f} and {p(during, 99):.1f} ms then"
    )
    assert p(during, 99) <= MOST_SLOWER * p(before, 99)

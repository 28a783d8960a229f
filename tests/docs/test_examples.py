"""Every command that the documentation shows with its output is run, and prints what is shown.

Each page has a folder of its own with a small site and some state in it; what asks localhost:8000 asks the demo.
"""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.stores.protocols import Feedback
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.feedback import SqliteFeedback
from rag.stores.sqlite.file import Clocks
from rag.types import Message
from tests.docs.documents import blocks, name_of, pages
from tests.docs.transcripts import Step, Transcript, steps
from tests.support.server import RagServer, clean_environment
from tests.support.waiting import REPOSITORY, free_port, wait_until

SITE = {
    "hours.md": "# Opening hours\n\nThe shop is open from nine to six, Monday to Saturday.\n",
    "guide/returns.md": "# Returns\n\nGoods can be returned within 30 days, unused and with their receipt.\n",
    "prices.csv": "Item,Price\nLamp,40\nChair,120\n",
    "broken.pdf": "%PDF-1.4 broken",
    "empty.txt": "",
}
QUESTIONS = (
    '{"id": "1", "question": "When are you open?", "relevant": ["hours.md"]}\n'
    '{"id": "2", "question": "How long can goods be returned?", '
    '"relevant": ["https://www.example.com/guide/returns/"]}\n'
)
SHOWN_KEY, ADMIN_KEY = "YOUR-ADMIN-KEY", "admin-key-of-the-docs-0123456789ab"
SAID = [Message("user", "When are you open?"), Message("assistant", "From nine to six.")]
SESSION = "example-session-0001"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RagServer]:
    """`run_production.py --demo`, as `make demo` runs it, on a port of its own."""
    folder = tmp_path_factory.mktemp("demo")
    settings = {"ADMIN_API_KEY": ADMIN_KEY, "VECTOR_DB_PATH": str(folder / "vector_db")}
    with RagServer.start(settings, folder, workers=2, args=["--demo"]) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader might stand: a site, questions about it, and the state of a server."""
    for name, text in SITE.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(QUESTIONS, encoding="utf-8")
    asyncio.run(remember(tmp_path / "state"))
    return tmp_path


async def remember(state: Path) -> None:
    conversations = conversations_in(state / "conversations.sqlite3")
    await conversations.append(SESSION, SAID)
    await conversations.close()
    thumbs = SqliteFeedback(path=state / "feedback.sqlite3", clocks=Clocks.system())
    await thumbs.add(
        Feedback(rating="up", reason="", question=SAID[0].content, answer=SAID[1].content), session_id=SESSION
    )
    await thumbs.close()


def conversations_in(path: Path) -> SqliteConversations:
    return SqliteConversations(path=path, clocks=Clocks.system())


class Shell:
    """Runs a page's commands one after another; `export` lasts, and port 8000 is the port that is given."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._environment = clean_environment(folder, {"PORT": str(port)})
        if shutil.which("curl", path=self._environment["PATH"]) is None:
            programs = folder / "programs"
            programs.mkdir()
            (programs / "curl").write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.docs.curl "$@"\n')
            (programs / "curl").chmod(0o755)
            self._environment["PATH"] += f":{programs}"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """One command; its output with the page's port in place of the real one."""
        if command.startswith("export "):
            pairs = (pair.partition("=") for pair in command.removeprefix("export ").split())
            self._environment.update({name: value for name, _, value in pairs})
            return subprocess.CompletedProcess(command, 0, "", "")
        command = command.replace("localhost:8000", f"127.0.0.1:{self._port}").replace(SHOWN_KEY, ADMIN_KEY)
        command = re.sub(r"\bpython run_production\.py\b", f"python {REPOSITORY / 'run_production.py'}", command)
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        done.stdout = done.stdout.replace(f":{self._port}", ":8000").replace("\r", "")
        return done


@pytest.mark.parametrize("page", [name_of(page) for page in pages() if blocks("console", page=page)])
def test_the_examples_of_a_page_print_what_it_shows(page: str, folder: Path, request: pytest.FixtureRequest) -> None:
    shown = [step for block in blocks("console", page=REPOSITORY / page) for step in steps(block)]
    asks_the_demo = any("localhost:8000" in step.command for step in shown)
    shell = Shell(folder, request.getfixturevalue("demo").port if asks_the_demo else free_port())
    transcript = Transcript()
    for step in shown:
        done = shell.run(transcript.command(step))
        difference = transcript.difference(step.shown, done.stdout)
        assert difference is None, f"{page}: $ {step.command}\n{difference}\n{done.stderr[-2000:]}"
        assert (done.returncode != 0) == ("✗" in step.shown), f"{page}: $ {step.command}\n{done.stderr[-2000:]}"


def test_the_documented_backup_holds_what_was_said(folder: Path) -> None:
    deployment = REPOSITORY / "docs" / "deployment.md"
    shown = [step for block in blocks("console", page=deployment) for step in steps(block)]
    backup = next(step.command for step in shown if "conversations.sqlite3" in step.command)
    assert Shell(folder, free_port()).run(backup).returncode == 0

    async def restored() -> list[Message]:
        conversations = conversations_in(folder / "conversations.backup")
        try:
            return await conversations.history(SESSION)
        finally:
            await conversations.close()

    assert asyncio.run(restored()) == SAID


@pytest.mark.parametrize(
    ("shown", "happened"),
    [
        ("one\ntwo", "one\nthree"),
        ("one", "one\ntwo"),
        ("one\n…\nfour", "one\ntwo"),
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": ["…"]}', '{"a": "text"}'),
        ('{"a": "one…"}', '{"a": "two"}'),
        ('{"timestamp": "now"}', '{"timestamp": 1}'),
        ("20261120T070535.488369Z is 20261120T070537.126099Z", "20260101T000000.000000Z is 20260101T000000.000000"),
    ],
)
def test_an_output_that_differs_is_noticed(shown: str, happened: str) -> None:
    assert Transcript().difference(shown, happened) is not None


def test_one_build_is_not_taken_for_another() -> None:
    transcript = Transcript()
    first, second = "20261120T070535.488369Z", "20261120T070537.126099Z"
    assert transcript.difference(f"{first} is live", "20260101T000000.000001Z is live") is None
    assert transcript.difference(f"{first} is live", "20260101T000000.000002Z is live") is not None
    assert transcript.command(Step(f"rollback {first}", "")) == "rollback 20260101T000000.000001Z"
    assert transcript.difference(f"{second} is live", "20260101T000000.000002Z is live") is None


def test_the_last_thing_that_the_demo_says_is_where_to_go(demo: RagServer) -> None:
    wait_until(lambda: "Ctrl-C" in demo.output, 20, "the demo says where it is")
    assert demo.output.splitlines()[-1] == f"Open {demo.base_url}/demo and ask something. Ctrl-C stops it."

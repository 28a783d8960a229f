"""Workers die, come back to a bad index, and stop with streams open: what is lost, and how soon all is well again."""

import ast
import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from rag.search import builds
from tests.conftest import StartServer
from tests.soak import scenarios
from tests.soak.load import LogTail
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, build_index, run_module
from tests.support.small_site import FACTS, SITE_URL, write_small_site
from tests.support.waiting import REPOSITORY, wait_until

QUESTION = FACTS[0].question
RECOVERS_WITHIN_S = 5.0


@pytest.fixture
def index(site_build: Path, azure: AzureEmulator, tmp_path: Path) -> Path:
    """Two sound builds of the small site, the newer one live."""
    root = shutil.copytree(site_build, tmp_path / "index")
    site = write_small_site(tmp_path / "site")
    (site / "news.md").write_text("# News\n\nThe controller now speaks Portuguese, too.\n", encoding="utf-8")
    done = build_index(site, env=azure.environment, output=root, extra_args=["--site-url", SITE_URL])
    assert done.returncode == 0, done.stderr
    assert len(builds.kept_ids(root)) == 2
    return root


def damage(root: Path, build_id: str) -> bytes:
    """Changes one byte, at the same length, beside the served file: a mapped one must not change. What it was."""
    file = builds.folder_of(root, build_id) / "passages.jsonl"
    whole = file.read_bytes()
    replace(file, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    return whole


def replace(file: Path, content: bytes) -> None:
    aside = file.with_suffix(".aside")
    aside.write_bytes(content)
    aside.rename(file)


def replace_worker(server: RagServer) -> None:
    """Kills the server's one worker and waits until the next one has started, with or without an index."""
    ready = LogTail(server, '"worker is ready"')
    (victim,) = server.worker_pids()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: ready.count() == 1, 20, "a worker in its place")


def ask(server: RagServer, path: str) -> httpx.Response:
    body = {"query": QUESTION} if path == "/search" else {"message": QUESTION}
    return httpx.post(f"{server.base_url}{path}", json=body, timeout=20, trust_env=False)


def index_health(server: RagServer) -> tuple[int, dict[str, object]]:
    answer = httpx.get(f"{server.base_url}/ready", timeout=20, trust_env=False)
    return answer.status_code, answer.json()["index"]


def test_a_killed_worker_takes_only_the_requests_in_its_hands_and_is_replaced_in_two_seconds(
    start_server: StartServer,
) -> None:
    scenarios.kills(start_server(workers=2), times=5, workers=2)


def test_many_chats_leave_a_worker_as_large_as_before(start_server: StartServer) -> None:
    scenarios.chats_for_memory(start_server(workers=1), warm_up=200, chats=400, workers=1)


def open_files_of(pid: int) -> list[str]:
    """The soft and the hard limit."""
    (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open")]
    return line.split()[3:5]


def test_a_worker_allows_itself_the_open_files_that_its_connections_need(start_server: StartServer) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = start_server(workers=1, open_files=(256, hard))
    wait_until(lambda: "worker is ready" in server.output, 20, "the worker is ready")
    assert open_files_of(server.worker_pids()[0]) == [str(min(hard, 6100)), str(hard)]


def test_where_open_files_are_few_nobody_is_let_in_who_could_not_be_answered(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1, open_files=(400, 400))
    azure.behave(tokens=["word "] * 10, token_delay_ms=200)

    async def answers() -> Counter[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.base_url, timeout=60, trust_env=False, limits=limits) as client:

            async def answer() -> str:
                try:
                    said = (await client.post("/chat/stream", json={"message": QUESTION})).text
                except httpx.TransportError:
                    return "turned away"
                if '"status":503' in said.replace(" ", ""):
                    return "turned away"
                return "in full" if "event: done" in said and '"degraded":null' in said else said[-300:]

            return Counter(await asyncio.gather(*(answer() for _ in range(190))))

    found = asyncio.run(answers())
    assert found.keys() == {"in full", "turned away"}
    assert found["in full"] >= 90  # of 100 places
    assert "Too many open files" not in server.output


def test_the_first_requests_wait_for_no_code_to_be_read(start_server: StartServer) -> None:
    server = start_server(workers=1, wait=False, PYTHONPROFILEIMPORTTIME="1")
    wait_until(lambda: "worker is ready" in server.output, 60, "the worker is ready")
    wait_until(lambda: ask(server, "/health").status_code == 405, 20, "it answers")
    so_far = len(server.output)
    for path in ("/search", "/chat", "/chat/stream", "/api/chat", "/nothing-here"):
        ask(server, path)
    wait_until(lambda: '"/search"' in server.output[so_far:], 10, "they are logged")
    assert [line for line in server.output[so_far:].splitlines() if line.startswith("import time:")] == []


def test_a_worker_that_starts_while_the_live_build_is_bad_serves_the_newest_sound_one(
    start_server: StartServer, index: Path
) -> None:
    newer, older = builds.kept_ids(index)
    server = start_server(workers=1, VECTOR_DB_PATH=index)
    whole = damage(index, newer)
    replace_worker(server)
    status, health = index_health(server)
    assert (status, health["status"], health["build"]) == (200, "ok", older)
    assert health["refused"] == {"build": newer, "reason": "damaged"}
    assert FACTS[0].words in ask(server, "/search").text
    assert "does not have the checksum of the manifest" in server.output
    replace(builds.folder_of(index, newer) / "passages.jsonl", whole)
    wait_until(lambda: index_health(server)[1].get("build") == newer, 10, "the mended build is served")
    assert "refused" not in index_health(server)[1]


def test_without_any_sound_build_a_new_worker_says_503_and_serves_as_soon_as_there_is_one(
    start_server: StartServer, index: Path
) -> None:
    server = start_server(workers=1, VECTOR_DB_PATH=index)
    master = server.pid
    newer, older = builds.kept_ids(index)
    whole = damage(index, newer)
    aside = index.rename(index.with_name("aside"))
    for step in (0, 1):
        if step:
            damage(index, older)
        replace_worker(server)
        status, health = index_health(server)
        assert (status, health["status"]) == (503, "unavailable")
        assert health["refused"] == {"build": newer if step else "", "reason": "damaged" if step else "missing"}
        for path in ("/search", "/chat", "/chat/stream"):
            refused = ask(server, path)
            assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
            assert refused.headers["content-type"] == "application/problem+json"
            assert str(index) not in refused.text
        assert httpx.get(f"{server.base_url}/health", trust_env=False).status_code == 200
        if step:
            replace(builds.folder_of(index, newer) / "passages.jsonl", whole)
        else:
            aside.rename(index)
        mended_s = time.monotonic()
        wait_until(lambda: ask(server, "/chat").status_code == 200, 20, "chats are answered again")
        assert time.monotonic() - mended_s < RECOVERS_WITHIN_S
        assert index_health(server)[1]["build"] == (newer if step else older)
    assert server.running()
    assert server.pid == master
    assert "Traceback" not in server.output


def test_a_worker_that_cannot_start_takes_nobody_along_and_is_tried_until_it_can(
    start_server: StartServer, tmp_path: Path
) -> None:
    instructions = tmp_path / "prompt.txt"
    instructions.write_text("Answer from the passages.", encoding="utf-8")
    server = start_server(workers=2, SYSTEM_PROMPT_FILE=instructions)
    wait_until(lambda: server.output.count('"worker is ready"') == 2, 20, "both workers are ready")
    instructions.unlink()
    ready = LogTail(server, '"worker is ready"')
    failed = LogTail(server, "worker did not start, it is tried again")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: failed.count() >= 2, 20, "two attempts to replace it")
    assert ask(server, "/chat").status_code == 200
    instructions.write_text("Answer from the passages.", encoding="utf-8")
    wait_until(lambda: ready.count() == 1, 20, "the next attempt succeeds")
    assert len(server.worker_pids()) == 2


def by_hand(env: dict[str, str], folder: Path) -> tuple[int, str]:
    config = str(REPOSITORY / "gunicorn.conf.py")
    done = run_module("gunicorn", "--config", config, "rag_server:app", env=env, cwd=folder, timeout_s=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("fault", ["none", "damaged", "another model"])
def test_at_first_start_without_a_good_build_both_ways_end_with_the_remedy_and_start_no_worker(
    azure: AzureEmulator, site_build: Path, tmp_path: Path, fault: str
) -> None:
    root = tmp_path / "index"
    env = {**azure.environment, "VECTOR_DB_PATH": str(root), "STATE_DIR": str(tmp_path / "state"), "PORT": "1"}
    if fault != "none":
        shutil.copytree(site_build, root)
    if fault == "damaged":
        damage(root, builds.live_id(root))
    if fault == "another model":
        env["AZURE_OPENAI_EMBEDDINGS_MODEL"] = "another-model"
    code, said = by_hand(env, tmp_path)
    checked = run_module("run_production.py", env=env, cwd=tmp_path)
    assert (code, checked.returncode) == (1, 1)
    for text in (said, checked.stdout):
        assert "python -m indexer build SOURCE" in text
        assert "Booting worker" not in text
        assert "Traceback" not in text


class Stream:
    """A visitor who reads an answer as it comes."""

    def __init__(self, server: RagServer) -> None:
        self.events: list[str] = []
        self.last: dict[str, object] = {}
        self._server = server
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Stream":
        self._thread.start()
        wait_until(lambda: "delta" in self.events, 20, "the answer has begun")
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join()

    def _read(self) -> None:
        url, body = f"{self._server.base_url}/chat/stream", {"message": QUESTION}
        with httpx.stream("POST", url, json=body, timeout=60, trust_env=False) as answer:
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    self.events.append(value)
                elif name == "data":
                    self.last = json.loads(value) if value.startswith("{") else {}


def stopped_in_s(server: RagServer, how: signal.Signals) -> float:
    began_s = time.monotonic()
    os.kill(server.pid, how)
    wait_until(lambda: not server.running(), 60, "the server has ended")
    return time.monotonic() - began_s


def assert_closed(server: RagServer) -> None:
    """Whether the lifespan's end ran: who closes a SQLite file last removes the log beside it."""
    assert server.exit_code == 0
    state = server.folder / "state"
    assert (state / "conversations.sqlite3").exists()
    assert [file.name for file in state.iterdir() if file.name.endswith(("-wal", "-shm"))] == []
    assert "SIGKILL" not in server.output
    assert "request broke" not in server.output


@pytest.fixture
def slow_answers(azure: AzureEmulator) -> None:
    """Twenty seconds of words: longer than any patience here."""
    azure.behave(tokens=["word "] * 200, token_delay_ms=100)


def test_after_sigterm_an_open_stream_may_end_by_itself(start_server: StartServer, azure: AzureEmulator) -> None:
    azure.behave(tokens=["word "] * 15, token_delay_ms=100)
    server = start_server(workers=1)
    with Stream(server) as stream:
        stopped_in_s(server, signal.SIGTERM)
    assert stream.events[-1] == "done"
    assert_closed(server)


def test_after_a_reload_an_open_stream_may_outlast_the_request_timeout_and_nothing_else_waits_for_it(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    # Longer than the drain, REQUEST_TIMEOUT_SECONDS, two seconds to finish, and five until the master would kill.
    azure.behave(tokens=["word "] * 120, token_delay_ms=100)
    server = start_server(workers=1, REQUEST_TIMEOUT_SECONDS="1")
    ready = LogTail(server, '"worker is ready"')
    (old,) = server.worker_pids()
    with Stream(server) as stream:
        server.reload()
        wait_until(lambda: ready.count() == 1, 20, "a new worker")
        (new,) = set(server.worker_pids()) - {old}
        os.kill(new, signal.SIGKILL)
        wait_until(lambda: ready.count() == 1, 10, "one in its place, while the old one still answers")
        assert ask(server, "/search").status_code == 200
        assert old in server.worker_pids()
        assert "done" not in stream.events
    assert stream.events[-1] == "done"
    wait_until(lambda: len(server.worker_pids()) == 1 and old not in server.worker_pids(), 10, "the old one has left")
    assert "WORKER TIMEOUT" not in server.output


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("slow_answers")
def test_a_stop_does_not_wait_for_a_worker_that_leaves_at_its_leisure(
    start_server: StartServer, how: signal.Signals
) -> None:
    server = start_server(workers=1, REQUEST_TIMEOUT_SECONDS="1")
    ready = LogTail(server, '"worker is ready"')
    with Stream(server) as stream:
        server.reload()
        wait_until(lambda: ready.count() == 1, 20, "a new worker")
        took_s = stopped_in_s(server, how)
    assert stream.events[-1] == "error"
    assert stream.last["detail"] == "The server is being restarted. Please ask again."
    assert took_s < 1 + 1 + 2 + 5
    assert_closed(server)


@pytest.mark.parametrize(
    ("how", "grace_s"),
    # One second to drain, REQUEST_TIMEOUT_SECONDS and two to finish, five until the master would kill; Ctrl-C: one.
    [(signal.SIGTERM, 1 + 1 + 2 + 5), (signal.SIGINT, 1 + 5)],
    ids=["SIGTERM", "SIGINT"],
)
@pytest.mark.usefixtures("slow_answers")
def test_a_stream_that_outlasts_the_grace_ends_with_an_error_event_and_everything_is_closed(
    start_server: StartServer, how: signal.Signals, grace_s: float
) -> None:
    server = start_server(workers=2, REQUEST_TIMEOUT_SECONDS="1")
    with Stream(server) as stream, Stream(server) as another:
        took_s = stopped_in_s(server, how)
    for one in (stream, another):
        assert one.events[-1] == "error"
        assert "done" not in one.events
        assert one.last["detail"] == "The server is being restarted. Please ask again."
    assert took_s < grace_s
    assert_closed(server)
    assert "Traceback" not in server.output


def test_workers_whose_master_was_killed_end_and_free_the_port(start_server: StartServer) -> None:
    server = start_server(workers=2)
    assert httpx.get(f"{server.base_url}/health", trust_env=False).status_code == 200
    os.kill(server.pid, signal.SIGKILL)

    def is_free() -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", server.port)) != 0

    wait_until(is_free, 20, "nobody listens any more")
    assert start_server(workers=1, port=server.port).running()


def test_the_wall_clock_is_read_only_where_a_date_is_shown() -> None:
    # A running server cannot be given another clock here; that nothing counts by it is seen in the code, and
    # tests/unit hold that conversations and limits count by a clock that does not jump.
    allowed = {
        "rag/stores/sqlite/file.py",  # hands the clock out, and names a boot
        "rag/search/builds.py",  # names builds
        "rag/ops/backup_archive.py",  # names and dates backups
        "rag/http/bodies.py",  # `timestamp` of answers
        "rag/access/budgets.py",  # says when a day ends; what is spent on which is counted by the store's clock
        "rag/http/dialects/openai.py",  # `created` of answers
        "rag/api_keys.py",  # keys end on a date
        "rag/ops/keys.py",  # and begin on one
        "rag/chat/owner/handoff.py",  # dates a webhook's signature
        "rag/access/visits.py",  # a visit's end is told to its page, and holds on all servers
        "rag/chat/owner/summary.py",  # the week that a summary is of
        "rag/ops/identity_checks.py",  # until when a token holds
        "rag/llm/entra/tokens.py",  # likewise: the login says it as a date
        "rag/llm/entra/renewal.py",  # and so a token's age is told by the same clock
        "rag/documents/library.py",  # dates uploads, and compares with the dates of files
        "rag/documents/requests.py",  # forgets requests after a day, over restarts
        "rag/http/owner/metrics.py",  # says how long the oldest of them has waited
        "rag/search/hot/generation.py",  # names segments, and dates what was added
    }
    clocks, readers = {"time.time", "datetime.now", "datetime.utcnow", "date.today"}, set()
    for file in [*REPOSITORY.glob("rag/**/*.py"), REPOSITORY / "rag_server.py", REPOSITORY / "gunicorn.conf.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in clocks:
                readers.add(file.relative_to(REPOSITORY).as_posix())
    assert readers == allowed

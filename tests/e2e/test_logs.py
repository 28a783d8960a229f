"""What the real server writes: a JSON object a line, whoever speaks, one line a request; and a file turned over."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.docs.documents import rows
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import REPOSITORY, wait_until

QUESTION = FACTS[0].question


def post(server: RagServer, path: str, request_id: str, **body: object) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}{path}", json=body, headers={"X-Request-ID": request_id}, trust_env=False, timeout=30
    )


def line_of(server: RagServer, request_id: str) -> dict[str, Any]:
    """The one line at info level that the request has, once it is written."""

    def lines() -> list[dict[str, Any]]:
        ours = [json.loads(line) for line in server.output.splitlines() if request_id in line]
        return [line for line in ours if line["level"] == "info"]

    wait_until(lines, 10, f"the line of {request_id}")
    [line] = lines()
    return line


@pytest.mark.parametrize(("path", "also"), [("/chat", set()), ("/chat/stream", {"first_token_ms"})])
def test_an_answer_is_one_line_with_its_stages_and_costs(server: RagServer, path: str, also: set[str]) -> None:
    request_id = f"one-line-{path.rpartition('/')[2]}-0001"
    assert post(server, path, request_id, message=QUESTION).status_code == 200
    line = line_of(server, request_id)
    assert (line["message"], line["method"], line["route"], line["status"]) == ("request", "POST", path, 200)
    assert (line["outcome"], line["degraded"], line["hits"] > 0, line["cited"] >= 0) == ("answered", None, True, True)
    assert line.keys() >= {"prompt_tokens", "completion_tokens"} | also
    stages = line["embed_ms"] + line["search_ms"] + line["model_ms"]
    assert 0 < line["model_ms"] < stages <= line["duration_ms"] + 1


def test_a_search_is_one_line_with_its_stages(server: RagServer) -> None:
    assert post(server, "/search", "search-line-0001", query=QUESTION).status_code == 200
    line = line_of(server, "search-line-0001")
    assert (line["route"], line.keys() >= {"embed_ms", "search_ms"}) == ("/search", True)
    assert line["embed_ms"] + line["search_ms"] <= line["duration_ms"] + 1


def test_a_degraded_answer_and_a_failed_one_say_so_in_their_line(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    azure.fail("status", target="chat", status=401)
    with start_server(workers=1) as server:
        post(server, "/chat", "degraded-line-0001", message=QUESTION)
        line = line_of(server, "degraded-line-0001")
    assert (line["status"], line["outcome"]) == (200, "quoted")
    assert line["degraded"] == "chat model unavailable: passages are quoted"
    with start_server(workers=1, DEGRADED_ANSWERS="false") as server:
        post(server, "/chat", "failed-line-0001", message=QUESTION)
        line = line_of(server, "failed-line-0001")
    assert (line["status"], line["outcome"], line["error"]) == (502, "failed", "upstream_rejected")


def test_the_page_on_monitoring_lists_every_field_of_a_requests_line(server: RagServer) -> None:
    assert post(server, "/chat/stream", "documented-line-0001", message=QUESTION).status_code == 200
    listed = {name for row in rows("docs/monitoring.md", "Field") for name in re.findall(r"`(\w+)`", row[0])}
    sometimes = {"caller", "error", "own_words", "recall_ms", "rewrite_ms", "token_refused", "trace_id"}
    assert listed == line_of(server, "documented-line-0001").keys() | sometimes


def test_every_line_is_json_whoever_speaks(start_server: StartServer, tmp_path: Path) -> None:
    # A warning and a broken task of a library, in every process: as if something had gone wrong.
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "sitecustomize.py").write_text(
        "import logging, warnings\n"
        "capture = logging.captureWarnings\n"
        "def and_warn(on):\n"
        "    capture(on)\n"
        "    warnings.warn('an old habit\\nof two lines', UserWarning)\n"
        "logging.captureWarnings = and_warn\n"
    )
    server = start_server(workers=2, PYTHONPATH=f"{tmp_path / 'noise'}{os.pathsep}{REPOSITORY}")
    wait_until(lambda: server.output.count("worker is ready") == 2, 30, "both workers serve")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: server.output.count("worker is ready") == 3, 30, "another worker serves")
    server.reload()
    wait_until(lambda: server.output.count("worker is ready") == 5, 30, "two new workers serve")
    httpx.get(f"{server.base_url}/health", trust_env=False)
    server.stop()
    screen, _, log = server.output.partition("the chat is on ")
    assert "RAG Server" in screen
    lines = [json.loads(line) for line in log.splitlines()[1:]]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    assert {"gunicorn.error", "rag_server", "rag.access_log", "py.warnings"} <= {line["logger"] for line in lines}
    assert any("an old habit" in line["message"] for line in lines if line["logger"] == "py.warnings")


def test_a_fault_of_ours_keeps_its_traceback_inside_its_line(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Late:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'rag.http.answers':\n"
        "            from rag.search.live import LiveIndex\n"
        "            LiveIndex.health = lambda self: 1 // 0\n"
        "sys.meta_path.insert(0, Late())\n"
    )
    server = start_server(
        workers=1, wait=False, PYTHONPATH=f"{tmp_path / 'noise'}{os.pathsep}{REPOSITORY}"
    )  # fmt: skip
    wait_until(lambda: "worker is ready" in server.output, 30, "the worker serves")
    headers = {"X-Request-ID": "broken-line-0001"}
    assert httpx.get(f"{server.base_url}/ready", headers=headers, trust_env=False).status_code == 500
    wait_until(lambda: server.output.count("broken-line-0001") == 2, 10, "both lines are written")
    broke, ended = [json.loads(line) for line in server.output.splitlines() if "broken-line-0001" in line]
    assert (broke["message"], broke["level"], ended["status"]) == ("request broke", "error", 500)
    assert "ZeroDivisionError" in broke["exception"]
    assert broke["exception"].count("\n") > 3


def test_lines_for_people_are_aligned_and_one_a_request(start_server: StartServer) -> None:
    server = start_server(workers=1, LOG_FORMAT="text")
    post(server, "/chat", "people-line-0001", message=QUESTION)
    wait_until(lambda: "POST /chat" in server.output, 10, "the line is written")
    server.stop()
    lines = server.output.partition("the chat is on ")[2].splitlines()[1:]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} (info|warning|error) +[\w.]+ +\S", line) for line in lines)
    [line] = [line for line in lines if "POST /chat" in line]
    assert re.search(r"access_log +200 POST /chat +\d+\.\d ms  .*hits=\d.* #people-l$", line)
    assert len({len(re.match(r"\S+ \w+ +\S+ +", line)[0]) for line in lines}) == 1  # type: ignore[index]


def test_a_log_file_holds_every_line_of_all_processes_and_turns_over(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "server.log"
    server = start_server(workers=4, LOG_FILE=path, LOG_MAX_SIZE_MB="0.01", LOG_BACKUP_COUNT="50")
    ids = [f"in-the-file-{number:04}" for number in range(200)]

    def health(request_id: str) -> int:
        return httpx.get(
            f"{server.base_url}/health", headers={"X-Request-ID": request_id}, trust_env=False, timeout=10
        ).status_code

    with ThreadPoolExecutor(8) as visitors:
        assert set(visitors.map(health, ids)) == {200}
    server.stop()
    files = sorted(file for file in path.parent.iterdir() if file.suffix != ".lock")
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted(line["request_id"] for line in lines if line.get("route") == "/health") == ids
    assert {"gunicorn.error", "rag_server"} <= {line["logger"] for line in lines}
    assert len(files) > 3
    assert all(file.stat().st_size <= 10_000 for file in files)
    # What is in the files was said on the standard output too, and the other way round.
    assert {json.dumps(line) for line in lines} == {
        json.dumps(json.loads(line)) for line in server.output.partition("the chat is on ")[2].splitlines()[1:]
    }


def test_a_log_file_that_cannot_be_written_keeps_nobody_from_serving(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    server = start_server(workers=1, LOG_FILE=tmp_path / "in-the-way" / "server.log")
    assert "log file cannot be written" in server.output

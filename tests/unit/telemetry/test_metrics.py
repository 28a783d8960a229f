"""What the server counts: the sum over workers that come and go, with labels that are bounded."""

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from rag import calls
from rag.calls import Refused, Throttled, TooSlow, Unanswered
from rag.errors import ContentFiltered, UpstreamError, UpstreamTimeout
from rag.http.owner import metrics as routes_metrics
from rag.http.services import Services
from rag.telemetry import metric_files
from rag.telemetry.looked_up import Now
from rag.telemetry.metrics import Metrics
from tests.support.server import clean_environment

NOW = Now(
    version="0", build="b", embedding_model="m", created_at_s=1000.0, passages=8, refused=False, sessions=3
)  # fmt: skip

WORKER = """
import os
from pathlib import Path
from rag.telemetry.metrics import Metrics

metrics = Metrics(folder=Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
metrics.worker_began()
metrics.rated("up")
metrics.request_ended(method="GET", route="/health", status=200, seconds=0.3)
print(os.getpid())
"""


def a_worker_that_ended(folder: Path) -> int:
    """Its process id; it has counted one of everything."""
    env = clean_environment(folder, {"PROMETHEUS_MULTIPROC_DIR": str(folder)})
    done = subprocess.run([sys.executable, "-c", WORKER], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def sums(folder: Path) -> dict[str, float]:
    """Every sample without labels, and the thumbs up, of all workers together."""
    with metric_files.reading(folder) as files:
        families = MultiProcessCollector.merge(files)
        return {s.name: s.value for family in families for s in family.samples if s.labels.get("rating") != "down"}


def shown(metrics: Metrics, now: Now = NOW) -> list[str]:
    return [line for line in metrics.render(now).decode().splitlines() if not line.startswith("#")]


def test_dead_workers_keep_their_counts_and_leave_no_files_behind(tmp_path: Path) -> None:
    for number in range(1, 4):
        pid = a_worker_that_ended(tmp_path)
        assert (tmp_path / f"counter_{pid}.db").exists()
        metric_files.retire(tmp_path, alive=[])
        found = sums(tmp_path)
        assert (found["rag_feedback_total"], found["rag_worker_starts_total"]) == (number, number)
        assert (found["rag_http_request_duration_seconds_count"], "rag_workers" in found) == (number, False)
        assert sorted(file.name for file in tmp_path.glob("*.db")) == ["counter_retired.db", "histogram_retired.db"]


def test_a_worker_that_lives_keeps_its_files(tmp_path: Path) -> None:
    pid = a_worker_that_ended(tmp_path)
    metric_files.retire(tmp_path, alive=[pid])
    assert len(list(tmp_path.glob(f"*_{pid}.db"))) == 3
    assert sums(tmp_path)["rag_workers"] == 1


def test_whoever_reads_meanwhile_sees_every_worker_once(tmp_path: Path) -> None:
    pid, count = a_worker_that_ended(tmp_path), 40
    for number in range(count):
        for file in list(tmp_path.glob(f"*_{pid}.db")):
            file.with_name(f"{file.stem.rpartition('_')[0]}_9{number:05}.db").write_bytes(file.read_bytes())
    seen: set[float] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.002):  # a lock that is never free would show nothing
            seen.add(sums(tmp_path)["rag_feedback_total"])

    reader = threading.Thread(target=read)
    reader.start()
    for number in reversed(range(count)):
        metric_files.retire(tmp_path, alive=[pid, *(900_000 + left for left in range(number))])
    stop.set()
    reader.join()
    assert seen == {count + 1}


def test_a_reader_that_stands_still_delays_the_master_and_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_files, "LOCK_PATIENCE_S", 0.05)
    pid = a_worker_that_ended(tmp_path)
    with metric_files.reading(tmp_path):
        metric_files.retire(tmp_path, alive=[])
        assert (tmp_path / f"counter_{pid}.db").exists()
    metric_files.retire(tmp_path, alive=[])
    assert not (tmp_path / f"counter_{pid}.db").exists()


def test_a_file_that_cannot_be_read_is_dropped_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_worker_that_ended(tmp_path)
    (tmp_path / "counter_77.db").write_bytes(b"\xff\xff\x00\x00 rubbish " * 10)
    metric_files.retire(tmp_path, alive=[])
    assert [record.message for record in caplog.records] == ["counts of a dead worker are lost"]
    assert sums(tmp_path)["rag_feedback_total"] == 1


def test_a_file_that_is_just_being_created_is_passed_over(tmp_path: Path) -> None:
    a_worker_that_ended(tmp_path)
    (tmp_path / "counter_77.db").touch()
    assert sums(tmp_path)["rag_feedback_total"] == 1


HOLDER = """
import sys
from pathlib import Path
from rag.telemetry import metric_files

print(metric_files.open_folder(Path(sys.argv[1])), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_folder_is_private_and_removed_once_its_server_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    memory, state = tmp_path / "memory", tmp_path / "state"
    if in_memory:
        memory.mkdir()
    monkeypatch.setattr(metric_files, "MEMORY_FOLDER", memory)
    parent = memory if in_memory else state
    script = HOLDER.replace("print", f"metric_files.MEMORY_FOLDER = Path({str(memory)!r})\nprint")
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(state)], env=clean_environment(tmp_path, {}),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    held = Path(other.stdout.readline().strip())
    assert held.parent == parent
    mine = metric_files.open_folder(state)
    assert held.is_dir()
    assert mine.stat().st_mode & 0o777 == 0o700
    other.kill()
    other.communicate()
    third = metric_files.open_folder(state)
    assert sorted(parent.iterdir()) == sorted([mine, third])


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "MEMORY_FOLDER", tmp_path)
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "owner").touch()
    (tmp_path / "rag-server-metrics-trap").symlink_to(treasure)
    metric_files.open_folder(tmp_path)
    assert treasure.is_dir()


def test_a_library_that_was_loaded_for_one_process_refuses_to_count_for_many(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another mode"):
        Metrics(folder=tmp_path)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"), (Unanswered("x"), "failed"), (UpstreamError("x"), "failed"), (TooSlow("x"), "timeout"),
        (UpstreamTimeout("x"), "timeout"), (Throttled("x"), "throttled"),
        (Refused("x", named="", param="", of_endpoint=True), "refused"), (ContentFiltered("x"), "filtered"),
        (asyncio.CancelledError(), "abandoned"), (ValueError(), "abandoned"),
    ],
)  # fmt: skip
def test_every_end_of_a_call_has_a_name(error: BaseException | None, outcome: str) -> None:
    metrics = Metrics(folder=None)

    def call() -> None:
        with metrics.call("chat", "host/gpt"):
            if error is not None:
                raise error

    if error is None:
        call()
    else:
        with pytest.raises(type(error)):
            call()
    line = f'rag_upstream_calls_total{{endpoint="host/gpt",outcome="{outcome}",upstream="chat"}} 1.0'
    assert outcome in calls.OUTCOMES
    assert line in shown(metrics)


def test_a_method_that_a_visitor_invents_makes_no_series() -> None:
    metrics = Metrics(folder=None)
    for method in ("PROPFIND", "ZZTOP"):
        metrics.request_ended(method=method, route="unmatched", status=405, seconds=0.1)
    found = [line for line in shown(metrics) if line.startswith("rag_http_requests_total")]
    assert found == ['rag_http_requests_total{method="other",route="unmatched",status="405"} 2.0']


def test_what_can_happen_stands_at_zero_before_it_does() -> None:
    metrics = Metrics(folder=None)
    metrics.expect(endpoints=[("chat", "host/gpt")], limits=["search"])
    lines = shown(metrics)
    assert 'rag_upstream_calls_total{endpoint="host/gpt",outcome="throttled",upstream="chat"} 0.0' in lines
    assert 'rag_upstream_breaker_open{endpoint="host/gpt",upstream="chat"} 0.0' in lines
    assert 'rag_rate_limited_total{limit="search"} 0.0' in lines
    assert 'rag_answers_total{outcome="failed"} 0.0' in lines


def test_without_an_index_or_a_store_there_is_less_to_tell_and_no_lie() -> None:
    empty = Now(version="0", build="", embedding_model="", created_at_s=None, passages=0, refused=True, sessions=None)
    names = {line.partition(" ")[0] for line in shown(Metrics(folder=None), empty)}
    assert {"rag_index_passages", "rag_index_refused"} <= names
    assert names & {"rag_sessions", "rag_index_created_timestamp_seconds"} == set()
    assert "rag_sessions" in {line.partition(" ")[0] for line in shown(Metrics(folder=None))}


def test_a_breaker_is_counted_while_it_is_not_closed() -> None:
    metrics = Metrics(folder=None)
    states = []
    for closed in (False, False, True):
        metrics.breaker_changed("chat", "host/gpt", closed=closed)
        states += [line[-3:] for line in shown(metrics) if line.startswith("rag_upstream_breaker_open")]
    assert states == ["1.0", "1.0", "0.0"]


def test_whoever_asks_without_pause_gets_a_text_that_is_made_once_a_second() -> None:
    metrics, looked_up = Metrics(folder=None), []

    async def look_up() -> Now:
        looked_up.append(time.monotonic())
        return NOW

    async def ask() -> set[bytes]:
        return set(await asyncio.gather(*(metrics.text(look_up) for _ in range(50))))

    texts = asyncio.run(ask())
    assert (len(texts), len(looked_up)) == (1, 1)


def test_memory_is_measured_whatever_the_kernel_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> float:
        metrics = Metrics(folder=None)
        metrics.measure_memory()
        return next(float(line.split()[1]) for line in shown(metrics) if line.startswith("rag_memory_bytes"))

    exact = measured()
    read: Callable[..., str] = Path.read_text

    def without_rollup(path: Path, *args: str) -> str:
        if path.name == "smaps_rollup":
            raise PermissionError
        return read(path, *args)

    monkeypatch.setattr(Path, "read_text", without_rollup)
    assert 10e6 < exact < 2e9
    assert 10e6 < measured() < 2e9


def test_the_lock_of_a_folder_is_taken_by_readers_together(tmp_path: Path) -> None:
    with metric_files.reading(tmp_path), metric_files.reading(tmp_path):
        lock = os.open(tmp_path / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)


def test_a_scrape_asks_the_conversations_for_their_count_and_nothing_else() -> None:
    class Counted:
        async def count(self) -> int:
            return 7

    index = SimpleNamespace(build=SimpleNamespace(id="b", model="m", manifest={}, count=3), health=dict)
    services = SimpleNamespace(
        conversations=Counted(), index=index, metrics=Metrics(folder=None), budgets=None, ingest=None
    )
    answer = asyncio.run(routes_metrics.metrics(cast("Services", services)))
    assert b"\nrag_sessions 7.0\n" in bytes(answer.body)

"""The real server's figures: true over all workers, through reloads and deaths, and what dashboards and alerts need."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rag.documents.records import FAILURES
from rag.telemetry.looked_up import Uploads, of_uploads
from tests.conftest import StartServer
from tests.docs.documents import rows, unquoted
from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PostgresServer
from tests.support.server import RagServer, clean_environment
from tests.support.small_site import FACTS
from tests.support.waiting import REPOSITORY, free_port, wait_until

QUESTION = FACTS[0].question
ALERTS = REPOSITORY / "deploy" / "prometheus"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "dashboard.json"
FROM_PROMETHEUS = {"up"}
"""Made by Prometheus itself."""


def text(server: RagServer) -> str:
    """What the server shows."""
    answer = httpx.get(f"{server.base_url}/metrics", trust_env=False, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def all_text(server: RagServer) -> str:
    """The same, and what a server shows besides where documents can be uploaded: not beside a PostgreSQL."""
    uploads = Uploads(
        by_status=dict.fromkeys(("queued", "reading", "embedding", "live", "failed"), 0),
        by_failure=dict.fromkeys(FAILURES, 0), waiting_s=0, took_s=0, segments=0,
    )  # fmt: skip
    shown = SimpleNamespace(collect=lambda: of_uploads(uploads))
    return text(server) + generate_latest(cast("CollectorRegistry", shown)).decode()


def figures(server: RagServer) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus writes them, the labels in alphabetical order."""
    found = {}
    for family in text_string_to_metric_families(text(server)):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def ask(server: RagServer, path: str = "/chat", **more: object) -> httpx.Response:
    """On a connection of its own, so that any worker may answer."""
    return httpx.post(f"{server.base_url}{path}", json={"message": QUESTION, **more}, trust_env=False, timeout=30)


def shows(server: RagServer, name: str, value: float) -> None:
    """Waits until the figure is there: a text may be a second old, and the count of a request follows its answer."""
    last: float | None = None

    def shown() -> bool:
        nonlocal last
        last = figures(server).get(name)
        return last == value

    wait_until(shown, 10, f"{name} is {value}, not {last}", interval_s=0.2)


CHATS = 'rag_http_requests_total{method="POST",route="/chat",status="200"}'


def test_all_workers_are_counted_together_through_reloads_deaths_and_restarts(start_server: StartServer) -> None:
    server = start_server(workers=2)
    wait_until(lambda: server.output.count("worker is ready") == 2, 30, "both workers serve")
    for _ in range(12):
        assert ask(server).status_code == 200
    shows(server, CHATS, 12)
    folder = folder_of(server)

    # A worker dies without a word.
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: server.output.count("worker is ready") == 3, 30, "another worker serves")
    shows(server, "rag_workers", 2)
    shows(server, CHATS, 12)

    # All workers are replaced, again and again.
    files = len(list(folder.iterdir()))
    for reload in range(1, 4):
        before = set(server.worker_pids())
        server.reload()
        wait_until(lambda b=before: len(now := set(server.worker_pids())) == 2 and not now & b, 30, "two new workers")
        wait_until(lambda n=reload: server.output.count("worker is ready") == 3 + 2 * n, 30, "both serve")
        assert ask(server).status_code == 200
        shows(server, CHATS, 12 + reload)
        shows(server, "rag_workers", 2)
        shows(server, "rag_worker_starts_total", 3 + 2 * reload)
    assert len(list(folder.iterdir())) <= files
    assert figures(server)['rag_answers_total{outcome="answered"}'] == 15
    assert figures(server)['rag_http_request_duration_seconds_count{method="POST",route="/chat"}'] == 15

    # A restart is a new beginning, and the old figures leave nothing behind.
    server.stop()
    assert not folder.exists()
    again = start_server(workers=2)
    assert ask(again).status_code == 200
    shows(again, CHATS, 1)


def folder_of(server: RagServer) -> Path:
    """Where a worker counts, as its memory map tells."""
    mapped = Path(f"/proc/{server.worker_pids()[0]}/maps").read_text()
    (folder,) = {Path(name).parent for name in re.findall(r"(/\S+)/counter_\d+\.db", mapped) for name in [f"{name}/x"]}
    return folder


@pytest.fixture(scope="module")
def busy(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    """A server of one worker to which everything has happened once, with an endpoint that is out of order by now."""
    azure_process.heal()
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(site_build), "REQUEST_TIMEOUT_SECONDS": "2",
        "RATE_LIMIT_CHAT": "100/minute", "RATE_LIMIT_SEARCH": "2/minute",
        "BUDGET_SITE": "10000000/day", "BUDGET_VISITOR": "10000000/day", "BUDGET_KEY": "10000000/day",
        "ENABLE_CACHING": "true",
    }  # fmt: skip
    with (
        PostgresServer() as postgres,
        RagServer.start(
            {**settings, "DATABASE_URL": postgres.database()}, tmp_path_factory.mktemp("busy"), workers=1
        ) as server,
    ):
        session = ask(server).json()["session_id"]
        ask(server, "/chat/stream")
        thumb = {"session_id": session, "rating": "up", "reason": "zanzibar"}
        assert httpx.post(f"{server.base_url}/feedback", json=thumb, trust_env=False).status_code == 204
        for _ in range(2):
            search = {"query": "zanzibar"}
            refused = httpx.post(f"{server.base_url}/search", json=search, trust_env=False, timeout=10)
        assert refused.status_code == 429
        httpx.get(f"{server.base_url}/sessions/zanzibar-session-0001/history", trust_env=False)
        httpx.get(f"{server.base_url}/zanzibar", trust_env=False)
        httpx.request("PROPFIND", f"{server.base_url}/zanzibar", trust_env=False)
        azure_process.fail("content_filter_prompt", target="chat", times=1)
        assert ask(server, session_id=session).status_code == 422
        azure_process.fail("status", target="embeddings", status=429, headers={"Retry-After": "60"})
        assert "words alone" in ask(server, message=FACTS[1].question).json()["degraded"]
        azure_process.heal()
        azure_process.fail("status", target="chat", status=500)
        for _ in range(4):
            assert "passages are quoted" in ask(server, session_id=session).json()["degraded"]
        yield server
    azure_process.heal()


def test_everything_that_happens_is_counted_under_its_name(busy: RagServer, azure_process: AzureEmulator) -> None:
    shows(busy, 'rag_answers_total{outcome="quoted"}', 4)
    found = figures(busy)
    host = f"127.0.0.1:{azure_process.chat_url.split(':')[2].split('/')[0]}"

    def calls(upstream: str, outcome: str) -> float:
        [value] = [
            value for name, value in found.items()
            if name.startswith(f'rag_upstream_calls_total{{endpoint="{host}/')
            and name.endswith(f'outcome="{outcome}",upstream="{upstream}"}}')
        ]  # fmt: skip
        return value

    assert found['rag_answers_total{outcome="answered"}'] == 3
    assert found['rag_answers_total{outcome="filtered"}'] == 1
    assert found['rag_degraded_answers_total{reason="model"}'] == 4
    assert found['rag_degraded_answers_total{reason="embeddings"}'] >= 1
    assert found["rag_time_to_first_token_seconds_count"] == 1
    assert found['rag_tokens_total{direction="prompt"}'] > found['rag_tokens_total{direction="completion"}'] > 0
    assert found['rag_rate_limited_total{limit="search"}'] == 1
    assert found['rag_feedback_total{rating="up"}'] == 1
    assert (
        found['rag_search_duration_seconds_count{stage="search"}']
        == found['rag_search_duration_seconds_count{stage="embed"}']
    )
    assert (calls("chat", "ok"), calls("chat", "filtered")) == (3, 1)
    assert calls("chat", "failed") >= 5
    assert calls("embeddings", "throttled") >= 1
    assert found['rag_upstream_retries_total{upstream="chat"}'] >= 1
    assert [value for name, value in found.items() if name.startswith("rag_upstream_breaker_open")].count(1) >= 1
    assert found["rag_sessions"] >= 2
    assert found["rag_index_passages"] > 0
    assert found["rag_memory_bytes"] > 10e6
    assert found['rag_http_requests_total{method="POST",route="/search",status="429"}'] == 1
    assert found['rag_http_requests_total{method="GET",route="/sessions/{session_id}/history",status="200"}'] == 1
    assert found['rag_http_requests_total{method="other",route="unmatched",status="404"}'] == 1


def test_no_label_holds_what_a_visitor_sent(busy: RagServer) -> None:
    said = all_text(busy)
    assert "zanzibar" not in said.lower()
    assert QUESTION not in said
    labels = set(re.findall(r'[{,](\w+)="', said))
    assert labels == {
        "method", "route", "status", "le", "outcome", "reason", "direction", "stage", "upstream", "endpoint",
        "limit", "rating", "budget", "result", "state", "version", "build", "embedding_model",
    }  # fmt: skip


def test_the_names_follow_prometheus_conventions(busy: RagServer) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=all_text(busy), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def exposed(server: RagServer) -> set[str]:
    """The names of all series."""
    return {sample.name for family in text_string_to_metric_families(all_text(server)) for sample in family.samples}


def used_in(expression: str) -> set[str]:
    """The metrics that a query asks for."""
    without_labels = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(?:by|on|group_left|without) \([^)]*\)", " ", expression)
    return set(re.findall(r"\b(?:rag_\w+|up)\b", without_labels))


def panel_queries() -> list[str]:
    return [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", [])
    ]


def dashboard_queries() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    queries = panel_queries()
    queries += [annotation["expr"] for annotation in board["annotations"]["list"]]
    queries += [
        variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"
    ]  # fmt: skip
    return queries


def alert_rules() -> list[dict[str, str]]:
    [group] = yaml.safe_load((ALERTS / "alerts.yml").read_text())["groups"]
    return group["rules"]  # type: ignore[no-any-return]


def test_dashboard_and_alerts_ask_only_for_what_the_server_shows(busy: RagServer) -> None:
    queries = [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())]
    assert len(queries) > 25
    assert all(used_in(query) for query in queries)
    assert set().union(*map(used_in, queries)) - FROM_PROMETHEUS - exposed(busy) == set()


def test_dashboard_and_alerts_choose_by_labels_and_routes_that_exist(busy: RagServer) -> None:
    said = all_text(busy)
    queries = [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())]
    chosen = {pair for query in queries for pair in re.findall(r'(\w+)(?:=|=~|!~)"([^"]+)"', query)}
    document = httpx.get(f"{busy.base_url}/openapi.json", trust_env=False, timeout=10).json()
    for label, pattern in chosen - {("instance", "$instance"), ("job", "rag-server")}:
        values = set(re.findall(rf'[{{,]{label}="([^"]*)"', said))
        values |= {"route": set(document["paths"]), "status": set(map(str, range(200, 600)))}.get(label, set())
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, value) for value in values), (label, part)


def test_the_page_on_monitoring_lists_every_metric_and_no_other(busy: RagServer) -> None:
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(all_text(busy))
    }
    described = {unquoted(row[0]): row[1] for row in rows("docs/monitoring.md", "Metric")}
    assert described == families


def test_the_page_on_monitoring_names_the_labels_of_every_metric(busy: RagServer) -> None:
    for row in rows("docs/monitoring.md", "Metric"):
        lines = [line for line in all_text(busy).splitlines() if re.match(rf"{unquoted(row[0])}(_bucket)?[ {{]", line)]
        labels = {label for line in lines for label in re.findall(r'[{,](\w+)="', line)} - {"le"}
        assert set(re.findall(r"`(\w+)`", row[2])) == labels, row[0]


def test_every_alert_has_a_runbook() -> None:
    page = (REPOSITORY / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^### (Rag\w+)$", page, re.MULTILINE) == [rule["alert"] for rule in alert_rules()]


def test_the_alert_rules_are_sound_and_fire_when_they_should() -> None:
    for command in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"],
                    ["test", "rules", "alerts_test.yml"]):  # fmt: skip
        done = subprocess.run(["promtool", *command], cwd=ALERTS, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((ALERTS / "alerts_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in alert_rules()}


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (x, y) for place in places
        for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    ]  # fmt: skip
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_a_real_prometheus_scrapes_the_real_server(busy: RagServer, tmp_path: Path) -> None:
    config = yaml.safe_load((ALERTS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{busy.port}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(ALERTS / "alerts.yml", tmp_path)
    port = free_port()
    with (tmp_path / "prometheus.log").open("wb") as output:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            env=clean_environment(tmp_path, {}), stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def query(expression: str) -> list[dict[str, list[object]]]:
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}, trust_env=False, timeout=5
            )
            return answer.json()["data"]["result"] if answer.status_code == 200 else []  # type: ignore[no-any-return]
        except httpx.TransportError:
            return []

    try:
        [answered] = wait_until(lambda: query('rag_answers_total{outcome="answered"}'), 30, "a scrape", 0.2)
        assert answered["value"][1] == "3"
        [up] = query('up{job="rag-server"}')
        assert up["value"][1] == "1"
        # Every panel shows something, on a server without a single error too. A rate needs two scrapes.
        shown = {s.name for family in text_string_to_metric_families(text(busy)) for s in family.samples}
        assert not any('status="5' in line for line in text(busy).splitlines())
        asked = [expression for expression in panel_queries() if used_in(expression) <= shown]
        for expression in asked:
            plain = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
            wait_until(lambda asked=plain: query(asked), 40, f"figures for {plain}", 0.2)  # type: ignore[misc]
        for annotation in json.loads(DASHBOARD.read_text())["annotations"]["list"]:
            assert query(f"count({annotation['expr'].replace('$instance', '.*')}) or vector(0)")
        [age] = query("time() - rag_index_created_timestamp_seconds")
        assert 0 < float(str(age["value"][1])) < 86400
    finally:
        prometheus.terminate()
        prometheus.wait(20)


def test_the_figures_are_described_as_text_and_need_no_key(busy: RagServer) -> None:
    document = httpx.get(f"{busy.base_url}/openapi.json", trust_env=False, timeout=10).json()
    assert document["paths"]["/metrics"]["get"]["responses"]["200"]["content"].keys() == {"text/plain"}

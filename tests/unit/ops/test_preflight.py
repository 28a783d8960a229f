"""The checks before a start, one by one, on real files, ports and a small real build."""

import socket
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from rag.calls import Refused
from rag.errors import UpstreamError, UpstreamRejected
from rag.ops import preflight, store_checks
from rag.search import builds
from rag.settings import Settings
from rag.types import Endpoint, Passage
from tests.support import whole_build
from tests.support.otlp import Collector
from tests.support.waiting import REPOSITORY, free_port

MODEL = "embed-3"
DIMENSIONS = 4
Given = Callable[..., Settings]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """`given(site_name="…")`: settings that work, on a build of one passage, but for what is overridden."""
    root = tmp_path / "vector_db"
    passage = Passage(
        text="Boats rest in the harbour.", title="Harbour", headings=(), url="https://a.example/harbour", anchor="",
        source="harbour.md", language="en",
    )  # fmt: skip
    with builds.writing(root) as staging:
        vectors = np.eye(1, DIMENSIONS, dtype=np.float32)
        manifest = whole_build.write(staging, [passage], vectors)
        embedding = {"model": MODEL, "dimensions": DIMENSIONS, "dense_weight": 0.6}
        builds.publish(root, staging, {**manifest, "documents": 1, "embedding": embedding})

    def settings(**overrides: Any) -> Settings:
        working: dict[str, Any] = {
            "chat_urls": ("https://here.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=1",),
            "chat_api_keys": ("key",),
            "embeddings_urls": (f"https://here.openai.azure.com/openai/deployments/{MODEL}/embeddings?api-version=1",),
            "embeddings_api_keys": ("key",),
            "vector_db_path": root,
            "state_dir": tmp_path / "state",
            "host": "127.0.0.1",
            "port": free_port(),
        }
        return Settings(**{**working, **overrides})

    return settings


def answers(settings: Settings) -> int:
    return DIMENSIONS


def found(
    settings: Settings, *, faults: tuple[str, ...] = (), running: bool = False, probe: preflight.Probe = answers
) -> dict[str, preflight.Finding]:
    """The findings by subject; of several about one subject the last."""
    findings = preflight.check_all(settings, faults, running=running, probe=probe)
    return {finding.subject: finding for finding in findings}


def test_a_sound_installation_has_no_fault(given: Given) -> None:
    findings = found(given())
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings.keys() == {"chat", "index", "embeddings", "state", "port"}
    assert "1 passages of 1 documents" in findings["index"].sentence


def test_every_fault_has_a_remedy_and_all_are_named_at_once(given: Given, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    settings = given(
        chat_urls=(), chat_api_keys=(), embeddings_urls=(), embeddings_api_keys=(), vector_db_path=tmp_path / "none",
        system_prompt_file=tmp_path / "none.txt",
    )  # fmt: skip
    findings = preflight.check_all(settings, ["WORKERS='x': allowed is a whole number"], running=False, probe=answers)
    wrong = [finding for finding in findings if finding.state == "fault"]
    assert [finding.subject for finding in wrong] == ["settings", *["models"] * 4, "prompt", "index", "state"]
    assert all(finding.remedy for finding in wrong)


def test_a_faulty_endpoint_is_not_called_missing_as_well(given: Given) -> None:
    fault = "AZURE_OPENAI_CHAT_ENDPOINT='x': allowed is a full URL"
    findings = preflight.check_all(given(chat_urls=()), [fault], running=True, probe=answers)
    assert [finding.subject for finding in findings if finding.state == "fault"] == ["settings"]


def test_a_build_of_another_model_is_a_fault_that_names_both(given: Given) -> None:
    finding = found(given(embeddings_models=("other-model",)))["index"]
    assert finding.state == "fault"
    assert MODEL in finding.sentence
    assert "other-model" in finding.sentence
    assert "indexer build" in finding.remedy


def test_an_altered_build_is_a_fault_with_the_way_back(given: Given) -> None:
    settings = given()
    passages = next(settings.vector_db_path.glob("builds/*/passages.jsonl"))
    passages.write_bytes(passages.read_bytes().replace(b"Boats", b"Goats"))
    finding = found(settings)["index"]
    assert finding.state == "fault"
    assert "rollback" in finding.remedy


def test_another_dimension_than_the_index_has_is_a_fault(given: Given) -> None:
    finding = found(given(), probe=lambda settings: 1536)["embeddings"]
    assert finding.state == "fault"
    assert "1536" in finding.sentence
    assert str(DIMENSIONS) in finding.sentence


def test_a_refused_key_is_a_fault(given: Given) -> None:
    def refused(settings: Settings) -> int:
        raise UpstreamRejected("here.openai.azure.com/embed-3: HTTP 401")

    finding = found(given(), probe=refused)["embeddings"]
    assert finding.state == "fault"
    assert "401" in finding.sentence
    assert "AZURE_OPENAI_EMBEDDINGS" in finding.remedy


def test_a_model_that_is_down_at_the_moment_is_only_a_warning(given: Given) -> None:
    def down(settings: Settings) -> int:
        raise UpstreamError("here.openai.azure.com/embed-3: ConnectTimeout")

    assert found(given(), probe=down)["embeddings"].state == "warning"


def test_the_demo_asks_no_model(given: Given) -> None:
    def unasked(settings: Settings) -> int:
        raise AssertionError("the demo has no network")

    assert "embeddings" not in found(given(demo=True), probe=unasked)


def test_a_running_server_is_asked_neither_for_its_port_nor_for_the_network(given: Given) -> None:
    def unasked(settings: Settings) -> int:
        raise AssertionError("a reload must not wait for the network")

    findings = found(given(), running=True, probe=unasked)
    assert findings.keys() == {"chat", "index", "state"}


def test_a_port_in_use_is_a_fault(given: Given) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        finding = found(given(port=other.getsockname()[1]))["port"]
    assert finding.state == "fault"
    assert "PORT" in finding.remedy


def test_an_address_that_is_not_ours_is_a_fault(given: Given) -> None:
    finding = found(given(host="192.0.2.1"))["port"]
    assert finding.state == "fault"
    assert "HOST" in finding.remedy


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe\x00"])
def test_a_prompt_file_that_says_nothing_is_a_fault(given: Given, tmp_path: Path, content: bytes) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(content)
    assert found(given(system_prompt_file=prompt))["prompt"].state == "fault"


def test_a_prompt_file_that_can_be_read_is_said_to_be_used(given: Given, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Antworte freundlich.", encoding="utf-8")
    finding = found(given(system_prompt_file=prompt))["prompt"]
    assert (finding.state, "20 characters" in finding.sentence) == ("ok", True)


def test_each_fault_of_the_chats_own_words_is_named_before_the_start(given: Given, tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text('{"de": {"retryIn": "Bald", "hinnt": "x"}}', encoding="utf-8")
    findings = preflight.check_all(given(texts_file=file), [], running=True, probe=answers)
    wrong = [finding.sentence for finding in findings if finding.subject == "texts" and finding.state == "fault"]
    assert [sentence.split(": ", 2)[2] for sentence in wrong] == [
        "de.retryIn: {s} is missing", "de.hinnt: unknown; the codes stand in rag/chat/texts.json",
    ]  # fmt: skip
    file.write_text('{"de": {"retryIn": "In {s} s"}}', encoding="utf-8")
    assert found(given(texts_file=file))["texts"].state == "ok"
    assert "texts" not in found(given())


def test_a_log_file_that_cannot_be_written_is_a_warning_and_none_is_begun(given: Given, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("not a folder")
    (tmp_path / "b.log.lock").mkdir()
    for unusable in (tmp_path, tmp_path / "a-file" / "a.log", tmp_path / "b.log"):
        finding = found(given(log_file=unusable))["log"]
        assert (finding.state, "LOG_FILE" in finding.remedy) == ("warning", True), unusable
    usable = tmp_path / "new" / "folder" / "a.log"
    assert found(given(log_file=usable))["log"].state == "ok"
    assert not usable.parent.exists()
    assert "log" not in found(given())


def checked(settings: Settings, probe_chat: preflight.ChatProbe) -> dict[str, preflight.Finding]:
    """What `--check` finds, by subject."""
    findings = preflight.check_all(settings, (), running=False, probe=answers, probe_chat=probe_chat)
    return {finding.subject: finding for finding in findings}


def raising(error: Exception) -> preflight.ChatProbe:
    def probe(settings: Settings, endpoint: Endpoint) -> None:
        raise error

    return probe


def test_a_chat_model_that_refuses_our_key_or_is_down_is_a_fault_of_the_check(given: Given) -> None:
    refused = checked(given(), raising(UpstreamRejected("here/gpt-4o: HTTP 401")))["chat"]
    assert (refused.state, "HTTP 401" in refused.sentence) == ("fault", True)
    assert "AZURE_OPENAI_CHAT_ENDPOINT" in refused.remedy
    down = checked(given(), raising(UpstreamError("here/gpt-4o: no such host")))["chat"]
    assert (down.state, down.sentence) == ("fault", "cannot be reached: here/gpt-4o: no such host")
    assert down.remedy.startswith("correct the host's name in AZURE_OPENAI_CHAT_ENDPOINT")
    assert checked(given(), lambda settings, endpoint: None)["chat"].state == "ok"


@pytest.mark.parametrize(
    ("status", "code", "param", "named"),
    [
        (400, "unsupported_value", "temperature", "CHAT_TEMPERATURE"),
        (400, "invalid_value", "max_completion_tokens", "CHAT_MAX_TOKENS"),
        (400, "OperationNotSupported", "", "the model and the api-version"),
        (404, "DeploymentNotFound", "", "the deployment's or model's name"),
        (401, "401", "", "_API_KEY"),
    ],
)
def test_the_remedy_of_a_refusal_names_what_was_refused(
    given: Given, status: int, code: str, param: str, named: str
) -> None:
    error = Refused(f"here/gpt-4o: HTTP {status} {code}", named=code, param=param, of_endpoint=True)
    error.http_status = status
    finding = checked(given(), raising(error))["chat"]
    assert (finding.state, named in finding.remedy) == ("fault", True)
    assert ("_API_KEY" in finding.remedy) == (status == 401)


def test_every_chat_model_is_asked_by_itself(given: Given) -> None:
    urls = tuple(
        f"https://{place}.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=1"
        for place in ("east", "west")
    )

    def probe(settings: Settings, endpoint: Endpoint) -> None:
        if "east" in endpoint.url:
            raise UpstreamRejected("east.openai.azure.com/gpt: HTTP 401")

    findings = preflight.check_all(given(chat_urls=urls), (), running=False, probe=answers, probe_chat=probe)
    said = {finding.sentence: finding.state for finding in findings if finding.subject == "chat"}
    assert list(said.values()) == ["fault", "ok"]
    assert "west.openai.azure.com/gpt answers" in said


def test_a_check_beside_the_running_server_does_not_complain_of_its_port(given: Given) -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status":"healthy","version":"0.1.0"}')

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to say."""

    settings = given()
    with HTTPServer(("127.0.0.1", settings.port), Healthy) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            assert checked(settings, lambda settings, endpoint: None)["port"].state == "ok"
            assert found(settings)["port"].state == "fault"
        finally:
            server.shutdown()
            thread.join()


# --- Traces ---


def test_a_collector_that_answers_is_named(given: Given) -> None:
    with Collector() as collector:
        finding = found(given(otel_endpoint=collector.url))["traces"]
    assert (finding.state, finding.sentence) == ("ok", f"go to {collector.url}")


def test_a_collector_that_cannot_be_reached_keeps_no_server_from_starting(given: Given) -> None:
    finding = found(given(otel_endpoint=f"http://127.0.0.1:{free_port()}"))["traces"]
    assert finding.state == "warning"
    assert "cannot be reached at the moment" in finding.sentence


def test_a_running_server_does_not_ask_its_collector(given: Given) -> None:
    assert found(given(otel_endpoint=f"http://127.0.0.1:{free_port()}"), running=True)["traces"].state == "ok"


def test_the_port_of_another_protocol_is_pointed_out(given: Given) -> None:
    finding = found(given(otel_endpoint=f"http://127.0.0.1:{store_checks.GRPC_PORT}"))["traces"]
    assert (finding.state, "4318" in finding.remedy) == ("warning", True)


def test_packages_that_traces_need_and_that_are_not_installed_are_a_fault(given: Given) -> None:
    # In a process of its own, where importing one of them fails as if it were not there.
    script = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from rag.ops import store_checks\n"
        "print(*store_checks._traces('http://localhost:4318', running=True), sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    state, subject, sentence, remedy = done.stdout.strip().split("|")
    assert (state, subject) == ("fault", "traces")
    assert sentence == "OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry.sdk.trace is not installed"
    assert remedy == f"{sys.executable} -m pip install -r {REPOSITORY / 'requirements-otel.lock'}, or unset it"


def test_a_package_that_only_workers_load_is_missed_before_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "requirements-prod.lock"
    for_others = 'for-another-python==1.0 ; python_full_version < "3.0"'
    listed.write_text(f"# reason\nfastapi==0.0.1\na-package-that-nobody-has==1.2.3\n{for_others}\n")
    monkeypatch.setattr(preflight, "PACKAGES", listed)
    (found,) = preflight._packages()
    assert (found.state, found.sentence) == ("fault", "not installed: a-package-that-nobody-has")
    assert found.remedy.endswith(f"pip install -r {listed}")


def test_the_packages_that_the_tests_run_with_are_complete() -> None:
    assert list(preflight._packages()) == []

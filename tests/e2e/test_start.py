"""`python run_production.py`, as an operator calls it: what it says before it serves, and never a traceback."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, run_module
from tests.support.waiting import REPOSITORY, free_port, wait_until

REQUIRED = [
    "AZURE_OPENAI_CHAT_ENDPOINT",
    "AZURE_OPENAI_CHAT_API_KEY",
    "AZURE_OPENAI_EMBEDDINGS_ENDPOINT",
    "AZURE_OPENAI_EMBEDDINGS_API_KEY",
]


@pytest.fixture
def sound(azure: AzureEmulator, site_build: Path) -> dict[str, str]:
    """Settings with which the server starts; tests break one of them."""
    return {
        **azure.environment, "HOST": "127.0.0.1", "PORT": str(free_port()), "VECTOR_DB_PATH": str(site_build),
        "WORKERS": "1",
    }  # fmt: skip


def check(env: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the checks; whatever they find, no traceback and no secret may be shown."""
    done = run_module("run_production.py", "--check", *arguments, env=env, cwd=folder)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown
    assert done.stderr == ""
    for name in ("AZURE_OPENAI_CHAT_API_KEY", "AZURE_OPENAI_EMBEDDINGS_API_KEY"):
        assert env.get(name) is None or env[name] not in shown
    return done


def faults_in(screen: str) -> list[tuple[str, str]]:
    """(what is wrong, its remedy), for each line with a cross."""
    return re.findall(r"^  ✗ (.+)\n +→ (.+)$", screen, re.MULTILINE)


def test_a_sound_installation_passes_and_starts_nothing(sound: dict[str, str], tmp_path: Path) -> None:
    done = check(sound, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    assert "dimensions" in done.stdout
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{sound['PORT']}/health", trust_env=False)


def test_everything_that_is_missing_is_named_at_once_with_its_remedy(tmp_path: Path) -> None:
    done = check({"PORT": str(free_port())}, tmp_path)
    faults = faults_in(done.stdout)
    assert done.returncode == 1
    assert len(faults) == done.stdout.count("✗")
    for name in REQUIRED:
        assert any(name in what and ".env" in remedy for what, remedy in faults), name
    assert any("no build in vector_db" in what and "indexer build" in remedy for what, remedy in faults)
    assert f"{len(faults)} faults: nothing was started." in done.stdout


def test_wrong_values_are_named_beside_what_is_missing(tmp_path: Path) -> None:
    done = check({"PORT": "eighty", "LOG_LEVEL": "loud", "AZURE_OPENAI_CHAT_ENDPOINT": "here"}, tmp_path)
    faults = faults_in(done.stdout)
    assert done.returncode == 1
    for variable in ("PORT='eighty'", "LOG_LEVEL='loud'", "AZURE_OPENAI_CHAT_ENDPOINT='here'"):
        assert any(variable in what and "allowed is" in remedy for what, remedy in faults), variable
    assert any("AZURE_OPENAI_CHAT_API_KEY is not set" in what for what, _ in faults)
    assert not any("AZURE_OPENAI_CHAT_ENDPOINT is not set" in what for what, _ in faults)


def test_without_check_a_fault_ends_the_start_as_well(tmp_path: Path) -> None:
    done = run_module("run_production.py", env={"PORT": str(free_port())}, cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing was started" in done.stdout
    assert "gunicorn" not in done.stdout + done.stderr


def test_settings_are_read_from_the_env_file_beside_the_operator(sound: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in sound.items()), encoding="utf-8")
    assert check({}, tmp_path).returncode == 0


def test_a_state_folder_that_cannot_be_one_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    done = check({**sound, "STATE_DIR": str(tmp_path / "state")}, tmp_path)
    [(what, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "state" in what
    assert "STATE_DIR" in remedy


def test_a_port_in_use_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = check({**sound, "PORT": str(other.getsockname()[1])}, tmp_path)
    [(what, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "Address already in use" in what
    assert "PORT" in remedy


def test_an_index_of_another_embedding_model_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    done = check({**sound, "AZURE_OPENAI_EMBEDDINGS_MODEL": "some-other-model"}, tmp_path)
    [(what, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "some-other-model" in what
    assert "indexer build" in remedy


def test_a_damaged_index_is_a_fault_with_the_way_back(sound: dict[str, str], tmp_path: Path) -> None:
    copy = shutil.copytree(sound["VECTOR_DB_PATH"], tmp_path / "copy")
    vectors = next(copy.glob("builds/*/vectors.faiss"))
    vectors.write_bytes(vectors.read_bytes()[:-7])
    done = check({**sound, "VECTOR_DB_PATH": str(copy)}, tmp_path)
    [(_, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "rollback" in remedy


def test_a_model_that_answers_in_another_dimension_is_a_fault(
    sound: dict[str, str], azure: AzureEmulator, tmp_path: Path
) -> None:
    azure.fail("wrong_dimension")
    done = check(sound, tmp_path)
    [(what, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "dimensions" in what
    assert "indexer build" in remedy


def test_a_refused_key_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    done = check({**sound, "AZURE_OPENAI_EMBEDDINGS_API_KEY": "not-the-right-key"}, tmp_path)
    [(what, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "401" in what
    assert "AZURE_OPENAI_EMBEDDINGS" in remedy


def test_a_model_that_reasons_passes_and_one_that_refuses_a_value_of_ours_is_a_fault_that_names_the_setting(
    sound: dict[str, str], azure: AzureEmulator, tmp_path: Path
) -> None:
    reasoning = {**sound, "AZURE_OPENAI_CHAT_ENDPOINT": azure.chat_url_of("reasoning")}
    done = check(reasoning, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "max_completion_tokens" in azure.requests("chat")[-1]["body"]
    for limit in ("16", "1000"):
        done = check({**reasoning, "CHAT_MAX_TOKENS": limit}, tmp_path)
        assert (done.returncode, "raise it" in done.stdout) == ((1, True) if limit == "16" else (0, False))
    refusal = {"error": {"code": "invalid_value", "param": "max_completion_tokens", "message": "too many"}}
    azure.fail("status", target="chat", status=400, body=refusal)
    done = check(reasoning, tmp_path)
    [(what, remedy)] = faults_in(done.stdout)
    assert done.returncode == 1
    assert "HTTP 400 invalid_value max_completion_tokens" in what
    assert "CHAT_MAX_TOKENS" in remedy


def moved(address: str, where: str) -> str:
    """The address of the emulator, at another host and port."""
    return re.sub(r"//127\.0\.0\.1:\d+", f"//{where}", address)


@pytest.mark.parametrize("kind", ["CHAT", "EMBEDDINGS"])
@pytest.mark.parametrize(
    ("where", "said", "remedy"),
    [
        (None, "connection refused: nothing listens there", "start the service, or correct the port"),
        ("no-such-host.invalid", "no such host", "correct the host's name"),
    ],
)
def test_a_check_tells_why_a_model_cannot_be_reached(
    sound: dict[str, str], tmp_path: Path, kind: str, where: str | None, said: str, remedy: str
) -> None:
    name = f"AZURE_OPENAI_{kind}_ENDPOINT"
    done = check({**sound, name: moved(sound[name], where or f"127.0.0.1:{free_port()}")}, tmp_path)
    assert done.returncode == 1, done.stdout
    [(what, how)] = faults_in(done.stdout)
    assert said in what
    assert remedy in how
    assert name in how


def test_a_model_that_is_silent_a_wrong_key_and_a_wrong_name_are_told_apart(
    sound: dict[str, str], azure: AzureEmulator, tmp_path: Path
) -> None:
    wrong_key = check({**sound, "AZURE_OPENAI_CHAT_API_KEY": "wrong"}, tmp_path)
    [(what, how)] = faults_in(wrong_key.stdout)
    assert what.endswith("HTTP 401")
    assert "compare AZURE_OPENAI_CHAT_API_KEY" in how
    missing = check({**sound, "AZURE_OPENAI_CHAT_ENDPOINT": azure.chat_url_of("missing")}, tmp_path)
    [(what, how)] = faults_in(missing.stdout)
    assert "HTTP 404 DeploymentNotFound" in what
    assert "the deployment's or model's name" in how
    azure.fail("slow_headers", target="chat", seconds=60)
    [(what, how)] = faults_in(check(sound, tmp_path).stdout)
    assert "no answer within" in what
    assert "look whether the service runs" in how


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ("{embeddings}", "this one is for AZURE_OPENAI_EMBEDDINGS_ENDPOINT"),
        ("{base}/openai/deployments/emulated-chat/chat/completions", "with its api-version"),
        ("https://NAME.openai.azure.com", "the address of a deployment"),
        ("http://127.0.0.1:1", "the whole address"),
    ],
)
def test_an_address_that_cannot_work_is_a_fault_that_says_what_can(
    sound: dict[str, str], azure: AzureEmulator, tmp_path: Path, chat: str, said: str
) -> None:
    address = chat.format(embeddings=azure.embeddings_url, base=azure.base_url)
    done = check({**sound, "AZURE_OPENAI_CHAT_ENDPOINT": address}, tmp_path)
    assert done.returncode == 1
    assert said in done.stdout
    assert "AZURE_OPENAI_CHAT_ENDPOINT=" in done.stdout


@pytest.mark.parametrize("base", ["/v1", "/v1/", "/openai/v1"])
def test_a_base_address_is_completed(sound: dict[str, str], azure: AzureEmulator, tmp_path: Path, base: str) -> None:
    done = check(
        {
            **sound, "AZURE_OPENAI_CHAT_ENDPOINT": azure.base_url + base, "AZURE_OPENAI_CHAT_MODEL": "gpt",
            "AZURE_OPENAI_EMBEDDINGS_ENDPOINT": azure.base_url + base,
            "AZURE_OPENAI_EMBEDDINGS_MODEL": "emulated-embeddings",
        },
        tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert azure.requests("chat")[-1]["route"] == f"{base.rstrip('/')}/chat/completions"


def test_a_start_only_warns_of_a_model_that_is_down_because_the_server_can_serve_without(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    gone = moved(azure.embeddings_url, f"127.0.0.1:{free_port()}")
    server = start_server(AZURE_OPENAI_EMBEDDINGS_ENDPOINT=gone, workers=1)
    assert re.search(r"^  ! embeddings .*cannot be reached at the moment", server.output, re.MULTILINE)
    assert re.search(r"^  ✓ chat .*is set; --check asks it$", server.output, re.MULTILINE)


def test_by_hand_gunicorn_names_every_wrong_setting_too(tmp_path: Path) -> None:
    env = {"PORT": "eighty", "WORKERS": "none"}
    done = run_module(
        "gunicorn", "--config", str(REPOSITORY / "gunicorn.conf.py"), "rag_server:app", env=env, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "PORT='eighty'" in done.stderr
    assert "WORKERS='none'" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_by_hand_gunicorn_names_every_missing_setting_beside_the_wrong_ones(
    sound: dict[str, str], tmp_path: Path
) -> None:
    config = str(REPOSITORY / "gunicorn.conf.py")
    without_chat = {name: value for name, value in sound.items() if "_CHAT_" not in name}
    for given, named in ((without_chat, REQUIRED[:2]), ({"PORT": "eighty"}, [*REQUIRED, "PORT='eighty'"])):
        done = run_module("gunicorn", "--config", config, "rag_server:app", env=given, cwd=tmp_path, timeout_s=60)
        assert done.returncode == 1
        lines = [line.strip() for line in done.stderr.splitlines()]
        assert all(any(line.startswith(name) for line in lines) for name in named), done.stderr
        assert all(".env" in line for line in lines if "is not set" in line)
        assert "Traceback" not in done.stdout + done.stderr


def test_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    assert "\x1b" not in check({"PORT": str(free_port())}, tmp_path).stdout


def test_the_started_process_becomes_gunicorn_and_stops_cleanly(sound: dict[str, str], tmp_path: Path) -> None:
    with RagServer.start(sound, tmp_path, workers=2) as server:
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
        assert b"gunicorn" in command
        assert len(server.worker_pids()) == 1, "the setting wins"
        assert server.stop() == 0
    assert "Traceback" not in server.output


def test_by_hand_a_server_without_an_index_starts_no_worker_either(sound: dict[str, str], tmp_path: Path) -> None:
    env = {**sound, "VECTOR_DB_PATH": str(tmp_path / "none"), "STATE_DIR": str(tmp_path / "state")}
    config = str(REPOSITORY / "gunicorn.conf.py")
    done = run_module("gunicorn", "--config", config, "rag_server:app", env=env, cwd=tmp_path, timeout_s=60)
    assert done.returncode == 1
    assert "no build in" in done.stdout + done.stderr
    assert "Booting worker" not in done.stdout + done.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_every_way_to_stop_an_idle_server_is_quick_and_closes_what_it_opened(
    sound: dict[str, str], tmp_path: Path, stop: signal.Signals
) -> None:
    with RagServer.start(sound, tmp_path) as server, httpx.Client(base_url=server.base_url, trust_env=False) as visitor:
        visitor.get("/")  # leaves a connection open, as a browser does
        began = time.monotonic()
        os.kill(server.pid, stop)
        wait_until(lambda: not server.running(), 30, "the server has ended")
        assert time.monotonic() - began < 10
        assert server.exit_code == 0
    assert "Traceback" not in server.output
    assert "SIGKILL" not in server.output

"""EMBEDDINGS=local through the whole product: built, checked, served and asked without an embedding service."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.llm.local.sentences import missing_packages
from rag.settings import LOCAL_MODEL
from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import build_index, run_module
from tests.support.small_site import OFF_TOPIC, write_small_site

pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="requirements-local.txt is not installed")

NO_SERVICE = {"AZURE_OPENAI_EMBEDDINGS_ENDPOINT": None, "AZURE_OPENAI_EMBEDDINGS_API_KEY": None}


@pytest.fixture(scope="module")
def local_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    env = {"EMBEDDINGS": "local", "STATE_DIR": str(folder / "state")}
    done = build_index(write_small_site(folder / "site"), env=env, output=folder / "vector_db")
    assert done.returncode == 0, done.stderr
    return folder / "vector_db"


def ask(base_url: str, message: str) -> dict[str, Any]:
    answer = httpx.post(f"{base_url}/chat", json={"message": message}, timeout=30.0, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_question_in_another_language_or_with_typing_errors_finds_its_page_without_a_service(
    start_server: StartServer, azure: AzureEmulator, local_build: Path
) -> None:
    server = start_server(workers=2, EMBEDDINGS="local", VECTOR_DB_PATH=str(local_build), **NO_SERVICE)
    azure.clear()
    for question in ("Wie lange gilt die Garantie?", "How long is the warrenty of the contoller?"):
        answer = ask(server.base_url, question)
        assert "warranty" in answer["sources"][0]["url"], question
        assert answer["generated"] == "model"
    assert ask(server.base_url, OFF_TOPIC)["sources"] == []
    assert azure.requests("embeddings") == []
    ready = httpx.get(f"{server.base_url}/ready", trust_env=False).json()
    assert ready["index"]["model"] == LOCAL_MODEL
    assert ready["embeddings"]["status"] == "ok"


def test_the_checks_name_the_model_and_refuse_an_index_of_another(
    azure: AzureEmulator, local_build: Path, site_build: Path, tmp_path: Path
) -> None:
    env = {name: value for name, value in azure.environment.items() if "EMBEDDINGS" not in name}
    env |= {"EMBEDDINGS": "local", "STATE_DIR": str(tmp_path / "state"), "PORT": "0"}
    good = run_module("run_production.py", "--check", env=env | {"VECTOR_DB_PATH": str(local_build)}, cwd=tmp_path)
    assert f"{LOCAL_MODEL}, inside the server" in good.stdout
    assert f"the settings name '{LOCAL_MODEL}'" not in good.stdout
    other = run_module("run_production.py", "--check", env=env | {"VECTOR_DB_PATH": str(site_build)}, cwd=tmp_path)
    assert other.returncode == 1
    assert f"the settings name '{LOCAL_MODEL}'" in other.stdout

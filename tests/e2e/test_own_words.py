"""The owner's own answers, from the file beside the documents to the visitor, and back with their build."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ADMIN_API_KEY
from tests.support.azure import AzureEmulator
from tests.support.postgres_server import PgvectorServer
from tests.support.server import RagServer, build_index, run_module
from tests.support.small_site import FACTS, OFF_TOPIC, SITE_URL, write_small_site
from tests.support.waiting import wait_until

OWN = """
## Can I talk to you on the telephone?
## What is your phone number?

Call +49 30 555 0100. The [warranty page](/warranty/#returns) says what to have at hand.
"""
EXACT, ALIKE = "what is your PHONE number", "The telephone: can I talk to you on it?"


@dataclass(frozen=True)
class Site:
    """The documents with the owner's files beside them, and the settings that say where its builds are."""

    folder: Path
    settings: dict[str, str]


@pytest.fixture(scope="module", params=["files", "postgres"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, azure_process: AzureEmulator
) -> Iterator[Site]:
    folder = write_small_site(tmp_path_factory.mktemp("own") / "site")
    with PgvectorServer() if request.param == "postgres" else nullcontext() as postgres:
        url = {"VECTOR_DB_URL": postgres.empty_database()} if postgres else {}
        settings = url or {"VECTOR_DB_PATH": str(folder.parent / "vector_db")}
        yield made(Site(folder, {**azure_process.environment, **settings}))


def made(site: Site) -> Site:
    folder = site.folder
    (folder / "answers.md").write_text(OWN, encoding="utf-8")
    (folder / "synonyms.txt").write_text("guarantee, warranty\n", encoding="utf-8")
    indexed(site)
    return site


def indexed(site: Site) -> str:
    done = build_index(
        site.folder, env=site.settings, output=None, cwd=site.folder.parent, extra_args=["--site-url", SITE_URL]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def own(site: Site, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {
        **site.settings, "RATE_LIMIT_ENABLED": "false", "ADMIN_API_KEY": ADMIN_API_KEY, "SITE_URL": SITE_URL,
    }  # fmt: skip
    azure_process.heal()
    with RagServer.start(settings, tmp_path_factory.mktemp("server"), workers=1) as running:
        yield running


def ask(server: RagServer, message: str, path: str = "/chat", **more: Any) -> httpx.Response:
    answer = httpx.post(f"{server.base_url}{path}", json={"message": message, **more}, timeout=20, trust_env=False)
    assert answer.status_code == 200
    return answer


def calls(azure: AzureEmulator) -> Counter[str]:
    return Counter(seen["kind"] for seen in azure.requests())


def test_the_very_question_is_answered_in_the_sites_own_words_without_any_call(
    own: RagServer, azure: AzureEmulator
) -> None:
    said = ask(own, EXACT).json()
    assert said["response"] == (
        f"Call +49 30 555 0100. The [warranty page]({SITE_URL}/warranty/#returns) says what to have at hand."
    )
    assert (said["generated"], said["degraded"], said["escalation"]) == ("quoted", None, None)
    [source] = said["sources"]
    assert (source["title"], source["url"].split(":~:")[0]) == ("Warranty and returns", f"{SITE_URL}/warranty/#returns")
    assert not calls(azure)
    history = httpx.get(f"{own.base_url}/sessions/{said['session_id']}/history", trust_env=False).json()["history"]
    assert [turn["content"] for turn in history] == [EXACT, said["response"]]


def test_another_wording_needs_its_vector_alone_and_is_streamed_with_its_source(
    own: RagServer, azure: AzureEmulator
) -> None:
    streamed = ask(own, ALIKE, "/chat/stream").text
    events = [block.split("\n")[:2] for block in streamed.strip().split("\n\n")]
    told = {name.removeprefix("event: "): json.loads(data.removeprefix("data: ")) for name, data in events}
    assert told["sources"][0]["title"] == "Warranty and returns"
    assert told["done"]["response"].startswith("Call +49 30 555 0100.")
    assert (told["done"]["generated"], told["done"]["own_words"]) == ("quoted", True)
    assert set(calls(azure)) == {"embeddings"}


def test_another_word_for_the_same_finds_it(own: RagServer, azure: AzureEmulator) -> None:
    azure.fail("status", status=503)  # by words alone
    found = httpx.post(f"{own.base_url}/search", json={"query": "guarantee"}, timeout=20, trust_env=False).json()
    assert "warranty" in found["results"][0]["content"].lower()


def test_other_questions_and_those_about_a_selection_are_searched_as_before(own: RagServer) -> None:
    assert FACTS[0].words in json.dumps(ask(own, FACTS[0].question).json()["sources"])
    page = {"url": f"{SITE_URL}/warranty/", "selection": "The probes must be rinsed and dry"}
    assert "555 0100" not in ask(own, EXACT, page=page).json()["response"]


def test_it_is_told_when_the_models_are_down(own: RagServer, azure: AzureEmulator) -> None:
    azure.fail("status", status=503)
    said = ask(own, EXACT).json()
    assert said["response"].startswith("Call +49")
    assert said["degraded"] is None


def test_the_owner_sees_how_often_it_helped(own: RagServer) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_API_KEY}"}

    def counted() -> int:
        days = httpx.get(f"{own.base_url}/admin/usage?days=1", headers=headers, trust_env=False).json()["days"]
        return int(days[-1]["own_words"]) if days else 0

    before = counted()
    ask(own, EXACT)
    wait_until(lambda: counted() > before, 10, "it is counted")


def test_evaluation_asks_as_the_server_does(site: Site, tmp_path: Path) -> None:
    lines = [
        {"id": "1", "question": EXACT, "relevant": [f"{SITE_URL}/warranty/"]},
        {"id": "2", "question": ALIKE, "relevant": ["pricing.md"]},
        {"id": "3", "question": FACTS[1].question, "relevant": ["warranty.md"]},
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = run_module("indexer", "evaluate", str(file), env=site.settings, cwd=tmp_path)
    assert "own words  2 of the questions are answered by them" in done.stdout
    assert f"not found  {ALIKE}" in done.stdout
    assert f"not found  {FACTS[1].question}" not in done.stdout
    shown = run_module("indexer", "search", EXACT, env=site.settings, cwd=tmp_path)
    assert shown.stdout.startswith("answered in your own words, as: Can I talk to you on the telephone?")


def test_answers_go_live_close_a_gap_and_go_back_with_their_build(own: RagServer, site: Site) -> None:
    ask(own, OFF_TOPIC)
    headers = {"Authorization": f"Bearer {ADMIN_API_KEY}"}

    def diagnosis() -> list[str]:
        found = httpx.get(f"{own.base_url}/admin/gaps", headers=headers, timeout=20, trust_env=False).json()["gaps"]
        return [gap["diagnosis"] for gap in found if gap["question"] == OFF_TOPIC]

    wait_until(lambda: diagnosis() == ["no_page"], 10, "it is a gap")
    (site.folder / "answers.md").write_text(
        f"{OWN.replace('0100', '0200')}\n## {OFF_TOPIC}\n\nWe only know fish.\n", "utf-8"
    )
    said = indexed(site)
    assert "own words  2 answers, 1 groups of synonyms" in said
    assert "(0 embedded in 1 embedding call," in said
    wait_until(lambda: "555 0200" in ask(own, EXACT).json()["response"], 10, "the new answer is live")
    assert ask(own, OFF_TOPIC).json()["response"] == "We only know fish."
    assert diagnosis() == ["closed"]
    back = run_module("indexer", "rollback", env=site.settings, cwd=site.folder)
    assert back.returncode == 0, back.stderr
    wait_until(lambda: "555 0100" in ask(own, EXACT).json()["response"], 10, "the old answer is back")
    assert diagnosis() == ["no_page"]

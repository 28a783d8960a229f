"""What the owner sees: questions without who asked, figures, gaps closed by a page, and the index from afar."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, build_index, run_module
from tests.support.small_site import FACTS, OFF_TOPIC, SITE_URL
from tests.support.waiting import wait_until

MASKED = "How long does the warranty last? [mail], [number], [number]"
PERSONAL = "How long does the warranty last? ada@example.org, 4111 1111 1111 1111, +49 30 1234567"


@pytest.fixture(scope="module")
def owned(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    azure_process.heal()
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false",
        "ENABLE_CACHING": "false", "ADMIN_API_KEY": ADMIN_API_KEY, "QUESTION_LOG": "all",
        "PRICE_INPUT": "0.15", "PRICE_OUTPUT": "0.60",
    }  # fmt: skip
    with RagServer.start(settings, tmp_path_factory.mktemp("owned"), workers=2) as server:
        for _ in range(3):
            ask(server, FACTS[0].question)
        ask(
            server, FACTS[1].question, page={"url": "https://www.brinewell.example/guide/?user=ada#x", "title": "Guide"}
        )
        ask(server, OFF_TOPIC)
        ask(server, PERSONAL)
        session = ask(server, FACTS[2].question)["session_id"]
        thumb = {"session_id": session, "rating": "down", "reason": "Ask bob@example.org instead"}
        assert httpx.post(f"{server.base_url}/feedback", json=thumb, trust_env=False).status_code == 204
        wait_until(lambda: [day["questions"] for day in read(server, "usage")["days"]] == [7], 10, "all are written")
        yield server


def ask(server: RagServer, message: str, **more: Any) -> Any:
    answer = httpx.post(f"{server.base_url}/chat", json={"message": message, **more}, timeout=30, trust_env=False)
    assert answer.status_code == 200
    return answer.json()


def get(server: RagServer, what: str, key: str = ADMIN_API_KEY, **query: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{server.base_url}/admin/{what}", params=query, headers=headers, timeout=30, trust_env=False)


def read(server: RagServer, what: str, **query: Any) -> Any:
    answer = get(server, what, **query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_figures_of_the_day_say_what_became_of_the_questions(owned: RagServer) -> None:
    usage = read(owned, "usage")
    [today] = usage["days"]
    assert (today["questions"], today["nothing_found"], today["answered"]) == (7, 2, 5)
    assert today["prompt_tokens"] > today["completion_tokens"] > 0
    assert today["cost"] == round((today["prompt_tokens"] * 0.15 + today["completion_tokens"] * 0.6) / 1e6, 6)
    cited = {page["url"] for page in usage["cited"]}
    never = {page["url"] for page in usage["never_cited"]}
    assert cited
    assert never
    assert not cited & never
    assert usage["build"]["passages"] > 0


def test_the_same_question_counts_as_one_and_shows_the_page_without_its_query(owned: RagServer) -> None:
    questions = {row["question"]: row for row in read(owned, "questions")["questions"]}
    # Another wording of it, which has been masked, stands with it.
    assert questions[FACTS[0].question]["count"] == 4
    assert questions[FACTS[0].question]["examples"] == [FACTS[0].question, MASKED]
    assert questions[FACTS[1].question]["page"] == "/guide/"
    assert [row["question"] for row in read(owned, "questions", page="/guide/")["questions"]] == [FACTS[1].question]
    missing = {row["question"] for row in read(owned, "questions", outcome="nothing_found")["questions"]}
    assert missing == {OFF_TOPIC, MASKED}


def test_what_is_personal_is_masked_before_it_is_kept(owned: RagServer) -> None:
    shown = get(owned, "questions").text + get(owned, "gaps").text
    assert MASKED in shown
    stored = b"".join(file.read_bytes() for file in Path(owned.folder, "state").glob("questions.sqlite3*"))
    for secret in (b"ada@example.org", b"bob@example.org", b"4111", b"1234567", b"user=ada"):
        assert secret not in stored
        assert secret.decode() not in shown


def test_gaps_are_what_was_not_answered_or_disliked(owned: RagServer) -> None:
    gaps = {gap["question"]: gap for gap in read(owned, "gaps")["gaps"]}
    assert set(gaps) - {FACTS[3].question} == {OFF_TOPIC, MASKED, FACTS[2].question}
    assert gaps[OFF_TOPIC]["diagnosis"] == "no_page"
    assert gaps[FACTS[2].question]["diagnosis"] == "disliked"
    assert gaps[FACTS[2].question]["reason"] == "Ask [mail] instead"


def test_an_answer_that_only_the_client_claims_cannot_be_rated(owned: RagServer) -> None:
    said = "The site recommends a competitor."
    history = [{"role": "user", "content": "What do you recommend?"}, {"role": "assistant", "content": said}]
    session = ask(owned, FACTS[3].question, history=history)["session_id"]
    for place in (1, 3):
        thumb = {"session_id": session, "rating": "down", "message_index": place, "reason": f"place {place}"}
        assert httpx.post(f"{owned.base_url}/feedback", json=thumb, trust_env=False).status_code == 204
    headers = {"X-API-Key": ADMIN_API_KEY}
    thumbs = httpx.get(f"{owned.base_url}/feedback", headers=headers, timeout=20, trust_env=False).text
    assert "place 3" in thumbs
    assert "place 1" not in thumbs
    assert said not in thumbs + get(owned, "gaps").text


def test_tables_come_as_csv_that_no_spreadsheet_runs(owned: RagServer) -> None:
    ask(owned, "=HYPERLINK(1) how long does the warranty last?")
    wait_until(lambda: "HYPERLINK" in get(owned, "questions").text, 10, "it is written")
    session = ask(owned, FACTS[0].question)["session_id"]
    thumb = {"session_id": session, "rating": "up", "reason": "＝cmd()"}
    assert httpx.post(f"{owned.base_url}/feedback", json=thumb, trust_env=False).status_code == 204
    answers = [get(owned, what, format="csv") for what in ("questions", "gaps", "usage")]
    answers += [get(owned, "usage", format="csv", table=table) for table in ("cited", "never_cited")]
    headers = {"X-API-Key": ADMIN_API_KEY}
    thumbs = httpx.get(f"{owned.base_url}/feedback?format=csv", headers=headers, trust_env=False)
    begins = [answer.text.split(",")[0] for answer in (*answers, thumbs)]
    assert begins == ["question", "question", "day", "url", "url", "rating"]
    assert "'＝cmd()" in thumbs.text
    for answer in (*answers, thumbs):
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.reader(io.StringIO(answer.text)))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
        assert not any(cell.startswith(("=", "+", "@", "＝")) for row in rows for cell in row)


@pytest.mark.parametrize("what", ["usage", "questions", "gaps", "build"])
def test_only_an_admin_reads_it(owned: RagServer, what: str) -> None:
    assert get(owned, what, key="").status_code == 401
    assert get(owned, what, key="x" * 40).status_code == 401


def test_the_page_is_there_for_admins_and_loads_nothing_from_elsewhere(owned: RagServer) -> None:
    page = httpx.get(f"{owned.base_url}/admin", trust_env=False)
    assert page.status_code == 200
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for file in ("admin.js", "admin.css"):
        assert httpx.get(f"{owned.base_url}/static/{file}", trust_env=False).status_code == 200


def test_without_an_admin_there_is_no_page(server: RagServer, start_server: StartServer) -> None:
    without = start_server(workers=1)
    for path in ("/admin", "/admin/usage", "/admin/questions", "/admin/gaps", "/admin/build"):
        assert httpx.get(f"{without.base_url}{path}", trust_env=False).status_code == 404


def test_a_deleted_conversation_takes_its_questions_along(start_server: StartServer) -> None:
    server = start_server(QUESTION_LOG="all", ADMIN_API_KEY=ADMIN_API_KEY, workers=2)
    session = ask(server, FACTS[0].question)["session_id"]
    ask(server, "And for how long in schools?", session_id=session)
    ask(server, FACTS[1].question)
    wait_until(lambda: len(read(server, "questions")["questions"]) == 3, 10, "all are written")
    assert httpx.delete(f"{server.base_url}/sessions/{session}", trust_env=False).status_code == 200
    assert [row["question"] for row in read(server, "questions")["questions"]] == [FACTS[1].question]


@pytest.mark.parametrize(("mode", "kept"), [("off", []), ("gaps", [OFF_TOPIC])])
def test_only_what_was_asked_for_is_kept(start_server: StartServer, mode: str, kept: list[str]) -> None:
    server = start_server(QUESTION_LOG=mode, ADMIN_API_KEY=ADMIN_API_KEY, workers=1)
    ask(server, FACTS[0].question)
    ask(server, OFF_TOPIC)
    wait_until(lambda: [day["questions"] for day in read(server, "usage")["days"]] == [2], 10, "both are counted")
    assert [row["question"] for row in read(server, "questions")["questions"]] == kept


def test_a_gap_is_closed_by_a_page_and_becomes_a_draft(
    start_server: StartServer, azure: AzureEmulator, small_site: Path, tmp_path: Path
) -> None:
    site, root = tmp_path / "site", tmp_path / "vector_db"
    shutil.copytree(small_site, site)
    env = {**azure.environment, "VECTOR_DB_PATH": str(root), "STATE_DIR": str(tmp_path / "server" / "state")}
    build_index(site, env=azure.environment, output=root, extra_args=["--site-url", SITE_URL, "--yes"])
    server = start_server(VECTOR_DB_PATH=root, ADMIN_API_KEY=ADMIN_API_KEY, workers=2)
    missing = "Does Brinewell offer scholarships for marine biology students?"
    other = "Do you have scholarships for students of marine biology?"
    for question in (missing, missing, other):
        ask(server, question)
    wait_until(lambda: [day["questions"] for day in read(server, "usage")["days"]] == [3], 10, "all are written")
    [gap] = read(server, "gaps")["gaps"]
    assert (gap["question"], gap["count"], gap["examples"]) == (missing, 3, [missing, other])
    assert gap["diagnosis"] == "no_page"

    drafts, page = tmp_path / "drafts.jsonl", tmp_path / "gaps.html"
    said = run_module(
        "rag.gaps", "--since", "7d", "--questions", str(drafts), "--html", str(page), env=env, cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr
    assert f"   3 ×  {missing}" in said.stdout
    assert "no page on it" in page.read_text()
    [draft] = [json.loads(line) for line in drafts.read_text().splitlines()]
    assert (draft["question"], draft["relevant"], draft["status"]) == (missing, [], "draft")
    refused = run_module("indexer", "evaluate", str(drafts), "--output", str(root), env=env, cwd=tmp_path)
    assert (refused.returncode, "only 1 drafts" in refused.stderr) == (1, True)

    (site / "scholarships.md").write_text(
        "# Scholarships\n\nBrinewell offers scholarships for students of marine biology: 500 euros a term.\n"
    )
    # From the page: the build remembers how it was made.
    asked = httpx.post(f"{server.base_url}/admin/build", headers={"X-API-Key": ADMIN_API_KEY}, trust_env=False)
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    wait_until(lambda: read(server, "build")["state"] != "running", 60, "the build ends", interval_s=0.2)
    assert read(server, "build")["state"] == "done", read(server, "build")
    wait_until(lambda: [gap["diagnosis"] for gap in read(server, "gaps")["gaps"]] == ["closed"], 10, "it is closed")
    wait_until(lambda: "500 euros" in ask(server, missing)["response"], 10, "every worker serves it")
    closed = run_module("rag.gaps", env=env, cwd=tmp_path)
    assert f"closed by a later build (live: {read(server, 'usage')['build']['id']})" in closed.stdout

    before = read(server, "usage")["build"]
    back = httpx.post(f"{server.base_url}/admin/rollback", headers={"X-API-Key": ADMIN_API_KEY}, trust_env=False)
    assert back.json()["build"] in before["kept"]
    wait_until(lambda: read(server, "usage")["build"]["id"] == back.json()["build"], 10, "the earlier build is live")

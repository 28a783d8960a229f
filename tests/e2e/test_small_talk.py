"""What the server says itself: small talk without a search, and every sentence in the visitor's language."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.chat.texts import load_texts
from tests.conftest import StartServer
from tests.e2e.test_api import events_of
from tests.support.azure import AzureEmulator
from tests.support.server import build_index
from tests.support.small_site import OFF_TOPIC, write_small_site
from tests.support.waiting import wait_until

TEXTS = load_texts(None)
WARRANTY = "How long does the warranty last?"


def ask(base_url: str, message: str, *, language: str = "", **more: object) -> dict[str, Any]:
    headers = {"Accept-Language": language} if language else {}
    answer = httpx.post(
        f"{base_url}/chat", json={"message": message, **more}, headers=headers, timeout=30.0, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("demo", [False, True], ids=["with a model", "without a model"])
def test_small_talk_is_answered_without_search_sources_or_model(
    start_server: StartServer, azure: AzureEmulator, demo: bool, tmp_path: Path
) -> None:
    settings = {}
    if demo:
        settings = {"DEMO": "true", "VECTOR_DB_PATH": str(tmp_path / "letters")}
        done = build_index(write_small_site(tmp_path / "site"), env={"DEMO": "true"}, output=tmp_path / "letters")
        assert done.returncode == 0, done.stderr
    server = start_server(workers=1, SUGGESTED_QUESTIONS=WARRANTY, SITE_NAME="Brinewell", **settings)
    azure.clear()
    for message, code in (("hi", "talk_greeting"), ("Vielen Dank!", "talk_thanks"), ("Qui êtes-vous ?", "talk_about")):
        answer = ask(server.base_url, message)
        (sentence,) = {texts[code].replace("{site}", "Brinewell") for texts in TEXTS.values()} & {
            answer["response"].split("\n\n")[0]
        }
        assert sentence
        assert (answer["sources"], answer["degraded"], answer["escalation"]) == ([], None, None)
    assert f"- {WARRANTY}" in ask(server.base_url, "hello")["response"]
    person = ask(server.base_url, "Can I talk to a person?")
    assert person["escalation"] == {"reason": "asked"}
    assert "cannot connect you to a person" in person["response"]
    assert azure.requests() == []
    metrics = httpx.get(f"{server.base_url}/metrics", trust_env=False).text
    assert 'rag_answers_total{outcome="small_talk"} 5.0' in metrics
    assert 'rag_answers_total{outcome="nothing_found"} 0.0' in metrics


def test_small_talk_is_streamed_and_remembered(shared_server: StartServer, azure: AzureEmulator) -> None:
    server = shared_server(workers=1)
    body = {"message": "hallo", "session_id": "small-talk-session"}
    events = events_of(httpx.post(f"{server.base_url}/chat/stream", json=body, timeout=20, trust_env=False))
    assert [name for name, _ in events] == ["session", "sources", "delta", "done"]
    said = events[-1][1]["response"]
    history = httpx.get(f"{server.base_url}/sessions/small-talk-session/history", trust_env=False).json()["history"]
    assert [turn["content"] for turn in history] == ["hallo", said]
    # A question behind a greeting is a question.
    assert ask(server.base_url, f"Hi! {WARRANTY}", session_id="small-talk-session")["sources"] != []


def test_the_owner_counts_no_greeting_as_a_question(start_server: StartServer) -> None:
    server = start_server(workers=1, ADMIN_API_KEY="k" * 32, QUESTION_LOG="all")
    ask(server.base_url, "hello")
    ask(server.base_url, OFF_TOPIC)
    headers = {"Authorization": f"Bearer {'k' * 32}"}

    def kept() -> list[str]:
        rows = httpx.get(f"{server.base_url}/admin/questions", headers=headers, trust_env=False).json()["questions"]
        return [row["question"] for row in rows]

    wait_until(lambda: kept() == [OFF_TOPIC], 10, "the question is written")


def test_what_the_server_says_itself_is_in_the_visitors_language(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1, SITE_NAME="Brinewell")
    wanted = {language: {"language": f"{language}-XX,{language};q=0.9"} for language in TEXTS}
    # No function word of any language: the browser's choice counts.
    for language, asks in wanted.items():
        nothing = TEXTS[language]["answer_nothing"].replace("{site}", "Brinewell")
        assert ask(server.base_url, "Reykjavik chess championship", **asks)["response"].startswith(nothing)
    azure.fail("status", target="chat", status=500)
    for language, asks in wanted.items():
        outage = ask(server.base_url, "warranty controller", **asks)
        assert outage["response"].startswith(TEXTS[language]["answer_outage"])
        assert outage["degraded_codes"] == ["model"]


def test_a_question_tells_its_language_before_the_browser_does(shared_server: StartServer) -> None:
    server = shared_server(workers=1)
    answer = ask(server.base_url, "Wer hat die Meisterschaft im Schach gewonnen, und wo war das?", language="fr")
    assert answer["response"].startswith("Dazu habe ich auf")


def test_an_answer_without_a_word_is_said_to_be_one(shared_server: StartServer, azure: AzureEmulator) -> None:
    server = shared_server(workers=1)
    azure.behave(reply="")
    assert ask(server.base_url, "warranty controller", language="nl")["response"] == TEXTS["nl"]["answer_empty"]
    body, headers = {"message": "warranty controller"}, {"Accept-Language": "nl"}
    streamed = httpx.post(f"{server.base_url}/chat/stream", json=body, headers=headers, timeout=20, trust_env=False)
    assert events_of(streamed)[-1][1]["response"] == TEXTS["nl"]["answer_empty"]


def test_an_owners_sentence_stands_in_the_answer(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({"en": {"talk_greeting": "Ahoy from {site}!", "answer_nothing": "No idea, {site}."}}))
    server = start_server(workers=1, TEXTS_FILE=str(file), SITE_NAME="Brinewell")
    assert ask(server.base_url, "hi")["response"] == "Ahoy from Brinewell!"
    assert ask(server.base_url, OFF_TOPIC)["response"].startswith("No idea, Brinewell.")


def test_every_dialect_speaks_the_visitors_language(shared_server: StartServer) -> None:
    server = shared_server(workers=1)
    openai = {"model": "x", "messages": [{"role": "user", "content": "hi"}]}
    ai_sdk = {"messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
    for path, body in (("/v1/chat/completions", openai), ("/api/chat", ai_sdk)):
        answer = httpx.post(
            f"{server.base_url}{path}", json=body, headers={"Accept-Language": "it"}, timeout=20, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        assert TEXTS["it"]["talk_greeting"].split("{site}")[0] in answer.text

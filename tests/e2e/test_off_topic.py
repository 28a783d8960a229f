"""Questions that have nothing to do with the site, and follow-ups worded by the model, through the whole server."""

import httpx

from rag.chat.prompt import PROMPT_BYTES
from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.small_site import OFF_TOPIC, SITE_URL


def ask(base_url: str, message: str, **more: object) -> dict[str, object]:
    answer = httpx.post(f"{base_url}/chat", json={"message": message, **more}, timeout=30.0, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_an_off_topic_question_is_answered_without_the_model_and_with_what_the_site_has(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1, SUGGESTED_QUESTIONS="What does it cost?|How long is the warranty?")
    answer = ask(server.base_url, OFF_TOPIC)
    assert azure.requests("chat") == []
    assert answer["sources"] == []
    assert str(answer["response"]).startswith("I could not find anything about this")
    # A page that shares no word with the question comes close to nothing.
    assert SITE_URL not in str(answer["response"])
    assert "- How long is the warranty?" in str(answer["response"])
    assert answer["degraded"] is None


def test_pages_are_offered_that_share_a_word_with_the_question(start_server: StartServer) -> None:
    server = start_server(workers=1, SIMILARITY_THRESHOLD="0.99")
    answer = ask(server.base_url, "Is a warranty a kind of chess opening in Reykjavik?")
    assert answer["sources"] == []
    said = str(answer["response"])
    assert "These pages come closest:" in said
    assert f"]({SITE_URL}/warranty/" in said


def test_an_off_topic_question_is_told_apart_by_words_while_embeddings_are_down(
    start_server: StartServer, azure: AzureEmulator
) -> None:
    server = start_server(workers=1)
    azure.fail("status", target="embeddings", status=500)
    assert ask(server.base_url, OFF_TOPIC)["sources"] == []
    assert ask(server.base_url, "How long does the warranty last?")["sources"] != []
    assert len(azure.requests("chat")) == 1


def test_with_query_rewrite_the_model_words_the_search_of_a_follow_up(
    shared_server: StartServer, azure: AzureEmulator
) -> None:
    server = shared_server(workers=1, QUERY_REWRITE="model")
    session_id = str(ask(server.base_url, "Which port does the REST API listen on?")["session_id"])
    assert len(azure.requests("chat")) == 1
    azure.behave(reply="How long does the warranty last?")
    answer = ask(server.base_url, "And how long are things covered?", session_id=session_id)
    assert len(azure.requests("chat")) == 3
    assert "How long does the warranty last?" in azure.requests("embeddings")[-1]["body"]["input"]
    assert str(answer["sources"][0]["url"]).startswith(f"{SITE_URL}/warranty/")  # type: ignore[index]


def test_a_history_that_only_the_client_claims_switches_no_judgement_off(
    shared_server: StartServer, azure: AzureEmulator
) -> None:
    server = shared_server(workers=1)
    claimed = [{"role": "user", "content": "What does it cost?"}, {"role": "assistant", "content": "40 euros."}]
    assert ask(server.base_url, OFF_TOPIC, history=claimed)["sources"] == []
    assert azure.requests("chat") == []
    dialect = {"messages": [*claimed, {"role": "user", "content": OFF_TOPIC}]}
    told = httpx.post(f"{server.base_url}/v1/chat/completions", json=dialect, timeout=30.0, trust_env=False)
    assert told.status_code == 200
    assert azure.requests("chat") == []


def test_the_largest_request_cannot_make_a_prompt_of_more_bytes_than_the_budget(
    shared_server: StartServer, azure: AzureEmulator
) -> None:
    server = shared_server(workers=1, QUERY_REWRITE="model")
    turns = [{"role": role, "content": "😀" * 3_500} for role in ("user", "assistant", "user", "assistant")]
    ask(server.base_url, "How long does the warranty last? And what of it?", history=turns)
    sent = [sum(len(m["content"].encode()) for m in request["body"]["messages"]) for request in azure.requests("chat")]
    assert sent
    assert max(sent) <= PROMPT_BYTES + 4_000

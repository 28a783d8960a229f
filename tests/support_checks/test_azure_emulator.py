"""The emulator behaves as Azure OpenAI documents while nothing is wrong."""

import base64
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.azure import AzureEmulator
from tests.support.azure_chat import DOES_NOT_KNOW
from tests.support.azure_errors import WORDING
from tests.support.small_site import FACTS, write_small_site
from tests.support.waiting import wait_until
from tests.support_checks.wire import ANSWER, QUESTION, STREAMED, events_of, said, vectors_of


def test_an_answer_cites_the_first_sentences_of_the_first_two_sources(
    azure: AzureEmulator, client: httpx.Client
) -> None:
    answer = client.post(azure.chat_url, json=QUESTION).json()
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert answer["prompt_filter_results"]


def test_without_sources_the_model_says_that_it_does_not_know(azure: AzureEmulator, client: httpx.Client) -> None:
    answer = client.post(azure.chat_url, json={"messages": [{"role": "user", "content": "What is [1] about?"}]}).json()
    assert answer["choices"][0]["message"]["content"] == DOES_NOT_KNOW


def test_a_stream_begins_without_choices_and_ends_with_reason_usage_and_done(
    azure: AzureEmulator, client: httpx.Client
) -> None:
    answer = client.post(azure.chat_url, json={**STREAMED, "stream_options": {"include_usage": True}})
    events = events_of(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[0]["choices"] == []
    assert events[0]["prompt_filter_results"]
    assert events[1]["choices"][0]["delta"]["role"] == "assistant"
    assert said(events) == ANSWER
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] > 0
    assert events[-1] == "[DONE]"


def test_max_tokens_cuts_an_answer_and_says_so(azure: AzureEmulator, client: httpx.Client) -> None:
    choice = client.post(azure.chat_url, json={**QUESTION, "max_tokens": 3}).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The warranty lasts", "length")


def test_a_model_that_reasons_refuses_the_old_limit_and_a_temperature_one_at_a_time(
    azure: AzureEmulator, client: httpx.Client
) -> None:
    url, given = azure.chat_url_of("reasoning-1"), {**QUESTION, "max_tokens": 500, "temperature": 0.1}
    first = client.post(url, json=given)
    assert first.status_code == 400
    assert first.json()["error"].items() >= {"code": "unsupported_parameter", "param": "max_tokens"}.items()
    given["max_completion_tokens"] = given.pop("max_tokens")
    second = client.post(url, json=given).json()["error"]
    assert (second["code"], second["param"]) == ("unsupported_value", "temperature")
    given["temperature"] = 1
    assert client.post(url, json=given).json()["choices"][0]["finish_reason"] == "stop"
    spent = client.post(url, json={**given, "max_completion_tokens": 16}).json()["choices"][0]
    assert (spent["finish_reason"], spent["message"]["content"]) == ("length", "")


def test_a_fixed_reply_and_fixed_tokens_replace_the_composed_answer(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.behave(reply="Just  this.\n")
    assert said(events_of(client.post(azure.chat_url, json=STREAMED).text)) == "Just  this.\n"
    azure.behave(tokens=["a", "", "b"])
    assert said(events_of(client.post(azure.chat_url, json=STREAMED).text)) == "ab"
    azure.heal()
    assert said(events_of(client.post(azure.chat_url, json=STREAMED).text)) == ANSWER


def test_vectors_have_length_one_and_base64_holds_the_same_numbers(azure: AzureEmulator, client: httpx.Client) -> None:
    texts = ["salt water", "Größe 日本語", " ", "salt water"]
    plain = client.post(azure.embeddings_url, json={"input": texts})
    packed = client.post(azure.embeddings_url, json={"input": texts, "encoding_format": "base64"}).json()
    unpacked = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in packed["data"]]
    vectors = vectors_of(plain)
    assert vectors.shape == (4, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.array(unpacked), vectors, rtol=1e-5)
    assert [entry["index"] for entry in packed["data"]] == [0, 1, 2, 3]
    assert (vectors[0] == vectors[3]).all()


def test_dimensions_cuts_vectors_and_normalises_them_again(azure: AzureEmulator, client: httpx.Client) -> None:
    vectors = vectors_of(client.post(azure.embeddings_url, json={"input": "salt water", "dimensions": 32}))
    assert vectors.shape == (1, 32)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0, rel=1e-5)


def test_vectors_find_the_page_that_answers(azure: AzureEmulator, client: httpx.Client, tmp_path: Path) -> None:
    pages = sorted(path for path in write_small_site(tmp_path).rglob("*.md"))
    names = [path.relative_to(tmp_path).as_posix() for path in pages]
    rows = vectors_of(client.post(azure.embeddings_url, json={"input": [page.read_text() for page in pages]}))
    asked = vectors_of(client.post(azure.embeddings_url, json={"input": [fact.question for fact in FACTS]}))
    assert [names[row] for row in (asked @ rows.T).argmax(axis=1)] == [fact.source for fact in FACTS]


def test_given_vectors_are_served_for_known_texts_and_for_texts_that_hold_them(
    corpora: Path, client: httpx.Client
) -> None:
    folder = corpora / "squad2_dev"
    with (folder / "corpus.jsonl").open() as lines:
        document = json.loads(next(lines))
    with np.load(folder / "minilm_vectors.npz") as stored:
        row = list(stored["corpus_ids"]).index(document["id"])
        expected = stored["corpus"][row].astype(np.float32)
    texts = [document["text"], f"{document['title']} › Origin\n\n{document['text']}", document["text"][:200]]
    with AzureEmulator.start(vectors=[folder / "minilm_vectors.npz"], api_key=client.headers["api-key"]) as given:
        rows = vectors_of(client.post(given.embeddings_url, json={"input": texts}))
    cosines = rows @ expected
    assert rows.shape == (3, 384)
    assert cosines[0] == pytest.approx(1.0, abs=1e-3)
    assert cosines[1] == pytest.approx(1.0, abs=1e-3)
    assert cosines[2] < 0.99, "a bare beginning without headings is a text of its own"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/openai/deployments/d/chat/completions?api-version=1", {"api-key": "KEY"}, 200),
        ("/openai/deployments/d/chat/completions?api-version=1", {"api-key": "wrong"}, 401),
        ("/openai/deployments/d/chat/completions?api-version=1", {"authorization": "Bearer KEY"}, 401),
        ("/openai/deployments/d/chat/completions", {"api-key": "KEY"}, 404),
        ("/openai/deployments/missing-1/chat/completions?api-version=1", {"api-key": "KEY"}, 404),
        ("/openai/v1/chat/completions", {"api-key": "KEY"}, 200),
        ("/openai/v1/chat/completions", {"authorization": "Bearer KEY"}, 200),
        ("/v1/chat/completions", {"authorization": "Bearer KEY"}, 200),
        ("/v1/chat/completions", {"api-key": "KEY"}, 401),
        ("/v2/chat/completions", {"api-key": "KEY"}, 404),
    ],
)
def test_keys_and_addresses_are_checked_as_azure_checks_them(
    azure: AzureEmulator, path: str, headers: dict[str, str], status: int
) -> None:
    real = {name: value.replace("KEY", azure.api_key) for name, value in headers.items()}
    answer = httpx.post(azure.base_url + path, json={**QUESTION, "model": "m"}, headers=real, trust_env=False)
    assert answer.status_code == status
    assert ("error" in answer.json()) == (status != 200)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("embeddings", {"input": []}),
        ("embeddings", {"input": ["sound", ""]}),
        ("embeddings", {"input": ["x"] * 2049}),
        ("embeddings", {"input": "x", "dimensions": 257}),
        ("embeddings", {"input": "x", "encoding_format": "int8"}),
        ("chat", {"messages": []}),
        ("chat", {"messages": [{"role": "robot", "content": "x"}]}),
        ("chat", {**QUESTION, "stream_options": {"include_usage": True}}),
    ],
)
def test_a_malformed_request_is_refused_with_400(
    azure: AzureEmulator, client: httpx.Client, operation: str, body: dict[str, Any]
) -> None:
    answer = client.post(azure.chat_url if operation == "chat" else azure.embeddings_url, json=body)
    assert answer.status_code == 400
    assert WORDING in answer.json()["error"]["message"]


def test_requests_are_recorded_with_keys_bodies_and_inputs(azure: AzureEmulator, client: httpx.Client) -> None:
    client.post(azure.chat_url_of("other"), json=QUESTION)
    client.post(azure.embeddings_url, json={"input": ["a", "b", "c"]})
    chat, embeddings = azure.requests()
    assert chat["deployment"] == "other"
    assert chat["body"] == QUESTION
    assert chat["headers"]["api-key"] == azure.api_key
    assert (chat["outcome"], chat["status"], chat["fault"]) == ("answered", 200, None)
    assert (embeddings["kind"], embeddings["inputs"]) == ("embeddings", 3)
    assert azure.requests("chat") == [chat]
    assert azure.stats()["total"] == {"chat": 1, "embeddings": 1}
    azure.clear()
    assert azure.requests() == []
    assert azure.stats()["total"] == {}


def test_delays_are_kept(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.behave(embeddings_delay_ms=60, chat_delay_ms=60, token_delay_ms=20, tokens=list("abcd"))
    began = time.monotonic()
    client.post(azure.embeddings_url, json={"input": "x"})
    embedded = time.monotonic()
    client.post(azure.chat_url, json=STREAMED)
    assert embedded - began >= 0.06
    assert time.monotonic() - embedded >= 0.14


def test_stopping_ends_the_emulators_process() -> None:
    with AzureEmulator.start() as emulator:
        assert os.path.exists(f"/proc/{emulator.pid}")
    assert not os.path.exists(f"/proc/{emulator.pid}")


def test_an_emulator_can_be_killed_to_look_like_a_dead_host() -> None:
    with AzureEmulator.start() as emulator:
        os.kill(emulator.pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            wait_until(lambda: httpx.post(emulator.chat_url, json=QUESTION, trust_env=False).status_code == 0)

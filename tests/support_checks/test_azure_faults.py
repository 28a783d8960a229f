"""The emulator goes wrong exactly as it is told to, each kind once."""

import time

import httpx
import numpy as np
import pytest

from tests.support.azure import AzureEmulator
from tests.support.azure_faults import KINDS
from tests.support.waiting import wait_until
from tests.support_checks.wire import ANSWER, QUESTION, STREAMED, events_of, finish_reasons, said, vectors_of


def test_a_fault_strikes_only_what_it_is_aimed_at_and_only_so_often(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail(
        "status", target="chat", deployment="east", status=429, headers={"retry-after-ms": "7"}, times=1, after=1
    )
    azure.fail("status", target="embeddings", contains="poison", status=503)
    statuses = [client.post(azure.chat_url_of(name), json=QUESTION) for name in ("east", "west", "east", "east")]
    assert [answer.status_code for answer in statuses] == [200, 200, 429, 200]
    assert statuses[2].headers["retry-after-ms"] == "7"
    assert statuses[2].json()["error"]["code"] == "429"
    batches = [client.post(azure.embeddings_url, json={"input": [text]}) for text in ("sound", "poison")]
    assert [answer.status_code for answer in batches] == [200, 503]
    assert [seen["fault"] for seen in azure.requests()].count("status") == 2


def test_a_mistyped_fault_is_refused(azure: AzureEmulator) -> None:
    with pytest.raises(ValueError, match="no such kind"):
        azure.fail("explode")
    with pytest.raises(ValueError, match="tiems"):
        azure.fail("reset", tiems=3)
    with pytest.raises(ValueError, match="dealy"):
        azure.behave(dealy=3)


@pytest.mark.parametrize("kind", ["hang", "stall_after"])
@pytest.mark.parametrize("operation", ["chat", "stream", "embeddings"])
def test_a_client_that_leaves_a_silent_upstream_is_counted_as_cancelled(
    azure: AzureEmulator, client: httpx.Client, kind: str, operation: str
) -> None:
    azure.fail(kind)
    body = {"chat": QUESTION, "stream": STREAMED, "embeddings": {"input": "salt water"}}[operation]
    url = azure.embeddings_url if operation == "embeddings" else azure.chat_url
    with pytest.raises(httpx.ReadTimeout):
        client.post(url, json=body, timeout=0.2)
    wait_until(lambda: azure.requests()[0]["outcome"] == "cancelled", message="the request is seen as cancelled")
    assert sum(azure.stats()["cancelled"].values()) == 1
    assert sum(azure.stats()["now"].values()) == 0


def test_a_stalled_stream_sends_its_first_tokens(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("stall_after", tokens=3)
    got = ""
    with client.stream("POST", azure.chat_url, json=STREAMED) as answer:
        for piece in answer.iter_text():
            got += piece
            if said(events_of(got)).endswith("lasts"):
                break
    assert said(events_of(got)) == "The warranty lasts"


@pytest.mark.parametrize("operation", ["chat", "stream", "embeddings"])
@pytest.mark.parametrize(("kind", "error"), [("reset", httpx.ReadError), ("cut_stream", httpx.RemoteProtocolError)])
def test_a_broken_connection_looks_broken_to_the_client(
    azure: AzureEmulator, client: httpx.Client, kind: str, error: type[Exception], operation: str
) -> None:
    azure.fail(kind)
    body = {"chat": QUESTION, "stream": STREAMED, "embeddings": {"input": "salt water"}}[operation]
    with pytest.raises(error):
        client.post(azure.embeddings_url if operation == "embeddings" else azure.chat_url, json=body)


def test_slow_headers_come_late_and_sound(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("slow_headers", seconds=0.3)
    began = time.monotonic()
    assert client.post(azure.chat_url, json=QUESTION).json()["choices"][0]["message"]["content"] == ANSWER
    assert time.monotonic() - began >= 0.3


def test_an_answer_that_is_not_json_is_a_page_with_status_200(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("not_json")
    answer = client.post(azure.chat_url, json=QUESTION)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/html")


def test_empty_choices_hold_nothing(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("empty_choices")
    assert client.post(azure.chat_url, json=QUESTION).json()["choices"] == []
    assert said(events_of(client.post(azure.chat_url, json=STREAMED).text)) == ""
    assert client.post(azure.embeddings_url, json={"input": "x"}).json()["data"] == []


def test_a_stream_without_done_ends_after_its_reason_or_even_before(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("no_done", times=1)
    azure.fail("no_done", finish=False)
    with_reason, without = (events_of(client.post(azure.chat_url, json=STREAMED).text) for _ in range(2))
    assert (finish_reasons(with_reason), "[DONE]" in with_reason) == (["stop"], False)
    assert (finish_reasons(without), "[DONE]" in without) == ([], False)
    assert said(without) == ANSWER


def test_split_characters_arrive_in_pieces_that_are_no_utf8(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("split_utf8")
    with client.stream("POST", azure.chat_url, json=STREAMED) as answer:
        pieces = list(answer.iter_raw())
    broken = [piece for piece in pieces if piece.decode("utf-8", "ignore").encode() != piece]
    assert broken
    assert said(events_of(b"".join(pieces).decode())).startswith(ANSWER)
    assert "日本語 🌊" in said(events_of(b"".join(pieces).decode()))


def test_small_chunks_end_in_the_middle_of_lines(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("many_small_chunks")
    with client.stream("POST", azure.chat_url, json=STREAMED) as answer:
        pieces = list(answer.iter_raw())
    assert sum(not piece.endswith(b"\n\n") for piece in pieces) > 20
    assert said(events_of(b"".join(pieces).decode())) == ANSWER


def test_an_error_event_ends_a_stream_after_its_first_tokens(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("error_event_in_stream", tokens=2)
    events = events_of(client.post(azure.chat_url, json=STREAMED).text)
    assert said(events) == "The warranty"
    assert events[-1]["error"]["code"] == "InternalServerError"


def test_annotation_events_have_choices_without_a_delta(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("annotation_events")
    events = events_of(client.post(azure.chat_url, json=STREAMED).text)
    assert [event for event in events[1:-1] if event["choices"] and "delta" not in event["choices"][0]]
    assert said(events) == ANSWER


def test_the_content_filter_refuses_prompts_with_400_and_answers_with_a_reason(
    azure: AzureEmulator, client: httpx.Client
) -> None:
    azure.fail("content_filter_prompt", times=1)
    azure.fail("content_filter_answer", tokens=1)
    refused = client.post(azure.chat_url, json=QUESTION)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    assert refused.json()["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    choice = client.post(azure.chat_url, json=QUESTION).json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert "content" not in choice["message"]
    events = events_of(client.post(azure.chat_url, json=STREAMED).text)
    assert (said(events), finish_reasons(events)) == ("The", ["content_filter"])


def test_vectors_can_be_too_short_too_few_shuffled_or_not_a_number(azure: AzureEmulator, client: httpx.Client) -> None:
    batch = {"input": ["salt", "pump"]}
    sound = vectors_of(client.post(azure.embeddings_url, json=batch))
    for kind in ("wrong_dimension", "wrong_count", "shuffled", "nan"):
        azure.fail(kind, times=1)
    short, few, shuffled = (client.post(azure.embeddings_url, json=batch) for _ in range(3))
    assert vectors_of(short).shape == (2, 128)
    assert vectors_of(few).shape == (1, 256)
    assert [entry["index"] for entry in shuffled.json()["data"]] == [1, 0]
    np.testing.assert_allclose(vectors_of(shuffled)[::-1], sound)
    assert np.isnan(vectors_of(client.post(azure.embeddings_url, json=batch))[:, 0]).all()


def test_a_huge_body_is_as_large_as_asked_for(azure: AzureEmulator, client: httpx.Client) -> None:
    azure.fail("huge_body", size=3_000_000)
    for body in (QUESTION, STREAMED):
        assert len(client.post(azure.chat_url, json=body).content) > 3_000_000
    assert len(client.post(azure.embeddings_url, json={"input": "x"}).content) > 3_000_000


def test_every_kind_of_fault_is_over_after_healing(azure: AzureEmulator, client: httpx.Client) -> None:
    for kind in KINDS:
        azure.fail(kind)
    azure.heal()
    assert client.post(azure.chat_url, json=QUESTION).json()["choices"][0]["message"]["content"] == ANSWER

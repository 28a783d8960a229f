"""What is sent and what is made of every form of answer: on a faked wire, byte by byte where that matters."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import respx

from rag.calls import Refused
from rag.chat.prompt import PromptWriter
from rag.deadline import Deadline
from rag.errors import ContentFiltered, UpstreamError, UpstreamTimeout
from rag.llm.azure import MAX_ANSWER_BYTES, STREAM_SILENCE_S, AzureChat, AzureEmbedder
from rag.llm.client import Unanswered, Upstream
from rag.llm.resilience import RetryBudget
from rag.types import Completion, Endpoint, Hit, Message, Passage, Prompt

URL = "https://east.openai.azure.com/openai/deployments/model/x?api-version=2024-10-21"
MESSAGES = ({"role": "system", "content": "Answer."}, {"role": "user", "content": "Grüße 🌊"})
PROMPT = Prompt(question="Grüße 🌊", messages=MESSAGES, hits=())
PASSAGE = Passage(text="Text", title="T", headings=(), anchor="", url="u", source="s", language="en")
CUT = httpx.ReadError("the connection ended")
Wire = Callable[..., list[httpx.Request]]


class Chunks(httpx.AsyncByteStream):
    """A body in these network chunks; an exception among them is raised, None is silence for ever."""

    def __init__(self, chunks: Sequence[bytes | Exception | None]) -> None:
        self.closed = False
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if chunk is None:
                await asyncio.Event().wait()
            elif isinstance(chunk, Exception):
                raise chunk
            else:
                yield chunk

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def wire() -> Iterator[Wire]:
    """`wire(*answers)`: each answer a body, or the chunks of one; the last one for ever. Returns what arrives."""
    with respx.mock(using="httpx", assert_all_called=False) as router:

        def answer_with(*answers: bytes | Chunks | Callable[[], Chunks]) -> list[httpx.Request]:
            received: list[httpx.Request] = []
            left = list(answers)

            def respond(request: httpx.Request) -> httpx.Response:
                received.append(request)
                answer = left.pop(0) if len(left) > 1 else left[0]
                answer = answer() if callable(answer) else answer
                return httpx.Response(200, **({"content": answer} if isinstance(answer, bytes) else {"stream": answer}))

            router.post(URL).side_effect = respond
            return received

        yield answer_with


async def no_pause(seconds: float) -> None:
    return None


def with_upstream(story: Callable[[Upstream], Coroutine[Any, Any, Any]]) -> Any:
    async def told() -> Any:
        async with httpx.AsyncClient(verify=False) as client:
            endpoint = Endpoint(URL, "key", "", False)
            return await story(
                Upstream(kind="x", endpoints=[endpoint], client=client, budget=RetryBudget(), sleep=no_pause)
            )

    return asyncio.run(told())


def embed(*texts: str) -> np.ndarray[Any, Any]:
    async def story(upstream: Upstream) -> Any:
        return await AzureEmbedder(upstream=upstream, name="m").embed(texts, deadline=Deadline(5))

    return with_upstream(story)  # type: ignore[no-any-return]


def complete() -> Completion:
    async def story(upstream: Upstream) -> Any:
        return await AzureChat(upstream=upstream, temperature=0.5, max_tokens=7).complete(PROMPT, deadline=Deadline(5))

    return with_upstream(story)  # type: ignore[no-any-return]


def stream(*, seconds: float = 5.0) -> tuple[list[Any], Exception | None]:
    """The pieces that came, and the error that ended them."""

    async def story(upstream: Upstream) -> Any:
        chat, pieces = AzureChat(upstream=upstream, temperature=0.5, max_tokens=7), []
        try:
            async with aclosing(chat.stream(PROMPT, deadline=Deadline(seconds))) as events:  # type: ignore[type-var]
                async for piece in events:
                    pieces.append(piece)  # noqa: PERF401 - what came before an error is kept
        except UpstreamError as error:
            return pieces, error
        return pieces, None

    return with_upstream(story)  # type: ignore[no-any-return]


def packed(*rows: Sequence[float], indices: Sequence[int] | None = None) -> bytes:
    data = [
        {"index": index, "embedding": base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()}
        for index, row in zip(indices or range(len(rows)), rows, strict=True)
    ]
    return orjson.dumps({"data": data})


def answer(**choice: Any) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop", **choice}]})


def event(text: Any = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    return b"data: " + orjson.dumps({"choices": [{"delta": delta, "finish_reason": finish}], **more}) + b"\n\n"


FIRST = b'data: {"choices":[],"prompt_filter_results":[]}\n\n' + event("")
END = event(None, "stop")
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2}}\n\n'


def test_vectors_are_asked_for_packed_and_come_as_unit_vectors_in_the_order_of_the_texts(wire: Wire) -> None:
    received = wire(packed([0, 2], [3, 4], indices=[1, 0]))
    vectors = embed("a", "b")
    np.testing.assert_allclose(vectors, np.array([[0.6, 0.8], [0.0, 1.0]]), rtol=1e-6)
    assert vectors.dtype == np.float32
    assert orjson.loads(received[0].content) == {"input": ["a", "b"], "encoding_format": "base64"}
    assert received[0].headers["api-key"] == "key"


def test_vectors_as_plain_numbers_are_taken_too(wire: Wire) -> None:
    wire(orjson.dumps({"data": [{"index": 0, "embedding": [3, 4]}]}))
    np.testing.assert_allclose(embed("a"), [[0.6, 0.8]])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"null", b"[]", b"{}", b'{"data":null}', b'{"data":[]}', b'{"data":[{}]}', b"\xff\xfe",
        packed([1, 0], [0, 1]), packed([1, 0], indices=[1]), packed([float("nan"), 1]), packed([float("inf"), 1]),
        packed([0, 0]), packed([]), b'{"data":[{"index":0,"embedding":[NaN,1]}]}',
        b'{"data":[{"index":0,"embedding":"AAAA"}]}', b'{"data":[{"index":0,"embedding":"***"}]}',
        b'{"data":[{"index":0,"embedding":[[1,0]]}]}', b'{"data":[{"index":0,"embedding":["a"]}]}',
        b'{"data":[{"index":0,"embedding":{"a":1}}]}', b'{"data":[{"index":0,"embedding":null}]}',
        b'{"data":[{"index":0,"embedding":7}]}', b'{"data":[{"index":"0","embedding":[1]},{"index":1}]}',
        b'{"error":{"code":"500"}}', b"x" * 300_000,
    ],
)  # fmt: skip
def test_a_wrong_form_of_vectors_is_asked_for_again_and_then_an_upstream_error(wire: Wire, body: bytes) -> None:
    received = wire(body)
    with pytest.raises(Unanswered):
        embed("a")
    assert len(received) == 3
    wire(body, packed([1, 0]))
    assert embed("a").shape == (1, 2)


def test_vectors_of_different_lengths_in_one_answer_are_refused(wire: Wire) -> None:
    wire(packed([1, 0], [1, 0, 0]))
    with pytest.raises(Unanswered):
        embed("a", "b")


def test_a_whole_answer_comes_with_its_tokens(wire: Wire) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    received = wire(orjson.dumps({"choices": [{"message": {"content": "Größe 🌊"}}], "usage": usage}))
    assert complete() == Completion("Größe 🌊", 12, 3)
    assert orjson.loads(received[0].content) == {"messages": list(MESSAGES), "temperature": 0.5, "max_tokens": 7}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"null", b"[]", b"{}", b'{"choices":null}', b'{"choices":[]}', b'{"choices":[{}]}',
        b'{"choices":[null]}', b'{"choices":{"0":1}}', b'{"error":{"code":"500"}}', b"\xff",
        answer(message=None), answer(message="Hi"), answer(message={"content": [1]}),
        answer()[:-5], b'{"choices":[{"message":{"content":"\xc3"}}]}', b"x" * (MAX_ANSWER_BYTES + 1),
    ],
)  # fmt: skip
def test_a_wrong_form_of_answer_is_asked_for_again_and_then_an_upstream_error(wire: Wire, body: bytes) -> None:
    received = wire(body)
    with pytest.raises(Unanswered):
        complete()
    assert len(received) == 3
    wire(body, answer())
    assert complete().text == "Hi"


def test_a_stream_whose_tokens_were_counted_ends_with_the_whole(wire: Wire) -> None:
    received = wire(Chunks([FIRST, event("Hi"), event(" you"), END, USAGE, DONE]))
    assert stream() == (["Hi", " you", Completion("Hi you", 12, 2)], None)
    assert orjson.loads(received[0].content)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("usage", [[], {}, 7, "x", {"prompt_tokens": None, "completion_tokens": 1}])
def test_a_count_of_an_unknown_form_spoils_no_stream(wire: Wire, usage: Any) -> None:
    wire(Chunks([FIRST, event("Hi"), END, b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n", DONE]))
    assert stream() == (["Hi"], None)


@pytest.mark.parametrize("usage", [None, [], {}, 7, "x", {"prompt_tokens": None}])
def test_an_answer_without_a_count_of_tokens_is_an_answer(wire: Wire, usage: Any) -> None:
    wire(orjson.dumps({"choices": [{"message": {"content": "Hi"}}], "usage": usage}))
    assert complete() == Completion("Hi", 0, 0)


def test_an_answer_that_reached_its_longest_length_says_so_whole_and_streamed(wire: Wire) -> None:
    wire(answer(finish_reason="length"))
    assert complete() == Completion("Hi", 0, 0, cut=True)
    for counted, tokens in ((USAGE, (12, 2)), (b"", (0, 0))):
        wire(Chunks([FIRST, event("Hi"), event(None, "length"), counted, DONE]))
        assert stream() == (["Hi", Completion("Hi", *tokens, cut=True)], None)


def test_a_limit_that_is_used_up_before_the_first_word_is_a_refusal_that_names_it_and_not_asked_again(
    wire: Wire,
) -> None:
    received = wire(answer(message={"content": ""}, finish_reason="length"))
    with pytest.raises(Refused, match="CHAT_MAX_TOKENS"):
        complete()
    assert len(received) == 1
    received = wire(Chunks([FIRST, event(None, "length"), USAGE, DONE]))
    pieces, error = stream()
    assert (pieces, type(error), len(received)) == ([], Refused, 1)


@pytest.mark.parametrize("message", [{"role": "assistant"}, {"content": None}, {"content": "half an ans"}])
def test_a_filtered_answer_is_no_answer_and_is_not_asked_for_again(wire: Wire, message: dict[str, Any]) -> None:
    received = wire(answer(message=message, finish_reason="content_filter"))
    with pytest.raises(ContentFiltered):
        complete()
    assert len(received) == 1


def test_a_stream_gives_its_texts_and_those_that_arrive_together_leave_together(wire: Wire) -> None:
    received = wire(Chunks([FIRST, event("Hel") + event("lo"), event(" you"), event() + END, DONE]))
    assert stream() == (["Hello", " you"], None)
    assert orjson.loads(received[0].content)["stream"] is True


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_chunks_of_any_size_make_the_same_answer_and_no_character_is_broken(wire: Wire, size: int) -> None:
    whole = FIRST + event("Größe ") + b": a comment\r\n\r\n" + event("日本語 🌊") + END + DONE
    wire(Chunks([whole[start : start + size] for start in range(0, len(whole), size)]))
    pieces, error = stream()
    assert ("".join(pieces), error) == ("Größe 日本語 🌊", None)


@pytest.mark.parametrize(
    "ending",
    [[END], [END, DONE], [DONE], [END, CUT], [END, None], [DONE.rstrip()], [DONE.replace(b"\n", b"\r\n")]],
)
def test_an_answer_is_whole_after_a_reason_or_done_whatever_follows(
    wire: Wire, ending: list[bytes | Exception | None]
) -> None:
    wire(Chunks([FIRST, event("Hi"), *ending]))
    assert stream() == (["Hi"], None)


@pytest.mark.parametrize(
    "ending",
    [
        [], [CUT], [b"data: {"], [b"data: <html>\n\n"], [b"data: []\n\n"], [b'data: {"choices":[null]}\n\n'],
        [b'data: {"error":{"code":"500","message":"private"}}\n\n'], [b'data: {"error":"private"}\n\n'],
        [event(7), DONE], [b"data: \xff\n\n"], [b"data: " + b"x" * 2_000_000, None],
    ],
)  # fmt: skip
def test_a_stream_that_breaks_off_after_a_token_ends_with_an_error_and_is_never_restarted(
    wire: Wire, ending: list[bytes | Exception | None]
) -> None:
    body = Chunks([FIRST, event("Hi"), *ending])
    received = wire(body)
    pieces, error = stream()
    assert pieces == ["Hi"]
    assert type(error) is UpstreamError
    assert len(received) == 1
    assert body.closed


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({}, ""), ({"content": None}, ""), ({"content": ""}, ""), ({"content": " \n"}, ""),
        ({"content": None, "refusal": "I cannot help with that."}, "I cannot help with that."),
    ],
)  # fmt: skip
def test_an_answer_without_words_or_a_refusal_is_an_answer_and_paid_for_once(
    wire: Wire, message: dict[str, Any], shown: str
) -> None:
    received = wire(answer(message=message))
    assert complete().text == shown
    assert len(received) == 1


@pytest.mark.parametrize(
    ("chunks", "shown"),
    [
        ([FIRST, END, DONE], ""), ([FIRST, event(" "), event("\n"), END, DONE], ""),
        ([FIRST, b'data: {"choices":[{"delta":{"refusal":"I cannot."}}]}\n\n', END, DONE], "I cannot."),
    ],
)  # fmt: skip
def test_a_stream_without_words_or_of_a_refusal_is_an_answer_and_paid_for_once(
    wire: Wire, chunks: list[Any], shown: str
) -> None:
    received = wire(Chunks(chunks))
    assert stream() == ([shown], None)
    assert len(received) == 1


def test_a_prompt_that_is_too_long_is_asked_again_with_less_and_less() -> None:
    said = [Message("user", "Earlier"), Message("assistant", "Said")]
    passages = [replace(PASSAGE, text=f"Text {number}") for number in range(4)]
    prompt = PromptWriter(site_name="Site").write(
        "What?", history=said, hits=[Hit(passage, 1.0, 0.5, 0) for passage in passages]
    )
    refusal = {"error": {"code": "context_length_exceeded", "message": "too long"}}
    asked: list[Any] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(orjson.loads(request.content)["messages"])
        short = "Text 1" not in asked[-1][-1]["content"]
        return httpx.Response(200, content=answer()) if short else httpx.Response(400, json=refusal)

    async def story(upstream: Upstream) -> Any:
        chat = AzureChat(upstream=upstream, temperature=0.5, max_tokens=7)
        return [(await chat.complete(prompt, deadline=Deadline(5))).text, upstream.health()["status"]]

    with respx.mock(using="httpx") as router:
        router.post(URL).side_effect = respond
        assert with_upstream(story) == ["Hi", "ok"]
    sources = [messages[-1]["content"].count("<source ") for messages in asked]
    assert [len(messages) for messages in asked] == [4, 2, 2, 2]
    assert sources == [4, 4, 2, 1]


def test_a_question_that_no_prompt_is_short_enough_for_is_refused_in_the_end() -> None:
    prompt = PromptWriter(site_name="Site").write("What?", history=(), hits=[Hit(PASSAGE, 1.0, 0.5, 0)] * 8)
    refusal = httpx.Response(400, json={"error": {"code": "context_length_exceeded"}})

    async def story(upstream: Upstream) -> Any:
        chat = AzureChat(upstream=upstream, temperature=0.5, max_tokens=7)
        with pytest.raises(Refused):
            await chat.complete(prompt, deadline=Deadline(5))
        return upstream.health()["status"]

    with respx.mock(using="httpx") as router:
        route = router.post(URL).mock(return_value=refusal)
        assert with_upstream(story) == "ok"
    assert route.call_count == 4


def test_a_stream_without_a_word_is_counted(wire: Wire) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    counts = b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"
    wire(Chunks([FIRST, END, counts, DONE]))

    async def story(upstream: Upstream) -> Any:
        chat = AzureChat(upstream=upstream, temperature=0.5, max_tokens=7)
        return [piece async for piece in chat.stream(PROMPT, deadline=Deadline(5))]

    assert with_upstream(story) == ["", Completion("", 9, 2)]


@pytest.mark.parametrize("prompt_tokens", [-5, 10**15])
def test_an_impossible_count_of_tokens_counts_as_none(wire: Wire, prompt_tokens: int) -> None:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 3}
    wire(orjson.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}))
    assert complete() == Completion("Hi", 0, 0)


@pytest.mark.parametrize(
    "chunks",
    [
        [], [FIRST], [CUT], [FIRST, CUT], [b"<html>"], [b'{"choices":[]}'],
        [b'data: {"error":{"code":"500"}}\n\n'], [event(["x"])],
    ],
)  # fmt: skip
def test_a_stream_that_breaks_off_before_its_first_token_is_asked_for_again(wire: Wire, chunks: list[Any]) -> None:
    wire(Chunks(chunks), Chunks([FIRST, event("Hi"), END, DONE]))
    assert stream() == (["Hi"], None)
    received = wire(lambda: Chunks(chunks))
    pieces, error = stream()
    assert (pieces, type(error), len(received)) == ([], Unanswered, 3)


@pytest.mark.parametrize("before", [[], [event("Hi")]])
@pytest.mark.parametrize("filtered", [event(None, "content_filter"), b'data: {"error":{"code":"content_filter"}}\n\n'])
def test_a_stream_that_is_filtered_says_so_and_is_not_asked_for_again(
    wire: Wire, before: list[bytes], filtered: bytes
) -> None:
    received = wire(Chunks([FIRST, *before, filtered]))
    pieces, error = stream()
    assert (len(pieces), type(error), len(received)) == (len(before), ContentFiltered, 1)


def test_a_stream_that_falls_silent_ends_with_the_requests_own_time(wire: Wire) -> None:
    body = Chunks([FIRST, event("Hi"), None])
    wire(body)
    began = time.monotonic()
    pieces, error = stream(seconds=0.1)
    assert (pieces, type(error)) == (["Hi"], UpstreamTimeout)
    assert time.monotonic() - began < STREAM_SILENCE_S / 2
    assert body.closed


def test_a_stream_that_goes_on_for_ever_is_cut(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.llm.azure.STREAM_LENGTH_S", 0.0)
    wire(Chunks([FIRST, event("Hi"), None]))
    assert type(stream()[1]) is UpstreamTimeout


def test_a_reader_who_leaves_closes_the_stream(wire: Wire) -> None:
    body = Chunks([FIRST, event("Hi"), None])
    wire(body)

    async def story(upstream: Upstream) -> None:
        events = AzureChat(upstream=upstream, temperature=0, max_tokens=1).stream(PROMPT, deadline=Deadline(60))
        assert await anext(events) == "Hi"
        rest = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        rest.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rest

    with_upstream(story)
    assert body.closed


def test_annotation_events_without_text_disturb_nothing(wire: Wire) -> None:
    note = b'data: {"choices":[{"index":0,"finish_reason":null,"content_filter_results":{}}]}\n\n'
    wire(Chunks([FIRST, event("Hi"), note, event(" you"), note, END, note, DONE]))
    assert stream() == (["Hi", " you"], None)

"""An answer with a judgement, read as it arrives: in any pieces, in any spelling, and in another form altogether."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from rag.llm.chat_answers import JudgedAnswer, judged_completion, judged_pieces
from rag.types import Completion

ANSWER = 'He said "no" \\ yes:\n\n```json\n{"a": 1}\n```\n\t– Grüße 🌊🇩🇪, 日本語 \u2028 end'


def read(text: str, size: int) -> tuple[str, str]:
    answer = JudgedAnswer()
    pieces = [answer.feed(text[start : start + size]) for start in range(0, len(text), size)]
    return "".join([*pieces, answer.end()]), answer.judged


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_pieces_of_any_size_make_the_same_answer(size: int, ascii_only: bool) -> None:
    text = json.dumps({"escalation": "unhappy", "answer": ANSWER}, ensure_ascii=ascii_only)
    assert read(text, size) == (ANSWER, "unhappy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"answer":"Hi","escalation":"asked"}', ("Hi", "asked")),
        ('\n```json\n{ "escalation" : "none" , "answer" : "Hi" }\n```', ("Hi", "")),
        ('{"escalation":"angry","answer":"Hi"}', ("Hi", "")),
        ('{"escalation":"none","answer":"It is cut, \\u00', ("It is cut, ", "")),
        ('{"escalation":"none","answer":"Half \\ud83d a sign"}', ("Half \ufffd a sign", "")),
        ('{"escalation":"none","answer":"Half \\udc00 \\uzzzz"}', ("Half \ufffd \ufffd", "")),
        ("A plain answer [1].", ("A plain answer [1].", "")),
        ("{curly} is a plain answer", ("{curly} is a plain answer", "")),
        ("```sh\nls\n```", ("```sh\nls\n```", "")),
        ('{"escalation":"none","answer":"Hi"} and {"escalation":"asked"}', ("Hi", "")),
        ("", ("", "")),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_of_another_form_is_an_answer_as_it_stands(text: str, expected: tuple[str, str], size: int) -> None:
    assert read(text, size) == expected


def test_the_words_are_told_as_soon_as_they_are_there() -> None:
    answer = JudgedAnswer()
    assert answer.feed('{"escalation":"none","answer":"') == ""
    assert answer.feed("The warranty ") == "The warranty "
    assert answer.feed("lasts\\") == "lasts"
    assert answer.feed("n37 months") == "\n37 months"


def test_a_long_plain_answer_that_begins_with_a_brace_is_not_held_back_for_ever() -> None:
    answer = JudgedAnswer()
    assert answer.feed("{" + "x" * 300) == "{" + "x" * 300


def test_a_whole_answer_keeps_its_count_and_an_empty_one_says_so() -> None:
    made = Completion('{"escalation":"asked","answer":"Hi"}', 12, 2, cut=True)
    assert judged_completion(made) == Completion("Hi", 12, 2, cut=True, judged="asked")
    assert judged_completion(Completion('{"escalation":"none","answer":""}', 1, 1)).text == ""


def test_a_stream_ends_with_the_judgement_counted_or_not() -> None:
    async def told(*pieces: str | Completion) -> list[str | Completion]:
        async def arriving() -> AsyncGenerator[str | Completion, None]:
            for piece in pieces:
                yield piece

        return [piece async for piece in judged_pieces(arriving())]

    raw = ('{"escalation":"unhappy","an', 'swer":"Hi', ' you"}')
    assert asyncio.run(told(*raw, Completion("".join(raw), 12, 2))) == [
        "Hi", " you", Completion("Hi you", 12, 2, judged="unhappy")
    ]  # fmt: skip
    assert asyncio.run(told(*raw)) == ["Hi", " you", Completion("Hi you", 0, 0, judged="unhappy")]
    assert asyncio.run(told("Plain")) == ["Plain"]

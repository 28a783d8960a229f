"""Harmless answers pass the check of citations as they are, however they arrive."""

import re

import pytest

from rag.chat.citations import Citations
from rag.types import Hit, Passage
from tests.unit.chat.harmless_answers import ANSWERS

HARMLESS = [answer.strip("\n") for answer in re.split(r"(?m)^---$", ANSWERS)]


def source() -> Hit:
    passage = Passage(
        text="See https://docs.example.com/guide.", title="Guide", headings=(), anchor="", source="guide.md",
        url="https://docs.example.com/guide", language="en",
    )  # fmt: skip
    return Hit(passage, 1.0, 0.5, 0)


@pytest.mark.parametrize("answer", HARMLESS)
def test_a_harmless_answer_is_not_changed_however_it_arrives(answer: str) -> None:
    whole = Citations([source()])
    assert whole.feed(answer) + whole.end() == answer
    pieces, shown = Citations([source()]), ""
    for piece in re.findall(r"(?s).{1,3}", answer):
        shown += pieces.feed(piece)
    assert shown + pieces.end() == answer


def test_there_are_enough_of_them() -> None:
    assert len(HARMLESS) >= 60
    assert len(set(HARMLESS)) == len(HARMLESS)

"""Which questions are the same, and what makes another answer of one."""

import dataclasses

import pytest

from rag.chat.answer_cache import SHAPES_ANSWERS, KeptAnswer, fingerprint
from rag.settings import Settings
from rag.text.asked import normalised

# The others shape who may ask, what it may cost, where things are kept, or what stands beside an answer.
MODELS_AND_ANSWERS = {
    field.name
    for field in dataclasses.fields(Settings)
    if field.metadata["variable"].startswith(
        ("AZURE_OPENAI_", "EMBEDDINGS", "CHAT_", "SITE_", "MAX_VECTOR", "SIMILARITY", "QUERY_")
    )
} - {"chat_api_keys", "embeddings_api_keys", "auth"}


@pytest.mark.parametrize(
    "same", ["Is it free?", "  is IT\n free ??", "Is it free", "Ｉs it free？".replace("？", "?"), "Is it free!..."]
)
def test_case_blanks_and_the_end_do_not_count(same: str) -> None:
    assert normalised(same) == "is it free"


@pytest.mark.parametrize(
    "other", ["Is it not free?", "It is free?", "Is it free 2?", "Is it free for schools?", "Is it frée?"]
)
def test_words_and_their_order_do(other: str) -> None:
    assert normalised(other) != "is it free"


def test_every_setting_of_models_and_answers_makes_another_key() -> None:
    assert set(SHAPES_ANSWERS) == MODELS_AND_ANSWERS
    changed = [
        dataclasses.replace(Settings(), **{name: "changed"}) for name in SHAPES_ANSWERS
    ]  # fmt: skip
    keys = {fingerprint(settings, "Be kind.") for settings in (Settings(), *changed)}
    keys.add(fingerprint(Settings(), "Be brief."))
    assert len(keys) == len(SHAPES_ANSWERS) + 2


@pytest.mark.parametrize("text", ["", "Short.", "A word " * 100, "x" * 500, "Line\n\n- one\n- two\n" * 30, "水" * 400])
def test_the_pieces_of_an_answer_are_all_of_it(text: str) -> None:
    assert "".join(KeptAnswer(text, (), 0).pieces()) == text

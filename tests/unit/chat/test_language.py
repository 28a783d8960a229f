"""The language that a visitor is spoken to in."""

import pytest

from rag.chat.texts import load_texts
from rag.chat.wording.language import accepted, spoken
from rag.chat.wording.voice import Voice

LANGUAGES = load_texts(None)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", ""), ("de", "de"), ("de-AT,de;q=0.9,en;q=0.8", "de"), ("en;q=0.3, fr;q=0.9", "fr"), ("sv, nl;q=0.5", "nl"),
        ("sv", ""), ("*", ""), ("de;q=0", ""), ("de;q=0, en;q=0.1", "en"), ("ZH-Hant-TW", "zh"), ("de;q=9", ""),
        ("x" * 10_000, ""), ("\x00,;;q=,=", ""), ("de" + ",de" * 50_000, "de"),
    ],
)  # fmt: skip
def test_the_browsers_first_choice_that_the_chat_speaks_counts(header: str, language: str) -> None:
    assert accepted(header, LANGUAGES) == language


@pytest.mark.parametrize(
    ("text", "asked_for", "language"),
    [
        ("How do I reset it?", "", "en"), ("How do I reset it?", "de", "en"), ("Wie setze ich das zurück?", "en", "de"),
        ("docker compose", "", "en"), ("docker compose", "fr", "fr"), ("¿Cómo lo instalo en mi servidor?", "", "es"),
        ("Comment est-ce que je l'installe ?", "en", "fr"),
        ("インストール方法は？", "en", "ja"), ("安装方法", "en", "zh"),
        ("安装方法", "ja", "ja"), ("كيف أثبته؟", "en", "ar"), ("Jak to zainstalować na serwerze?", "en", "pl"),
        ("Hur gör jag detta med min server?", "de", "de"), ("", "", "en"),
    ],
)  # fmt: skip
def test_a_visitors_words_count_before_the_browser(text: str, asked_for: str, language: str) -> None:
    assert spoken([text], asked_for=asked_for, languages=LANGUAGES) == language


def test_where_a_question_tells_nothing_the_one_before_does() -> None:
    assert spoken(["docker?", "Wie setze ich das zurück?"], asked_for="en", languages=LANGUAGES) == "de"


def test_an_outage_is_forgotten_in_whatever_language_it_was_told() -> None:
    voice = Voice(texts=LANGUAGES, site_name="B")
    for sentences in LANGUAGES.values():
        assert voice.without_outage(f"{sentences['answer_outage']}\n\n> Quoted.") == "> Quoted."
    assert voice.without_outage("> Quoted.") == "> Quoted."

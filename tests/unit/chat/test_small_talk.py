"""Greetings, thanks, "who are you?" and "can I talk to a person?" are told from questions, in every language."""

import time

import pytest

from rag.chat.texts import load_texts
from rag.chat.wording.small_talk import KINDS, LONGEST_CHARS, small_talk
from rag.chat.wording.voice import Voice

TEXTS = load_texts(None)
VOICE = Voice(texts=TEXTS, site_name="Brinewell", suggested_questions=("What does it cost?",))


@pytest.mark.parametrize(
    ("message", "kind", "language"),
    [
        ("hi", "greeting", "en"), ("Hello!! 👋", "greeting", "en"), ("good morning everyone", "greeting", "en"),
        ("ok thanks a lot", "thanks", "en"), ("Who are you?", "about", "en"), ("Hi, are you a bot?", "about", "en"),
        ("Can I talk to a person?", "person", "en"), ("human please", "person", "en"), ("bye", "goodbye", "en"),
        ("I'd like to speak with a real human", "person", "en"),
        ("Hallo", "greeting", "de"), ("Vielen Dank!", "thanks", "de"), ("wer bist du", "about", "de"),
        ("Kann ich bitte mit einem Menschen sprechen?", "person", "de"), ("Tschüss", "goodbye", "de"),
        ("Bonjour", "greeting", "fr"), ("merci beaucoup", "thanks", "fr"), ("Qui êtes-vous ?", "about", "fr"),
        ("Je voudrais parler à un conseiller", "person", "fr"), ("au revoir", "goodbye", "fr"),
        ("¡Hola!", "greeting", "es"), ("muchas gracias", "thanks", "es"), ("quien eres", "about", "es"),
        ("Quiero hablar con una persona", "person", "es"), ("adiós", "goodbye", "es"),
        ("Buongiorno", "greeting", "it"), ("grazie mille", "thanks", "it"), ("Chi sei?", "about", "it"),
        ("Vorrei parlare con un operatore", "person", "it"), ("arrivederci", "goodbye", "it"),
        ("Olá", "greeting", "pt"), ("muito obrigada", "thanks", "pt"), ("Quem é você?", "about", "pt"),
        ("Quero falar com um atendente", "person", "pt"), ("tchau", "goodbye", "pt"),
        ("Goedemorgen", "greeting", "nl"), ("dank u wel", "thanks", "nl"), ("Wie ben je?", "about", "nl"),
        ("Kan ik iemand spreken?", "person", "nl"), ("tot ziens", "goodbye", "nl"),
        ("Dzień dobry", "greeting", "pl"), ("dziekuje", "thanks", "pl"), ("Kim jesteś?", "about", "pl"),
        ("Chcę porozmawiać z konsultantem", "person", "pl"), ("do widzenia", "goodbye", "pl"),
        ("こんにちは", "greeting", "ja"), ("ありがとうございます。", "thanks", "ja"),
        ("あなたは誰ですか？", "about", "ja"),
        ("担当者と話したい", "person", "ja"), ("さようなら", "goodbye", "ja"),
        ("你好，你是谁？", "about", "zh"), ("您好", "greeting", "zh"), ("谢谢！", "thanks", "zh"),
        ("转人工", "person", "zh"), ("再见", "goodbye", "zh"),
        ("مرحبا", "greeting", "ar"), ("شكراً لك", "thanks", "ar"), ("من أنت؟", "about", "ar"),
        ("أريد التحدث مع موظف", "person", "ar"), ("مع السلامة", "goodbye", "ar"),
    ],
)  # fmt: skip
def test_small_talk_is_told_in_every_language(message: str, kind: str, language: str) -> None:
    assert small_talk(message) == (kind, language)


@pytest.mark.parametrize(
    "message",
    [
        "", "?", "ok", "yes", "no", "ok and", "Hi, how do I install it?", "Thanks! And how do I update it?",
        "hello world example", "How does the agent talk to the server?", "chat with the agent", "contact person",
        "How do I contact support?", "What can you do with tags?", "Wer bist du in der API?", "agent", "operator",
        "thanks page", "bonjour service discovery", "test", "help", "Who are your customers?", "人工智能是什么",
        "こんにちは世界のサンプル",
    ],
)  # fmt: skip
def test_a_question_is_never_taken_for_small_talk(message: str) -> None:
    assert small_talk(message) is None


def test_words_of_several_languages_count_as_the_one_that_is_preferred() -> None:
    assert small_talk("hi", prefer="de") == ("greeting", "de")
    assert small_talk("hi", prefer="nl") == ("greeting", "nl")
    assert small_talk("hi", prefer="zh") == ("greeting", "zh")
    assert small_talk("hi", prefer="sv") == ("greeting", "en")
    assert small_talk("thank you", prefer="zh") == ("thanks", "en")


def test_a_hostile_message_takes_no_time() -> None:
    began_s = time.perf_counter()
    for piece in ("and ", "good ", "thank you ", "ありがとう", "a", "hi"):
        small_talk((piece * LONGEST_CHARS)[:LONGEST_CHARS])
        assert small_talk(piece * 100_000) is None
    assert time.perf_counter() - began_s < 1


@pytest.mark.parametrize("language", TEXTS)
def test_every_kind_has_a_reply_in_every_language(language: str) -> None:
    for voice in (VOICE, Voice(texts=TEXTS, site_name="B", person_url="https://b.example/help")):
        replies = {kind: voice.reply(small_talk("hi")._replace(kind=kind, language=language)) for kind in KINDS}  # type: ignore[union-attr]
        assert len(set(replies.values())) == len(KINDS)
        assert not any("{" in reply for reply in replies.values())


def test_who_asks_for_a_person_is_told_the_way_that_there_is() -> None:
    asked = small_talk("Can I talk to a person?")
    assert asked is not None
    by_url = Voice(texts=TEXTS, site_name="B", person_url="https://b.example/help", person_form=True)
    by_form = Voice(texts=TEXTS, site_name="B", person_form=True)
    assert by_url.reply(asked).endswith("https://b.example/help")
    assert "button below" in by_form.reply(asked)
    assert "cannot connect you to a person" in VOICE.reply(asked)


def test_a_greeting_offers_the_sites_questions_and_thanks_do_not() -> None:
    greeting, thanks = small_talk("hi"), small_talk("thanks")
    assert greeting is not None
    assert thanks is not None
    assert VOICE.reply(greeting).endswith("You could ask:\n\n- What does it cost?")
    assert "cost" not in VOICE.reply(thanks)

"""Which language a text is in."""

import pytest

from indexer.reading.language import language_of

TEXTS = {
    "en": "The server answers the questions of a visitor with the words that are on your site and it is never wrong.",
    "de": "Der Server beantwortet die Fragen der Besucher mit den Worten, die auf der Seite stehen und laut sind.",
    "fr": "Le serveur répond aux questions des visiteurs avec les mots qui sont sur le site, et il ne se trompe pas.",
    "es": "El servidor responde a las preguntas de los visitantes con las palabras que están en el sitio.",
    "it": "Il server risponde alle domande dei visitatori con le parole che sono nel sito.",
    "pt": "O servidor responde às perguntas dos visitantes com as palavras que estão no site, e não perde dados.",
    "nl": "De server beantwoordt de vragen van de bezoekers met de woorden die op de site staan.",
    "zh": "服务器用网站上的文字回答访问者的问题。",
    "ja": "サーバーはサイトにある言葉で訪問者の質問に答えます。",
    "ko": "서버는 사이트에 있는 말로 방문자의 질문에 답합니다.",
    "ru": "Сервер отвечает на вопросы посетителей словами, которые есть на сайте.",
    "uk": "Сервер відповідає на запитання відвідувачів словами, які є на сайті, і її мова ясна.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_sentence_or_two_are_enough(code: str) -> None:
    assert language_of(TEXTS[code]) == code


@pytest.mark.parametrize(
    "text", ["", "12345 67", "Lorem ipsum dolor sit amet", "x = foo(bar)", "https://a.com/no/os/as " * 9]
)
def test_nothing_is_said_when_unsure(text: str) -> None:
    assert language_of(text) == ""

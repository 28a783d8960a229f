"""Text to terms: both sides of a search must agree on every word."""

import time

import pytest

from rag.text.terms import GRAM_MARK, query_terms, terms


def words_of(text: str, language: str = "") -> list[str]:
    return [term for term in terms(text, language) if not term.startswith(GRAM_MARK)]


def grams_of(text: str) -> set[str]:
    return {term for term in terms(text, "") if term.startswith(GRAM_MARK)}


def asked(text: str, *languages: str) -> list[tuple[str, ...]]:
    return [forms for forms in query_terms(text, languages) if not forms[0].startswith(GRAM_MARK)]


@pytest.mark.parametrize(
    "written", ["response_model", "responseModel", "ResponseModel", "response-model", "response.model()"]
)
def test_an_identifier_is_found_whole_and_in_parts_however_it_is_written(written: str) -> None:
    assert words_of(written) == ["responsemodel", "response", "model"]


def test_an_acronym_inside_an_identifier_is_one_part() -> None:
    assert words_of("HTTPServerError") == ["httpservererror", "http", "server", "error"]


def test_a_plain_word_is_indexed_once() -> None:
    assert words_of("Normandy") == ["normandy"]


@pytest.mark.parametrize(("one", "other"), [
    ("Café", "cafe"), ("ÜBER", "uber"), ("Straße", "STRASSE"), ("ﬁnal", "final"), ("Ｆｕｌｌ", "full"),
    ("co\u00adop", "coop"), ("e\u0301te\u0301", "été"), ("Łódź", "Lodz"), ("ёлка", "елка"), ("İstanbul", "istanbul"),
])  # fmt: skip
def test_two_spellings_of_one_word_are_one_term(one: str, other: str) -> None:
    assert terms(one, "") == terms(other, "")


def test_a_number_is_the_same_with_either_thousands_separator_and_a_version_stays_whole() -> None:
    assert words_of("1,500") == words_of("1.500") == words_of("1500")
    assert words_of("3.11")[0] == "3.11"


def test_stemming_follows_the_passages_language() -> None:
    assert words_of("vacations", "en") == words_of("vacation", "en")
    assert words_of("Häuser", "de") == words_of("Haus", "de")
    assert words_of("chevaux rapides", "fr")[1] == words_of("rapide", "fr")[0]


def test_english_stemming_is_never_applied_to_another_language() -> None:
    assert words_of("meeting", "en") == ["meet"]
    assert "meet" not in words_of("meeting", "de")


@pytest.mark.parametrize("language", ["", "xx", "zh", "tlh"])
def test_an_unknown_language_is_left_unstemmed(language: str) -> None:
    assert words_of("running vacations", language) == ["running", "vacations"]


@pytest.mark.parametrize(("text", "expected"), [
    ("黑豹队", ["黑豹", "豹队"]), ("猫", ["猫"]), ("東京タワー", ["東京", "京タ", "タワ", "ワー"]), ("서울", ["서울"]),
    ("用FastAPI写", ["用", "fastapi", "fast", "api", "写"]),
])  # fmt: skip
def test_a_script_without_spaces_becomes_bigrams(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


def test_a_question_of_one_character_meets_a_longer_word() -> None:
    assert {form for forms in query_terms("豹", ["zh"]) for form in forms} & set(terms("黑豹队", "zh"))


def test_hindi_words_are_not_torn_apart_at_their_vowel_signs() -> None:
    assert words_of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_a_misspelled_word_shares_grams_with_the_right_one() -> None:
    assert len(grams_of("vacaton") & grams_of("vacation")) >= 3


def test_function_words_are_not_asked_for() -> None:
    assert asked("What is the capital of France?", "en") == [("capit",), ("franc",)]
    assert asked("Wie heißt die Hauptstadt von Frankreich?", "de") == [("heisst",), ("hauptstadt",), ("frankreich",)]


def test_a_question_of_function_words_alone_is_still_asked() -> None:
    assert asked("The Who?", "en") == [("the",), ("who",)]


def test_a_function_word_of_another_language_is_a_word_like_any_other() -> None:
    assert ("die",) in asked("How did the emperor die in Rome?", "en", "de")


def test_a_question_asks_with_each_languages_stem_and_counts_alternatives_together() -> None:
    assert asked("Häuser", "de", "en") == [("haus", "hauser")]
    assert asked("Normandy", "en", "en", "") == [("normandi", "normandy")]


def test_a_repeated_word_is_asked_once() -> None:
    assert asked("tax tax Tax taxes", "en") == [("tax",)]


@pytest.mark.parametrize("text", ["", "   ", "?!", "\ud800", "____", "🙂"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    assert terms(text, "en") == []
    assert query_terms(text, ["en", "de"]) == []


@pytest.mark.parametrize(
    "text", ["1,111" * 2000, "a_" * 4000, "_" * 8000, "A" * 8000, "1.1a" * 2000, "::" * 4000, "a-" * 4000]
)
def test_no_text_makes_the_analysis_slow(text: str) -> None:
    began = time.thread_time()
    terms(text, "en")
    assert time.thread_time() - began < 1.0

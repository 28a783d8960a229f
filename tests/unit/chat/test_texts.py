"""The chat's sentences: complete in every language, and replaced only by what fits."""

import json
import re
from pathlib import Path

import pytest

from rag.chat.texts import load_texts
from rag.errors import ConfigError

PARAMETER = re.compile(r"\{(\w+)\}")


def test_every_language_has_every_sentence_with_its_parameters() -> None:
    texts = load_texts(None)
    assert set(texts) == {"en", "de", "fr", "es", "it", "pt", "nl", "pl", "ja", "zh", "ar"}
    wanted = {code: set(PARAMETER.findall(sentence)) for code, sentence in texts["en"].items()}
    for language, sentences in texts.items():
        assert {code: set(PARAMETER.findall(one)) for code, one in sentences.items()} == wanted, language


def test_an_owners_sentence_replaces_ours_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({"fr": {"hint": "Lisez les sources."}}), "utf-8")
    texts, ours = load_texts(file), load_texts(None)
    assert texts["fr"] == {**ours["fr"], "hint": "Lisez les sources."}
    assert texts["de"] == ours["de"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "an object such as"),
        ('{"xx": {}}', "xx: not one of en, de"),
        ('{"de": []}', "de: not an object"),
        ('{"de": {"hinnt": "x"}}', "de.hinnt: unknown"),
        ('{"de": {"hint": 3}}', "de.hint: a sentence is wanted"),
        ('{"de": {"hint": " "}}', "de.hint: a sentence is wanted"),
        ('{"de": {"retryIn": "Bald"}}', "de.retryIn: {s} is missing"),
        ('{"de": {"hint": "Seit {s}"}}', "de.hint: {s} is unknown"),
    ],
)
def test_each_fault_of_the_file_is_named(content: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=re.escape(fault)):
        load_texts(file)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text('{"xx": {}, "de": {"hinnt": "x", "retryIn": "Bald"}}', "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_texts(file)
    assert len(caught.value.faults) == 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_texts(tmp_path / "none.json")

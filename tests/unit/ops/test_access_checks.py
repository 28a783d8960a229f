"""What a start says of who may ask."""

from pathlib import Path

import pytest

from rag import api_keys
from rag.ops.access_checks import findings
from rag.settings import Settings


def of(tmp_path: Path, **given: object) -> list[tuple[str, str]]:
    return [(state, sentence) for state, _, sentence, _ in findings(Settings(state_dir=tmp_path, **given))]  # type: ignore[arg-type]


def test_a_server_for_everyone_has_nothing_to_say(tmp_path: Path) -> None:
    assert of(tmp_path) == []


def test_a_damaged_file_of_keys_is_a_fault_with_a_remedy_and_does_not_show_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "keys.jsonl").write_text("rag_somebody_pasted_a_key_here", "utf-8")
    [(state, subject, sentence, remedy)] = findings(Settings(state_dir=tmp_path))
    assert (state, subject) == ("fault", "access")
    assert sentence.endswith("keys.jsonl cannot be read: line 1 is no key")
    assert "python -m rag.keys" in remedy


def test_who_may_ask_is_said_in_a_line(tmp_path: Path) -> None:
    keys = api_keys.parsed_keys("k" * 32)
    said = of(tmp_path, anonymous_scopes=frozenset(), api_keys=keys, jwt_issuer="https://login.example.com")
    assert said == [("ok", "strangers may do nothing; 1 in API_KEYS; tokens of https://login.example.com")]
    assert of(tmp_path, browser_sessions="required") == [("ok", "visits are required")]


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://login.example.com/keys", True), ("https://login.example.com/keys", False),
     ("http://127.0.0.1:9/keys", False), ("http://localhost/keys", False)],
)  # fmt: skip
def test_keys_that_come_without_tls_are_warned_of(url: str, warned: bool, tmp_path: Path) -> None:
    states = [state for state, _ in of(tmp_path, jwt_issuer="https://login.example.com", jwt_jwks_url=url)]
    assert ("warning" in states) is warned


def test_uploads_need_a_key_and_an_index_that_can_be_written(tmp_path: Path) -> None:
    here = {"uploads": "on", "vector_db_path": tmp_path}
    assert of(tmp_path, **here) == [("warning", "UPLOADS is on, but no key has the scope ingest")]
    [*_, (state, sentence)] = of(tmp_path, **here, api_keys=api_keys.parsed_keys("k" * 32 + ";scopes=ingest"))
    assert (state, sentence) == ("ok", "are taken: pdf, docx, txt, md, csv, html, 5 files of 10 MB a request")
    [(state, sentence)] = of(tmp_path, uploads="on", vector_db_path=tmp_path / "absent")
    assert state == "fault"
    assert "cannot be written" in sentence

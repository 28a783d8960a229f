"""The form of API keys, and what API_KEYS takes."""

import hashlib
import re
import time

import pytest

from rag import api_keys
from rag.api_keys import ApiKey
from rag.errors import ConfigError
from rag.settings import Settings

PLAIN = "a-word-of-forty-characters-made-by-hand."


def test_a_key_has_the_documented_form_and_256_random_bits() -> None:
    keys = {api_keys.new_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(re.fullmatch(r"rag_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}", key) for key in keys)
    assert 62**43 > 2**256 > 62**42
    assert 62**6 > 2**32


def test_a_key_that_was_cut_or_mistyped_is_told_from_a_whole_one() -> None:
    key = api_keys.new_key()
    assert api_keys.id_of(key) == key[4:12]
    swapped = key[:20] + ("a" if key[20] != "a" else "b") + key[21:]
    for wrong in (key[:-1], key + "0", key.upper(), swapped, f" {key}", f"{key}\n", key.replace("rag_", "raq_"), ""):
        assert api_keys.id_of(wrong) is None, wrong


def test_nothing_that_is_kept_or_shown_of_a_key_gives_it_away() -> None:
    key = api_keys.new_key()
    kept = ApiKey.of(key, name="shop", scopes=frozenset({"chat"}))
    assert kept.digest == hashlib.sha256(key.encode()).digest()
    secret = key[13:]
    for shown in (repr(kept), str(kept.as_line()), repr(Settings(api_keys=(kept,)))):
        assert secret not in shown
    assert ApiKey.from_line(kept.as_line()) == kept


def test_plain_and_hashed_keys_stand_in_one_setting() -> None:
    ours, hashed = api_keys.new_key(), hashlib.sha256(b"shop's").hexdigest()
    value = f"{PLAIN}, {ours};scopes=ingest ,shop:sha256={hashed};scopes=chat+search;expires=2027-01-01,"
    plain, own, shop = api_keys.parsed_keys(value)
    assert plain == ApiKey.of(PLAIN, name=plain.name, scopes=frozenset({"chat", "search"}))
    assert (own.id, own.scopes) == (ours[4:12], {"ingest"})
    assert shop == ApiKey("shop", bytes.fromhex(hashed), frozenset({"chat", "search"}), "", 1798761600.0)
    assert plain.name == f"key-{hashlib.sha256(PLAIN.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("x" * 31, "32 characters or more"),
        ("word with blanks in it, which no header carries", "32 characters or more"),
        ("schlüssel-mit-zweiunddreissig-zeichen", "32 characters or more"),
        ("shop:sha256=abc", "64 hex digits"),
        (f":sha256={'0' * 64}", "64 hex digits"),
        (f"a shop:sha256={'0' * 64}", "a name of 1 to 64"),
        (f"{PLAIN};scopes=", "scopes out of chat, search, ingest, admin"),
        (f"{PLAIN};scopes=chat+all", "scopes out of"),
        (f"{PLAIN};expires=soon", "a day such as 2027-01-01"),
        (f"{PLAIN};until=2027-01-01", ";scopes=chat+search"),
        (f"{PLAIN};scopes=chat;scopes=admin", "each once"),
        (f"rag_00000000_{'0' * 49}", "cut or mistyped"),
    ],
)
def test_a_fault_in_api_keys_says_what_is_allowed_and_shows_no_key(value: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"API_KEYS": value})
    [fault] = caught.value.faults
    assert fault.startswith("API_KEYS=(hidden): allowed is ")
    assert allowed in fault
    assert value not in fault


def test_moments_are_utc_and_spans_are_hours_or_days() -> None:
    assert api_keys.moment("1970-01-02") == 86_400
    assert api_keys.moment("1970-01-02T01:00:00+01:00") == 86_400
    assert (api_keys.span_s("24h"), api_keys.span_s("90d")) == (86_400, 90 * 86_400)
    for wrong in ("tomorrow", "24", "-1d", "1.5h", "1w", "", "٣d"):
        with pytest.raises(ValueError, match="24h"):
            api_keys.span_s(wrong)
    assert not ApiKey.of(PLAIN, name="one", scopes=frozenset(), expires_at=time.time() + 5).expired()
    assert ApiKey.of(PLAIN, name="one", scopes=frozenset(), expires_at=time.time() - 1).expired()


@pytest.mark.parametrize(
    ("value", "scopes"), [("chat", {"chat"}), ("search, Chat", {"chat", "search"}), ("none", set())]
)
def test_strangers_may_chat_and_search_or_less(value: str, scopes: set[str]) -> None:
    assert Settings.from_environment({"ANONYMOUS_SCOPES": value}).anonymous_scopes == scopes


@pytest.mark.parametrize("value", ["admin", "ingest", "chat,admin", "none,chat", "all"])
def test_strangers_never_get_more(value: str) -> None:
    with pytest.raises(ConfigError, match="allowed is chat, search"):
        Settings.from_environment({"ANONYMOUS_SCOPES": value})

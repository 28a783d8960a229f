"""Keys in force: those of the settings, those of a file that changes, and what a damaged file does."""

import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rag import api_keys
from rag.access import key_ring
from rag.access.key_ring import KeyRing
from rag.api_keys import ApiKey

CHAT = frozenset({"chat"})


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "LOOK_EVERY_S", 0.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def write(file: Path, *keys: str, name: str = "shop") -> None:
    """As the command writes it: aside, then renamed."""
    lines = [json.dumps(ApiKey.of(key, name=name, scopes=CHAT).as_line()) for key in keys]
    aside = file.with_suffix(".new")
    aside.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    os.replace(aside, file)


def test_keys_of_the_settings_and_of_the_file_are_in_force_and_no_others(file: Path) -> None:
    plain, ours, filed = "plain-key-of-the-settings-0123456789", api_keys.new_key(), api_keys.new_key()
    write(file, filed)
    ring = KeyRing(given=api_keys.parsed_keys(f"{plain},{ours};scopes=ingest"), file=file)
    for key in (plain, ours, filed):
        assert ring.find(key) is not None
    for wrong in ("", plain[:-1], plain + "x", plain.upper(), filed[:-1], api_keys.new_key(), "rag_", "\udcff"):
        assert ring.find(wrong) is None


def test_a_key_with_the_id_of_another_is_not_taken_for_it(file: Path) -> None:
    key = api_keys.new_key()
    write(file, key)
    body = key[:13] + api_keys.new_key()[13:-6]
    assert KeyRing(given=(), file=file).find(body + api_keys._checksum(body)) is None


def test_a_key_that_has_ended_is_no_key(file: Path) -> None:
    ring = KeyRing(
        given=api_keys.parsed_keys(f"{'k' * 32};expires=2020-01-01,{'n' * 32};expires=2999-01-01"), file=file
    )
    assert ring.find("k" * 32) is None
    assert ring.find("n" * 32) is not None


def test_a_file_is_followed_as_it_appears_changes_and_goes(file: Path) -> None:
    ring, first, second = KeyRing(given=(), file=file), api_keys.new_key(), api_keys.new_key()
    assert ring.find(first) is None
    write(file, first)
    assert ring.find(first) is not None
    write(file, second)
    assert (ring.find(first), bool(ring.find(second))) == (None, True)
    file.unlink()
    assert ring.find(second) is None


def test_between_two_looks_the_file_is_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "LOOK_EVERY_S", 3600.0)
    ring, key = KeyRing(given=(), file=file), api_keys.new_key()
    write(file, key)
    assert ring.find(key) is None
    assert key_ring.LOOK_EVERY_S > 1


LINE = json.dumps(ApiKey.of(api_keys.new_key(), name="shop", scopes=CHAT).as_line())


@pytest.mark.parametrize(
    "damage",
    [
        b"{", b"\x00" * 100, b"\xff\xfe", LINE.encode()[:-20], b"[]\n", b"null\n", b'{"name": "shop"}\n', b"[" * 9000,
        LINE.replace('"sha256": "', '"sha256": "00').encode(), LINE.replace("chat", "everything").encode(),
        LINE.replace("shop", "a shop\\n").encode(), LINE.replace('["chat"]', "null").encode(),
        LINE.replace('"expires": null', '"expires": "never"').encode(),
        LINE.replace('"expires": null', '"expires": 5').encode(),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_damaged_file_leaves_the_old_keys_in_force_and_is_named_once(
    damage: bytes, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = api_keys.new_key()
    write(file, key)
    ring = KeyRing(given=(), file=file)
    file.write_bytes(damage)
    assert ring.find(key) is not None
    assert ring.find(key) is not None
    [said] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert said.getMessage() == "API keys not read, the old ones stay"
    assert damage.decode("latin-1")[:30] not in str(vars(said)["reason"])
    write(file)
    assert ring.find(key) is None


def test_a_file_that_may_not_be_read_is_taken_up_once_it_may(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = api_keys.new_key()
    write(file, key)
    readable = Path.open

    def refused(path: Path, *args: str) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    ring = KeyRing(given=(), file=file)
    assert ring.find(key) is None
    monkeypatch.setattr(Path, "open", readable)
    assert ring.find(key) is not None


def test_whether_anyone_may_be_admin_follows_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(given=(), file=file)
    assert not ring.opens_admin()
    line = ApiKey.of(api_keys.new_key(), name="owner", scopes=frozenset({"admin"})).as_line()
    file.write_text(json.dumps(line), "utf-8")
    assert ring.opens_admin()


def median_ns(call: Callable[[], object]) -> float:
    import statistics
    import time

    taken = []
    for _ in range(400):
        began = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken)


def test_a_wrong_key_takes_as_long_whatever_is_wrong_with_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that exists must not be told from one that does not, nor a first byte that fits from one that does not."""
    monkeypatch.setattr(key_ring, "LOOK_EVERY_S", 3600.0)
    key, plain = api_keys.new_key(), "plain-key-of-the-settings-0123456789"
    write(file, *(api_keys.new_key() for _ in range(500)), key)
    ring = KeyRing(given=api_keys.parsed_keys(plain), file=file)
    same_id = key[:13] + api_keys.new_key()[13:-6]
    known, unknown = same_id + api_keys._checksum(same_id), api_keys.new_key()
    ratios = [median_ns(lambda: ring.find(known)) / median_ns(lambda: ring.find(unknown)) for _ in range(5)]
    assert 0.5 < sorted(ratios)[2] < 2.0, ratios

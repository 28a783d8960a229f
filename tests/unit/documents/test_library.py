"""The documents that were uploaded: names, versions, what is asked of them twice, and what is left by whoever died."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from rag import durable
from rag.documents import library as library_module
from rag.documents import receiving as receiving_module
from rag.documents import requests
from rag.documents.leading import Ingest
from rag.documents.library import Library
from rag.documents.naming import document_name, require_type
from rag.documents.receiving import receiving
from rag.documents.records import Record
from rag.documents.sniffing import kind_of
from rag.errors import BodyTooLarge, InvalidRequest, StorageFull, UnsupportedType


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "documents")


def put(library: Library, *files: tuple[str, bytes], request: str | None = None) -> list[Record]:
    with receiving(library.folder, limit_bytes=1000) as places:
        received = []
        for name, content in files:
            one = places.begin(name)
            one.write(content)
            received.append(one.whole())
        return library.put(received, request=request)


def test_a_name_is_one_document_and_its_next_version_keeps_the_id(library: Library) -> None:
    [first] = put(library, ("a.md", b"one"))
    assert (first.status, first.version, library.original(first).read_bytes()) == ("queued", 1, b"one")
    assert put(library, ("a.md", b"one")) == [first]
    [second] = put(library, ("a.md", b"two"))
    assert (second.id, second.version) == (first.id, 2)
    # What is told of the version before comes too late.
    library.mark(first, "live", passages=3)
    assert library.get(first.id) == second
    library.mark(second, "live", passages=3)
    assert [path.name for path in (library.folder / first.id).glob("[0-9]*")] == ["2.md"]
    assert library.waiting() == []
    with pytest.raises(InvalidRequest, match="Two files have one name"):
        put(library, ("a.md", b"x"), ("a.md", b"y"))


def test_a_document_that_failed_is_tried_again_when_it_comes_again(library: Library) -> None:
    [first] = put(library, ("a.md", b"one"))
    library.mark(first, "failed", reason="no text")
    [again] = put(library, ("a.md", b"one"))
    assert (again.status, again.version) == ("queued", 2)


def test_only_deaths_count_as_tries(library: Library) -> None:
    [record] = put(library, ("a.md", b"one"))

    def tries() -> int:
        present = library.get(record.id)
        assert present is not None
        return present.tries

    for number in range(1, 4):
        library.mark(record, "reading")
        library.mark(record, "embedding")
        assert tries() == number
    library.mark(record, "queued", reason="it waits")
    assert tries() == 0


def test_what_was_discarded_is_wanted_by_nobody_and_comes_back_under_another_id(library: Library) -> None:
    [record] = put(library, ("a.md", b"one"))
    assert library.is_wanted(record.id, record.sha256)
    library.discard(record.id)
    assert not library.is_wanted(record.id, record.sha256)
    library.mark(record, "live", passages=1)
    assert library.records() == []
    [again] = put(library, ("a.md", b"one"))
    assert again.id != record.id
    assert [one.id for one in library.discarded()] == [record.id]
    library.forget(record.id)
    assert not (library.folder / record.id).exists()
    library.forget(again.id)
    assert library.get(again.id) == again, "only what was discarded is forgotten"


def test_what_dead_processes_left_is_swept_and_nothing_else(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    [kept] = put(library, ("a.md", b"one"), request="somebody\0key")
    (library.folder / ".receiving-x").mkdir()
    (library.folder / ("0" * 16)).mkdir()
    (library.folder / "queue" / ("1" * 16)).touch()
    library.sweep()
    assert (library.folder / ".receiving-x").exists(), "it may still be received"
    monkeypatch.setattr(library_module, "STALE_S", -1.0)
    library.sweep()
    assert {path.name for path in library.folder.iterdir()} == {kept.id, "queue", ".requests", ".lock"}
    assert [record.id for record in library.waiting()] == [kept.id]
    assert [path.name for path in (library.folder / "queue").iterdir()] == [kept.id]
    assert put(library, ("a.md", b"one"), request="somebody\0key") == [kept]
    monkeypatch.setattr(requests, "REMEMBERED_S", -1.0)
    library.sweep()
    assert list((library.folder / ".requests").iterdir()) == []


def test_many_at_once_make_one_document_of_a_name(library: Library) -> None:
    threads = [
        threading.Thread(target=lambda number=number: put(library, ("a.md", b"%d" % number))) for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [record] = Library(library.folder).records()
    assert record.version == 12
    assert [path.name for path in library.waiting() and (library.folder / "queue").iterdir()] == [record.id]


def test_a_disk_without_room_and_too_many_documents_are_refused(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(library, ("a.md", b"one"))
    monkeypatch.setattr(library_module, "MOST_DOCUMENTS", 1)
    assert put(library, ("a.md", b"two"))[0].version == 2
    with pytest.raises(StorageFull):
        put(library, ("b.md", b"one"))
    free = shutil.disk_usage(library.folder).free
    monkeypatch.setattr(receiving_module, "SPARE_BYTES", free)
    with pytest.raises(StorageFull):
        put(library, ("a.md", b"three"))
    assert list(library.folder.glob(".receiving-*")) == []


def test_on_a_disk_that_fills_a_request_is_taken_as_a_whole_or_not_at_all(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    [known] = put(library, ("a.md", b"one"))
    library.mark(known, "live", passages=1)
    before = sorted(library.folder.rglob("*")), library.records()
    stage, left = durable.stage, 1

    def stage_once(path: Path, content: bytes) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return stage(path, content)

    monkeypatch.setattr(durable, "stage", stage_once)
    with pytest.raises(StorageFull):
        put(library, ("a.md", b"two"), ("b.md", b"one"))
    library.waiting()
    assert (sorted(library.folder.rglob("*")), library.records()) == before
    left = 2
    assert [one.version for one in put(library, ("a.md", b"two"), ("b.md", b"one"))] == [2, 1]
    assert [one.name for one in library.waiting()] == ["a.md", "b.md"]


def test_the_byte_beyond_the_limit_is_one_too_many(library: Library) -> None:
    put(library, ("a.md", b"x" * 1000))
    with pytest.raises(BodyTooLarge):
        put(library, ("b.md", b"x" * 1001))


@pytest.mark.parametrize(
    ("given", "name"),
    [("a.md", "a.md"), ("C:\\x\\a.md", "a.md"), ("../../a.md", "a.md"), (" a b.md ", "a b.md"), ("e\u0301.md", "é.md")],
)
def test_a_name_loses_its_folders(given: str, name: str) -> None:
    assert document_name(given) == name


@pytest.mark.parametrize(
    "given", ["", "..", "a/", ".md", "a\n.md", "a\x00.md", "x\u202efdp.md", "\ud800.md", "x" * 201]
)
def test_a_name_that_cannot_be_shown_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest):
        document_name(given)


@pytest.mark.parametrize("name", ["a", "a.exe", "md", "a.md.exe", "a."])
def test_only_allowed_endings_are_taken(name: str) -> None:
    require_type("A.MD", ("md",))
    with pytest.raises(UnsupportedType):
        require_type(name, ("md",))


def test_bytes_tell_what_a_file_is() -> None:
    told = {
        b"%PDF-1.4": "pdf", b"\n" * 1000 + b"%PDF-": "pdf", b"\n" * 1100 + b"%PDF-": "text", b"PK\x03\x04x": "zip",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "old", b"\xff\xfea\x00": "text", b"a\x00": "other", b"words": "text",
    }  # fmt: skip
    assert {head: kind_of(head) for head in told} == told


def test_removed_text_waits_for_company_and_then_is_work(library: Library) -> None:
    library.discard("0" * 16)
    assert not library.has_work(purge_after_s=60)
    marker = library.folder / "queue" / "removed"
    os.utime(marker, (time.time() - 61, time.time() - 61))
    library.discard("1" * 16)
    assert library.has_work(purge_after_s=60), "the first one counts"
    library.purged()
    assert not library.has_work(purge_after_s=0)


def test_without_work_no_process_is_started(library: Library) -> None:
    assert not library.has_work(purge_after_s=0)
    assert not library.folder.exists()
    assert Ingest(library, ["false"]).library is library

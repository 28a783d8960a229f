"""Hostile files through HTTP: each is refused or fails in words, or is read as what it is, and nobody else notices."""

import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.documents import scanning
from rag.search.hot import generation
from tests.e2e.test_disk import NoGrowth, may_mount, mounted
from tests.e2e.test_live_builds import no_visitor_notices
from tests.e2e.test_uploads import TEXT, Uploads, ingest_pids, start_uploads
from tests.support.azure import AzureEmulator
from tests.support.clamd import FakeClamd
from tests.support.hostile_files import SECRET_FILE, all_files
from tests.support.waiting import wait_until

__all__ = ["start_uploads"]
REFUSED = {"program.pdf", "picture.md", "page.docx", "old.docx", "archive.txt", "pdf.html", "word.pdf"}
MUST_FAIL = {
    "header-only.pdf", "bomb-in-a-bomb.pdf", "protected.pdf", "no-text.pdf", "cut.docx", "empty-archive.docx",
    "no-document.docx", "bomb.docx", "many-parts.docx", "macros.docx", "laughs.docx", "deep.docx", "empty.txt",
    "blanks.txt", "latin.txt", "scripts.html",
}  # fmt: skip
TOLD = re.compile(r"[^\n]{3,160}")


def test_hostile_files_are_refused_or_fail_in_words_and_harm_nobody(start_uploads: Callable[..., Uploads]) -> None:
    uploads, files = start_uploads(workers=2), all_files()
    assert len(files) == len({name for name, _ in files}) >= 47
    before = uploads.server.worker_pids()
    with no_visitor_notices(uploads.server):
        answers = {name: uploads.post((name, content)) for name, content in files}
        refused = {name for name, answer in answers.items() if answer.status_code == 415}
        assert refused == REFUSED
        assert {answer.status_code for answer in answers.values()} == {202, 415}
        for name in refused:
            assert f"{name} is named ." in answers[name].json()["detail"]
        wait_until(lambda: all(one["status"] in ("live", "failed") for one in uploads.documents()), 240, "all are done")
    states = {one["name"]: one for one in uploads.documents()}
    assert len(states) == len(files) - len(REFUSED)
    failed = {name: one["reason"] for name, one in states.items() if one["status"] == "failed"}
    assert failed.keys() >= MUST_FAIL, MUST_FAIL - failed.keys()
    for name, reason in failed.items():
        assert TOLD.fullmatch(reason), (name, reason)
        assert not re.search(r"Traceback|/tmp|/work|line \d+, in", reason), (name, reason)
    assert "macros" in failed["macros.docx"]
    assert "password" in failed["protected.pdf"]
    assert uploads.server.worker_pids() == before
    secret = Path(SECRET_FILE).read_bytes().splitlines()[0]
    assert uploads.on_disk(secret) == [], "nothing reads beside the file"
    assert not Path("/tmp/ran").exists()
    assert not Path("/tmp/escaped").exists()
    # And the next sound one is read.
    identity = uploads.post(("feeding.md", TEXT.format(12).encode())).json()["documents"][0]["id"]
    uploads.settled(identity)
    uploads.everywhere("12 grams of food")
    assert "Traceback" not in uploads.server.output


def test_a_scanner_is_asked_first_and_silence_is_no_leave(start_uploads: Callable[..., Uploads]) -> None:
    with FakeClamd() as clamd:
        uploads = start_uploads(workers=1, UPLOAD_SCAN=clamd.address)
        bad = uploads.post(("bad.txt", b"this is the EICAR test"))
        assert (bad.status_code, bad.json()["detail"]) == (422, "bad.txt was refused by the virus scanner.")
        assert '"found":"Eicar-Test FOUND"' in uploads.server.output
        # One that is refused takes the whole request along.
        both = uploads.post(("good.txt", b"sound words"), ("bad.txt", b"EICAR"))
        assert both.status_code == 422
        good = uploads.post(("good.txt", b"sound words"))
        uploads.settled(good.json()["documents"][0]["id"])
        assert clamd.received[-1] == b"sound words"
        clamd.answer = b"INSTREAM size limit exceeded. ERROR"
        assert uploads.post(("other.txt", b"words")).status_code == 503
    down = uploads.post(("other.txt", b"words"))
    assert (down.status_code, down.json()["code"]) == (503, "scanner_unavailable")
    assert [one["name"] for one in uploads.documents()] == ["good.txt"]
    with pytest.raises(Exception, match="refused"):
        scanning.probe(clamd.address)


def left(uploads: Uploads) -> set[str]:
    """What lies where uploads are, and nobody's document is: nothing, if all is well."""
    names = {path.relative_to(uploads.state).as_posix() for path in uploads.state.rglob("*") if path.is_file()}
    known = {f"{one['id']}/about.json" for one in uploads.documents()} | {".lock", ".ingest.lock"}
    originals = {path for path in names if re.fullmatch(r"[0-9a-f]{16}/\d+\.md", path)}
    return names - known - originals


def test_while_nothing_can_be_written_uploads_are_refused_or_wait_and_nothing_half_done_is_left(
    start_uploads: Callable[..., Uploads], azure: AzureEmulator
) -> None:
    uploads = start_uploads(workers=1)
    server, no_growth = uploads.server, NoGrowth(uploads.state)
    feeding, late = ("feeding.md", TEXT.format(12).encode()), ("late.md", b"# Lamps\n\nThe lamp burns for ten hours.\n")
    uploads.settled(uploads.post(feeding).json()["documents"][0]["id"])
    azure.fail("status", target="embeddings", status=401)
    waiting = uploads.post(late).json()["documents"][0]["id"]
    wait_until(lambda: uploads.one(waiting)["reason"] is not None, 30, "one waits for the embedding model")
    [child] = ingest_pids(uploads)
    _, hard = resource.prlimit(child, resource.RLIMIT_FSIZE)
    with no_growth.full(server):
        # Enough to say what became of a document, and too little for a segment.
        resource.prlimit(child, resource.RLIMIT_FSIZE, (1000, hard))
        for refused in (
            uploads.post(("more.md", b"# More\n\nText."), ("other.md", b"# Other\n\nText.")),
            uploads.request("PUT", "/documents/feeding.md", content=TEXT.format(13).encode()),
        ):
            assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        azure.heal()
        no_room = "the disk of the index does not take it at the moment; it is tried again"
        wait_until(lambda: uploads.one(waiting)["reason"] == no_room, 40, "it waits for the disk, and says so")
        assert "12 grams" in uploads.found(), "searches are answered meanwhile"
        assert uploads.one(waiting)["status"] != "live"
        assert {one["name"] for one in uploads.documents()} == {"feeding.md", "late.md"}
    for pid in ingest_pids(uploads):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    uploads.settled(waiting)
    uploads.everywhere("12 grams of food")
    again = uploads.request("PUT", "/documents/feeding.md", content=TEXT.format(13).encode())
    uploads.settled(again.json()["documents"][0]["id"])
    uploads.everywhere("13 grams of food")
    wait_until(lambda: left(uploads) <= {"queue/removed"}, 10, "nothing is left of what could not be written")
    assert {path.name for path in (uploads.root / "segments").iterdir()} == set(generation.read(uploads.root).segments)


@pytest.mark.skipif(not may_mount(), reason="only who may mount has a small disk")
def test_a_disk_that_is_full_says_so_and_takes_uploads_again(start_uploads: Callable[..., Uploads]) -> None:
    uploads = start_uploads(workers=1)
    uploads.settled(uploads.post(("feeding.md", TEXT.format(12).encode())).json()["documents"][0]["id"])
    with mounted("-t", "tmpfs", "-o", "size=8m", "none", at=uploads.state):
        answer = uploads.post(("more.md", TEXT.format(13).encode()))
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert uploads.post(("more.md", TEXT.format(13).encode())).status_code == 202

"""Reading many files in processes that may fail."""

import sys
import time
from pathlib import Path

import pytest

from indexer.documents import Document, Skipped
from indexer.reading.files import read_all
from indexer.reading.finding import find
from indexer.reading.processes import Limits
from tests.indexer.samples import (
    CORPORA,
    docx_bytes,
    needs_corpora,
    paragraph,
    pdf_bytes,
    protected_pdf_bytes,
    read_file,
)

UNRULY = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    name = request["source"]
    if name == "hang.md":
        while True:
            time.sleep(60)
    if name == "crash.md":
        os.kill(os.getpid(), 11)
    if name == "exit.md":
        sys.exit(3)
    document = {"source": name, "url": name, "title": str(os.getpid()), "language": "", "sections": []}
    print(json.dumps({"document": document}), flush=True)
"""
"""A reading process that does what a parser may do to it."""


def _files(folder: Path, *names: str) -> list[tuple[Path, str]]:
    for name in names:
        (folder / name).write_text(f"# {name}\n\nThe words of {name}.\n")
    return [(folder / name, name) for name in names]


def _outcomes(files: list[tuple[Path, str]], **options: object) -> dict[str, str]:
    """What became of each file: its title, or the reason that it was skipped."""
    return {
        outcome.source: outcome.reason if isinstance(outcome, Skipped) else outcome.title
        for outcome in read_all(files, site_url="", **options)  # type: ignore[arg-type]
    }


def test_documents_come_in_the_order_asked_for_and_equal_those_read_directly(tmp_path: Path) -> None:
    files = _files(tmp_path, *(f"{number}.md" for number in range(40, 0, -1)))
    (tmp_path / "40.md").write_text("word " * 200_000)  # the first one takes longest
    documents = list(read_all(files, site_url="https://example.org"))
    assert documents == [read_file(path, source=source, site_url="https://example.org") for path, source in files]


def test_bad_files_are_skipped_by_name_and_reason_and_good_ones_are_read(tmp_path: Path) -> None:
    (tmp_path / "protected.pdf").write_bytes(protected_pdf_bytes("x"))
    (tmp_path / "latin.txt").write_bytes(b"Caf\xe9")
    (tmp_path / "empty.html").write_bytes(b"")
    (tmp_path / "scan.pdf").write_bytes(pdf_bytes([[]]))
    (tmp_path / "good.pdf").write_bytes(pdf_bytes([paragraph("Good words.")]))
    (tmp_path / "good.docx").write_bytes(docx_bytes())
    assert _outcomes(list(find([tmp_path]).files)) == {
        "empty.html": "empty file",
        "good.docx": "Travel policy",
        "good.pdf": "Good",
        "latin.txt": "not UTF-8 text (byte 0xe9 at position 3)",
        "protected.pdf": "password-protected PDF",
        "scan.pdf": "no text (scanned pages?)",
    }


def test_a_process_that_hangs_or_dies_costs_only_its_file(tmp_path: Path) -> None:
    files = _files(tmp_path, "a.md", "hang.md", "b.md", "crash.md", "c.md", "exit.md", "d.md")
    outcomes = _outcomes(files, workers=1, limits=Limits(seconds=1), command=[sys.executable, "-c", UNRULY])
    assert list(outcomes) == [source for _, source in files]
    assert outcomes["hang.md"] == "took more than 1 s to read"
    assert outcomes["crash.md"] == "its reader crashed (SIGSEGV)"
    assert outcomes["exit.md"] == "its reader crashed (exit status 3)"
    # Each title is the number of the process that read it: a new one after each fault.
    assert len({outcomes[name] for name in ("a.md", "b.md", "c.md", "d.md")}) == 4


def test_processes_are_used_again(tmp_path: Path) -> None:
    files = _files(tmp_path, *(f"{number}.md" for number in range(20)))
    outcomes = _outcomes(files, workers=2, command=[sys.executable, "-c", UNRULY])
    assert len(set(outcomes.values())) <= 2


def test_a_file_that_takes_too_much_memory_is_skipped_and_the_next_one_is_read(tmp_path: Path) -> None:
    files = _files(tmp_path, "large.txt", "small.md")
    (tmp_path / "large.txt").write_bytes(b"a few words \n" * 4_000_000)
    outcomes = _outcomes(files, workers=1, limits=Limits(memory_bytes=160 * 1024 * 1024))
    assert outcomes == {"large.txt": "needs more than 160 MiB memory to read", "small.md": "small.md"}


def test_a_file_that_takes_too_long_is_skipped_and_the_next_one_is_read(tmp_path: Path) -> None:
    files = _files(tmp_path, "slow.md", "small.md")
    (tmp_path / "slow.md").write_text("- item with *some* `code` and a [link](to) \n\n" * 400_000)
    outcomes = _outcomes(files, workers=1, limits=Limits(seconds=1))
    assert outcomes == {"slow.md": "took more than 1 s to read", "small.md": "small.md"}


def test_a_pdf_whose_stream_unpacks_without_end_is_skipped(tmp_path: Path) -> None:
    import zlib

    stream = zlib.compress(b" " * 300_000_000, 9)
    plain = pdf_bytes([paragraph("bomb")])
    start, end = plain.index(b"<< /Length"), plain.index(b"endstream")
    packed = b"<< /Filter /FlateDecode /Length %d >>\nstream\n%s\n" % (len(stream), stream)
    (tmp_path / "bomb.pdf").write_bytes(plain[:start] + packed + plain[end:])
    outcomes = _outcomes([(tmp_path / "bomb.pdf", "bomb.pdf")], limits=Limits(seconds=20))
    assert outcomes["bomb.pdf"].startswith(("broken PDF", "needs more than", "took more than"))


def test_a_file_beyond_the_size_limit_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "large.md").write_bytes(b"x" * 3000)
    outcomes = _outcomes([(tmp_path / "large.md", "large.md")], limits=Limits(file_bytes=2048))
    assert outcomes["large.md"].startswith("too large (")


def test_nothing_of_the_environment_reaches_a_reading_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_CHAT_API_KEY", "secret")
    spy = UNRULY.replace("str(os.getpid())", "','.join(sorted(os.environ))")
    outcomes = _outcomes(_files(tmp_path, "a.md"), command=[sys.executable, "-c", spy])
    assert "PYTHONPATH" in outcomes["a.md"]
    assert "AZURE" not in outcomes["a.md"]


def test_who_stops_early_leaves_no_process_behind(tmp_path: Path) -> None:
    files = _files(tmp_path, *(f"{number}.md" for number in range(30)), "hang.md")
    reading = read_all(files, site_url="", command=[sys.executable, "-c", UNRULY])
    first = next(reading)
    assert isinstance(first, Document)
    began = time.monotonic()
    reading.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{first.title}").exists()


@needs_corpora
def test_a_hundred_and_fifty_markdown_files_are_read_in_their_order() -> None:
    files = find([CORPORA / "fastapi_docs"]).files
    outcomes = list(read_all(files, site_url="https://example.org"))
    assert [outcome.source for outcome in outcomes] == [source for _, source in files]
    assert [outcome.source for outcome in outcomes if isinstance(outcome, Skipped)] == ["newsletter.md"]

"""The indexer's commands as an owner of a site runs them: real processes, real folders, the emulator as Azure."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BuildMissing
from rag.search import builds
from rag.search.hybrid import open_build
from tests.support.azure import AzureEmulator
from tests.support.server import build_index, clean_environment, run_module
from tests.support.small_site import FACTS, SITE_URL, write_small_site
from tests.support.waiting import wait_until

MODEL = "emulated-embeddings"
KILLS = int(os.environ.get("SOAK_BUILD_KILLS", "6"))
"""Builders that are killed, each at another moment; `SOAK_BUILD_KILLS=40` for the long form."""

Build = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_small_site(tmp_path / "site")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "vector_db"


@pytest.fixture
def build(azure: AzureEmulator, site: Path, output: Path) -> Build:
    """`build(*arguments)` indexes the site; what the emulator saw is forgotten before."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        azure.clear()
        settings = {**azure.environment, **env}
        return build_index(site, env=settings, output=output, extra_args=["--site-url", SITE_URL, *arguments])

    return run


@pytest.fixture
def live(site_build: Path, output: Path) -> None:
    """What `build()` would have made of the site, already there."""
    shutil.copytree(site_build, output, symlinks=True)


def run(azure: AzureEmulator, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_module("indexer", *arguments, env=azure.environment, cwd=cwd)


def calls(azure: AzureEmulator) -> list[dict[str, Any]]:
    """The requests for vectors, without the one that asks whether the model answers at all."""
    return [seen for seen in azure.requests("embeddings") if seen["body"]["input"] != ["probe"]]


def embedded_texts(azure: AzureEmulator) -> list[str]:
    return [text for seen in calls(azure) for text in seen["body"]["input"]]


def sources_of(output: Path) -> set[str]:
    return {passage.source for passage in open_build(output, model=MODEL).passages()}


def test_a_first_build_says_what_it_did(build: Build, azure: AzureEmulator, output: Path) -> None:
    done = build()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "documents  8", "passages   8 (8 embedded in 1 embedding call, 0 reused)", "skipped    0",
    ]  # fmt: skip
    assert done.stdout.splitlines()[3].startswith("seconds ")
    assert builds.live_id(output) in done.stdout
    assert len(calls(azure)) == 1
    assert sources_of(output) == {fact.source for fact in FACTS} | {"index.md"}


@pytest.mark.usefixtures("live")
def test_an_unchanged_site_costs_no_embedding_call(build: Build, azure: AzureEmulator, output: Path) -> None:
    before = builds.live_id(output)
    done = build()
    assert done.returncode == 0
    assert calls(azure) == []
    assert "0 embedded in 0 embedding calls, 8 reused" in done.stdout
    assert builds.live_id(output) == before
    assert builds.kept_ids(output) == [before]


@pytest.mark.usefixtures("live")
def test_a_changed_page_costs_only_its_own_passages(
    build: Build, azure: AzureEmulator, site: Path, output: Path
) -> None:
    page = site / "pricing.md"
    page.write_text(page.read_text().replace("6.50 euros", "7.25 euros"))
    done = build()
    assert done.returncode == 0
    (text,) = embedded_texts(azure)
    assert "7.25 euros" in text
    assert "1 embedded in 1 embedding call, 7 reused" in done.stdout
    assert any("7.25 euros" in passage.text for passage in open_build(output).passages())
    assert not any("6.50 euros" in passage.text for passage in open_build(output).passages())


@pytest.mark.usefixtures("live")
def test_a_deleted_page_vanishes_without_a_call(build: Build, azure: AzureEmulator, site: Path, output: Path) -> None:
    (site / "pricing.md").unlink()
    assert build().returncode == 0
    assert calls(azure) == []
    assert "pricing.md" not in sources_of(output)
    assert open_build(output).count == 7


@pytest.mark.usefixtures("live")
def test_a_moved_page_keeps_its_vectors_and_gets_its_new_address(
    build: Build, azure: AzureEmulator, site: Path, output: Path
) -> None:
    (site / "pricing.md").rename(site / "guide" / "plans.md")
    assert build().returncode == 0
    assert calls(azure) == []
    urls = {passage.url for passage in open_build(output).passages()}
    assert f"{SITE_URL}/guide/plans/" in urls
    assert f"{SITE_URL}/pricing/" not in urls


@pytest.mark.usefixtures("live")
def test_clean_embeds_everything_anew(build: Build, azure: AzureEmulator) -> None:
    done = build("--clean", "--yes")
    assert done.returncode == 0
    assert len(embedded_texts(azure)) == 8


def test_clean_without_a_terminal_asks_nobody(build: Build, azure: AzureEmulator) -> None:
    assert build("--clean").returncode == 0
    assert len(embedded_texts(azure)) == 8


@pytest.mark.usefixtures("live")
def test_another_model_reuses_nothing(build: Build, azure: AzureEmulator, output: Path) -> None:
    other = azure.embeddings_url_of("another-model")
    assert build(AZURE_OPENAI_EMBEDDINGS_ENDPOINT=other).returncode == 0
    assert len(embedded_texts(azure)) == 8
    assert open_build(output).model == "another-model"


@pytest.mark.usefixtures("live")
def test_pages_are_addressed_below_the_sites_url(build: Build, output: Path) -> None:
    urls = {passage.source: passage.url for passage in open_build(output).passages()}
    assert urls["guide/api.md"] == f"{SITE_URL}/guide/api/"
    assert urls["index.md"] == f"{SITE_URL}/"


def test_unreadable_files_are_skipped_by_name_and_reason(build: Build, site: Path, output: Path) -> None:
    (site / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    (site / "empty.md").write_bytes(b"")
    (site / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (site / "broken.docx").write_bytes(b"PK\x03\x04 not a zip")
    done = build()
    assert done.returncode == 0, done.stderr
    skipped = [line.strip() for line in done.stdout.splitlines() if line.startswith("           ")]
    named = dict(line.split(": ", 1) for line in skipped)
    assert named.keys() == {"broken.pdf", "empty.md", "binary.txt", "broken.docx"}
    assert all(reason for reason in named.values())
    assert "skipped    4" in done.stdout
    assert open_build(output).count == 8
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_whose_name_is_not_utf8_does_not_stop_a_build(build: Build, site: Path, output: Path) -> None:
    name = os.fsdecode(b"caf\xe9.md")
    (site / name).write_text("# Café\n\nThe café opens at nine o'clock.\n")
    done = build()
    assert done.returncode == 0, done.stderr
    (page,) = [passage for passage in open_build(output, model=MODEL).passages() if passage.source == "caf?.md"]
    assert (page.title, page.url) == ("Café", f"{SITE_URL}/caf%E9/")
    assert "skipped    0" in done.stdout


@pytest.mark.usefixtures("live")
def test_nothing_readable_is_an_error_with_reasons_and_leaves_the_live_build(
    build: Build, azure: AzureEmulator, site: Path, output: Path
) -> None:
    before = builds.live_id(output)
    shutil.rmtree(site)
    site.mkdir()
    (site / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    done = build()
    assert done.returncode == 1
    assert "nothing readable" in done.stderr
    assert "broken.pdf: " in done.stderr
    assert "Traceback" not in done.stderr
    assert builds.live_id(output) == before
    assert calls(azure) == []
    assert builds.kept_ids(output) == [before]


def test_a_source_that_does_not_exist_is_named(azure: AzureEmulator, tmp_path: Path) -> None:
    done = run(azure, "build", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere: there is no such file or folder" in done.stderr


@pytest.mark.parametrize(
    ("fault", "words"),
    [({"kind": "status", "status": 401}, "401"), ({"kind": "status", "status": 404}, "404")],
)
@pytest.mark.usefixtures("live")
def test_embeddings_that_fail_for_good_leave_the_live_build(
    build: Build, azure: AzureEmulator, site: Path, output: Path, fault: dict[str, object], words: str
) -> None:
    before = builds.live_id(output)
    (site / "new.md").write_text("# News\n\nThe probe now glows in the dark.\n")
    azure.fail(target="embeddings", **fault)  # type: ignore[arg-type]
    done = build()
    assert done.returncode == 1
    assert "the embedding model " in done.stderr
    assert words in done.stderr
    assert "the live build is untouched" in done.stderr
    assert azure.api_key not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert builds.live_id(output) == before
    azure.heal()
    assert build().returncode == 0
    assert "new.md" in sources_of(output)


def test_a_short_outage_of_the_embeddings_is_sat_out(build: Build, azure: AzureEmulator, output: Path) -> None:
    azure.fail("status", target="embeddings", status=503, times=2)
    assert build().returncode == 0
    assert open_build(output).count == 8


def test_missing_settings_are_named_with_a_remedy(site: Path, tmp_path: Path) -> None:
    done = run_module("indexer", "build", str(site), env={}, cwd=tmp_path)
    assert done.returncode == 1
    assert "AZURE_OPENAI_EMBEDDINGS_ENDPOINT is not set" in done.stderr
    assert "AZURE_OPENAI_EMBEDDINGS_API_KEY is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_progress_is_plain_lines_where_there_is_no_terminal(build: Build) -> None:
    done = build()
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "embedding 8/8" in done.stderr.splitlines()


def test_progress_is_a_bar_on_a_terminal(azure: AzureEmulator, site: Path, output: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "indexer", "build", str(site), "--output", str(output)], cwd=site.parent,
        env=clean_environment(site.parent, azure.environment), stdin=slave, stdout=subprocess.PIPE, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    summary, _ = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0
    assert "\rreading    ██".encode() in shown
    assert b"8/8" in shown
    assert b"documents  8" in summary
    assert b"\x1b" not in summary


@contextmanager
def building(azure: AzureEmulator, site: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """An indexer at work, in a process group of its own; ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "indexer", "build", str(site), "--output", str(output), "--clean"], cwd=site.parent,
        env=clean_environment(site.parent, azure.environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        kill_group(process)
        process.communicate()


def kill_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_second_builder_is_refused_while_the_first_is_at_work(
    build: Build, azure: AzureEmulator, site: Path, output: Path
) -> None:
    azure.fail("hang", target="embeddings", contains="Brinewell")
    with building(azure, site, output):
        wait_until(lambda: calls(azure), 30, "the first build is embedding")
        second = build_index(site, env=azure.environment, output=output)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1] == "another build is running here; wait for it, or stop it"
    azure.heal()
    assert build().returncode == 0


@pytest.mark.usefixtures("live")
def test_an_interrupted_build_says_so_and_leaves_nothing(
    build: Build, azure: AzureEmulator, site: Path, output: Path
) -> None:
    before = builds.live_id(output)
    azure.clear()
    azure.fail("hang", target="embeddings", contains="Brinewell")
    with building(azure, site, output) as process:
        wait_until(lambda: calls(azure), 30, "the build is embedding")
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the live build is untouched"
    assert builds.live_id(output) == before
    assert [path.name for path in (output / "builds").iterdir()] == [before]


def test_a_builder_killed_at_any_moment_leaves_the_old_build_or_the_new_one(
    azure: AzureEmulator, site: Path, output: Path
) -> None:
    for number in range(60):
        (site / f"page-{number}.md").write_text(f"# Page {number}\n\n" + f"Fact {number} about the pump. " * 40)
    page = site / "page-0.md"
    assert build_index(site, env=azure.environment, output=output).returncode == 0
    began = time.monotonic()
    page.write_text("# Page 0\n\nversion measured\n")
    assert build_index(site, env=azure.environment, output=output, extra_args=["--clean"]).returncode == 0
    usual_s = time.monotonic() - began

    failures: list[str] = []
    opened = 0
    stop = threading.Event()

    def read_on() -> None:
        nonlocal opened
        while not stop.is_set():
            try:
                found = open_build(output, model=MODEL)
                first = next(iter(found.passages()))
                assert first.text
                opened += 1
            except BaseException as error:  # whatever it is, the test has to hear of it
                failures.append(repr(error))
            stop.wait(0.005)

    reader = threading.Thread(target=read_on)
    reader.start()
    outcomes = []
    try:
        moments = random.Random(20261120).sample(range(1000), KILLS)
        for number, moment in enumerate(sorted(moments)):
            old = builds.live_id(output)
            page.write_text(f"# Page 0\n\nversion {number}\n")
            with building(azure, site, output) as process:
                # Not waiting for a condition but choosing a moment: that is what this test is about.
                ended = threading.Event()
                ended.wait(0.15 + moment / 1000 * (usual_s - 0.1))
                kill_group(process)
                process.wait()
            live = open_build(output, model=MODEL)
            said = next(passage.text for passage in live.passages() if passage.source == "page-0.md")
            assert (live.id == old) or said == f"version {number}", "neither the old build nor the new one"
            outcomes.append("old" if live.id == old else "new")
            assert builds.verify(live.folder)
        assert "old" in outcomes
    finally:
        stop.set()
        reader.join()
    assert failures == []
    assert opened > KILLS
    done = build_index(site, env=azure.environment, output=output)
    assert done.returncode == 0, done.stderr
    assert len(builds.kept_ids(output)) <= builds.KEPT
    assert not [path for path in (output / "builds").iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("live")
def test_the_last_three_builds_are_kept_and_can_be_brought_back(
    build: Build, azure: AzureEmulator, site: Path, output: Path
) -> None:
    ids = [builds.live_id(output), builds.live_id(output)]
    for number in range(3):
        (site / "news.md").write_text(f"# News\n\nEdition number {number}.\n")
        assert build().returncode == 0
        ids.append(builds.live_id(output))
    assert builds.kept_ids(output) == ids[:1:-1]
    info = run(azure, "info", "--output", str(output), cwd=site.parent)
    assert info.returncode == 0
    assert [line.split()[:2] for line in info.stdout.splitlines()] == [
        ["live", ids[4]], ["kept", ids[3]], ["kept", ids[2]],
    ]  # fmt: skip
    assert "9 documents, 9 passages, emulated-embeddings, 256 dimensions, flat" in info.stdout
    back = run(azure, "rollback", "--output", str(output), cwd=site.parent)
    assert (back.returncode, back.stdout.strip()) == (0, f"{ids[3]} is live")
    named = run(azure, "rollback", ids[2], "--output", str(output), cwd=site.parent)
    assert (named.returncode, builds.live_id(output)) == (0, ids[2])
    end = run(azure, "rollback", "--output", str(output), cwd=site.parent)
    assert end.returncode == 1
    assert "no build before the live one" in end.stderr
    unknown = run(azure, "rollback", "20200101T000000.000000Z", "--output", str(output), cwd=site.parent)
    assert unknown.returncode == 1
    assert ids[3] in unknown.stderr
    assert builds.live_id(output) == ids[2]


@pytest.mark.parametrize("current", [None, "nonsense", "20200101T000000.000000Z"])
def test_info_lists_what_is_kept_where_nothing_is_live(
    site_build: Path, azure: AzureEmulator, tmp_path: Path, current: str | None
) -> None:
    output = tmp_path / "vector_db"
    shutil.copytree(site_build, output)
    (output / "CURRENT").unlink() if current is None else (output / "CURRENT").write_text(current)
    done = run(azure, "info", "--output", str(output), cwd=tmp_path)
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["kept", builds.live_id(site_build)]]
    assert "run: python -m indexer rollback" in done.stderr
    assert run(azure, "rollback", "--output", str(output), cwd=tmp_path).returncode == 0
    assert run(azure, "info", "--output", str(output), cwd=tmp_path).returncode == 0


@pytest.mark.usefixtures("live")
def test_verify_notices_one_bit(build: Build, azure: AzureEmulator, site: Path, output: Path) -> None:
    sound = run(azure, "verify", "--output", str(output), cwd=site.parent)
    assert sound.returncode == 0
    assert "every checksum is right" in sound.stdout
    file = output / "builds" / builds.live_id(output) / "vectors.faiss"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    damaged = run(azure, "verify", "--output", str(output), cwd=site.parent)
    assert damaged.returncode == 1
    assert "vectors.faiss" in damaged.stderr
    assert "rollback" in damaged.stderr
    # A build heals it: nothing is taken over from what is damaged.
    assert build().returncode == 0
    assert len(embedded_texts(azure)) == 8
    assert run(azure, "verify", "--output", str(output), cwd=site.parent).returncode == 0


@pytest.mark.parametrize("command", [["info"], ["verify"], ["rollback"], ["search", "warranty"]])
def test_commands_without_a_build_say_how_to_make_one(azure: AzureEmulator, tmp_path: Path, command: list[str]) -> None:
    done = run(azure, *command, cwd=tmp_path)
    assert done.returncode == 1
    assert "no build" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(BuildMissing):
        builds.live_id(tmp_path / "vector_db")


def test_search_shows_what_the_server_would_retrieve(site_build: Path, azure: AzureEmulator, tmp_path: Path) -> None:
    asked = ["search", FACTS[0].question, "-k", "3", "--output", str(site_build)]
    done = run(azure, *asked, cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1. 1.000 (similarity 0.")
    assert lines[1].strip().startswith(f"{SITE_URL}/warranty/#warranty-and-returns")
    assert [line[:2] for line in lines[::3]] == ["1.", "2.", "3."]
    azure.fail("status", target="embeddings", status=401)
    alone = run(azure, *asked, cwd=tmp_path)
    assert alone.returncode == 0
    assert "found by words alone" in alone.stderr
    assert lines[1] in alone.stdout


def test_evaluate_gives_figures_and_holds_a_bar(site_build: Path, azure: AzureEmulator, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    lines = [
        {"id": str(number), "question": fact.question, "relevant": [fact.source]} for number, fact in enumerate(FACTS)
    ]
    questions.write_text("\n".join(json.dumps(line) for line in lines))
    asked = ["evaluate", str(questions), "--output", str(site_build)]
    done = run(azure, *asked, "--min-ndcg", "0.9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert figures["questions"] == "8"
    assert float(figures["nDCG@10"]) == float(figures["recall@5"]) == float(figures["MRR@10"]) == 1.0
    lines.append({"id": "x", "question": "What is the warranty?", "relevant": ["no/such/page.md"]})
    questions.write_text("\n".join(json.dumps(line) for line in lines))
    below = run(azure, *asked, "--min-ndcg", "0.95", cwd=tmp_path)
    assert below.returncode == 1
    assert "nDCG@10 0.889 is below 0.95" in below.stderr
    assert "not found  What is the warranty?" in below.stdout
    assert "no page    no/such/page.md" in below.stdout
    for bar in ("90", "-0.1", "nan", "high"):
        assert run(azure, *asked, "--min-ndcg", bar, cwd=tmp_path).returncode == 2


def test_evaluate_names_the_line_that_is_no_question(site_build: Path, azure: AzureEmulator, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "x", "relevant": ["a"]}\n\n{"question": "y"}\n')
    done = run(azure, "evaluate", str(questions), "--output", str(site_build), cwd=tmp_path)
    assert done.returncode == 1
    assert "questions.jsonl, line 3" in done.stderr
    missing = run(azure, "evaluate", str(tmp_path / "none"), "--output", str(site_build), cwd=tmp_path)
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr

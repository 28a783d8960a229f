"""Documents go into a running server's index, by hand, and out of it: real processes, under load."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from rag.search import builds
from rag.search.hot import generation
from tests.conftest import StartServer
from tests.e2e.test_live_builds import TAKEN_UP_WITHIN_S, Owner, logged, no_visitor_notices
from tests.support.azure import AzureEmulator
from tests.support.served import open_served
from tests.support.server import RagServer, clean_environment, run_module
from tests.support.waiting import wait_until

FEEDING = "How much food do the shrimps get?"
KILLS = int(os.environ.get("KILLS", "6"))
"""`make soak` takes more."""

Indexer = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def owner(tmp_path: Path, azure: AzureEmulator) -> Owner:
    published = Owner(tmp_path, azure)
    published.publish("6.50")
    return published


@pytest.fixture
def indexer(owner: Owner, azure: AzureEmulator, tmp_path: Path) -> Indexer:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_module("indexer", *arguments, "--output", str(owner.root), env=azure.environment, cwd=tmp_path)

    return run


def written(folder: Path, name: str = "feeding.md", grams: str = "12") -> str:
    path = folder / name
    path.write_text(f"# Feeding shrimps\n\nThe shrimps get {grams} grams of food a day.\n")
    return str(path)


def found(server: RagServer, query: str = FEEDING) -> str:
    answer = httpx.post(f"{server.base_url}/search", json={"query": query, "k": 1}, trust_env=False, verify=False)
    content: str = answer.json()["results"][0]["content"]
    return content


def test_added_replaced_and_removed_under_load_in_every_worker_without_a_failed_request(
    start_server: StartServer, owner: Owner, indexer: Indexer, tmp_path: Path
) -> None:
    server = start_server(workers=2, VECTOR_DB_PATH=owner.root, RATE_LIMIT_ENABLED="false")
    with no_visitor_notices(server):

        def taken_up(count: int) -> None:
            done_at = time.monotonic()
            wait_until(lambda: logged(server, "added documents are live") == count * 2, 10, "both workers have it")
            assert time.monotonic() - done_at < TAKEN_UP_WITHIN_S

        done = indexer("add", written(tmp_path))
        assert done.returncode == 0, done.stderr
        identity = re.findall(r"added +(\w+)  feeding\.md, 1 passages", done.stdout)[0]
        taken_up(1)
        assert {found(server) for _ in range(20)} == {"The shrimps get 12 grams of food a day."}
        ready = httpx.get(f"{server.base_url}/ready", trust_env=False, verify=False).json()["index"]
        assert (ready["build"], ready["uploads"]) == (builds.live_id(owner.root), 1)

        assert f"added      {identity}" in indexer("add", written(tmp_path, grams="13")).stdout
        taken_up(2)
        assert {found(server) for _ in range(20)} == {"The shrimps get 13 grams of food a day."}
        assert f"unchanged  {identity}" in indexer("add", written(tmp_path, grams="13")).stdout

        owner.publish("7.25")
        wait_until(lambda: logged(server, "new build is live") == 2, 10, "the site was built again")
        assert {found(server) for _ in range(20)} == {"The shrimps get 13 grams of food a day."}

        removed = indexer("remove", "feeding.md")
        assert removed.stdout == f"removed    {identity}  feeding.md\n"
        taken_up(3)
        assert not any("grams of food" in found(server) for _ in range(20))
        on_disk = [path.read_bytes() for path in owner.root.rglob("*") if path.is_file()]
        assert not any(b"grams of food" in content for content in on_disk), "its text has left the disk"


def test_info_verify_search_and_rollback_know_what_was_added(
    owner: Owner, indexer: Indexer, tmp_path: Path, azure: AzureEmulator
) -> None:
    assert "added" not in indexer("info").stdout
    indexer("add", written(tmp_path), written(tmp_path, "light.txt"))
    owner.publish("7.25")
    told = indexer("info").stdout
    assert "added  2 documents, 2 passages in 1 segments" in told
    assert re.search(r"[0-9a-f]{16}  feeding\.md, 1 passages, 2", told)
    assert "2 added documents in 1 segments: every checksum is right" in indexer("verify").stdout
    assert "The shrimps get 12 grams" in indexer("search", FEEDING).stdout
    assert indexer("rollback").returncode == 0
    assert "The shrimps get 12 grams" in indexer("search", FEEDING).stdout
    segment = generation.folder_of(owner.root, generation.read(owner.root).segments[0])
    file = segment / "passages.jsonl"
    file.write_bytes(file.read_bytes().replace(b"12 grams", b"21 grams"))
    check = run_module(
        "run_production.py", "--check", env={**azure.environment, "VECTOR_DB_PATH": str(owner.root)}, cwd=tmp_path
    )
    assert "added documents are left out: " in check.stdout
    assert "→ add its documents again, or put them back from a backup" in check.stdout
    damaged = indexer("verify")
    assert damaged.returncode == 1
    assert "passages.jsonl does not have the checksum of the manifest; add its documents again" in damaged.stderr
    file.unlink()
    assert "damaged:" in indexer("info").stdout


def test_what_cannot_be_added_is_named_with_its_reason(owner: Owner, indexer: Indexer, tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_text("")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    done = indexer("add", written(tmp_path), str(tmp_path / "empty.md"), str(tmp_path / "broken.pdf"))
    assert done.returncode == 1
    assert "not added  empty.md: empty file" in done.stdout
    assert "not added  broken.pdf: " in done.stdout
    assert re.search(r"added +\w+  feeding\.md", done.stdout)
    (tmp_path / "other").mkdir()
    for arguments, reason in (
        ([str(tmp_path / "site")], "add takes files; for a folder"),
        ([str(tmp_path / "none.md")], "there is no such file"),
        ([written(tmp_path), written(tmp_path / "other")], "feeding.md: named twice"),
    ):
        refused = indexer("add", *arguments)
        assert (refused.returncode, reason in refused.stderr) == (1, True), refused.stderr
    missing = indexer("remove", "nobody")
    assert missing.returncode == 1
    assert "nobody: no document of this id or name was added" in missing.stderr


def test_without_a_build_there_is_nothing_to_stand_beside(azure: AzureEmulator, tmp_path: Path) -> None:
    done = run_module("indexer", "add", written(tmp_path), env=azure.environment, cwd=tmp_path)
    assert done.returncode == 1
    assert "run: python -m indexer build SOURCE" in done.stderr


def test_a_build_with_another_model_takes_what_was_added_along(
    owner: Owner, indexer: Indexer, azure: AzureEmulator, tmp_path: Path
) -> None:
    indexer("add", written(tmp_path))
    indexer("add", written(tmp_path, "light.md", "99"))
    other = {**azure.environment, "AZURE_OPENAI_EMBEDDINGS_ENDPOINT": azure.embeddings_url_of("another-model")}
    done = run_module("indexer", "build", str(owner.site), "--output", str(owner.root), env=other, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    served = open_served(owner.root, model="another-model")
    hit = served.search(FEEDING, vector=None, k=1)[0]
    assert ":~:" not in hit.passage.citation_url, "no page could be opened at its words"
    assert all(not section.phrases for section in hit.passage.sections)
    assert served.search(FEEDING, vector=None, k=1)[0].passage.source == "feeding.md"
    assert len(generation.read(owner.root).segments) == 1


def test_a_kill_at_any_moment_leaves_each_document_whole_once_or_not_there(
    owner: Owner, azure: AzureEmulator, tmp_path: Path
) -> None:
    """Some add for the first time, some replace; whatever is left is served, and the next add goes through."""
    arguments = [sys.executable, "-m", "indexer", "add", "--output", str(owner.root)]

    def add_and_kill(number: int, after_s: float) -> None:
        names = [written(tmp_path, f"{part}.md", f"{number}{part}") for part in "abc"]
        process = subprocess.Popen(
            [*arguments, *names], env=clean_environment(tmp_path, azure.environment), cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        killer = threading.Timer(after_s, process.send_signal, [signal.SIGKILL])
        killer.start()
        process.wait()
        killer.cancel()

    began = time.monotonic()
    add_and_kill(0, 60)
    whole_s = time.monotonic() - began
    for number in range(1, KILLS + 1):
        # Most of the time goes into starting: the second half is where things are written.
        add_and_kill(number, whole_s * (0.4 + 0.7 * number / KILLS))
        served = open_served(owner.root)
        texts = [passage.text for passage in served.passages() if passage.title == "Feeding shrimps"]
        assert sorted(text.split()[3][-1] for text in texts) == ["a", "b", "c"]
        assert len({text.split()[3][:-1] for text in texts}) == 1, "all of one run, or none of it"
    add_and_kill(777, 60)
    texts = [passage.text for passage in open_served(owner.root).passages() if passage.title == "Feeding shrimps"]
    assert sorted(text.split()[3] for text in texts) == ["777a", "777b", "777c"]
    left = {path.name for path in (owner.root / generation.SEGMENTS).iterdir()}
    assert left == set(generation.read(owner.root).segments), "nothing is left of those that were killed"

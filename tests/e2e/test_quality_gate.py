"""Builds that are measured before they are published, and compared afterwards, as an owner of a site does it."""

import json
import subprocess
from pathlib import Path

import pytest

from rag.search import builds
from tests.support.azure import AzureEmulator
from tests.support.server import run_module
from tests.support.small_site import FACTS, write_small_site


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    lines = [{"id": str(n), "question": fact.question, "relevant": [fact.source]} for n, fact in enumerate(FACTS)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_small_site(tmp_path / "site")


def indexer(azure: AzureEmulator, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module("indexer", *arguments, "--output", str(folder / "db"), env=azure.environment, cwd=folder)


def test_a_build_below_the_bar_is_not_published(
    azure: AzureEmulator, site: Path, questions: Path, tmp_path: Path
) -> None:
    gate = ("--questions", str(questions), "--min-ndcg", "0.95")
    first = indexer(azure, tmp_path, "build", str(site), *gate)
    assert first.returncode == 0, first.stderr
    live = builds.live_id(tmp_path / "db")

    for page in ("warranty.md", "pricing.md", "guide/api.md"):
        (site / page).unlink()
    worse = indexer(azure, tmp_path, "build", str(site), *gate)
    assert worse.returncode == 1
    assert "is below 0.95" in worse.stderr
    assert builds.live_id(tmp_path / "db") == live
    assert builds.kept_ids(tmp_path / "db") == [live]
    assert list((tmp_path / "db" / "builds").glob(".staging-*")) == []


def test_two_builds_are_compared_question_by_question(
    azure: AzureEmulator, site: Path, questions: Path, tmp_path: Path
) -> None:
    indexer(azure, tmp_path, "build", str(site))
    whole = builds.live_id(tmp_path / "db")
    for page in ("warranty.md", "pricing.md", "guide/api.md", "guide/installation.md"):
        (site / page).unlink()
    indexer(azure, tmp_path, "build", str(site))

    done = indexer(azure, tmp_path, "evaluate", str(questions), "--compare", whole)
    assert done.returncode == 0, done.stderr
    assert f"compared   {whole}" in done.stdout
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("nDCG@10"))
    live, other, change, low, high = (float(cell) for cell in row[1:] if cell != "to")
    assert other == 1.0
    assert live < 0.7
    assert change == pytest.approx(live - other, abs=0.0015)
    assert low <= change <= high < 0
    assert "the live build is worse: 0 questions better, " in done.stdout
    assert indexer(azure, tmp_path, "evaluate", str(questions), "--compare", whole, "--min-ndcg", "0.9").returncode == 1


def test_a_build_that_is_not_kept_cannot_be_compared(
    azure: AzureEmulator, site: Path, questions: Path, tmp_path: Path
) -> None:
    indexer(azure, tmp_path, "build", str(site))
    done = indexer(azure, tmp_path, "evaluate", str(questions), "--compare", "20200101T000000.000000Z")
    assert done.returncode == 1
    assert "no build 20200101T000000.000000Z" in done.stderr


def test_a_bar_without_questions_is_a_mistake_that_is_named(azure: AzureEmulator, site: Path, tmp_path: Path) -> None:
    done = indexer(azure, tmp_path, "build", str(site), "--min-ndcg", "0.9")
    assert done.returncode == 2
    assert "--questions" in done.stderr
    assert not (tmp_path / "db").exists()

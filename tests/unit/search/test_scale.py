"""An index too large to compare with every passage: what it finds, what it costs, and what it keeps exactly."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import indexer.build
from indexer.documents import Block, Document, Section
from rag.deadline import Deadline
from rag.errors import BuildDamaged, BuildMismatch
from rag.search import builds, fusion, shortlist, vector_files
from rag.search.backends.files import FileBackend
from rag.search.hybrid import Build, known_vectors, open_build
from rag.types import Passage
from tests.support import whole_build
from tests.support.waiting import REPOSITORY

COUNT = 5_000
DIMENSIONS = 64
FEW = 10_000
"""Numbers that are still compared with every question; everything here has more."""


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    topics = np.random.default_rng(99).normal(size=(40, DIMENSIONS))
    return unit(topics[draw.integers(0, 40, count)] + 0.8 * draw.normal(size=(count, DIMENSIONS)))


def passage(row: int) -> Passage:
    words = " ".join(f"word{number}" for number in np.random.default_rng(row).zipf(1.3, 12) % 3_000)
    return Passage(
        text=f"Number {row}: {words}", title=f"Page {row // 10}", headings=(), url=f"https://x.example/{row // 10}",
        anchor="", source=f"page{row // 10}.md", language="en",
    )  # fmt: skip


def publish(root: Path, vectors: np.ndarray, *, exact_up_to: int) -> Build:
    with builds.writing(root) as staging:
        written = whole_build.write(
            staging, [passage(row) for row in range(len(vectors))], vectors, exact_up_to=exact_up_to
        )
        embedding = {"model": "a-model", "dimensions": DIMENSIONS, "dense_weight": 0.6}
        builds.publish(root, staging, {**written, "documents": 1, "embedding": embedding})
    return open_build(root)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return publish(tmp_path_factory.mktemp("exact"), clustered(COUNT), exact_up_to=vector_files.EXACT_UP_TO)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return publish(tmp_path_factory.mktemp("large"), clustered(COUNT), exact_up_to=FEW)


def questions(count: int) -> np.ndarray:
    return unit(clustered(count, seed=1) + 0.1 * np.random.default_rng(2).normal(size=(count, DIMENSIONS)))


def test_the_kind_of_index_follows_its_size_and_stands_in_the_manifest(exact: Build, large: Build) -> None:
    assert exact.manifest["index"] == {"type": "flat", "metric": "cosine"}
    about = large.manifest["index"]
    assert (about["type"], about["metric"], about["lists"]) == ("ivf_sq8", "cosine", 156)
    assert 1 <= about["probes"] <= about["lists"]
    assert about["recall_at_10"] >= vector_files.RECALL_AT_10


def test_of_the_ten_nearest_passages_98_percent_are_found(exact: Build, large: Build) -> None:
    found = []
    for question in questions(200):
        truth = np.argsort(-exact.similarities(question))[:10]
        hits = large.search("zzz", vector=question, k=10)
        found.append(len({hit.row for hit in hits} & set(truth.tolist())) / 10)
    assert np.mean(found) >= 0.98


def test_words_and_vectors_together_find_what_the_exact_index_finds(exact: Build, large: Build) -> None:
    shared, apart = [], []
    for number, question in enumerate(questions(100)):
        asked = " ".join(passage(number * 7).text.split()[2:6])
        truth = {hit.row: hit for hit in exact.search(asked, vector=question, k=10)}
        hits = large.search(asked, vector=question, k=10)
        shared.append(len({hit.row for hit in hits} & truth.keys()) / 10)
        apart += [abs(hit.similarity - truth[hit.row].similarity) for hit in hits if hit.row in truth]
    assert np.mean(shared) >= 0.97
    assert max(apart) < 0.0005


def test_words_alone_rank_as_they_do_in_the_exact_index(exact: Build, large: Build) -> None:
    for number in range(0, 400, 20):
        asked = " ".join(passage(number).text.split()[:5])
        assert [hit.row for hit in large.search(asked, vector=None, k=10)] == [
            hit.row for hit in exact.search(asked, vector=None, k=10)
        ]
    assert large.search("xylophone", vector=None, k=5) == []


def test_a_passage_that_only_words_find_has_its_true_similarity(large: Build) -> None:
    far = clustered(COUNT)[4321]
    hits = large.search("Number 4321", vector=-far, k=10)
    assert {hit.row: hit.similarity for hit in hits}[4321] == pytest.approx(-1.0, abs=0.001)


def test_vectors_come_back_as_they_were_within_half_precision(large: Build) -> None:
    known = known_vectors(large.folder.parent.parent, model="a-model")
    assert len(known) == COUNT
    originals = clustered(COUNT)
    for row in (0, 17, COUNT - 1):
        assert np.abs(known[passage(row).content_hash] - originals[row]).max() < 0.0003
    assert np.allclose(large.similarities(originals[3]), originals @ originals[3], atol=0.0005)


def test_a_question_of_other_dimensions_is_a_mismatch(large: Build) -> None:
    for ask in (large.similarities, lambda vector: large.search("word1", vector=vector, k=5)):
        with pytest.raises(BuildMismatch, match=f"for a build of {DIMENSIONS}"):
            ask(np.ones(DIMENSIONS + 1, dtype=np.float32))


def test_a_shortlist_has_the_very_best_scores() -> None:
    draw = np.random.default_rng(5)
    for count, met in ((10, 3), (999, 500), (20_000, 40), (50_000, 45_000)):
        scores = np.zeros(count, dtype=np.float32)
        scores[draw.choice(count, met, replace=False)] = draw.random(met).astype(np.float32).round(2) + 0.01
        words = shortlist.of_words(scores, length=50)
        expected = [row for row in np.argsort(-scores, kind="stable")[:50].tolist() if scores[row] > 0]
        assert words.best.tolist() == sorted(expected)
        assert words.mean == pytest.approx(float(scores.mean()), rel=1e-4)
        assert words.deviation == pytest.approx(float(scores.std()), rel=1e-3)


def test_fusing_shortlists_is_fusion_where_they_hold_all_passages() -> None:
    draw = np.random.default_rng(6)
    scores, similarities = (draw.random(300).astype(np.float32) for _ in range(2))
    rows = np.arange(300)
    nearest = fusion.Nearest(rows, similarities, mean=float(similarities.mean()), deviation=float(similarities.std()))
    words = shortlist.of_words(scores, length=300)
    expected_rows, expected_scores = fusion.fuse(lexical=scores, dense=similarities)
    found_rows, found_scores = shortlist.fuse(words, nearest, dense_weight=fusion.DENSE_WEIGHT)
    assert found_rows.tolist() == expected_rows.tolist()
    assert np.allclose(found_scores, expected_scores, atol=1e-4)


_MEMORY = """
import sys; import numpy as np; from pathlib import Path; from rag.search.hybrid import open_build
def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
build = open_build(Path(sys.argv[1])); question = np.ones(256, dtype=np.float32) / 16
build.search("word1", vector=question, k=5); before = anonymous()
del build; build = open_build(Path(sys.argv[2])); build.search("word1", vector=question, k=5)
print(anonymous() - before)
"""


def test_a_large_index_stays_mapped_and_costs_a_process_no_memory_of_its_own(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(40_000, 256)))
    for name, count in (("small", 100), ("large", 40_000)):
        with builds.writing(tmp_path / name) as staging:
            one = [Passage("word1", "", (), "u", "", "s", "en")] * count
            written = whole_build.write(staging, one, vectors[:count], exact_up_to=FEW)
            embedding = {"model": "a-model", "dimensions": 256, "dense_weight": 0.6}
            builds.publish(tmp_path / name, staging, {**written, "documents": 1, "embedding": embedding})
    size = sum(file.stat().st_size for file in open_build(tmp_path / "large").folder.iterdir())
    command = [sys.executable, "-c", _MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert size > 30_000_000
    assert int(done.stdout) * 1024 < size / 4


class Embedder:
    """Vectors by a text's number; counts the texts it was given."""

    name = "a-model"
    dense_weight = 0.6

    def __init__(self) -> None:
        self.texts = 0
        self._vectors = clustered(COUNT)

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        self.texts += len(texts)
        return self._vectors[[int(text.split("Number ")[1].split(":")[0]) for text in texts]]


def built(root: Path, count: int, *, changed: int | None = None) -> tuple[indexer.build.Summary, int]:
    def document(row: int) -> Document:
        block = Block("paragraph", passage(row).text + (" and something new" if row == changed else ""))
        return Document(f"{row}.md", f"https://x.example/{row}", f"Page {row}", "en", (Section((), "", (block,)),))

    embedder = Embedder()
    documents = [document(row) for row in range(count)]
    quiet: Any = lambda *_: None  # noqa: E731
    summary = asyncio.run(
        indexer.build.build(
            documents, backend=FileBackend(root, exact_up_to=FEW), embedder=embedder, clean=False, progress=quiet
        )
    )
    return summary, embedder.texts


def test_a_large_site_that_did_not_change_is_neither_embedded_nor_published_again(tmp_path: Path) -> None:
    first, embedded = built(tmp_path, 1_000)
    assert (embedded, open_build(tmp_path).manifest["index"]["type"]) == (1_000, "ivf_sq8")
    again, embedded = built(tmp_path, 1_000)
    assert (embedded, again.unchanged, again.build_id) == (0, True, first.build_id)
    third, embedded = built(tmp_path, 1_000, changed=500)
    assert (embedded, third.embedded, third.reused, third.unchanged) == (1, 1, 999, False)
    live = open_build(tmp_path)
    assert np.abs(live.vector(999) - clustered(COUNT)[999]).max() < 0.0003
    names = {file.name for file in live.folder.iterdir() if file.suffix in {".faiss", ".npy"}}
    dense = {name for name in names if not name.startswith(("lexical_", "spelling_", "passages"))}
    assert dense == {"sample.npy", "vectors.faiss", "vectors.npy"}


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose checksum is computed from now on."""
    names: list[str] = []
    original = builds._sha256

    def counted(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(builds, "_sha256", counted)
    return names


def small_build(root: Path) -> Path:
    with builds.writing(root) as staging:
        (staging / "one.bin").write_bytes(b"words")
        return builds.folder_of(root, builds.publish(root, staging, {"passages": 1}))


def test_a_large_build_is_read_through_once_and_again_when_a_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "LARGE_BYTES", 1)
    folder = small_build(tmp_path)
    read = reads(monkeypatch)
    builds.verify(folder)
    assert read == []  # the publisher had computed it
    builds.verify(folder, anew=True)
    assert read == ["one.bin"]
    copied = (folder / "one.bin").read_bytes()
    (folder / "one.bin").unlink()
    (folder / "one.bin").write_bytes(copied)
    builds.verify(folder)
    builds.verify(folder)
    assert read == ["one.bin"] * 2
    stamp = (folder / "one.bin").stat()
    (folder / "one.bin").write_bytes(b"wordz")
    os.utime(folder / "one.bin", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(BuildDamaged, match="does not have the checksum"):
        builds.verify(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"one.bin": 1}'])
def test_a_mark_that_is_damaged_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(builds, "LARGE_BYTES", 1)
    folder = small_build(tmp_path)
    (tmp_path / "verified" / f"{folder.name}.json").write_bytes(content)
    read = reads(monkeypatch)
    builds.verify(folder)
    assert read == ["one.bin"]


def test_a_build_that_goes_takes_its_mark_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "LARGE_BYTES", 1)
    for _ in range(5):
        small_build(tmp_path)
    assert {mark.stem for mark in (tmp_path / "verified").iterdir()} == set(builds.kept_ids(tmp_path))


def test_a_small_build_is_read_through_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_build(tmp_path)
    read = reads(monkeypatch)
    builds.verify(folder)
    builds.verify(folder)
    assert read == ["one.bin"] * 2
    assert not (tmp_path / "verified").exists()

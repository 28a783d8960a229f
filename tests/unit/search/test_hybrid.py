"""One build, open: what is written is what is read, found and refused; real files, faiss and all."""

import hashlib
import json
import random
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BuildDamaged, BuildMismatch, BuildMissing, IndexUnavailable
from rag.search import builds
from rag.search.hybrid import Build, known_vectors, open_build
from rag.search.passages import LINES, OFFSETS, PassageWriter
from rag.text.citing import led_to
from rag.types import Link, Passage, Section
from tests.support import whole_build

MODEL = "a-model"
DIMENSIONS = 16


def passage(number: int, text: str = "") -> Passage:
    return Passage(
        text=text or f"Passage number {number} tells of pumps. Größe 10 °C, 日本語 🌊\nand a second line.",
        title=f"Page {number // 3}", headings=("Outer", f"Inner {number}"), url=f"https://x.example/{number // 3}/",
        anchor=f"inner-{number}" if number % 2 else "", source=f"page{number // 3}.md", language="en",
    )  # fmt: skip


def unit_vectors(count: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    vectors = np.random.default_rng(7).normal(size=(count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def publish(
    root: Path, passages: Sequence[Passage], vectors: np.ndarray, model: str = MODEL, weight: float = 0.6
) -> str:
    with builds.writing(root) as staging:
        written = whole_build.write(staging, passages, vectors)
        embedding = {"model": model, "dimensions": vectors.shape[1], "dense_weight": weight}
        return builds.publish(root, staging, {**written, "documents": 1, "embedding": embedding})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish(tmp_path, [passage(number) for number in range(12)], unit_vectors(12))
    return tmp_path


def test_a_passage_keeps_what_it_knows_of_its_sections(tmp_path: Path) -> None:
    sections = (
        Section(0, 10, ("Outer",), "outer", ((0, 4), (5, 9))),
        Section(10, 70, ("Outer", "Größe"), "größe"),
    )
    made = replace(passage(1), sections=sections, links=(Link(3, 9, "https://x.example/a"),))
    publish(tmp_path, [made], unit_vectors(1))
    assert open_build(tmp_path).passage(0) == made


def test_a_build_of_the_first_format_is_read_and_links_as_it_did(tmp_path: Path) -> None:
    publish(tmp_path, [passage(1)], unit_vectors(1))
    folder = builds.folder_of(tmp_path, builds.live_id(tmp_path))
    fields = asdict(passage(1))
    del fields["sections"], fields["links"]
    with PassageWriter(folder) as writer:
        writer.add(fields)  # type: ignore[arg-type]
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text()) | {"format": 1}
    for name in (LINES, OFFSETS):
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file.write_text(json.dumps(manifest))
    found = open_build(tmp_path, model=MODEL).passage(0)
    assert found == passage(1)
    assert led_to(found, "a second line", question="pumps").citation_url == "https://x.example/0/#inner-1"


def test_passages_and_vectors_come_back_as_they_were_written(root: Path) -> None:
    build = open_build(root, model=MODEL)
    assert (build.count, build.dimensions, build.model, build.dense_weight) == (12, DIMENSIONS, MODEL, 0.6)
    assert list(build.passages()) == [passage(number) for number in range(12)]
    for row, vector in enumerate(unit_vectors(12)):
        assert np.array_equal(build.vector(row), vector)
        assert build.vector(row).dtype == np.float32


def test_the_nearest_passage_is_found_by_its_vector(root: Path) -> None:
    build = open_build(root)
    for row in (0, 5, 11):
        hits = build.search("zzz", vector=build.vector(row), k=3)
        assert (hits[0].row, hits[0].passage) == (row, passage(row))
        assert hits[0].similarity == pytest.approx(1.0, abs=1e-5)
        assert hits[0].score == 1.0
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_similarities_are_cosines_of_every_passage(root: Path) -> None:
    question = unit_vectors(13)[12]
    expected = unit_vectors(12) @ question
    assert np.allclose(open_build(root).similarities(question), expected, atol=1e-6)


def test_words_find_a_passage_where_there_is_no_vector(tmp_path: Path) -> None:
    texts = ["The impeller is blocked by sand.", "The heater needs 24 volts.", "Invoices are due in 14 days."]
    publish(tmp_path, [passage(number, text) for number, text in enumerate(texts)], unit_vectors(3))
    build = open_build(tmp_path)
    hits = build.search("When are invoices due?", vector=None, k=5)
    assert hits[0].passage.text == texts[2]
    assert hits[0].similarity == 0.0
    assert build.search("xylophone quartz", vector=None, k=5) == []


def test_the_weight_in_the_manifest_decides_between_words_and_vectors(tmp_path: Path) -> None:
    texts = ["impeller impeller impeller", *(f"filler text number {number}" for number in range(20))]
    vectors = unit_vectors(21)
    for weight, expected in ((0.0, 0), (1.0, 5)):
        root = tmp_path / str(weight)
        publish(root, [passage(number, text) for number, text in enumerate(texts)], vectors, weight=weight)
        assert open_build(root).search("impeller", vector=vectors[5], k=1)[0].row == expected


def test_k_bounds_what_is_returned(root: Path) -> None:
    build = open_build(root)
    assert len(build.search("pumps", vector=build.vector(0), k=4)) == 4
    assert len(build.search("pumps", vector=build.vector(0), k=50)) == 12


@pytest.mark.parametrize("shape", [(DIMENSIONS + 1,), (DIMENSIONS - 1,), (1, DIMENSIONS), ()])
def test_a_vector_of_another_dimension_is_a_mismatch_with_a_message(root: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(BuildMismatch, match=f"for a build of {DIMENSIONS}"):
        open_build(root).search("pumps", vector=np.ones(shape, dtype=np.float32), k=5)


def test_another_model_is_a_mismatch_that_names_both(root: Path) -> None:
    with pytest.raises(BuildMismatch, match=r"'a-model'.*'another-model'.*indexer build"):
        open_build(root, model="another-model")


def test_no_build_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BuildMissing):
        open_build(tmp_path)


def test_threads_share_an_open_build(root: Path) -> None:
    build = open_build(root)
    failures: list[str] = []

    def search() -> None:
        for row in range(12):
            hits = build.search("pumps", vector=build.vector(row), k=1)
            if hits[0].row != row:
                failures.append(f"{hits[0].row} for {row}")

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_build_stays_usable_after_its_files_are_gone(root: Path) -> None:
    build = open_build(root)
    shutil.rmtree(root)
    assert build.search("pumps", vector=build.vector(3), k=1)[0].passage == passage(3)


def test_known_vectors_are_those_of_the_same_model_and_text(root: Path) -> None:
    known = known_vectors(root, model=MODEL)
    assert known.keys() == {passage(number).content_hash for number in range(12)}
    assert np.array_equal(known[passage(4).content_hash], unit_vectors(12)[4])
    assert known_vectors(root, model="another-model") == {}
    assert known_vectors(root / "nowhere", model=MODEL) == {}


def test_nothing_is_taken_over_from_a_damaged_build(root: Path) -> None:
    file = open_build(root).folder / "vectors.faiss"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    assert known_vectors(root, model=MODEL) == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_in_any_file_is_refused_or_changes_no_answer(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    healthy = open_build(root)
    expected = [hit.row for hit in healthy.search("pumps", vector=healthy.vector(2), k=12)]
    refused = 0
    for file in sorted(healthy.folder.iterdir()):
        original = file.read_bytes()
        for _ in range(20 if file.name == "manifest.json" else 4):
            content = bytearray(original)
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
            try:
                opened = open_build(root, model=MODEL)
            except IndexUnavailable:
                refused += 1
            else:
                assert file.name == "manifest.json", f"a bit of {file.name} was not noticed"
                found = opened.search("pumps", vector=healthy.vector(2), k=12)
                assert {hit.row for hit in found} == set(expected)
        file.write_bytes(original)
    assert refused > 20


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused_whichever_it_is(root: Path, fraction: float) -> None:
    folder = open_build(root).folder
    for file in sorted(folder.iterdir()):
        original = file.read_bytes()
        file.write_bytes(original[: int(len(original) * fraction)])
        with pytest.raises(BuildDamaged):
            open_build(root)
        file.write_bytes(original)
    assert open_build(root).count == 12


def changed(root: Path, path: Sequence[str], value: Any) -> None:
    """Writes a value into the live build's manifest."""
    file = builds.folder_of(root, builds.live_id(root)) / "manifest.json"
    manifest = json.loads(file.read_bytes())
    inner = manifest
    for name in path[:-1]:
        inner = inner[name]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["id"], None), (["embedding"], None), (["embedding", "model"], None), (["embedding", "dimensions"], 17),
        (["embedding", "dimensions"], "many"), (["embedding", "dense_weight"], None), (["passages"], 11),
        (["passages"], None), (["lexical"], None), (["lexical"], "none"), (["lexical", "passages"], 3),
        (["files"], None), (["embedding"], [1]), (["files", "vectors.faiss"], None),
        (["lexical", "analysis_version"], 999),
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_fit_its_files_is_refused(root: Path, path: list[str], value: Any) -> None:
    changed(root, path, value)
    if path == ["files", "vectors.faiss"]:
        (builds.folder_of(root, builds.live_id(root)) / "vectors.faiss").unlink()
    with pytest.raises((BuildDamaged, BuildMismatch)):
        open_build(root, model=MODEL)


def test_a_build_of_one_passage_works(tmp_path: Path) -> None:
    publish(tmp_path, [passage(0)], unit_vectors(1))
    build = open_build(tmp_path)
    assert isinstance(build, Build)
    assert [hit.row for hit in build.search("pumps", vector=build.vector(0), k=5)] == [0]


def test_a_reader_always_opens_a_sound_build_while_others_publish_and_roll_back(root: Path) -> None:
    failures: list[str] = []
    opened = 0
    stop = threading.Event()

    def read_on() -> None:
        nonlocal opened
        while not stop.is_set():
            try:
                found = open_build(root, model=MODEL)
                assert found.passage(0).text
                opened += 1
            except BaseException as error:  # whatever it is, the test has to hear of it
                failures.append(repr(error))

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(25):
        publish(root, [passage(number, f"edition {number}")], unit_vectors(1))
        if number % 3 == 0:
            builds.rollback(root)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert opened > 0

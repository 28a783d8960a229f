"""The build that is served, and how the next one takes its place; the look at `CURRENT` is sped up, nothing else."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexUnavailable
from rag.search import builds, live
from rag.search.backends.files import FileBackend
from rag.search.live import LiveIndex
from rag.types import Passage
from tests.support import whole_build

MODEL = "a-model"


def publish(root: Path, text: str, model: str = MODEL) -> str:
    passage = Passage(text=text, title="T", headings=(), url="u", anchor="", source="s.md", language="en")
    with builds.writing(root) as staging:
        written = whole_build.write(staging, [passage], np.ones((1, 4), dtype=np.float32) / 2)
        embedding = {"model": model, "dimensions": 4, "dense_weight": 0.6}
        return builds.publish(root, staging, {**written, "embedding": embedding})


def said(index: LiveIndex) -> str:
    return index.build.passage(0).text


@pytest.fixture(autouse=True)
def _looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.01)


@contextlib.asynccontextmanager
async def watched(root: Path) -> AsyncIterator[LiveIndex]:
    index = LiveIndex(backend=FileBackend(root), model=MODEL)
    task = asyncio.create_task(index.watch())
    try:
        yield index
        assert not task.done(), "the watch ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_two_looks_are_close_enough_for_five_seconds() -> None:
    # The fixture changes the value, so that it is read from the source.
    source = Path(live.__file__).read_text()
    assert "LOOK_EVERY_S = 1.0" in source


def spoil(root: Path, build_id: str) -> None:
    (builds.folder_of(root, build_id) / "passages.npy").unlink()


def test_a_worker_without_any_sound_build_starts_and_says_that_it_cannot_serve(tmp_path: Path) -> None:
    def is_unavailable(model: str, reason: str) -> bool:
        index = LiveIndex(backend=FileBackend(tmp_path), model=model)
        with pytest.raises(IndexUnavailable):
            index.build.search("words", vector=None, k=1)
        return index.health()["status"] == "unavailable" and index.health()["refused"]["reason"] == reason

    assert is_unavailable(MODEL, "missing")
    build_id = publish(tmp_path, "one")
    assert is_unavailable("another-model", "another model or format")
    spoil(tmp_path, build_id)
    assert is_unavailable(MODEL, "damaged")


def test_a_worker_that_starts_beside_a_damaged_build_serves_the_newest_sound_one(tmp_path: Path) -> None:
    first, second, third = (publish(tmp_path, text) for text in ("one", "two", "three"))
    spoil(tmp_path, third)
    index = LiveIndex(backend=FileBackend(tmp_path), model=MODEL)
    assert (said(index), index.health()["refused"]) == ("two", {"build": third, "reason": "damaged"})
    spoil(tmp_path, second)
    assert LiveIndex(backend=FileBackend(tmp_path), model=MODEL).build.id == first


async def wait_for_one(tmp_path: Path) -> None:
    async with watched(tmp_path) as index:
        assert index.health()["status"] == "unavailable"
        publish(tmp_path, "one")
        await until(lambda: index.health()["status"] == "ok")
        assert said(index) == "one"


def test_a_worker_without_a_build_takes_up_the_first_one(tmp_path: Path) -> None:
    asyncio.run(wait_for_one(tmp_path))


def test_health_says_what_is_served(tmp_path: Path) -> None:
    build_id = publish(tmp_path, "one")
    assert LiveIndex(backend=FileBackend(tmp_path), model=MODEL).health() == {
        "status": "ok", "build": build_id, "passages": 1, "model": MODEL, "dimensions": 4,
    }  # fmt: skip


async def follow(tmp_path: Path) -> None:
    first = publish(tmp_path, "one")
    async with watched(tmp_path) as index:
        old = index.build
        second = publish(tmp_path, "two")
        await until(lambda: index.build.id == second)
        assert said(index) == "two"
        # A search that began before the change keeps its own build.
        assert old.passage(0).text == "one"
        builds.rollback(tmp_path)
        await until(lambda: index.build.id == first)
        assert said(index) == "one"


def test_a_new_build_and_a_rollback_are_taken_up(tmp_path: Path) -> None:
    asyncio.run(follow(tmp_path))


async def survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path, "one")
    async with watched(tmp_path) as index:
        with monkeypatch.context() as patch:
            patch.setattr(FileBackend, "open", lambda *_, **__: 1 / 0)
            publish(tmp_path, "two")
            await until(lambda: "live build not looked at" in caplog.messages)
            assert said(index) == "one"
        await until(lambda: said(index) == "two")


def test_whatever_goes_wrong_with_one_look_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(survive(tmp_path, monkeypatch, caplog))


async def refuse(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], reason: str) -> None:
    first = publish(tmp_path, "one")
    async with watched(tmp_path) as index:
        spoil(tmp_path)
        await until(lambda: "refused" in index.health())
        assert index.health()["refused"]["reason"] == reason
        assert index.health()["status"] == "ok"
        assert said(index) == "one"
        await asyncio.sleep(0.1)  # ten more looks, to see that the log is not filled with them
        lines = [line for line in caplog.records if line.message == "build refused, the live one keeps serving"]
        assert len(lines) == 1
        assert vars(lines[0])["reason"]
        builds.make_live(tmp_path, first)
        await until(lambda: "refused" not in index.health())


def damage(root: Path) -> None:
    with builds.writing(root) as staging:
        build_id = staging.name.removeprefix(".staging-")
    folder = builds.folder_of(root, build_id)
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b"{")
    builds.make_live(root, build_id)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, "damaged"),
        (lambda root: (root / "CURRENT").write_text("nonsense"), "damaged"),
        (lambda root: (root / "CURRENT").unlink(), "missing"),
        (lambda root: publish(root, "two", model="another-model"), "another model or format"),
        (lambda root: builds.make_live(root, "20990101T000000.000000Z"), "damaged"),
    ],
    ids=["damaged", "a name that is none", "no name", "another model", "a build that is not there"],
)
def test_what_is_not_sound_is_refused_with_one_line_and_the_old_build_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], reason: str
) -> None:
    with caplog.at_level(logging.ERROR):
        asyncio.run(refuse(tmp_path, caplog, spoil, reason))


async def mend(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    async with watched(tmp_path) as index:
        second = publish(tmp_path, "two")
        await until(lambda: index.build.id == second)
        builds.rollback(tmp_path)
        await until(lambda: said(index) == "one")
        file = builds.folder_of(tmp_path, second) / "passages.jsonl"
        whole = file.read_bytes()
        file.write_bytes(whole[:5])
        builds.make_live(tmp_path, second)
        await until(lambda: "refused" in index.health())
        file.write_bytes(whole)
        await until(lambda: index.build.id == second)
        assert "refused" not in index.health()


def test_a_build_that_becomes_whole_after_it_was_named_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_AT_REFUSED_EVERY_S", 0.05)
    asyncio.run(mend(tmp_path))

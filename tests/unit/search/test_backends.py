"""What every backend of the index does: in files, in PostgreSQL with pgvector, and through PgBouncer."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import indexer.build
from indexer.documents import Block, Document, Section
from rag.errors import BuildMismatch, BuildMissing, IndexUnavailable
from rag.llm.embedded import LocalEmbedder
from rag.search import live
from rag.search.backends.files import FileBackend
from rag.search.backends.protocol import Backend
from rag.search.builds import ID, KEPT
from rag.search.live import LiveIndex
from rag.search.passages import PassageWriter
from rag.search.postgres.backend import PostgresBackend
from rag.types import Passage
from tests.support.postgres_server import PgBouncer

MODEL = "a-model"
Open = Callable[[], Backend]


@pytest.fixture(params=["files", "postgres", "pgbouncer"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same index again, as another process would."""
    with contextlib.ExitStack() as stack:
        if request.param == "files":
            yield lambda: FileBackend(tmp_path / "vector_db")
            return
        url = request.getfixturevalue("vector_db_url")
        if request.param == "pgbouncer":
            bouncer: PgBouncer = request.getfixturevalue("pgvector_bouncer")
            url = bouncer.url(url)
        yield lambda: stack.enter_context(contextlib.closing(PostgresBackend(url)))


@pytest.fixture
def backend(another: Open) -> Backend:
    return another()


def passage(number: int, text: str = "") -> Passage:
    return Passage(
        text=text or f"Passage number {number} tells of pumps. Größe 10 °C, 日本語 🌊\nand a second line.",
        title=f"Page {number // 3}", headings=("Outer", f"Inner {number}"), url=f"https://x.example/{number // 3}/",
        anchor=f"inner-{number}" if number % 2 else "", source=f"page{number // 3}.md", language="en",
    )  # fmt: skip


def unit_vectors(count: int, dimensions: int = 16) -> np.ndarray:
    vectors = np.random.default_rng(7).normal(size=(count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def publish(
    backend: Backend, passages: Sequence[Passage], vectors: np.ndarray | None = None, *, model: str = MODEL
) -> str:
    vectors = unit_vectors(len(passages)) if vectors is None else vectors
    with backend.writing() as draft:
        with PassageWriter(draft.folder) as writer:
            for one in passages:
                writer.add(one)
        room = draft.room(*vectors.shape)
        room[:] = vectors
        embedding = {"model": model, "dimensions": vectors.shape[1], "dense_weight": 0.6}
        return draft.publish({**draft.complete(room), "documents": 1, "embedding": embedding})


def test_passages_and_vectors_come_back_as_they_were_written(backend: Backend) -> None:
    odd = passage(12, "a NUL \x00, a quote ', a backslash \\, a tab \t and \u2028 stay what they are")
    written, vectors = [*map(passage, range(12)), odd], unit_vectors(13)
    build_id = publish(backend, written)
    build = backend.open(model=MODEL)
    assert ID.fullmatch(build_id)
    assert (build.id, build.count, build.dimensions, build.model) == (build_id, 13, 16, MODEL)
    assert list(build.passages()) == written
    assert build.passages_of([12, 0, 5]) == [written[12], written[0], written[5]]
    for row in range(13):
        assert np.allclose(build.vector(row), vectors[row], atol=5e-4)


def test_what_is_found_is_what_files_find(backend: Backend, tmp_path: Path) -> None:
    words = ["pump", "impeller", "warranty", "heater", "valve", "café", "gasket", "manual"]
    draw = np.random.default_rng(3)
    written = [passage(n, " ".join(draw.choice(words, 6)) + f" number{n}") for n in range(300)]
    vectors = unit_vectors(303, 64)
    files = FileBackend(tmp_path / "beside")
    for place in (files, backend):
        publish(place, written, vectors[:300])
    expected, build = files.open(), backend.open()
    asked_for = ("impeller warranty", "number17 café", "zzz", "impelller waranty")
    assert backend.open().by_words("impelller").any(), "a typing error is not forgiven"
    for question, vector in zip(asked_for, vectors[[300, 301, 302, 302]], strict=True):
        assert np.allclose(build.by_words(question), expected.by_words(question))
        assert np.allclose(build.similarities(vector), expected.similarities(vector), atol=5e-4)
        for asked in (vector, None):
            hits, wanted = (one.search(question, vector=asked, k=8) for one in (build, expected))
            assert [hit.row for hit in hits] == [hit.row for hit in wanted]
            assert np.allclose([hit.score for hit in hits], [hit.score for hit in wanted], atol=2e-3)
            assert build.has_something_on(question, hits, by_words_alone=asked is None) == expected.has_something_on(
                question, wanted, by_words_alone=asked is None
            )


def test_threads_share_an_open_build(backend: Backend) -> None:
    publish(backend, [passage(number) for number in range(60)], vectors := unit_vectors(60))
    build = backend.open()
    wrong: list[int] = []

    def search(first: int) -> None:
        rows = range(first, 60, 8)
        wrong.extend(row for row in rows if build.search("zzz", vector=vectors[row], k=1)[0].row != row)

    threads = [threading.Thread(target=search, args=[first]) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_is_live_before_something_is_published(backend: Backend) -> None:
    with pytest.raises(BuildMissing, match="run: python -m indexer build SOURCE"):
        backend.live_id()
    with pytest.raises(BuildMissing):
        backend.open()
    with pytest.raises(BuildMissing):
        backend.rollback()
    assert (list(backend.kept_ids()), dict(backend.known_vectors(model=MODEL))) == ([], {})


def test_another_model_and_another_format_are_refused(backend: Backend) -> None:
    publish(backend, [passage(0)])
    with pytest.raises(BuildMismatch, match="another-model"):
        backend.open(model="another-model")
    with pytest.raises(BuildMissing, match="no build 20200101T000000"):
        backend.open(build_id="20200101T000000.000000Z")


def test_the_next_build_takes_the_place_of_the_last_and_a_rollback_gives_it_back(another: Open) -> None:
    backend = another()
    ids = [publish(backend, [passage(0, f"version {number}")]) for number in range(KEPT + 2)]
    assert (backend.live_id(), list(backend.kept_ids())) == (ids[-1], ids[:1:-1])
    assert another().rollback() == ids[-2]
    assert (backend.live_id(), backend.open().passage(0).text) == (ids[-2], f"version {KEPT}")
    assert backend.rollback() == ids[-3]
    with pytest.raises(BuildMissing, match="no build before the live one"):
        backend.rollback()
    assert backend.rollback(ids[-1]) == ids[-1]
    # Of those that were rolled back from the oldest makes room first, and never the one that is live.
    backend.rollback(ids[-3])
    newest = publish(backend, [passage(0, "newest")])
    assert list(backend.kept_ids()) == [newest, ids[-1], ids[-3]]
    for wrong in (ids[0], "x'; DROP SCHEMA rag_index CASCADE; --", "../../etc"):
        with pytest.raises(BuildMissing):
            backend.rollback(wrong)
    assert backend.live_id() == newest


def test_one_build_is_made_at_a_time_and_one_that_is_left_leaves_nothing(another: Open) -> None:
    first, second = another(), another()
    live = publish(first, [passage(0)])
    with first.writing() as draft:
        with PassageWriter(draft.folder) as writer:
            writer.add(passage(1))
        draft.complete(unit_vectors(1))
        with pytest.raises(BlockingIOError), second.writing():
            pass
    assert (second.live_id(), list(second.kept_ids())) == (live, [live])
    assert second.verify(anew=True)["id"] == live
    publish(second, [passage(2)])


def test_a_build_is_looked_at_before_it_is_published(backend: Backend) -> None:
    with backend.writing() as draft:
        with PassageWriter(draft.folder) as writer:
            writer.add(passage(1))
        manifest = {
            **draft.complete(vector := unit_vectors(1)), "documents": 1,
            "embedding": {"model": MODEL, "dimensions": 16, "dense_weight": 0.6},
        }  # fmt: skip
        assert draft.opened(manifest).search("pumps", vector=vector[0], k=1)[0].passage == passage(1)
        with pytest.raises(BuildMissing):
            backend.live_id()
        assert backend.live_id() if draft.publish(manifest) else False


def indexed(backend: Backend, texts: Sequence[str], embedder: LocalEmbedder | None = None) -> indexer.build.Summary:
    documents = [
        Document(
            f"{n}.md", f"https://x.example/{n}/", f"Page {n}", "en", (Section((), "", (Block("paragraph", text),)),)
        )
        for n, text in enumerate(texts)
    ]
    return asyncio.run(
        indexer.build.build(
            documents, backend=backend, embedder=embedder or LocalEmbedder(), clean=False, progress=lambda *_: None
        )
    )


def test_only_what_changed_is_embedded_and_the_same_again_is_not_published(backend: Backend) -> None:
    texts = [f"Text number {number} about pumps and their impellers." for number in range(40)]
    first = indexed(backend, texts)
    again = indexed(backend, texts)
    assert (first.embedded, again.embedded, again.reused, again.unchanged) == (40, 0, 40, True)
    assert list(backend.kept_ids()) == [first.build_id]
    changed = indexed(backend, [*texts[:20], "Another text altogether.", *texts[20:]])
    # Its title moves every page behind it.
    assert (changed.unchanged, changed.reused, backend.live_id()) == (False, 20, changed.build_id)


async def follow(another: Open) -> None:
    backend = another()
    first = publish(backend, [passage(0, "one")])
    index = LiveIndex(backend=another(), model=MODEL)
    watching = asyncio.create_task(index.watch())
    try:
        old = index.build
        second = await asyncio.to_thread(publish, backend, [passage(0, "two")])
        async with asyncio.timeout(5):
            while index.build.id != second:
                await asyncio.sleep(0.01)
        # A search that began before the change keeps its own build.
        assert (old.passage(0).text, index.build.passage(0).text) == ("one", "two")
        await asyncio.to_thread(backend.rollback)
        async with asyncio.timeout(5):
            while index.build.id != first:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(publish, backend, [passage(0, "three")], model="another-model")
        async with asyncio.timeout(5):
            while index.health().get("refused", {}).get("reason") != "another model or format":
                await asyncio.sleep(0.01)
        assert (index.health()["status"], index.build.id) == ("ok", first)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_servers_take_up_what_is_live_and_refuse_what_they_must_not_serve(
    another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.05)
    asyncio.run(follow(another))


def test_whatever_is_wrong_with_a_backend_is_an_unavailable_index(another: Open) -> None:
    backend = another()
    publish(backend, [passage(0)])
    with pytest.raises(IndexUnavailable):
        backend.manifest("20200101T000000.000000Z")

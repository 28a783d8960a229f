"""Documents to a published build, with an embedder that counts: what is embedded, reused, retried and refused."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import indexer.build
from indexer.build import BATCH_CHARS, BATCH_TEXTS, CONCURRENT_BATCHES, Summary
from indexer.documents import Block, Document, Section, Skipped
from rag.deadline import Deadline
from rag.errors import BuildMissing, SourceUnreadable, UpstreamError, UpstreamRejected
from rag.search import builds
from rag.search.backends.files import FileBackend
from rag.search.hybrid import open_build


class CountingEmbedder:
    """Vectors from a text's hash; `failures` are raised first, one a call."""

    dense_weight = 0.6

    def __init__(self, name: str = "a-model", dimensions: int = 8, failures: Sequence[Exception] = ()) -> None:
        self.name = name
        self.dimensions = dimensions
        self.failures = list(failures)
        self.batches: list[list[str]] = []
        self.at_once = self.most_at_once = 0

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(texts))
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=self.dimensions).astype(np.float32)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


def page(name: str, *paragraphs: str) -> Document:
    blocks = tuple(Block("paragraph", text) for text in paragraphs)
    return Document(
        source=f"{name}.md", url=f"https://x.example/{name}/", title=name, language="en",
        sections=(Section(headings=(), anchor="", blocks=blocks),),
    )  # fmt: skip


def build(
    root: Path, documents: Sequence[Document | Skipped], embedder: CountingEmbedder, *, clean: bool = False
) -> Summary:
    told: list[tuple[str, int, int]] = []
    summary = asyncio.run(
        indexer.build.build(
            documents,
            backend=FileBackend(root),
            embedder=embedder,
            clean=clean,
            progress=lambda *step: told.append(step),
        )
    )
    if summary.embedded:
        assert told[-1] == ("embedding", summary.embedded, summary.embedded)
    return summary


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.build, "PATIENCE_S", (0.0, 0.0))


def test_every_passage_has_the_vector_of_its_own_text(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    pages = [page(f"p{number}", f"Text number {number}. " * 60) for number in range(150)]
    summary = build(tmp_path, pages, embedder)
    live = open_build(tmp_path, model="a-model")
    assert (summary.documents, summary.passages, summary.embedded, summary.reused) == (150, live.count, live.count, 0)
    for row, passage in enumerate(live.passages()):
        assert np.array_equal(live.vector(row), embedder.vector(passage.indexed_text))


def test_texts_go_out_in_bounded_batches_several_at_once(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    summary = build(tmp_path, [page(f"p{number}", f"Text {number}. " * 110) for number in range(700)], embedder)
    assert all(len(batch) <= BATCH_TEXTS for batch in embedder.batches)
    assert all(sum(map(len, batch)) <= BATCH_CHARS for batch in embedder.batches)
    assert len(embedder.batches) == summary.calls >= 700 // BATCH_TEXTS
    assert embedder.most_at_once == CONCURRENT_BATCHES


def test_an_unchanged_site_is_neither_embedded_nor_published_again(tmp_path: Path) -> None:
    pages = [page("a", "First text."), page("b", "Second text.")]
    first = build(tmp_path, pages, CountingEmbedder())
    embedder = CountingEmbedder()
    second = build(tmp_path, pages, embedder)
    assert embedder.batches == []
    assert (second.calls, second.embedded, second.reused, second.unchanged) == (0, 0, 2, True)
    assert second.build_id == first.build_id
    assert builds.kept_ids(tmp_path) == [first.build_id]


def test_only_what_changed_is_embedded(tmp_path: Path) -> None:
    build(tmp_path, [page("a", "First text."), page("b", "Second text.")], CountingEmbedder())
    embedder = CountingEmbedder()
    summary = build(tmp_path, [page("a", "First text."), page("b", "Second text, changed.")], embedder)
    assert len(embedder.texts) == summary.embedded == summary.reused == 1
    assert "changed" in embedder.texts[0]
    assert not summary.unchanged


def test_equal_passages_are_embedded_once(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    twins = [
        Document(source=f"{name}.md", url=f"u{name}", title="Same", language="en", sections=page("x", "Same.").sections)
        for name in "abc"
    ]
    summary = build(tmp_path, twins, embedder)
    assert (len(embedder.texts), summary.passages) == (1, 3)
    assert open_build(tmp_path).count == 3


def test_another_model_or_dimension_reuses_nothing(tmp_path: Path) -> None:
    pages = [page("a", "First text."), page("b", "Second text.")]
    build(tmp_path, pages, CountingEmbedder())
    other = CountingEmbedder(name="another-model")
    build(tmp_path, pages, other)
    assert len(other.texts) == 2
    wider = CountingEmbedder(name="another-model", dimensions=12)
    summary = build(tmp_path, [*pages, page("c", "Third text.")], wider)
    assert open_build(tmp_path).dimensions == 12
    assert (summary.embedded, summary.reused) == (3, 0)


def test_vectors_of_mixed_dimensions_are_refused_by_name(tmp_path: Path) -> None:
    class Mixed(CountingEmbedder):
        async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
            vectors = await super().embed(texts, deadline=deadline)
            self.dimensions = 12
            return vectors

    first = build(tmp_path, [page("a", "Text.")], CountingEmbedder())
    pages = [page(f"p{number}", f"Text number {number}.") for number in range(3 * BATCH_TEXTS)]
    with pytest.raises(UpstreamRejected, match=r"\(64, 12\), after others of 8 dimensions"):
        build(tmp_path, pages, Mixed())
    assert builds.kept_ids(tmp_path) == [first.build_id]


def test_clean_reuses_nothing(tmp_path: Path) -> None:
    pages = [page("a", "First text.")]
    build(tmp_path, pages, CountingEmbedder())
    embedder = CountingEmbedder()
    build(tmp_path, pages, embedder, clean=True)
    assert len(embedder.texts) == 1


def test_what_was_skipped_is_in_the_summary(tmp_path: Path) -> None:
    documents = [page("a", "Text."), Skipped("broken.pdf", "broken PDF"), page("headings-only")]
    summary = build(tmp_path, documents, CountingEmbedder())
    assert summary.skipped == [Skipped("broken.pdf", "broken PDF"), Skipped("headings-only.md", "no text")]
    assert summary.documents == 1


def test_nothing_readable_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"nothing readable[^:]*\n  broken\.pdf: password"):
        build(tmp_path, [Skipped("broken.pdf", "password")], CountingEmbedder())
    with pytest.raises(BuildMissing):
        builds.live_id(tmp_path)


def test_a_passing_outage_is_sat_out(tmp_path: Path) -> None:
    embedder = CountingEmbedder(failures=[UpstreamError("down"), UpstreamError("still down")])
    summary = build(tmp_path, [page("a", "Text.")], embedder)
    assert (summary.calls, len(embedder.texts)) == (3, 1)


@pytest.mark.parametrize(
    ("failures", "calls"), [([UpstreamError("down")] * 9, 3), ([UpstreamRejected("HTTP 401")] * 9, 1)]
)
def test_a_lasting_failure_leaves_the_live_build_alone(tmp_path: Path, failures: list[Exception], calls: int) -> None:
    first = build(tmp_path, [page("a", "Text.")], CountingEmbedder())
    embedder = CountingEmbedder(failures=failures)
    with pytest.raises(type(failures[0])):
        build(tmp_path, [page("a", "Text."), page("b", "More.")], embedder)
    assert len(failures) - len(embedder.failures) == calls
    assert builds.live_id(tmp_path) == first.build_id
    assert [path.name for path in (tmp_path / "builds").iterdir()] == [first.build_id]


def test_lone_surrogates_of_a_document_are_replaced(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    broken = Document(
        source="caf\udce9.md", url="https://x.example/\udce9/", title="T \ud800", language="en",
        sections=(Section(("H \udfff",), "a\ud800", (Block("paragraph", "Text \ud83d here."),)),),
    )  # fmt: skip
    build(tmp_path, [broken], embedder)
    (passage,) = open_build(tmp_path).passages()
    assert (passage.source, passage.title, passage.text) == ("caf?.md", "T ?", "Text ? here.")
    assert embedder.texts == [passage.indexed_text]


def test_reading_happens_under_the_lock_so_that_two_builds_never_mix(tmp_path: Path) -> None:
    with builds.writing(tmp_path), pytest.raises(BlockingIOError):
        build(tmp_path, [page("a", "Text.")], CountingEmbedder())

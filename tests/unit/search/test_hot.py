"""Documents beside the build: searched with it as one index, removed, merged, and never half there."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import indexer.build
import indexer.passages.storable
from benchmarks import retrieval_lab as lab
from indexer import adding
from indexer.adding import Incoming
from indexer.documents import Block, Document, PageLink, Section
from indexer.metrics import ndcg_at_10
from rag.deadline import Deadline
from rag.errors import BuildDamaged, BuildMismatch
from rag.search import bm25, builds
from rag.search.backends.files import FileBackend
from rag.search.hot import generation
from rag.search.hot.following import Segments
from rag.search.hot.layered import LayeredBuild
from rag.search.hybrid import Build, open_build
from rag.text.citing import led_to
from tests.indexer.test_build import CountingEmbedder, page
from tests.support.served import open_served

QUESTION = "how warm is the water"


def build(root: Path, documents: Sequence[Document], embedder: CountingEmbedder) -> str:
    summary = asyncio.run(
        indexer.build.build(
            documents, backend=FileBackend(root), embedder=embedder, clean=False, progress=lambda *_: None
        )
    )
    return summary.build_id


def incoming(document: Document, identity: str = "") -> Incoming:
    sha256 = hashlib.sha256(repr(document).encode()).hexdigest()
    return Incoming.of(document, id=identity or document.title, name=f"{document.title}.md", sha256=sha256)


def add(root: Path, embedder: CountingEmbedder, *documents: Document) -> None:
    asyncio.run(adding.add(list(map(incoming, documents)), root=root, embedder=embedder, progress=lambda *_: None))


def merge(root: Path, chosen: Sequence[str], embedder: CountingEmbedder | None) -> None:
    asyncio.run(adding.merge(root, chosen, embedder=embedder, progress=lambda *_: None))


def titles(served: Build, question: str, embedder: CountingEmbedder | None = None, k: int = 5) -> list[str]:
    vector = embedder.vector(question) if embedder else None
    return [hit.passage.title for hit in served.search(question, vector=vector, k=k)]


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def root(tmp_path: Path, embedder: CountingEmbedder) -> Path:
    site = [page(f"page{number}", f"The page number {number} speaks of pumps and of salt.") for number in range(30)]
    build(tmp_path, site, embedder)
    return tmp_path


def test_without_added_documents_the_build_itself_is_served(root: Path) -> None:
    served = open_served(root)
    assert type(served) is Build
    assert served.id == builds.live_id(root)
    assert not (root / generation.NAME).exists()


def test_an_added_document_is_found_and_a_removed_one_is_not(root: Path, embedder: CountingEmbedder) -> None:
    before = open_served(root)
    add(root, embedder, page("water", "The water is 26.5 degrees warm."), page("light", "The light burns ten hours."))
    served = open_served(root, model=embedder.name)
    assert isinstance(served, LayeredBuild)
    assert (served.count, len(served.added)) == (32, 2)
    assert titles(served, QUESTION)[0] == "water"
    hit = served.search(QUESTION, vector=None, k=1)[0]
    assert served.passage(hit.row) == hit.passage
    assert served.has_something_on(QUESTION, [hit], by_words_alone=True)
    assert titles(served, "The water is 26.5 degrees warm.", embedder)[0] == "water"

    assert [one.name for one in generation.take_out(root, ["water.md"])] == ["water.md"]
    after = open_served(root)
    assert after.count == 31
    assert "water" not in titles(after, QUESTION)
    assert titles(after, "light burns hours")[0] == "light"
    assert len({before.id, served.id, after.id}) == 3, "answers of one state are not kept for another"
    # Whoever still holds the old state goes on.
    assert titles(served, QUESTION)[0] == "water"


def test_the_same_id_again_takes_the_place_of_what_was_there(root: Path, embedder: CountingEmbedder) -> None:
    add(root, embedder, page("price", "It costs 5 euros."))
    add(root, embedder, page("price", "It costs 7 euros."))
    served = open_served(root)
    texts = [passage.text for passage in served.passages() if passage.title == "price"]
    assert texts == ["It costs 7 euros."]


def test_rows_are_numbered_through_and_removed_ones_left_out(root: Path, embedder: CountingEmbedder) -> None:
    for number in range(6):
        add(root, embedder, *(page(f"new{number}{part}", f"Number {number} part {part} is new.") for part in "abc"))
    generation.take_out(root, ["new0b.md", "new3a.md", "new3c.md", "new5a.md", "new5b.md", "new5c.md"])
    served = open_served(root)
    passages = list(served.passages())
    assert served.count == len(passages) == 30 + 12
    assert {passage.title for passage in passages[30:]} == {
        "new0a", "new0c", "new1a", "new1b", "new1c", "new2a", "new2b", "new2c", "new3b", "new4a", "new4b", "new4c",
    }  # fmt: skip
    expected = np.stack([embedder.vector(passage.indexed_text) for passage in passages])
    question = embedder.vector("anything")
    assert np.allclose(served.similarities(question), expected @ question, atol=1e-6)
    for row in (0, 29, 30, 36, 41):
        assert np.allclose(served.vector(row), expected[row], atol=1e-6)
    nearest = served._vectors.nearest(question, also=np.array([0, 35], dtype=np.int64))
    assert set(nearest.rows.tolist()) == set(range(42))
    order = np.argsort(nearest.rows)
    assert np.allclose(nearest.similarities[order], expected @ question, atol=1e-6)
    # The parts' own figures are of all their rows, those of removed documents too.
    assert nearest.mean == pytest.approx(float((expected @ question).mean()), abs=0.08)


def test_scores_by_words_are_those_of_one_index(tmp_path: Path, embedder: CountingEmbedder) -> None:
    """Measured by one mean length, as the parts are, all scores are equal but for rounding."""
    words = ["alpha", "beta", "gamma", "delta", "common", "Straße", "réponse_modèle", "黑豹队"]
    generator = np.random.default_rng(3)

    def text(number: int) -> str:
        return " ".join([*generator.choice(words, 8).tolist(), f"only{number}", "everywhere"])

    documents = [page(f"p{number}", text(number)) for number in range(120)]
    build(tmp_path, documents[:60], embedder)
    for first in range(60, 120, 10):
        add(tmp_path, embedder, *documents[first : first + 10])
    layered = open_served(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    entries = [(one.title, "", one.text, one.language) for one in layered.passages()]
    length = float(open_build(tmp_path).manifest["lexical"]["mean_length"])
    alone = bm25.Lexical.open(whole, bm25.write(whole, entries, beside_length=length))
    for question in ("alpha gamma", "only7 only77 everywhere", "strasse", "response modele", "黑豹", "nothing of it"):
        asked = [forms for forms in alone.words(question) if not forms[0].startswith("~")]
        assert asked == [forms for forms in layered.lexical.words(question) if not forms[0].startswith("~")]
        assert np.allclose(layered.lexical.scores(asked), alone.scores(asked), rtol=1e-4, atol=1e-5)
        rows = list(range(0, 120, 7))
        assert layered.lexical.coverage(asked, rows) == pytest.approx(alone.coverage(asked, rows))


def test_a_gram_that_is_everywhere_says_nothing_beside_the_build_either(
    tmp_path: Path, embedder: CountingEmbedder
) -> None:
    build(tmp_path, [page(f"p{number}", f"banana {number} number") for number in range(60)], embedder)
    add(tmp_path, embedder, page("new", "banana kiwis"))
    served = open_served(tmp_path)
    assert not served.lexical.scores([("~anan",)]).any()
    assert served.lexical.scores([("~kiwi",)]).argmax() == 60
    # A build of an early version does not tell which grams it left out: those that it lacks say nothing.
    assert isinstance(served.lexical, bm25.Lexical)
    served.lexical.left_out = None
    assert not served.lexical.scores([("~kiwi",)]).any()


def test_a_segment_that_is_damaged_is_left_out_and_all_else_is_served(
    root: Path, embedder: CountingEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    add(root, embedder, page("water", "The water is 26.5 degrees warm."))
    add(root, embedder, page("light", "The light burns ten hours."))
    sound = open_served(root)
    first = generation.read(root).segments[0]
    file = generation.folder_of(root, first) / "passages.jsonl"
    file.write_bytes(file.read_bytes().replace(b"26.5", b"26.6"))
    segments = Segments(root)
    served = segments.over(open_build(root))
    assert titles(served, "light burns hours")[0] == "light"
    assert served.count == 31
    assert served.id != sound.id
    assert segments.health(served) == {"uploads": 1, "segments": 1, "uploads_refused": [first]}
    assert "passages.jsonl does not have the checksum" in str(caplog.records[-1].__dict__["reason"])
    logged = len(caplog.records)
    segments.over(open_build(root))
    assert len(caplog.records) == logged, "told once"


def test_a_damaged_generation_leaves_the_one_before_in_force(root: Path, embedder: CountingEmbedder) -> None:
    add(root, embedder, page("water", "The water is 26.5 degrees warm."))
    segments = Segments(root)
    base = open_build(root)
    assert segments.over(base).count == 31
    for content in (b"", b"{}", b'{"format": 1, "documents": [{"id": "../x"}]}', b"\xff"):
        (root / generation.NAME).write_bytes(content)
        with pytest.raises(BuildDamaged):
            generation.read(root)
        assert segments.changed()
        assert segments.over(base).count == 31
    (root / generation.NAME).write_bytes(b'{"format": 99, "documents": []}')
    with pytest.raises(BuildMismatch, match="format 99"):
        generation.read(root)


def test_a_segment_named_outside_the_index_is_refused(root: Path, embedder: CountingEmbedder) -> None:
    add(root, embedder, page("water", "The water is 26.5 degrees warm."))
    file = root / generation.NAME
    segment = generation.read(root).segments[0]
    file.write_text(file.read_text().replace(segment, "../builds"))
    with pytest.raises(BuildDamaged):
        generation.read(root)


def test_merging_embeds_nothing_and_changes_no_ranking(root: Path, embedder: CountingEmbedder) -> None:
    for number in range(5):
        add(root, embedder, page(f"new{number}", f"Number {number} is new and wet.", f"Also {number} times dry."))
    generation.take_out(root, ["new2.md"])
    served, calls = open_served(root), len(embedder.batches)
    merge(root, generation.read(root).segments, None)
    merged = open_served(root)
    assert len(embedder.batches) == calls
    assert len(generation.read(root).segments) == 1
    assert len(list((root / generation.SEGMENTS).iterdir())) == 1, "the old segments are gone"
    assert b"Number 2 is new" not in b"".join(
        file.read_bytes() for file in (root / generation.SEGMENTS).rglob("*") if file.is_file()
    )
    for question in ("new and wet", "4 times dry", "salt"):
        vector = embedder.vector(question)
        assert [
            (hit.passage.text, pytest.approx(hit.score, abs=1e-4))
            for hit in merged.search(question, vector=vector, k=5)
        ] == [(hit.passage.text, hit.score) for hit in served.search(question, vector=vector, k=5)]


def test_what_is_removed_while_segments_are_merged_stays_removed(root: Path, embedder: CountingEmbedder) -> None:
    add(root, embedder, page("water", "The water is warm."))
    add(root, embedder, page("light", "The light burns."))
    with generation.adding(root) as staging:
        merging = adding.Merge(root, staging)
        chosen = generation.read(root).segments
        asyncio.run(merging.prepare(open_build(root), chosen, embedder=None, progress=lambda *_: None))
        generation.take_out(root, ["water"])
        merging.finish()
    assert [one.name for one in generation.read(root).documents] == ["light.md"]
    assert titles(open_served(root), "light burns")[0] == "light"


def test_segments_are_due_for_merging_at_eight_or_a_tenth(tmp_path: Path, embedder: CountingEmbedder) -> None:
    build(tmp_path, [page(f"p{number}", f"text {number}") for number in range(200)], embedder)
    base = open_build(tmp_path)
    for number in range(adding.MOST_SEGMENTS):
        assert adding.due(tmp_path, base) == []
        add(tmp_path, embedder, page(f"new{number}", f"words {number}"))
    assert len(adding.due(tmp_path, base)) == adding.MOST_SEGMENTS - 1
    merge(tmp_path, adding.due(tmp_path, base), None)
    assert adding.due(tmp_path, base) == []
    add(tmp_path, embedder, *(page(f"more{number}", f"many {number}") for number in range(100)))
    assert adding.due(tmp_path, base) == []  # one large segment beside some small ones is as good as merged
    add(tmp_path, embedder, *(page(f"most{number}", f"most {number}") for number in range(40)))
    assert adding.due(tmp_path, base) == sorted(
        generation.read(tmp_path).segments, key=lambda name: open_build_count(tmp_path, name)
    )


def open_build_count(root: Path, segment: str) -> int:
    count: int = builds.read_manifest(generation.folder_of(root, segment))["passages"]
    return count


def test_a_build_of_another_model_takes_the_added_documents_along(root: Path, embedder: CountingEmbedder) -> None:
    add(root, embedder, page("water", "The water is 26.5 degrees warm."))
    other = CountingEmbedder(name="another", dimensions=12)
    site = [page(f"page{number}", f"The page number {number} speaks of salt.") for number in range(30)]
    with generation.adding(root) as staging:
        merging = adding.Merge(root, staging)

        async def accept(made: Build) -> None:
            assert adding.due(root, made) == []
            chosen = adding.due(root, made, everything=True)
            await merging.prepare(made, chosen, embedder=other, progress=lambda *_: None)

        asyncio.run(indexer.build.build(
            site, backend=FileBackend(root), embedder=other, clean=False, progress=lambda *_: None, accept=accept,
        ))  # fmt: skip
        # Between the two steps nothing of another model is searched.
        assert open_served(root).count == 30
        merging.finish()
    served = open_served(root, model="another")
    assert served.count == 31
    assert titles(served, "The water is 26.5 degrees warm.", other)[0] == "water"
    with pytest.raises(BuildMismatch):
        add(root, embedder, page("more", "of the first model"))


def test_a_new_build_and_a_rollback_keep_what_was_added(root: Path, embedder: CountingEmbedder) -> None:
    add(root, embedder, page("water", "The water is 26.5 degrees warm."))
    first = builds.live_id(root)
    build(root, [page("other", "Nothing else is here.")], embedder)
    assert titles(open_served(root), QUESTION)[0] == "water"
    builds.rollback(root, first)
    assert titles(open_served(root), QUESTION)[0] == "water"
    assert open_served(root).count == 31


@pytest.mark.parametrize("exact_up_to", [10**9, 10], ids=["all exact", "approximate"])
def test_a_fifth_in_ten_segments_ranks_as_well_as_one_build(
    corpora: Path, tmp_path: Path, exact_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = lab.load("squad2_dev", corpora, questions=400)
    by_text = {f"{title}\n\n{text}": key for key, (title, text) in zip(corpus.ids, corpus.passages, strict=True)}

    class Stored(CountingEmbedder):
        async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> np.ndarray:
            return np.stack([corpus.vectors[by_text[text]] for text in texts])

    def document(key: str, title: str, text: str) -> Document:
        section = Section(headings=(), anchor="", blocks=(Block("paragraph", text),))
        return Document(source=key, url=key, title=title, language="en", sections=(section,))

    def ndcg(served: Build) -> float:
        ranked = [
            [hit.passage.source for hit in served.search(question, vector=corpus.vectors[key], k=10)]
            for key, question in corpus.questions.items()
        ]
        return float(np.mean([
            ndcg_at_10(list(dict.fromkeys(found)), corpus.relevant[key])
            for found, key in zip(ranked, corpus.questions, strict=True)
        ]))  # fmt: skip

    # One passage a document: what is compared is ranking, and not how texts are cut.
    monkeypatch.setattr(indexer.passages.storable, "cut", lambda one: whole(one))
    documents = [document(key, *passage) for key, passage in zip(corpus.ids, corpus.passages, strict=True)]
    embedder = Stored()

    def made(root: Path, those: Sequence[Document]) -> None:
        asyncio.run(indexer.build.build(
            those, backend=FileBackend(root, exact_up_to=exact_up_to), embedder=embedder, clean=True,
            progress=lambda *_: None,
        ))  # fmt: skip

    made(tmp_path / "one", documents)
    uploaded = documents[::5]
    made(tmp_path / "hot", [one for one in documents if one not in uploaded])
    for part in range(10):
        one_segment = [
            Incoming.of(one, id=f"doc{number}", name=one.source, sha256="")
            for number, one in list(enumerate(uploaded))[part::10]
        ]
        asyncio.run(adding.add(one_segment, root=tmp_path / "hot", embedder=embedder, progress=lambda *_: None))
    hot = open_served(tmp_path / "hot")
    assert len(generation.read(tmp_path / "hot").segments) == 10
    assert hot.count == len(documents)
    one, layered = ndcg(open_build(tmp_path / "one")), ndcg(hot)
    print(f"one build {one:.4f}, a fifth in ten segments {layered:.4f}")
    assert abs(layered - one) <= 0.005


def whole(document: Document) -> list[object]:
    from rag.types import Passage

    block = document.sections[0].blocks[0]
    return [
        Passage(text=block.text, title=document.title, headings=(), url=document.url, anchor="",
                source=document.source, language=document.language)
    ]  # fmt: skip


def test_nothing_leads_to_single_words_of_a_document_that_no_page_shows() -> None:
    text = "The blue kettle boils a litre of water. See prices and others for more."
    links = (
        PageLink("water. See ", "prices", " and others", "/demo/pages/prices/"),
        PageLink("prices and ", "others", " for more.", "https://other.example/"),
    )
    section = Section((), "", (Block("paragraph", text),))
    document = Document("kettle.md", "kettle.md", "Kettle", "en", (section,), links)
    (passage,) = Incoming.of(document, id="kettle", name="kettle.md", sha256="").passages
    assert led_to(passage, "The blue kettle boils water.").citation_url == "kettle.md"
    assert [link.url for link in passage.links] == ["https://other.example/"]

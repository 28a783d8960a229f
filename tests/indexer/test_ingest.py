"""What the process that works on uploads does with its queue: batches, deaths, outages, and what is live already."""

import asyncio
from pathlib import Path

import pytest

import indexer.ingest
from indexer import ingest
from indexer.build import Summary
from rag.access.budgets import Budgets, Prices
from rag.documents.library import MOST_TRIES, Library
from rag.documents.receiving import receiving
from rag.documents.records import Record
from rag.errors import BudgetSpent, UpstreamTimeout
from rag.search.hot import generation
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.spending import SqliteSpending
from rag.types import Budget
from tests.indexer.test_build import CountingEmbedder, build, page
from tests.support.served import open_served


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.build, "PATIENCE_S", ())
    monkeypatch.setattr(indexer.ingest, "PAUSE_S", 0.0)
    monkeypatch.setattr(indexer.ingest, "GATHERS_S", 0.0)
    monkeypatch.setattr(indexer.ingest, "LINGERS_S", 0.0)
    monkeypatch.setattr(indexer.ingest, "LOOKS_EVERY_S", 0.01)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "documents")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build(tmp_path / "vector_db", [page("site", "The site itself.")], CountingEmbedder())
    return tmp_path / "vector_db"


def put(library: Library, **texts: str) -> list[Record]:
    with receiving(library.folder, limit_bytes=10_000) as places:
        received = []
        for name, text in texts.items():
            one = places.begin(f"{name}.md")
            one.write(text.encode())
            received.append(one.whole())
        return library.put(received)


def work(library: Library, root: Path, embedder: CountingEmbedder | None = None) -> None:
    asyncio.run(ingest.work(library, root=root, embedder=embedder or CountingEmbedder()))


def budget(folder: Path, amount: int) -> Budgets:
    spending = SqliteSpending(path=folder / "spending.sqlite3", clocks=Clocks.system())
    return Budgets(
        spending=spending, limits={"site": Budget(amount, "")}, prices=Prices(), at_cap="quote", metrics=None
    )  # fmt: skip


def states(library: Library) -> dict[str, str]:
    return {record.name: record.status for record in library.records()}


def test_many_documents_become_one_segment_and_a_bad_one_fails_alone(library: Library, root: Path) -> None:
    put(library, **{f"d{number}": f"Text number {number}." for number in range(20)}, empty="  ")
    work(library, root)
    assert states(library) == {**{f"d{number}.md": "live" for number in range(20)}, "empty.md": "failed"}
    assert len(generation.read(root).segments) == 1
    assert open_served(root).count == 21


def test_an_outage_delays_and_loses_nothing(library: Library, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(library, a="Text.", b="More.")
    embedder = CountingEmbedder(failures=[UpstreamTimeout(), UpstreamTimeout()])
    work(library, root, embedder)
    assert states(library) == {"a.md": "live", "b.md": "live"}
    assert [record.getMessage() for record in caplog.records].count("uploads wait") == 2
    assert {record.tries for record in library.records()} == {0}


def test_what_processes_died_over_is_tried_alone_and_then_no_more(library: Library, root: Path) -> None:
    sound, suspect = put(library, sound="Text.", suspect="Other text.")
    for _ in range(ingest.ALONE_AFTER_TRIES):
        library.mark(suspect, "reading")
    waiting = library.waiting()
    assert [one.name for one in ingest._batch(waiting)] == ["suspect.md"]
    for _ in range(MOST_TRIES):
        library.mark(suspect, "reading")
    work(library, root)
    assert states(library) == {"sound.md": "live", "suspect.md": "failed"}
    failed = library.get(suspect.id)
    assert failed is not None
    assert failed.reason == "its processing broke off again and again"
    assert library.get(sound.id) is not None


def test_what_is_in_force_already_is_only_told(library: Library, root: Path) -> None:
    [record] = put(library, a="Text.")
    work(library, root)
    # As after a death between the two: the index has it, and nobody knows.
    library.mark(record, "embedding")
    (library.folder / "queue" / record.id).touch()
    embedder = CountingEmbedder()
    work(library, root, embedder)
    assert (states(library), embedder.batches) == ({"a.md": "live"}, [])


def test_a_removal_that_was_begun_is_finished_and_its_text_leaves_the_disk(library: Library, root: Path) -> None:
    gone, _ = put(library, gone="Secret words.", kept="Other words.")
    work(library, root)
    library.discard(gone.id)
    work(library, root)
    assert states(library) == {"kept.md": "live"}
    files = [path.read_bytes() for path in (root / generation.SEGMENTS).rglob("*") if path.is_file()]
    assert not any(b"Secret words" in content for content in files)
    assert any(b"Other words" in content for content in files)
    assert not library.has_work(purge_after_s=0)


def test_a_document_that_is_replaced_while_it_is_embedded_waits_for_its_next_version(
    library: Library, root: Path
) -> None:
    put(library, a="First text.")

    class Slow(CountingEmbedder):
        async def embed(self, *given: object, **more: object) -> object:  # type: ignore[override]
            if not self.batches:
                put(library, a="Second text.")
            return await super().embed(*given, **more)  # type: ignore[arg-type]

    work(library, root, Slow())
    texts = [passage.text for passage in open_served(root).passages()]
    assert sorted(texts) == ["Second text.", "The site itself."]
    assert states(library) == {"a.md": "live"}


def test_an_outage_queues_nothing_that_had_failed_by_itself(library: Library, root: Path) -> None:
    put(library, a="Text.", empty="  ")
    work(library, root, CountingEmbedder(failures=[UpstreamTimeout()]))
    assert states(library) == {"a.md": "live", "empty.md": "failed"}


def test_a_document_waits_for_a_budget_that_suffices_and_fails_where_none_ever_does(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ingest, "SPENT_PAUSE_S", 0.05)
    put(library, small="Text.", large="word " * 300, huge="word " * 1_000)
    embedder = CountingEmbedder()

    async def both() -> None:
        budgets = budget(tmp_path, 2_000)
        paid = await budgets.reserve("embeddings", {}, 1_000)
        assert paid is not None
        working = asyncio.ensure_future(ingest.work(library, root=root, embedder=embedder, budgets=budgets))
        async with asyncio.timeout(20):
            while states(library)["small.md"] != "live" or library.records()[1].reason != ingest.SPENT:
                await asyncio.sleep(0.01)
            paid.refused(read_the_prompt=False)
            paid.settle()
            await working
        await budgets.close()

    asyncio.run(both())
    assert states(library) == {"small.md": "live", "large.md": "live", "huge.md": "failed"}
    failed = library.find("huge.md")
    assert failed is not None
    assert (failed.failure, failed.reason) == (
        "budget", "it holds more text than BUDGET_SITE allows a day; on the machine: python -m indexer add",
    )  # fmt: skip
    assert [len(batch) for batch in embedder.batches] == [1, 1], "nothing is paid for twice, or for nothing"


def test_a_call_that_the_budget_does_not_allow_is_not_waited_for_until_midnight() -> None:
    class Spent(CountingEmbedder):
        async def embed(self, *given: object, **more: object) -> object:  # type: ignore[override]
            raise BudgetSpent("", retry_after_s=80_000, refuse=False)

    with pytest.raises(BudgetSpent):
        asyncio.run(asyncio.wait_for(indexer.build._embed_batch(["text"], Spent(), Summary()), 5))


def test_documents_that_come_one_after_the_other_go_live_together(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "GATHERS_S", 0.5)
    monkeypatch.setattr(ingest, "LINGERS_S", 1.0)
    put(library, first="Text.")
    seen = set[str]()

    async def bring() -> None:
        working = asyncio.ensure_future(ingest.work(library, root=root, embedder=CountingEmbedder()))
        async with asyncio.timeout(20):
            for number in range(10):
                await asyncio.sleep(0.02)
                put(library, **{f"d{number}": f"Text {number}."})
                seen.add(generation.read(root).id)
            await working

    asyncio.run(bring())
    assert set(states(library).values()) == {"live"}
    assert len(generation.read(root).segments) <= 3

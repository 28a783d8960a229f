"""Builds in a real PostgreSQL with pgvector: what becomes of them when the database, or somebody in it, misbehaves."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from rag.errors import BuildDamaged, BuildMismatch, BuildMissing, BuildUnreachable, ConfigError
from rag.ops import preflight
from rag.search import live, vector_files
from rag.search.backends import opening
from rag.search.backends.files import FileBackend
from rag.search.live import LiveIndex
from rag.search.postgres import building, catalogue, link, searching
from rag.search.postgres.backend import PostgresBackend
from rag.settings import Settings
from tests.support.postgres_server import PgvectorServer
from tests.unit.search.test_backends import MODEL, indexed, passage, publish, unit_vectors


@pytest.fixture
def backend(vector_db_url: str) -> Iterator[PostgresBackend]:
    with closing(PostgresBackend(vector_db_url)) as opened:
        yield opened


@pytest.fixture
def own_server() -> Iterator[PgvectorServer]:
    """For a test that takes it away."""
    with PgvectorServer() as running:
        yield running


def run(backend: PostgresBackend, server: PgvectorServer, statement: str) -> list[tuple[object, ...]]:
    """By hand, in the backend's database; {build} is the live one's schema."""
    database = backend.where.rpartition("/")[2]
    with server.connect(database) as connection:
        schema = catalogue.name_of_schema(backend.live_id())
        found = connection.execute(statement.replace("{build}", schema).encode())
        return found.fetchall() if found.description else []


def test_the_manifest_says_how_the_index_was_made_and_what_it_finds(backend: PostgresBackend) -> None:
    publish(backend, [passage(number) for number in range(400)], unit_vectors(400, 48))
    about = backend.manifest(backend.live_id())
    assert about["index"] == {
        "type": "hnsw", "metric": "cosine", "m": 16, "ef_construction": 128, "ef_search": 100,
        "recall_at_10": about["index"]["recall_at_10"],
    }  # fmt: skip
    assert about["index"]["recall_at_10"] >= vector_files.RECALL_AT_10
    assert (about["format"], about["files"]["passages"]["rows"]) == (1, 400)


def test_the_index_is_used_however_small_the_planner_takes_the_table_for(
    backend: PostgresBackend, pgvector_server: PgvectorServer
) -> None:
    publish(backend, [passage(number) for number in range(400)], vectors := unit_vectors(400, 512))
    build = backend.open()
    for row in range(8):  # from the sixth on PostgreSQL may plan once for all
        build.search("zzz", vector=vectors[row], k=3)

    def used() -> bool:
        statement = (
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = '{build}' AND indexrelname = 'vectors'"
        )
        return int(str(run(backend, pgvector_server, statement)[0][0])) >= 8

    until = time.monotonic() + 10
    while not used():
        assert time.monotonic() < until, "the passages were compared one by one"
        backend.live_id()  # statistics arrive with a later statement of the same connection
        time.sleep(0.05)


def test_an_index_that_finds_too_little_looks_farther_as_far_as_pgvector_can(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalls = iter([0.5, 0.7, 1.0])
    monkeypatch.setattr(building.np, "mean", lambda _: next(recalls))
    publish(backend, [passage(0)])
    assert backend.manifest(backend.live_id())["index"]["ef_search"] == 225
    monkeypatch.undo()
    monkeypatch.setattr(vector_files, "RECALL_AT_10", 1.1)
    publish(backend, [passage(number) for number in range(30)], vectors := unit_vectors(30))
    index = backend.manifest(backend.live_id())["index"]
    assert (index["ef_search"], index["recall_at_10"]) == (building.MOST_EF_SEARCH, 1.0)
    assert [backend.open().search("zzz", vector=one, k=1)[0].row for one in vectors] == list(range(30))


def test_many_equal_passages_do_not_count_as_missed(backend: PostgresBackend) -> None:
    publish(backend, [passage(number) for number in range(300)], np.repeat(unit_vectors(3, 32), 100, axis=0))
    assert backend.manifest(backend.live_id())["index"]["recall_at_10"] >= vector_files.RECALL_AT_10


def test_vectors_that_pgvector_cannot_index_are_refused_with_the_remedy(backend: PostgresBackend) -> None:
    with pytest.raises(BuildMismatch, match="fewer, or keep the index in files"):
        publish(backend, [passage(0)], unit_vectors(1, 4_001))
    assert backend.kept_ids() == []


def test_a_build_that_lost_a_row_is_refused_and_one_that_was_changed_does_not_verify(
    backend: PostgresBackend, pgvector_server: PgvectorServer
) -> None:
    first = publish(backend, [passage(number) for number in range(5)])
    publish(backend, [passage(number) for number in range(6)])
    assert backend.verify(anew=True)["passages"] == 6
    change = "UPDATE {build}.postings SET postings = set_byte(postings, 0, 255 - get_byte(postings, 0))"
    run(backend, pgvector_server, change)
    with pytest.raises(BuildDamaged, match="postings does not have the checksum"):
        backend.verify(anew=True)
    run(backend, pgvector_server, "DELETE FROM {build}.passages WHERE row = 3")
    with pytest.raises(BuildDamaged, match="passages has 5 rows instead of 6"):
        backend.open()
    # As with files: a worker that starts then serves the newest that is sound.
    assert LiveIndex(backend=backend, model=MODEL).build.id == first
    assert backend.rollback() == first
    run(backend, pgvector_server, "DROP TABLE {build}.postings")
    with pytest.raises(BuildDamaged, match="a table is gone"):
        backend.open()


def test_a_newer_format_is_refused(backend: PostgresBackend, pgvector_server: PgvectorServer) -> None:
    publish(backend, [passage(0)])
    run(
        backend, pgvector_server,
        "UPDATE rag_index.builds SET manifest = jsonb_set(manifest::jsonb, '{format}', '2')::json",
    )  # fmt: skip
    with pytest.raises(BuildMismatch, match="format 2, this version reads 1"):
        backend.open()


def test_a_build_that_somebody_serves_is_kept_and_dropped_when_nobody_does(
    backend: PostgresBackend, vector_db_url: str, pgvector_server: PgvectorServer
) -> None:
    first = publish(backend, [passage(0, "first")])
    with closing(PostgresBackend(vector_db_url)) as server:
        served = server.open()
        server.serving(first)
        ids = [publish(backend, [passage(0, f"{number}")]) for number in range(4)]
        assert backend.kept_ids() == [*ids[:0:-1], first]
        assert served.search("first", vector=None, k=1)[0].passage.text == "first"
        run(backend, pgvector_server, "UPDATE rag_index.servers SET seen_at = seen_at - interval '6 minutes'")
        newest = publish(backend, [passage(0, "newest")])
        assert backend.kept_ids() == [newest, ids[3], ids[2]]
        with pytest.raises(BuildMissing):
            served.search("first", vector=None, k=1)
    left = run(backend, pgvector_server, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'rag_build_%'")
    assert left == [(3,)]


def test_what_an_interrupted_build_left_is_dropped_by_the_next(
    backend: PostgresBackend, pgvector_server: PgvectorServer
) -> None:
    publish(backend, [passage(0)])
    run(backend, pgvector_server, "CREATE SCHEMA rag_build_20200101t000000_000000z")
    run(backend, pgvector_server, "CREATE SCHEMA rag_builder")  # somebody else's
    publish(backend, [passage(1)])
    found = run(backend, pgvector_server, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'rag_build%' ORDER BY 1")
    assert len(found) == 3
    assert ("rag_builder",) in found


def test_words_that_are_asked_for_again_are_not_fetched_again_and_do_not_grow_for_ever(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(backend, [passage(number) for number in range(40)])
    build = backend.open()
    scores = build.by_words("pumps and impellers")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    with monkeypatch.context() as patch:
        patch.setattr(backend._link, "rows", refused)
        assert np.array_equal(build.by_words("pumps and impellers"), scores)
    monkeypatch.setattr(searching, "REMEMBERED_BYTES", 3_000)
    for number in range(50):
        build.by_words(f"word{number} unknown{number}")
    assert isinstance(build.lexical, searching.PostgresLexical)
    assert len(build.lexical._known) <= 15
    assert np.array_equal(build.by_words("pumps and impellers"), scores)


async def go_through_bad_hours(server: PgvectorServer, backend: PostgresBackend) -> None:
    index = LiveIndex(backend=backend, model=MODEL)
    watching = asyncio.create_task(index.watch())

    async def until(status: str) -> None:
        async with asyncio.timeout(8):
            while index.health()["status"] != status:
                await asyncio.sleep(0.01)

    def find() -> str:
        return index.build.search("pumps", vector=unit_vectors(1)[0], k=1)[0].passage.text

    def answered() -> str | None:
        with suppress(BuildUnreachable):
            return find()
        return None

    try:
        assert find() == passage(0).text
        await asyncio.to_thread(server.stop)
        await until("unavailable")
        with pytest.raises(BuildUnreachable):
            find()
        began_s = time.monotonic()
        for _ in range(50):
            with pytest.raises(BuildUnreachable):
                find()
        assert time.monotonic() - began_s < 1.0, "who asks a dead database again and again waits each time"
        await asyncio.to_thread(server.start)
        await until("ok")
        assert find() == passage(0).text
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        # Nobody looked meanwhile: its connections are dead, and the first visitor does not hear of it.
        backend._link._refused_until_s = 0.0
        assert find() == passage(0).text
        server.freeze()
        began_s = time.monotonic()
        with pytest.raises(BuildUnreachable):
            await asyncio.to_thread(find)
        assert time.monotonic() - began_s < link.ANSWER_TIMEOUT_S + 2
        server.thaw()
        async with asyncio.timeout(8):
            while (found := await asyncio.to_thread(answered)) is None:
                await asyncio.sleep(0.01)
        assert found == passage(0).text
        await until("ok")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_a_database_that_restarts_or_stalls_costs_some_searches_and_heals_by_itself(
    own_server: PgvectorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(link, "REFUSED_S", 0.3)
    with closing(PostgresBackend(own_server.empty_database())) as backend:
        publish(backend, [passage(0)])
        asyncio.run(go_through_bad_hours(own_server, backend))


def test_a_worker_that_starts_while_the_database_is_away_waits_for_it(
    own_server: PgvectorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.05)
    with closing(PostgresBackend(own_server.empty_database())) as backend:
        build_id = publish(backend, [passage(0)])
        own_server.stop()
        backend.close()

        async def story() -> None:
            index = LiveIndex(backend=backend, model=MODEL)
            assert index.health() == {"status": "unavailable", "refused": {"build": "", "reason": "unreachable"}}
            watching = asyncio.create_task(index.watch())
            await asyncio.to_thread(own_server.start)
            async with asyncio.timeout(8):
                while index.build.id != build_id:
                    await asyncio.sleep(0.01)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            assert index.health()["status"] == "ok"

        asyncio.run(story())


def test_a_read_only_database_is_searched_all_the_same(
    backend: PostgresBackend, pgvector_server: PgvectorServer, caplog: pytest.LogCaptureFixture
) -> None:
    build_id = publish(backend, [passage(0)])
    name = backend.where.rpartition("/")[2]
    run(backend, pgvector_server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    backend.close()
    with closing(PostgresBackend(pgvector_server.url(name))) as replica:
        replica.serving(build_id)
        assert replica.open().search("pumps", vector=unit_vectors(1)[0], k=1)[0].row == 0
        assert caplog.messages == []
        with pytest.raises(BuildUnreachable, match="read-only"):
            publish(replica, [passage(1)])


def test_what_goes_wrong_says_where_and_never_the_password() -> None:
    with closing(PostgresBackend("postgresql://rag:secret-word@127.0.0.1:1/rag")) as backend:
        with pytest.raises(BuildUnreachable, match="check VECTOR_DB_URL") as caught:
            backend.live_id()
        assert "secret-word" not in str(caught.value) + backend.where


def test_a_database_without_pgvector_says_what_is_missing(pgvector_server: PgvectorServer) -> None:
    url = pgvector_server.empty_database()
    with pgvector_server.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
        connection.execute(f"GRANT CREATE ON DATABASE {url.rpartition('/')[2]} TO guest".encode())
    guest = url.replace("rag@", "guest@")
    with closing(PostgresBackend(guest)) as backend, pytest.raises(BuildUnreachable, match="extension"):
        publish(backend, [passage(0)])


def test_the_settings_say_where_the_index_is_and_an_output_wins(vector_db_url: str, tmp_path: Path) -> None:
    settings = Settings(vector_db_url=vector_db_url)
    with closing(opening.backend(settings)) as chosen:
        assert isinstance(chosen, PostgresBackend)
        assert chosen.output() == ([], {"VECTOR_DB_URL": vector_db_url})
    assert isinstance(opening.backend(settings, output=tmp_path), FileBackend)
    assert isinstance(opening.backend(Settings()), FileBackend)


def test_a_site_that_is_built_again_takes_its_vectors_from_the_database(backend: PostgresBackend) -> None:
    texts = [f"Text {number} of a longer site, about pumps." for number in range(searching.AT_A_TIME + 40)]
    indexed(backend, texts)
    again = indexed(backend, texts)
    assert (again.embedded, again.unchanged) == (0, True)


def test_without_its_packages_every_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rag.search.postgres.backend")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    settings = Settings(vector_db_url="postgresql://127.0.0.1/rag")
    with pytest.raises(ConfigError, match=r"psycopg is not installed; run: .*requirements-postgres\.lock"):
        opening.backend(settings)
    [finding] = [
        one for one in preflight.check_all(settings, [], running=True, probe=lambda _: 8) if one.subject == "index"
    ]
    assert (finding.state, "requirements-postgres.lock" in finding.remedy) == ("fault", True)

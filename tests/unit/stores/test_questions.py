"""The log of questions: the same promises of all stores; a file of the first version opens."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import psycopg
import pytest

from rag.chat.owner.gaps import clusters, most_asked
from rag.stores.postgres.link import Database
from rag.stores.postgres.questions import PostgresQuestions
from rag.stores.protocols import DAY_S, LoggedQuestion, QuestionFilter, QuestionStore
from rag.stores.sqlite import questions as module
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.questions import SqliteQuestions

ALL = QuestionFilter(days=30)
NOW_S = 20_000 * DAY_S


def vector(*values: float) -> bytes:
    return np.array(values, dtype=np.float16).tobytes()


def asked(words: str, made: bytes | None = None, about: bytes | None = None) -> LoggedQuestion:
    return LoggedQuestion(question=words, words=words, outcome="answered", language="en", vector=made, about=about)


class Kept:
    """One kind of store, for stories on days of its own."""

    def __init__(self, path: Path, url: str) -> None:
        """In a file where there is no `url`."""
        self.path = path
        self._url = url
        self._now_s = NOW_S

    def pass_days(self, days: int) -> None:
        self._now_s += days * DAY_S
        if self._url:
            with psycopg.connect(self._url) as connection:
                connection.execute("UPDATE rag.questions SET at = at - make_interval(days => %s)", (days,))
                for table in ("figures", "cited"):
                    connection.execute(f"UPDATE rag.{table} SET day = day - %s".encode(), (days,))

    def run(self, story: Callable[[QuestionStore], Awaitable[None]]) -> None:
        async def told() -> None:
            if self._url:
                database = Database(url=self._url, pool_size=2)
                await story(PostgresQuestions(database=database, days=30))
                await database.close()
                return
            clocks = Clocks(wall_s=lambda: self._now_s, monotonic_s=lambda: self._now_s, boot_id="one")
            store = SqliteQuestions(path=self.path, clocks=clocks, days=30)
            await story(store)
            await store.close()

        asyncio.run(told())

    def vectors(self) -> list[bytes]:
        if self._url:
            with psycopg.connect(self._url) as connection:
                return [row[0] for row in connection.execute("SELECT vector FROM rag.question_vectors").fetchall()]
        with apsw.Connection(str(self.path)) as connection:
            return [vector for (vector,) in connection.execute("SELECT vector FROM vectors").fetchall()]


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    url = request.getfixturevalue("emptied_database_url") if request.param == "postgres" else ""
    return Kept(tmp_path / "questions.sqlite3", url)


async def write(store: QuestionStore, *entries: LoggedQuestion) -> None:
    await store.write(entries, figures={}, cited={}, degraded=False)


def test_a_question_that_is_asked_often_has_one_vector_and_another_models_takes_its_place(kept: Kept) -> None:
    async def story(store: QuestionStore) -> None:
        await write(store, asked("a", vector(1, 0)), asked("a", vector(0, 1)), asked("b"))
        assert kept.vectors() == [vector(1, 0)]
        assert {group.question: group.vector for group in await store.groups(ALL, limit=9)} == {
            "a": vector(1, 0), "b": None
        }  # fmt: skip
        await write(store, asked("a", vector(1, 0, 0)))
        assert kept.vectors() == [vector(1, 0, 0)]

    kept.run(story)


def test_a_vector_goes_with_the_last_question_that_has_it(kept: Kept) -> None:
    async def story(store: QuestionStore) -> None:
        await write(
            store, asked("a", vector(1, 0), b"1"), asked("a", vector(1, 0), b"2"), asked("b", vector(0, 1), b"3")
        )
        await store.forget([b"1", b"3"])
        assert kept.vectors() == [vector(1, 0)]
        await store.forget([b"2", b"unknown"])
        assert kept.vectors() == []
        await write(store, asked("old", vector(1, 0)))

    async def later(store: QuestionStore) -> None:
        await write(store, asked("new", vector(0, 1)))
        assert kept.vectors() == [vector(0, 1)]

    kept.run(story)
    kept.pass_days(31)
    kept.run(later)


def test_questions_are_grouped_by_what_was_asked_for_and_the_disliked_ones_are_gaps(kept: Kept) -> None:
    lost = replace(asked("lost"), outcome="nothing_found", page="/shop/", similarity=0.25, build="one")

    async def before(store: QuestionStore) -> None:
        await write(store, lost, asked("known", about=b"1"))

    async def story(store: QuestionStore) -> None:
        await write(store, replace(lost, question="Lost?", page="/", language="de", build="two"), asked("known"))
        await store.dislike(asked("known", about=b"1"), reason="wrong")
        await store.dislike(asked("new", about=b"2"), reason="")

        async def found(**wanted: Any) -> list[tuple[str, int, int, int]]:
            groups = await store.groups(QuestionFilter(**{"days": 30, **wanted}), limit=9)
            return sorted((one.question, one.count, one.unanswered, one.disliked) for one in groups)

        assert await found() == [("Lost?", 2, 2, 0), ("known", 2, 0, 1), ("new", 1, 0, 1)]
        assert await found(gaps=True) == [("Lost?", 2, 2, 0), ("known", 1, 0, 1), ("new", 1, 0, 1)]
        assert await found(days=1, outcome="nothing_found") == [("Lost?", 1, 1, 0)]
        assert await found(page="/shop/") == await found(days=30, page="/shop/", language="en") == [("Lost?", 1, 1, 0)]
        [shop] = await store.groups(QuestionFilter(days=30, page="/shop/", language="en"), limit=9)
        assert (shop.page, shop.language, shop.similarity, shop.build) == ("/shop/", "en", 0.25, "two")
        [wrong] = [one for one in await store.groups(ALL, limit=9) if one.question == "known"]
        assert (wrong.reason, wrong.outcome) == ("wrong", "answered")
        assert len(await store.groups(ALL, limit=2)) == 2

    kept.run(before)
    kept.pass_days(2)
    kept.run(story)


def test_figures_and_cited_pages_add_up_by_the_day_and_go_after_400(kept: Kept) -> None:
    async def write_some(store: QuestionStore) -> None:
        for _ in range(2):
            await store.write([], figures={"questions": 2, "none": 0}, cited={"https://x.example/a": 1}, degraded=True)
        await store.write([], figures={"questions": 1}, cited={"https://x.example/b": 5}, degraded=False)

    async def read(store: QuestionStore) -> None:
        await write_some(store)
        first, today = await store.days(2)
        assert (dict(first.figures), dict(today.figures)) == ({"questions": 5}, {"questions": 5})
        assert today.degraded_minutes in (1, 2), "two where a minute ended between"
        assert [dict(day.figures) for day in await store.days(1)] == [{"questions": 5}]
        assert list((await store.cited(2)).items()) == [("https://x.example/b", 10), ("https://x.example/a", 4)]
        assert await store.cited(1) == {"https://x.example/b": 5, "https://x.example/a": 2}

    async def much_later(store: QuestionStore) -> None:
        await store.write([], figures={"questions": 1}, cited={}, degraded=False)
        assert [dict(day.figures) for day in await store.days(1000)] == [{"questions": 1}]
        assert await store.cited(1000) == {}

    kept.run(write_some)
    kept.pass_days(1)
    kept.run(read)
    kept.pass_days(400)
    kept.run(much_later)


def test_whatever_visitors_write_is_kept_as_it_was_and_holds_nothing_up(kept: Kept) -> None:
    odd = "NUL \0, " + "\ufdfa" * 500

    async def story(store: QuestionStore) -> None:
        entry = replace(asked(odd, vector(1, 0), b"1"), page="/\0")
        await store.write([entry], figures={}, cited={"/" + odd: 1}, degraded=False)
        await store.dislike(entry, reason=odd)
        [group] = await store.groups(replace(ALL, page="/\0"), limit=9)
        assert (group.question, group.reason, group.page) == (odd, odd, "/\0")
        assert await store.cited(1) == {"/" + odd: 1}

    kept.run(story)


def test_a_file_of_the_first_version_keeps_its_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "questions.sqlite3"
    kept = Kept(path, "")
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", module.MIGRATIONS[:1])

        async def before(store: QuestionStore) -> None:
            await store.days(1)

        kept.run(before)
    with apsw.Connection(str(path)) as connection:
        connection.execute(
            "INSERT INTO questions (day, at, question, words, outcome, language, page, seconds, tokens, build, vector) "
            "VALUES (20000, ?, 'a', 'a', 'nothing_found', 'en', '', 1, 1, '', ?)", (NOW_S, vector(1, 0)),
        )  # fmt: skip

    async def after(store: QuestionStore) -> None:
        [group] = await store.groups(ALL, limit=9)
        assert group.vector == vector(1, 0)

    kept.run(after)


def test_what_means_the_same_is_counted_together_and_what_only_looks_so_is_not(kept: Kept) -> None:
    topics = ("heater power", "probe tray", "pairing code", "yearly invoice")
    other = [asked(topic, vector(*row)) for topic, row in zip(topics, np.eye(6)[2:], strict=True)]

    async def story(store: QuestionStore) -> None:
        await write(store, *[asked("may I bring my dog", vector(1, 0, 0, 0, 0, 0))] * 2)
        await write(store, *[asked("are pets allowed", vector(0.95, 0.31, 0, 0, 0, 0))] * 3, *other)
        rows = (await most_asked(store, ALL, limit=9))[:1]
        assert [(row["question"], row["count"], row["wordings"]) for row in rows] == [
            ("are pets allowed", 5, 2),
        ]
        assert rows[0]["examples"] == ["are pets allowed", "may I bring my dog"]
        # Vectors of another length are another model's: nothing is known of how near they are.
        await write(store, asked("is a cat welcome", vector(1, 0)))
        assert len(clusters(await store.groups(ALL, limit=99))) == 6

    kept.run(story)

"""The log of questions: vectors once for each different question, gone with the last that has it; old files open."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import numpy as np
import pytest

from rag.chat.owner.gaps import clusters, most_asked
from rag.stores.protocols import DAY_S, LoggedQuestion, QuestionFilter
from rag.stores.sqlite import questions as module
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.questions import SqliteQuestions

ALL = QuestionFilter(days=30)
NOW_S = 20_000 * DAY_S


def vector(*values: float) -> bytes:
    return np.array(values, dtype=np.float16).tobytes()


def asked(words: str, made: bytes | None = None, about: bytes | None = None) -> LoggedQuestion:
    return LoggedQuestion(question=words, words=words, outcome="answered", language="en", vector=made, about=about)


def run(path: Path, story: Callable[[SqliteQuestions], Awaitable[None]], *, now_s: float = NOW_S) -> None:
    async def told() -> None:
        clocks = Clocks(wall_s=lambda: now_s, monotonic_s=lambda: now_s, boot_id="one")
        store = SqliteQuestions(path=path, clocks=clocks, days=30)
        await story(store)
        await store.close()

    asyncio.run(told())


async def write(store: SqliteQuestions, *entries: LoggedQuestion) -> None:
    await store.write(entries, figures={}, cited={}, degraded=False)


def vectors(path: Path) -> dict[str, bytes]:
    with apsw.Connection(str(path)) as connection:
        return dict(connection.execute("SELECT words, vector FROM vectors").fetchall())


def test_a_question_that_is_asked_often_has_one_vector_and_another_models_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "questions.sqlite3"

    async def story(store: SqliteQuestions) -> None:
        await write(store, asked("a", vector(1, 0)), asked("a", vector(0, 1)), asked("b"))
        assert vectors(path) == {"a": vector(1, 0)}
        assert {group.question: group.vector for group in await store.groups(ALL, limit=9)} == {
            "a": vector(1, 0), "b": None
        }  # fmt: skip
        await write(store, asked("a", vector(1, 0, 0)))
        assert vectors(path) == {"a": vector(1, 0, 0)}

    run(path, story)


def test_a_vector_goes_with_the_last_question_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "questions.sqlite3"

    async def story(store: SqliteQuestions) -> None:
        await write(
            store, asked("a", vector(1, 0), b"1"), asked("a", vector(1, 0), b"2"), asked("b", vector(0, 1), b"3")
        )
        await store.forget([b"1", b"3"])
        assert list(vectors(path)) == ["a"]
        await store.forget([b"2"])
        assert vectors(path) == {}
        await write(store, asked("old", vector(1, 0)))

    async def later(store: SqliteQuestions) -> None:
        await write(store, asked("new", vector(0, 1)))
        assert list(vectors(path)) == ["new"]

    run(path, story)
    run(path, later, now_s=NOW_S + 31 * DAY_S)


def test_a_file_of_the_first_version_keeps_its_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "questions.sqlite3"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MIGRATIONS", module._MIGRATIONS[:1])

        async def before(store: SqliteQuestions) -> None:
            await store.days(1)

        run(path, before)
    with apsw.Connection(str(path)) as connection:
        connection.execute(
            "INSERT INTO questions (day, at, question, words, outcome, language, page, seconds, tokens, build, vector) "
            "VALUES (20000, ?, 'a', 'a', 'nothing_found', 'en', '', 1, 1, '', ?)", (NOW_S, vector(1, 0)),
        )  # fmt: skip

    async def after(store: SqliteQuestions) -> None:
        [group] = await store.groups(ALL, limit=9)
        assert group.vector == vector(1, 0)

    run(path, after)


def test_what_means_the_same_is_counted_together_and_what_only_looks_so_is_not(tmp_path: Path) -> None:
    topics = ("heater power", "probe tray", "pairing code", "yearly invoice")
    other = [asked(topic, vector(*row)) for topic, row in zip(topics, np.eye(6)[2:], strict=True)]

    async def story(store: SqliteQuestions) -> None:
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

    run(tmp_path / "questions.sqlite3", story)

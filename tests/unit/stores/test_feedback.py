"""Thumbs: one for an answer in a conversation, and gone with it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest

from rag.stores.protocols import Feedback
from rag.stores.sqlite.feedback import SqliteFeedback
from rag.stores.sqlite.file import Clocks


def thumb(rating: Any = "up", answer: str = "From nine to six.") -> Feedback:
    return Feedback(rating=rating, reason="", question="When are you open?", answer=answer)


def run(path: Path, *steps: Any) -> list[tuple[str, str]]:
    """(rating, answer) of all rows, newest first, after these steps on a fresh store."""

    async def story() -> list[tuple[str, str]]:
        store = SqliteFeedback(path=path, clocks=Clocks.system())
        try:
            for step in steps:
                call: Coroutine[Any, Any, None] = step(store)
                await call
            return [(one.rating, one.answer) for one in await store.newest(100)]
        finally:
            await store.close()

    return asyncio.run(story())


def test_a_thumb_that_is_given_again_replaces_the_one_before(tmp_path: Path) -> None:
    again = [lambda store, rating=rating: store.add(thumb(rating), session_id="one") for rating in ("up", "up", "down")]
    other = [lambda store: store.add(thumb("up"), session_id="two")]
    later = [lambda store: store.add(thumb("up", "Until six."), session_id="one")]
    rows = run(tmp_path / "feedback.sqlite3", *again, *other, *later)
    assert rows == [("up", "Until six."), ("up", "From nine to six."), ("down", "From nine to six.")]


def test_the_disliked_answers_of_a_conversation_are_counted(tmp_path: Path) -> None:
    counted: list[int] = []

    async def count(store: SqliteFeedback) -> None:
        counted.extend([await store.disliked(session) for session in ("one", "two", "three")])

    given = [("down", "a"), ("down", "a"), ("down", "b"), ("down", "c"), ("up", "c")]
    thumbs = [lambda store, one=one: store.add(thumb(*one), session_id="one") for one in given]
    other = [lambda store: store.add(thumb("up"), session_id="two")]
    run(tmp_path / "feedback.sqlite3", *thumbs, *other, count)
    assert counted == [2, 0, 0]


def test_a_deleted_conversation_takes_its_thumbs_along_out_of_the_files_too(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite3"
    steps = [
        lambda store: store.add(thumb(answer="Secret of the first."), session_id="one"),
        lambda store: store.add(thumb(), session_id="two"),
        lambda store: store.forget("one"),
    ]
    assert run(path, *steps) == [("up", "From nine to six.")]
    for file in tmp_path.iterdir():
        assert b"Secret of the first" not in file.read_bytes()


@pytest.mark.parametrize("rows", [0, 3])
def test_a_file_of_the_first_version_opens_with_what_it_holds(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "feedback.sqlite3"
    run(path)
    connection = apsw.Connection(str(path))
    connection.execute("DROP INDEX feedback_by_session; DROP INDEX feedback_by_answer")
    connection.execute("ALTER TABLE feedback DROP COLUMN session; ALTER TABLE feedback DROP COLUMN about")
    for number in range(rows):
        connection.execute(
            "INSERT INTO feedback (given_at, rating, reason, question, answer) VALUES (1, 'up', '', 'q', ?)",
            (str(number),),
        )
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert len(run(path, lambda store: store.add(thumb(), session_id="one"))) == rows + 1

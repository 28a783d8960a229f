"""PostgreSQL's schema and the import of SQLite files: the real command line on a real database."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from rag.errors import StateUnavailable
from rag.stores.postgres import schema
from rag.stores.postgres.conversations import PostgresConversations
from rag.stores.postgres.feedback import PostgresFeedback
from rag.stores.postgres.link import Database
from rag.stores.postgres.migrating import Schema
from rag.stores.postgres.outbox import PostgresOutbox
from rag.stores.postgres.questions import PostgresQuestions
from rag.stores.postgres.spending import PostgresSpending
from rag.stores.protocols import Claim, Feedback, LoggedQuestion, QuestionFilter, Settlement
from rag.stores.sqlite.conversations import SqliteConversations
from rag.stores.sqlite.feedback import SqliteFeedback
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.outbox import SqliteOutbox
from rag.stores.sqlite.questions import SqliteQuestions
from rag.stores.sqlite.spending import SqliteSpending
from rag.types import Message
from tests.support.postgres_server import PostgresServer
from tests.support.server import run_module

SAID = [Message("user", "When are \ud800 you open?"), Message("assistant", "From nine \0 to six.")]
ASKED = LoggedQuestion(
    question="When \0 open?", words="when open", outcome="answered", language="en", vector=b"12", about=b"a"
)
ALL = [one.name for one in schema.migrations()]
LATER = """
-- needs: {needs}
ALTER TABLE rag.conversations ADD COLUMN later text;
-- undo
ALTER TABLE rag.conversations DROP COLUMN later;
"""


def ran(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module("rag.database", *arguments, env={"DATABASE_URL": url}, cwd=folder, timeout_s=60)


def later_release(folder: Path, *, needs: int) -> tuple[schema.Migration, ...]:
    """The migrations of a release that has one more."""
    for migration in Path(schema.__file__).with_name("migrations").glob("*.sql"):
        (folder / migration.name).write_bytes(migration.read_bytes())
    (folder / f"{len(schema.migrations()) + 1:04}_later.sql").write_text(LATER.format(needs=needs))
    return schema.migrations(folder)


def test_a_database_is_migrated_shown_and_taken_back(postgres_server: PostgresServer, tmp_path: Path) -> None:
    url = postgres_server.empty_database()
    before = ran(url, tmp_path, "status")
    assert (before.returncode, before.stdout) == (1, "".join(f"{name}  missing\n" for name in ALL))
    assert (
        before.stderr.strip() == f"schema version 0, this release needs {len(ALL)}; run: python -m rag.database migrate"
    )
    assert ran(url, tmp_path, "migrate").stdout.count("applied 0") == len(ALL)
    again = ran(url, tmp_path, "migrate")
    assert (again.returncode, again.stdout) == (0, f"the schema has version {len(ALL)}\n")
    assert (ran(url, tmp_path, "status").returncode, ran(url, tmp_path, "status").stderr) == (0, "")
    refused = ran(url, tmp_path, "undo")
    assert (refused.returncode, "loses the questions" in refused.stderr, "--yes" in refused.stderr) == (1, True, True)
    for name in reversed(ALL):
        assert f"took back {name}" in ran(url, tmp_path, "undo", "--yes").stdout
    assert "nothing to undo" in ran(url, tmp_path, "undo", "--yes").stdout
    with psycopg.connect(url) as connection:
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'rag'::regnamespace AND relkind IN ('r', 'S') "
            "UNION SELECT proname FROM pg_proc WHERE pronamespace = 'rag'::regnamespace"
        ).fetchall()
    assert left == [("schema_version",)]


def test_eight_that_migrate_at_once_apply_each_file_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.empty_database()
    told: list[str] = []
    with ThreadPoolExecutor(8) as operators:
        for done in [operators.submit(Schema(url).migrate, lambda one: told.append(one.name)) for _ in range(8)]:
            done.result()
    assert told == ALL


def refusal(url: str) -> str:
    """What a server of this release says on that database; empty where it works."""

    async def story() -> None:
        database = Database(url=url, pool_size=1)
        try:
            await PostgresConversations(database=database).append("one", SAID)
        finally:
            await database.close()

    try:
        asyncio.run(story())
    except StateUnavailable as error:
        return str(error)
    return ""


def test_a_server_works_on_a_newer_schema_that_says_so_and_refuses_all_others_with_the_remedy(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.empty_database()
    assert f"this release needs {len(ALL)}; run: python -m rag.database migrate" in refusal(url)
    Schema(url).migrate(lambda migration: None)
    assert refusal(url) == ""
    newer = Schema(url, known=later_release(tmp_path, needs=1))
    newer.migrate(lambda migration: None)
    assert refusal(url) == "", "expanded: both releases work"
    assert newer.undo(may_lose=False) == newer.known[-1]
    contracted = Schema(url, known=later_release(tmp_path, needs=len(ALL) + 1))
    contracted.migrate(lambda migration: None)
    assert f"schema version {len(ALL) + 1}, this release knows {len(ALL)}; run the newer release" in refusal(url)
    with pytest.raises(StateUnavailable, match="not of this release"):
        Schema(url).undo(may_lose=True)


def test_a_file_that_was_changed_after_it_was_applied_is_noticed(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE rag.schema_version SET sha256 = 'another'")
    assert "0001_state was applied from another file" in refusal(url)
    assert ran(url, tmp_path, "status").returncode == ran(url, tmp_path, "migrate").returncode == 1


def test_a_migration_that_fails_leaves_nothing_behind(postgres_server: PostgresServer, tmp_path: Path) -> None:
    url = postgres_server.database()
    known = later_release(tmp_path, needs=1)
    (tmp_path / f"{len(ALL) + 1:04}_later.sql").write_text(
        LATER.format(needs=1).replace("-- undo", "SELECT 1 / 0;\n-- undo")
    )
    with pytest.raises(StateUnavailable, match="division by zero"):
        Schema(url, known=schema.migrations(tmp_path)).migrate(lambda migration: None)
    Schema(url, known=known).migrate(lambda migration: None)


def test_a_state_in_sqlite_is_brought_over_twice_without_doubling_and_compared(
    database_url: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    clocks = Clocks.system()

    async def filled() -> None:
        conversations = SqliteConversations(path=state / "conversations.sqlite3", clocks=clocks, max_messages=4)
        for number in range(450):
            await conversations.append(f"session {number}", [*SAID, *SAID, *SAID][: 2 + number % 5])
        await conversations.close()
        thumbs = SqliteFeedback(path=state / "feedback.sqlite3", clocks=clocks)
        for number in range(5):
            said = Feedback(rating="up", reason="good", question=f"q{number}", answer="a")
            await thumbs.add(said, session_id="session 1")
        await thumbs.close()
        spending = SqliteSpending(path=state / "spending.sqlite3", clocks=clocks)
        await spending.reserve("done", [Claim("site", 30, 100)], hold_s=60, settled=[])
        await spending.settle([Settlement("done", {"site": 20})])
        await spending.reserve("running", [Claim("site", 50, 100)], hold_s=60, settled=[])
        await spending.close()
        questions = SqliteQuestions(path=state / "questions.sqlite3", clocks=clocks, days=30)
        await questions.write(
            [ASKED, ASKED, replace(ASKED, question="other", words="other", vector=None, about=None)],
            figures={"questions": 3}, cited={"https://x.example/": 2}, degraded=True,
        )  # fmt: skip
        await questions.close()
        outbox = SqliteOutbox(path=state / "outbox.sqlite3", clocks=clocks)
        await outbox.put([("m1", "mail", b"one"), ("m2", "mail", b"two")], once="summary")
        await outbox.close()

    asyncio.run(filled())
    first = ran(database_url, tmp_path, "import", str(state))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [
        "conversations: 450 in the file, 450 brought over now; compared: 450 equal",
        "feedback: 5 in the file, 5 brought over now; compared: 5 equal",
        "spending: 1 in the file, 1 brought over now; compared: 1 equal",
        "questions: 3 in the file, 3 brought over now; compared: 3 equal",
        "outbox: 2 in the file, 2 brought over now; compared: 2 equal",
    ]

    async def goes_on() -> None:
        database = Database(url=database_url, pool_size=2)
        conversations = PostgresConversations(database=database, max_messages=4)
        history = await conversations.history("session 6")
        assert history == [*SAID, *SAID, *SAID][:3]
        await conversations.append("session 6", SAID)
        assert await conversations.history("session 6") == [*history, *SAID][-4:]
        assert (await conversations.stats())["sessions"] == 450
        thumbs = await PostgresFeedback(database=database).newest(10)
        assert [one.question for one in thumbs] == ["q4", "q3", "q2", "q1", "q0"]
        assert await PostgresSpending(database=database).spent("site") == 70
        await conversations.delete("session 7")
        questions = PostgresQuestions(database=database, days=30)
        asked, other = await questions.groups(QuestionFilter(days=1), limit=9)
        assert (asked.question, asked.count, asked.vector) == (ASKED.question, 2, ASKED.vector)
        assert (other.question, other.count, other.vector) == ("other", 1, None)
        [today] = await questions.days(1)
        assert (dict(today.figures), today.degraded_minutes) == ({"questions": 3}, 1)
        assert await questions.cited(1) == {"https://x.example/": 2}
        outbox = PostgresOutbox(database=database)
        assert await outbox.was_put("summary")
        waiting = await outbox.next_due(lease_s=60)
        assert waiting is not None
        await outbox.remove(waiting.id)
        await database.close()

    asyncio.run(goes_on())
    again = ran(database_url, tmp_path, "import", str(state))
    assert "450 in the file, 0 brought over now; compared: 448 equal, 2 differ from the file" in again.stdout
    assert "5 in the file, 0 brought over now; compared: 5 equal" in again.stdout
    assert "3 in the file, 0 brought over now; compared: 3 equal" in again.stdout
    assert "2 in the file, 0 brought over now; compared: 2 equal" in again.stdout
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM rag.outbox").fetchone() == (1,), "what was delivered stays so"


def test_what_cannot_be_done_is_one_clear_sentence(tmp_path: Path, database_url: str) -> None:
    without = run_module("rag.database", "status", env={}, cwd=tmp_path)
    assert (without.returncode, "DATABASE_URL is not set" in without.stderr) == (1, True)
    away = ran("postgresql://rag:hidden@127.0.0.1:1/rag", tmp_path, "migrate")
    assert (away.returncode, "check DATABASE_URL" in away.stderr, "hidden" in away.stderr) == (1, True, False)
    nothing = ran(database_url, tmp_path, "import", str(tmp_path / "nowhere"))
    assert (nothing.returncode, nothing.stdout.count("there is no ")) == (0, 5)
    assert not (tmp_path / "nowhere").exists()
    code = "import sys; sys.modules['psycopg'] = None; import rag.ops.database"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "loaded only where it is used"

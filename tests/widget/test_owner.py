"""The owner's page in a real browser, with a month of made-up traffic behind it."""

import asyncio
import shutil
import time
from pathlib import Path

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.month_of_questions import MISSING, write_month
from tests.widget.conftest import InBrowser


def test_the_owner_reads_the_month_on_a_desk_and_on_a_phone(
    start_server: StartServer, in_browser: InBrowser, tmp_path: Path
) -> None:
    state = tmp_path / "server" / "state"
    state.mkdir(parents=True)
    asked = asyncio.run(write_month(state, until_s=time.time(), questions=1_500))
    assert set(asked) == set(MISSING)
    server = start_server(
        workers=1, ADMIN_API_KEY=ADMIN_API_KEY, PRICE_INPUT="0.15", PRICE_OUTPUT="0.6", BUDGET_SITE="5USD/day"
    )  # fmt: skip
    words = ["cost of answers", "left of today's 5 USD", "scholarship", "submarine", "space station"]
    in_browser(base_url=server.base_url, key=ADMIN_API_KEY, words=words)


def test_the_owner_adds_documents_and_removes_one(
    start_server: StartServer, in_browser: InBrowser, site_build: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(site_build, tmp_path / "vector_db")
    server = start_server(workers=1, ADMIN_API_KEY=ADMIN_API_KEY, UPLOADS="on", VECTOR_DB_PATH=index)
    in_browser(base_url=server.base_url, key=ADMIN_API_KEY)

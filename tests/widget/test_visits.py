"""Visits in a real browser, on the real server: who is let in by itself, and who gets nowhere."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.support.waiting import free_port
from tests.widget.conftest import InBrowser


def started(site_build: Path, azure: AzureEmulator, folder: Path, **more: str) -> RagServer:
    """A server that only its own pages may use."""
    port = free_port()
    settings = {
        **azure.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false",
        "BROWSER_SESSIONS": "required", "ALLOWED_ORIGINS": f"http://127.0.0.1:{port}", **more,
    }  # fmt: skip
    return RagServer.start(settings, folder, workers=1, port=port)


@pytest.fixture(scope="module")
def closed(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    with started(site_build, azure_process, tmp_path_factory.mktemp("closed")) as running:
        yield running


def test_where_visits_are_required_the_chat_begins_one_and_is_answered(
    closed: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=closed.base_url, visits=[200])


def test_a_visit_that_the_server_does_not_want_any_more_is_replaced(
    closed: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=closed.base_url)


def test_a_visit_is_renewed_before_it_ends(closed: RagServer, azure: AzureEmulator, in_browser: InBrowser) -> None:
    in_browser(base_url=closed.base_url)


def test_a_page_of_a_foreign_origin_gets_nowhere(
    closed: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=closed.base_url)
    # Nothing of it cost anything either: the one search is the site's own.
    assert len(azure.requests("chat")) == 0
    assert len(azure.requests("embeddings")) <= 1


def test_the_chat_solves_the_challenge_of_a_visit(
    site_build: Path, azure: AzureEmulator, tmp_path: Path, in_browser: InBrowser
) -> None:
    with started(site_build, azure, tmp_path, VISIT_PROOF="altcha") as server:
        case = "where_visits_are_required_the_chat_begins_one_and_is_answered"
        in_browser(case=case, base_url=server.base_url, visits=[428, 200])
        assert httpx.post(f"{server.base_url}/visit", headers={"Origin": server.base_url}).status_code == 428

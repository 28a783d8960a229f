"""Kills, reloads and new builds under load, as many as the documentation states."""

from pathlib import Path

import pytest

from rag.search import builds
from tests.conftest import StartServer
from tests.soak import scenarios
from tests.support.azure import AzureEmulator
from tests.support.server import build_index
from tests.support.small_site import SITE_URL, write_small_site

WORKERS = 4


def test_200_killed_workers_lose_no_remembered_message(start_server: StartServer) -> None:
    scenarios.kills(start_server(workers=WORKERS), times=200, workers=WORKERS)


def test_50_reloads_fail_no_request(start_server: StartServer) -> None:
    scenarios.reloads(start_server(workers=WORKERS), times=50, workers=WORKERS)


@pytest.fixture
def two_builds(azure: AzureEmulator, tmp_path: Path) -> Path:
    """A vector_db of two builds of one site, of which the second has a page more and is live."""
    site, root = write_small_site(tmp_path / "site"), tmp_path / "vector_db"
    for text in ("", "# News\n\nThe controller now speaks Portuguese, too.\n"):
        (site / "news.md").write_text(text, encoding="utf-8")
        done = build_index(site, env=azure.environment, output=root, extra_args=["--site-url", SITE_URL, "--yes"])
        assert done.returncode == 0, done.stderr
    assert len(builds.kept_ids(root)) == 2
    return root


def test_100_new_builds_fail_no_request(start_server: StartServer, two_builds: Path) -> None:
    server = start_server(workers=WORKERS, VECTOR_DB_PATH=two_builds)
    scenarios.swaps(server, two_builds, times=100, workers=WORKERS)

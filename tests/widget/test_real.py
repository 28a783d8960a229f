"""The widget on the real server with the emulated model: the whole way from a keystroke to the store and back."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.widget.conftest import BUILT, InBrowser

HOSTILE = [
    "Hi <scr", "ipt>window.harmed=1</script> <img src=x one", "rror=window.harmed=2> ![pixel](http://evil",
    ".example/p.png) [a](java", "script:window.harmed=3) [b](http://evil.example/) [c](data:text/html,<b>x</b>) [",
    "1].",
]  # fmt: skip


@pytest.fixture(scope="module")
def named(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    """A server of this file's own, whose upstream may be broken."""
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false",
        "SITE_NAME": "Brinewell", "SUGGESTED_QUESTIONS": "How long?|How much?",
    }  # fmt: skip
    with RagServer.start(settings, tmp_path_factory.mktemp("named"), workers=1) as running:
        yield running


def test_on_the_real_server_a_question_is_answered_with_its_source(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=server.base_url)


def test_a_click_on_a_citation_opens_the_page_at_the_cited_sentence(
    server: RagServer, azure: AzureEmulator, small_site: Path, in_browser: InBrowser
) -> None:
    lines = (small_site / "warranty.md").read_text("utf-8").split("\n\n")
    # Far apart, so that only one of them is on the screen.
    page = "".join(f"<p>{line.lstrip('# ')}</p><div style='height:1600px'></div>" for line in lines)
    in_browser(base_url=server.base_url, page=f"<!doctype html><title>Warranty</title>{page}")


def test_on_the_real_server_a_conversation_outlives_a_reload_and_reaches_a_second_tab(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=server.base_url)


def test_on_the_real_server_an_answer_can_be_stopped(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    azure.behave(tokens=["This ", "comes ", "slowly ", *["on "] * 400], token_delay_ms=40)
    in_browser(base_url=server.base_url)


def test_on_the_real_server_a_thumb_with_a_reason_reaches_the_owner(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    reason = "It does not say what is covered."
    in_browser(base_url=server.base_url, reason=reason)
    owner = {"Authorization": f"Bearer {ADMIN_API_KEY}"}
    entries = httpx.get(f"{server.base_url}/feedback", headers=owner, trust_env=False).json()["feedback"]
    assert [(entry["rating"], entry["question"]) for entry in entries if entry["reason"] == reason] == [
        ("down", "How long does the warranty last?")
    ]


def test_on_the_real_server_the_limit_shows_a_countdown(start_server: StartServer, in_browser: InBrowser) -> None:
    in_browser(base_url=start_server(workers=1, RATE_LIMIT_CHAT="1/hour").base_url)


def test_on_the_real_server_a_model_that_is_down_leaves_quoted_passages(
    named: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    azure.fail("status", target="chat", status=503)
    in_browser(base_url=named.base_url)


def test_on_the_real_server_a_hostile_model_is_harmless(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    azure.behave(tokens=HOSTILE)
    in_browser(base_url=server.base_url)


def test_on_the_real_server_a_phone_gets_the_whole_screen(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=server.base_url)


def test_the_server_sends_the_built_file_packed_and_only_when_it_changed(server: RagServer) -> None:
    with httpx.Client(base_url=server.base_url, trust_env=False) as client:
        packed = client.get("/widget.js", headers={"Accept-Encoding": "gzip"})
        plain = client.get("/widget.js", headers={"Accept-Encoding": "identity"})
        same = client.get("/widget.js", headers={"If-None-Match": plain.headers["etag"]})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == BUILT.read_bytes()
    assert plain.headers["cache-control"] == "public, max-age=3600"
    assert plain.headers["content-type"].startswith("text/javascript")
    assert plain.headers["cross-origin-resource-policy"] == "cross-origin"
    assert (same.status_code, same.content) == (304, b"")


def test_the_widget_learns_name_and_questions_from_the_server(named: RagServer) -> None:
    told = httpx.get(f"{named.base_url}/widget/config", trust_env=False).json()
    assert told == {"site_name": "Brinewell", "suggested_questions": ["How long?", "How much?"], "demo": False,
                    "ai_notice": "on", "privacy_url": None}  # fmt: skip

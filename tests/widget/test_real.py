"""The widget on the real server with the emulated model: the whole way from a keystroke to the store and back."""

import httpx

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer
from tests.widget.conftest import BUILT, InBrowser

HOSTILE = [
    "Hi <scr", "ipt>window.harmed=1</script> <img src=x one", "rror=window.harmed=2> ![pixel](http://evil",
    ".example/p.png) [a](java", "script:window.harmed=3) [b](http://evil.example/) [c](data:text/html,<b>x</b>) [", "1].",
]  # fmt: skip


def test_on_the_real_server_a_question_is_answered_and_its_source_opens_at_the_sentence(
    server: RagServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    in_browser(base_url=server.base_url)


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
    start_server: StartServer, azure: AzureEmulator, in_browser: InBrowser
) -> None:
    running = start_server(workers=1)
    azure.fail("status", target="chat", status=503)
    in_browser(base_url=running.base_url)


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


def test_the_widget_learns_name_and_questions_from_the_server(start_server: StartServer) -> None:
    running = start_server(workers=1, SITE_NAME="Brinewell", SUGGESTED_QUESTIONS="How long?|How much?")
    told = httpx.get(f"{running.base_url}/widget/config", trust_env=False).json()
    assert told == {"site_name": "Brinewell", "suggested_questions": ["How long?", "How much?"], "demo": False}

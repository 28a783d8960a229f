"""A way to a person: by mail and by webhook, through failures and kills, and never to where it must not go."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.month_of_questions import write_month
from tests.support.postgres_server import PostgresServer
from tests.support.receivers import mail_server, webhook
from tests.support.server import RagServer
from tests.support.small_site import FACTS, OFF_TOPIC
from tests.support.waiting import wait_until

DELIVERY_KILLS = int(os.environ.get("SOAK_DELIVERY_KILLS", "4"))
"""Times that all workers are killed while a message is being delivered; `make soak` does it 50 times."""
KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
VISITOR = "ada.lovelace@example.org"


def ask_for_a_person(server: RagServer, **more: Any) -> httpx.Response:
    body = {"session_id": "a-session-of-a-visitor", "email": VISITOR, "message": "Please call.", **more}
    return httpx.post(f"{server.base_url}/handoff", json=body, timeout=20, trust_env=False)


def stored(server: RagServer) -> bytes:
    return b"".join(file.read_bytes() for file in Path(server.folder, "state").glob("outbox.sqlite3*"))


def test_a_message_arrives_by_mail_and_by_webhook_after_failures_and_leaves_nothing(start_server: StartServer) -> None:
    with mail_server(failing=1) as mail, webhook(answers=[503]) as hook:
        server = start_server(
            workers=2, ESCALATION_EMAIL="help@brinewell.example", SMTP_URL=mail.url, ESCALATION_WEBHOOK_URL=hook.url,
            ESCALATION_WEBHOOK_SECRET=SECRET, ESCALATION_ALLOW_PRIVATE="true",
        )  # fmt: skip
        chat = httpx.post(f"{server.base_url}/chat", json={"message": FACTS[0].question}, timeout=20, trust_env=False)
        answer = ask_for_a_person(
            server, session_id=chat.json()["session_id"], include_conversation=True, message="Line one\nLine two"
        )
        assert answer.status_code == 202
        reference = answer.json()["reference"]
        wait_until(lambda: mail.got and len(hook.got) == 2, 30, "both have arrived", interval_s=0.2)

        [message] = mail.got
        assert (message["To"], message["From"], message["Reply-To"]) == (*["help@brinewell.example"] * 2, VISITOR)
        assert reference in message["Subject"]
        text = message.get_payload(decode=True)
        assert isinstance(text, bytes)
        assert all(words in text.decode() for words in ("Line two", FACTS[0].question, chat.json()["response"][:20]))

        (first, body), (headers, again) = hook.got
        assert body == again
        assert first["webhook-id"] == headers["webhook-id"]
        signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        told = json.loads(body)
        assert (told["type"], told["data"]["reference"], told["data"]["email"]) == (
            "handoff.requested",
            reference,
            VISITOR,
        )
        assert [turn["role"] for turn in told["data"]["conversation"]] == ["user", "assistant"]
        wait_until(lambda: VISITOR.encode() not in stored(server), 10, "nothing of it is left")
        assert VISITOR not in server.output


@pytest.mark.parametrize("store", ["sqlite", *["postgres"] * ("SOAK_DELIVERY_KILLS" in os.environ)])
def test_kills_during_delivery_lose_nothing_and_repeat_only_under_the_same_id(
    start_server: StartServer, store: str
) -> None:
    with webhook() as hook, PostgresServer() if store == "postgres" else nullcontext() as postgres:
        server = start_server(
            workers=2,
            DATABASE_URL=postgres.database() if postgres else "",
            ESCALATION_WEBHOOK_URL=hook.url,
            ESCALATION_WEBHOOK_SECRET=SECRET,
            ESCALATION_ALLOW_PRIVATE="true",
        )
        references: list[str] = []

        def received() -> list[str]:
            return [json.loads(body)["data"]["reference"] for _, body in hook.got]

        for number in range(DELIVERY_KILLS):
            hook.answering.clear()
            references.append(ask_for_a_person(server, message=f"message {number}").json()["reference"])
            wait_until(lambda: references[-1] in received(), 40, "it is being delivered")
            if number % 2:
                # Answered already, and perhaps not taken out of the outbox yet.
                hook.answering.set()
            before = server.worker_pids()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            hook.answering.set()
            wait_until(lambda old=before: len(set(server.worker_pids()) - set(old)) == 2, 20, "both are back")  # type: ignore[misc]
            server.wait_ready()

        cut_off = set(references[::2])
        if postgres:
            with postgres.connect("test1") as connection:
                empty = "SELECT NOT EXISTS (SELECT FROM rag.outbox)"
                wait_until(lambda: connection.execute(empty).fetchone() == (True,), 90, "the outbox is empty")
        wait_until(lambda: VISITOR.encode() not in stored(server), 90, "the outbox is empty", interval_s=0.5)
        arrived = received()
        assert set(arrived) == set(references)
        assert all(arrived.count(reference) > 1 for reference in cut_off), "what was cut off came again"
        ids = {(json.loads(body)["data"]["reference"], headers["webhook-id"], body) for headers, body in hook.got}
        assert len(ids) == len(references)
        print(f"{DELIVERY_KILLS} kills, {len(references)} messages, received {len(arrived)} times under {len(ids)} ids")


@pytest.mark.parametrize("status", [302, 410])
def test_no_redirect_is_followed_and_who_is_gone_gets_no_more(start_server: StartServer, status: int) -> None:
    with webhook(answers=[status] * 3) as hook:
        server = start_server(
            workers=1,
            ESCALATION_WEBHOOK_URL=hook.url,
            ESCALATION_WEBHOOK_SECRET=SECRET,
            ESCALATION_ALLOW_PRIVATE="true",
        )
        assert ask_for_a_person(server).status_code == 202
        words = "message to the owner given up" if status == 410 else "message to the owner not delivered, tried again"
        wait_until(lambda: words in server.output, 15, words)
        assert len(hook.got) == 1


def test_a_webhook_on_a_private_network_is_refused_unless_allowed(start_server: StartServer) -> None:
    with webhook() as hook:
        server = start_server(workers=1, ESCALATION_WEBHOOK_URL=hook.url, ESCALATION_WEBHOOK_SECRET=SECRET)
        assert ask_for_a_person(server).status_code == 202
        wait_until(lambda: "message to the owner given up" in server.output, 15, "it is given up")
        assert hook.got == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "ada"}, {"email": "ada@example.org\nBcc: all@example.org"}, {"email": "a@b.example, c@d.example"},
        {"message": " "}, {"message": "x" * 4001}, {"include_conversation": True}, {"session_id": "short"},
        {"include_conversation": "yes"},
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(person: RagServer, wrong: dict[str, Any]) -> None:
    assert ask_for_a_person(person, **wrong).status_code == 422


def test_a_visitor_may_ask_three_times_an_hour(start_server: StartServer) -> None:
    with webhook() as hook:
        server = start_server(
            workers=2, ESCALATION_WEBHOOK_URL=hook.url, ESCALATION_WEBHOOK_SECRET=SECRET,
            ESCALATION_ALLOW_PRIVATE="true", RATE_LIMIT_CHAT="20/minute",
        )  # fmt: skip
        assert [ask_for_a_person(server).status_code for _ in range(5)] == [202] * 3 + [429] * 2


def test_answers_say_when_a_person_could_help(person: RagServer) -> None:
    def escalation(message: str) -> Any:
        answer = httpx.post(f"{person.base_url}/chat", json={"message": message}, timeout=20, trust_env=False)
        return answer.json()["escalation"]

    assert escalation(OFF_TOPIC) == {"reason": "nothing_found"}
    assert escalation("Can I talk to a human about the warranty?") == {"reason": "asked"}
    assert escalation(FACTS[0].question) is None
    config = httpx.get(f"{person.base_url}/widget/config", trust_env=False).json()
    assert config["handoff"] == {"form": True, "url": "mailto:help@brinewell.example"}


def test_two_answers_disliked_make_the_next_ones_offer_a_person(person: RagServer) -> None:
    def post(path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{person.base_url}{path}", json=body, timeout=20, trust_env=False)

    session, others = post("/chat", message=FACTS[0].question).json()["session_id"], FACTS[1:5]
    for number, fact in enumerate(others):
        # The same answer disliked twice is one; and a thumb that is turned up again is none.
        for rating in ("down", "down") if number in (0, 2) else ("down", "up"):
            assert post("/feedback", session_id=session, rating=rating).status_code == 204
        said = post("/chat", message=fact.question, session_id=session).json()["escalation"]
        assert said == ({"reason": "unhappy"} if number >= 2 else None)
    assert post("/chat", message=FACTS[5].question).json()["escalation"] is None


@pytest.mark.parametrize("classifier", ["rules", "model"])
def test_the_model_judges_in_the_answers_own_call_where_it_is_asked_to(
    start_server: StartServer, azure: AzureEmulator, classifier: str
) -> None:
    server = start_server(ESCALATION_URL="https://www.example.com/contact", ESCALATION_CLASSIFIER=classifier, workers=1)
    unhappy = {"reason": "unhappy"} if classifier == "model" else None
    useless = FACTS[0].question.replace("warranty", "useless warranty")
    for message, expected in ((FACTS[0].question, None), (useless, unhappy)):
        azure.clear()
        body = {"message": message}
        whole = httpx.post(f"{server.base_url}/chat", json=body, timeout=20, trust_env=False).json()
        streamed = httpx.post(f"{server.base_url}/chat/stream", json=body, timeout=20, trust_env=False).text
        done = json.loads(streamed.split("event: done\ndata: ")[1])
        for answer in (whole, done):
            assert answer["escalation"] == expected
            assert FACTS[0].words in answer["response"]
            assert answer["response"].endswith("[1]") or "[2]" in answer["response"]
            assert "{" not in answer["response"]
        pieces = [json.loads(line[6:])["text"] for line in streamed.splitlines() if line.startswith('data: {"text"')]
        assert "".join(pieces) == done["response"]
        asked = azure.requests("chat")
        assert len(asked) == 2
        assert all(("response_format" in seen["body"]) == (classifier == "model") for seen in asked)


def test_without_a_way_there_is_no_route(server: RagServer) -> None:
    assert ask_for_a_person(server).status_code == 404
    assert "handoff" not in httpx.get(f"{server.base_url}/widget/config", trust_env=False).json()


@pytest.fixture(scope="module")
def person(site_build: Path, azure_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(site_build), "RATE_LIMIT_ENABLED": "false",
        "ESCALATION_EMAIL": "help@brinewell.example", "SMTP_URL": "smtp://127.0.0.1:9", "ENABLE_CACHING": "false",
        "ESCALATION_URL": "mailto:help@brinewell.example",
    }  # fmt: skip
    azure_process.heal()
    with RagServer.start(settings, tmp_path_factory.mktemp("person"), workers=1) as running:
        yield running


def test_a_week_is_summed_up_once_by_mail_and_by_webhook_whoever_fails_or_is_killed(
    start_server: StartServer, tmp_path: Path
) -> None:
    asked = asyncio.run(write_month(tmp_path / "server" / "state", until_s=time.time(), questions=600))
    with mail_server(failing=1) as mail, webhook(answers=[503]) as hook:
        settings = {
            "ESCALATION_EMAIL": "help@brinewell.example", "SMTP_URL": mail.url, "ESCALATION_WEBHOOK_URL": hook.url,
            "ESCALATION_WEBHOOK_SECRET": SECRET, "ESCALATION_ALLOW_PRIVATE": "true", "WEEKLY_SUMMARY": "true",
        }  # fmt: skip
        server = start_server(workers=3, **settings)
        wait_until(lambda: hook.got, 30, "the first try")
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: mail.got and len(hook.got) == 2, 60, "both have arrived", interval_s=0.2)
        (_, first), (_, again) = hook.got
        assert first == again
        told = json.loads(first)
        assert (told["type"], told["data"]["week"]["questions"] > 50) == ("summary.weekly", True)
        [message] = mail.got
        body = message.get_payload(decode=True)
        assert isinstance(body, bytes)
        assert message["Subject"] == f"What visitors of RAG Server asked, week of {told['data']['from']}"
        assert body.decode().replace("\r\n", "\n").rstrip() == told["data"]["text"]
        worst = told["data"]["gaps"][0]
        assert (worst["diagnosis"], "scholarship" in worst["question"].lower()) == ("no_page", True)
        assert worst["count"] < asked["scholarships"]
        server.stop()

        later = start_server(workers=2, **settings)
        assert ask_for_a_person(later).status_code == 202
        wait_until(lambda: len(mail.got) == 2, 30, "what is put later has arrived")
        assert [one["Subject"].startswith("What visitors") for one in mail.got] == [True, False]

"""When a person could help better."""

from typing import Any

import pytest

from rag.chat.escalation import reason_for


@pytest.mark.parametrize(
    "question",
    [
        "Can I talk to a human?", "I want to speak with a real person", "please connect me to an agent",
        "How do I contact support?", "Ich möchte mit einem Mitarbeiter sprechen", "Kann ich mit jemandem reden?",
        "Je voudrais parler à un conseiller", "Quiero hablar con una persona", "Vorrei parlare con un operatore",
        "Quero falar com um atendente", "Kan ik iemand spreken?", "Chcę porozmawiać z konsultantem",
        "担当者と話したい", "转人工", "أريد التحدث مع موظف",
    ],
)  # fmt: skip
def test_who_asks_for_a_person_is_understood(question: str) -> None:
    assert reason_for(question, outcome="answered") == "asked"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"disliked": 1}, None), ({"disliked": 2}, "unhappy"), ({"judged": "unhappy"}, "unhappy"),
        ({"judged": "asked", "disliked": 2}, "asked"), ({"judged": "anything"}, None),
        ({"disliked": 2, "outcome": "nothing_found"}, "nothing_found"),
        ({"disliked": 2, "outcome": "quoted"}, "outage"),
    ],
)  # fmt: skip
def test_thumbs_and_the_model_count_after_what_is_plain(told: dict[str, Any], reason: str | None) -> None:
    assert reason_for("How hot is it?", **{"outcome": "answered", **told}) == reason


@pytest.mark.parametrize(
    "question",
    [
        "How does the agent talk to the server?", "What is a person detector?", "Which support plans are there?",
        "How do I connect the pump?", "Wie viele Personen passen hinein?", "Is there human readable output?",
    ],
)  # fmt: skip
def test_a_question_about_something_else_is_not(question: str) -> None:
    assert reason_for(question, outcome="answered") is None


def test_an_outcome_can_be_the_reason() -> None:
    outcomes = ("answered", "quoted", "nothing_found")
    assert [reason_for("Which pump?", outcome=one) for one in outcomes] == [None, "outage", "nothing_found"]

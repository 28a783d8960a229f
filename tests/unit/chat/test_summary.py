"""The week in a letter: which week it is, and what it says."""

from datetime import UTC, date, datetime

import pytest

from rag.chat.owner.gaps import MEANING, Gap
from rag.chat.owner.summary import last_monday, summary_of
from rag.settings import Settings
from rag.stores.protocols import Day

MONDAY = date(2026, 11, 16)


@pytest.mark.parametrize(
    ("now", "monday"),
    [
        ("2026-11-23T06:00", "2026-11-16"), ("2026-11-23T05:59", "2026-11-09"), ("2026-11-29T23:59", "2026-11-16"),
        ("2026-11-30T06:00", "2026-11-23"), ("2027-01-01T12:00", "2026-12-21"),
    ],
)  # fmt: skip
def test_the_week_is_the_last_whole_one_from_monday_morning_on(now: str, monday: str) -> None:
    assert last_monday(datetime.fromisoformat(now).replace(tzinfo=UTC)).isoformat() == monday


def day(text: str, **figures: int) -> Day:
    return Day(text, figures, degraded_minutes=2)


def gap() -> Gap:
    return Gap(
        question="Do you ship to Mars?", count=12, examples=["Do you ship to Mars?"], unanswered=12, disliked=0,
        reason="I live there", last_at="2026-11-20T10:00", diagnosis="no_page", meaning=MEANING["no_page"],
        nearest_title="Shipping", nearest_url="https://x.example/shipping/", similarity=0.3, build="b",
    )  # fmt: skip


def test_the_letter_tells_a_week_and_the_one_before_and_nothing_of_other_days() -> None:
    days = [
        day("2026-11-08", questions=1000), day("2026-11-09", questions=40, answered=20),
        day(
            "2026-11-16", questions=60, answered=50, uncited=5, prompt_tokens=1_000_000, first_tokens=2,
            first_token_ms=3000,
        ),
        day("2026-11-22", questions=40, answered=45, own_words=7), day("2026-11-23", questions=1000),
    ]  # fmt: skip
    told = summary_of(days, [gap()], monday=MONDAY, settings=Settings(price_input=2.5, price_output=10.0))
    assert told["week"]["questions"] == 100
    assert told["text"].splitlines() == [
        "2026-11-16 to 2026-11-22, in brackets the week before.",
        "",
        "Questions: 100 (40)",
        "Answered with sources: 90% (50%)",
        "In your own words: 7 (0)",
        "Cost: 2.50 (0.00)",
        "First words after: 1.5 s",
        "Minutes with limited answers: 4",
        "",
        "Not answered well:",
        "  12 × Do you ship to Mars?",
        "       no page on it, nearest: https://x.example/shipping/",
        "       a visitor said: I live there",
    ]
    quiet = summary_of([], [], monday=MONDAY, settings=Settings())["text"]
    assert "Questions: 0 (0)\nAnswered with sources: – (–)\n" in quiet
    assert quiet.endswith("No question that was kept went without a good answer.")

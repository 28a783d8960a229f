"""Each week in a letter to the owner: how much was asked, what was not answered, and what to do about it.

It goes the way of visitors' messages, by the same outbox: whichever process writes it, it is written once, and kept
until it has arrived. Knows no way to send anything.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate
from typing import Any

import orjson

from rag.chat.owner import usage
from rag.chat.owner.gaps import Gap, find_gaps
from rag.chat.owner.handoff import SUMMARY, channels
from rag.chat.retrieval import Retriever
from rag.errors import RagError
from rag.settings import Settings
from rag.stores.outbox import Outbox
from rag.stores.protocols import Day, QuestionStore

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
SENT_FROM_HOUR = 6
"""On Mondays, in UTC."""
MOST_GAPS = 10


class Summaries:
    """One for each process."""

    def __init__(self, *, outbox: Outbox, questions: QuestionStore, retriever: Retriever, settings: Settings) -> None:
        """`outbox` is the caller's to close, and so are the others."""
        self._outbox = outbox
        self._questions = questions
        self._retriever = retriever
        self._settings = settings

    async def write_forever(self) -> None:
        while True:
            try:
                await self.write(datetime.now(UTC))
            except RagError as error:
                log.warning("weekly summary not written", extra={"reason": str(error)})
            await asyncio.sleep(LOOK_EVERY_S)

    async def write(self, now: datetime) -> bool:
        """Writes that of the last whole week, unless it was written already; whether it did. Raises `RagError`."""
        monday = last_monday(now)
        once = f"summary {monday.isoformat()}"
        if await self._outbox.was_put(once):
            return False
        days = await self._questions.days((now.date() - monday).days + 8)
        gaps = await find_gaps(
            self._questions, self._retriever, days=(now.date() - monday).days + 1, limit=MOST_GAPS
        )  # fmt: skip
        data = summary_of(days, gaps, monday=monday, settings=self._settings)
        told = {"type": SUMMARY, "timestamp": formatdate(usegmt=True), "site": self._settings.site_name, "data": data}
        messages = [(f"sum_{uuid.uuid4().hex}", channel, orjson.dumps(told)) for channel in channels(self._settings)]
        return await self._outbox.put(messages, once=once)


def last_monday(now: datetime) -> date:
    """The first day of the last week that is over, and whose summary is due."""
    due = now - timedelta(hours=SENT_FROM_HOUR)
    return due.date() - timedelta(days=due.weekday() + 7)


def summary_of(days: Sequence[Day], gaps: Sequence[Gap], *, monday: date, settings: Settings) -> dict[str, Any]:
    """The week that begins on `monday`, as figures, and as `text` to read."""
    week, before = (
        _added([day for day in days if first <= date.fromisoformat(day.day) < first + timedelta(days=7)], settings)
        for first in (monday, monday - timedelta(days=7))
    )
    data: dict[str, Any] = {
        "from": monday.isoformat(), "to": (monday + timedelta(days=6)).isoformat(), "week": week, "week_before": before,
        "gaps": [
            {name: value for name, value in asdict(gap).items() if name not in ("examples", "build")} for gap in gaps
        ],
    }  # fmt: skip
    return data | {"text": "\n".join(_lines(data))}


def _added(days: Sequence[Day], settings: Settings) -> dict[str, Any]:
    """The figures of several days as those of one."""
    figures: dict[str, int] = {}
    for day in days:
        for name, amount in day.figures.items():
            figures[name] = figures.get(name, 0) + amount
    added = usage.of_day(Day("", figures, sum(day.degraded_minutes for day in days)), settings)
    return {name: value for name, value in added.items() if name != "day"}


def _lines(data: dict[str, Any]) -> list[str]:
    week, before = data["week"], data["week_before"]
    lines = [f"{data['from']} to {data['to']}, in brackets the week before.", ""]
    lines.append(f"Questions: {week['questions']:,} ({before['questions']:,})")
    lines.append(f"Answered with sources: {_share(week)} ({_share(before)})")
    if week["own_words"] or before["own_words"]:
        lines.append(f"In your own words: {week['own_words']:,} ({before['own_words']:,})")
    if week["cost"] is not None:
        lines.append(f"Cost: {week['cost']:.2f} ({before['cost']:.2f})")
    if week["first_token_ms"] is not None:
        lines.append(f"First words after: {week['first_token_ms'] / 1000:.1f} s")
    if week["degraded_minutes"]:
        lines.append(f"Minutes with limited answers: {week['degraded_minutes']:,}")
    lines += ["", "Not answered well:" if data["gaps"] else "No question that was kept went without a good answer."]
    for gap in data["gaps"]:
        lines.append(f"{gap['count']:>4} × {gap['question']}")
        lines.append(f"       {gap['meaning']}" + (f", nearest: {gap['nearest_url']}" if gap["nearest_url"] else ""))
        lines += [f"       a visitor said: {gap['reason']}"] if gap["reason"] else []
    return lines


def _share(figures: dict[str, Any]) -> str:
    share = figures["answered_share"]
    return "–" if share is None else f"{share:.0%}"

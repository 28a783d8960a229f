"""What visitors ask, for the owner: questions without who asked, and figures of each day.

Kept in memory for a second and then written together, so that no answer waits for it; a process that is killed loses
that second. What is personal in a question is masked before it is kept. Knows no route and no page.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from contextlib import suppress
from typing import Literal

import numpy as np

from rag.chat.turn import Turn
from rag.errors import StateUnavailable
from rag.stores.protocols import LoggedQuestion, QuestionStore
from rag.text.asked import normalised
from rag.text.masking import masked
from rag.text.terms import likely_language

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 1.0
MOST_WAITING = 10_000
"""Questions in memory while the store does not answer; further ones are only counted."""
LONGEST_CHARS = 500
"""Of a question that is kept: the rest is rarely a question."""
GAPS = ("nothing_found", "uncited", "quoted")
"""Outcomes of what the site did not answer; `uncited` is a model's answer that rests on no source."""
COUNTED = ("answered", "quoted", "nothing_found", "filtered", "failed", "left")

Mode = Literal["off", "gaps", "all"]


def about(session_id: str, question: str) -> bytes:
    """Names one question of one conversation. Two of the same conversation have nothing in common."""
    return hashlib.sha256("\0".join(("question", session_id, question)).encode("utf-8", "surrogatepass")).digest()


class QuestionLog:
    """One for each process. `mode`: `all` keeps every question, `gaps` those that the site did not answer, `off` none;
    the figures are kept in each."""

    def __init__(self, *, store: QuestionStore, mode: Mode) -> None:
        self.store = store
        self._mode = mode
        self._waiting: list[LoggedQuestion] = []
        self._figures: Counter[str] = Counter()
        self._cited: Counter[str] = Counter()
        self._degraded = False

    def record(self, turn: Turn, *, seconds: float) -> None:
        """Takes down what became of a question; a greeting is none. Needs no waiting."""
        if turn.talk is not None:
            return
        outcome = outcome_of(turn)
        self._figures["questions"] += 1
        self._figures[turn.outcome] += 1
        self._figures["uncited"] += outcome == "uncited"
        self._figures["cache_hits"] += turn.cache == "hit"
        self._figures["own_words"] += turn.is_own
        self._figures["prompt_tokens"] += turn.prompt_tokens
        self._figures["completion_tokens"] += turn.completion_tokens
        if turn.first_token_s is not None:
            self._figures["first_tokens"] += 1
            self._figures["first_token_ms"] += round(turn.first_token_s * 1000)
        self._degraded = self._degraded or bool(turn.missing)
        self._cited.update({hit.passage.url for hit in turn.hits[: turn.cited]})
        wanted = self._mode == "all" or (self._mode == "gaps" and outcome in GAPS)
        if wanted and turn.outcome not in ("left", "failed", "filtered") and len(self._waiting) < MOST_WAITING:
            self._waiting.append(_logged(turn, outcome, seconds))

    async def disliked(self, session_id: str, question: str, reason: str) -> None:
        """An answer got a thumb down: its question is a gap too. Raises `StateUnavailable`."""
        if self._mode == "off":
            return
        entry = LoggedQuestion(
            question=_kept(question), words=normalised(_kept(question)), outcome="answered",
            language=likely_language(question), about=about(session_id, question),
        )  # fmt: skip
        await self.write()
        await self.store.dislike(entry, reason=masked(reason[:LONGEST_CHARS]))

    async def forget(self, session_id: str, questions: list[str]) -> None:
        """Removes the questions of a conversation. Raises `StateUnavailable`."""
        gone = {about(session_id, question) for question in questions}
        self._waiting = [entry for entry in self._waiting if entry.about not in gone]
        if gone and self._mode != "off":
            await self.store.forget(sorted(gone))

    async def write_forever(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(WRITTEN_EVERY_S)
            try:
                await self.write()
                told = ""
            except StateUnavailable as error:
                if str(error) != told:  # not every second of an outage
                    log.warning("questions not written", extra={"reason": (told := str(error))})

    async def write(self) -> None:
        """Raises `StateUnavailable`, and keeps what could not be written."""
        if not self._figures and not self._waiting:
            return
        entries, figures, cited, degraded = self._waiting, self._figures, self._cited, self._degraded
        self._waiting, self._figures, self._cited, self._degraded = [], Counter(), Counter(), False
        try:
            await self.store.write(entries, figures=figures, cited=cited, degraded=degraded)
        except BaseException:
            self._waiting = [*entries, *self._waiting]
            self._figures.update(figures)
            self._cited.update(cited)
            self._degraded = self._degraded or degraded
            raise

    async def close(self) -> None:
        with suppress(StateUnavailable):
            await self.write()
        await self.store.close()


def outcome_of(turn: Turn) -> str:
    """What became of a question, as the owner sees it."""
    return "uncited" if turn.outcome == "answered" and turn.generated == "model" and not turn.cited else turn.outcome


def _kept(question: str) -> str:
    return masked(question.strip()[:LONGEST_CHARS])


def _logged(turn: Turn, outcome: str, seconds: float) -> LoggedQuestion:
    question = turn.question
    vector = turn.vector
    return LoggedQuestion(
        question=_kept(question.text),
        words=normalised(_kept(question.text)),
        outcome=outcome,
        language=likely_language(question.text),
        page=question.page.path if question.page else "",
        similarity=turn.similarity,
        seconds=round(seconds, 3),
        tokens=turn.prompt_tokens + turn.completion_tokens,
        build=turn.build,
        vector=None if vector is None else np.asarray(vector, dtype=np.float16).tobytes(),
        about=about(question.session_id, question.text) if question.session_id else None,
    )

"""Who answers in the model's place while it cannot be asked: quotes, under a sentence that says why."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from rag.chat.wording.voice import OUTAGE
from rag.deadline import Deadline
from rag.errors import BudgetSpent, ContentFiltered, UpstreamError
from rag.llm.quoting import QuotingChat
from rag.protocols import ChatModel, pieces
from rag.types import Completion, Missing, Prompt

log = logging.getLogger(__name__)

WITHOUT_MODEL = Missing("model", "chat model unavailable: passages are quoted")
WITHOUT_BUDGET = Missing("budget", "today's budget is used up: passages are quoted")
INSTEAD = {
    missing: QuotingChat(degraded=missing, opening=opening, found_by_words=False)
    for missing, opening in ((WITHOUT_MODEL, OUTAGE), (WITHOUT_BUDGET, "answer_budget"))
}
"""By what is missing."""

Piece = str | Completion | ChatModel


async def asked(
    model: ChatModel, prompt: Prompt, deadline: Deadline, *, stream: bool, degraded_answers: bool
) -> AsyncGenerator[Piece, None]:
    """The answer's pieces, its counts, and at last who wrote it: the model, or what stands in for it.

    Raises `ContentFiltered`; `UpstreamError` after the first piece, or where nothing may stand in.
    """
    began = False
    try:
        async with aclosing(pieces(model, prompt, deadline, stream=stream)) as told:
            async for piece in told:
                began = True
                yield piece
    except ContentFiltered:
        raise
    except UpstreamError as error:
        spent = isinstance(error, BudgetSpent)
        # An answer that has begun is never started over.
        if began or (error.refuse if isinstance(error, BudgetSpent) else not degraded_answers):
            raise
        if not spent:
            log.warning("model not reached, passages are quoted", extra={"reason": str(error)})
        instead = INSTEAD[WITHOUT_BUDGET if spent else WITHOUT_MODEL]
        async with aclosing(pieces(instead, prompt, deadline, stream=stream)) as told:
            async for piece in told:
                yield piece

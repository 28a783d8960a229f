"""When a visitor gets an answer that the owner has written: before anything is searched, or once the question's vector
is known. Needs no model either way."""

from rag.chat.answer_cache import KeptAnswer
from rag.chat.turn import Turn
from rag.search.hybrid import Build
from rag.search.owner.answers import OwnAnswer


def exact(turn: Turn, build: Build) -> KeptAnswer | None:
    """The answer to this very question. What a visitor has marked on the page makes it a question about that."""
    return None if turn.question.selection else _ready(build.own_answers.exact(turn.question.text))


def similar(turn: Turn, build: Build) -> KeptAnswer | None:
    """The answer to a question that means the same. Only for what opens a conversation: later ones lean on it."""
    if turn.earlier or turn.question.selection or turn.build != build.id:
        return None
    return _ready(build.own_answers.similar(turn.question.text, turn.vector))


def _ready(answer: OwnAnswer | None) -> KeptAnswer | None:
    return None if answer is None else KeptAnswer(answer.text, answer.hits, len(answer.hits), is_own=True)

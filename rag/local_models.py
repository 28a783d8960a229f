"""Answers without a language model: the best passages, quoted and linked.

Speaks the same interface as `azure_openai.AzureChat`, for the demo, which has no model, and for the minutes in which
the real one cannot be reached.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rag.models import Completion, Hit, Prompt
from rag.resilience import Deadline
from rag.text import function_words, query_terms, terms, words

QUOTED = 3
"""Passages in an answer: what a visitor reads before the page scrolls."""
QUOTE_CHARS = 480

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n{2,}")


class QuotingChat:
    """Quotes the passages of a prompt. `degraded` says what is missing from such an answer, `opening` tells readers."""

    def __init__(self, *, degraded: str, opening: str) -> None:
        self.degraded: str | None = degraded
        self._opening = opening

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "endpoints": []}

    async def complete(self, prompt: Prompt, *, deadline: Deadline) -> Completion:
        """The whole answer, in Markdown. Needs no time, so that `deadline` does not matter."""
        quoted = prompt.hits[:QUOTED]
        quotes = [_quote(number, hit, prompt.question) for number, hit in enumerate(quoted, start=1)]
        opening = " ".join(filter(None, [self._opening, _admission(prompt.question, quoted)]))
        return Completion(text="\n\n".join([opening, *quotes]), prompt_tokens=0, completion_tokens=0)

    async def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str]:
        """The same, in pieces of one paragraph each."""
        text = (await self.complete(prompt, deadline=deadline)).text
        for piece in re.split(r"(?<=\n\n)", text):
            yield piece


def _admission(question: str, quoted: Sequence[Hit]) -> str:
    """Which of the question's words no quoted passage has: whoever asked for vacation days should hear that first."""
    languages = list(dict.fromkeys(hit.passage.language for hit in quoted))
    said = {term for hit in quoted for term in terms(hit.passage.indexed_text, hit.passage.language)}
    asked = [word for word, is_run in words(question) if not is_run]
    stops = function_words(set(asked), languages)
    missing = [
        word
        for word in dict.fromkeys(asked)
        if word not in stops and not said.intersection(*query_terms(word, languages)[:1])
    ]
    if not missing:
        return ""
    return f"None of them mentions {' or '.join(f'“{word}”' for word in missing[:5])}."


def _quote(number: int, hit: Hit, question: str) -> str:
    passage = hit.passage
    excerpt = _excerpt(passage.text, question, passage.language).replace("\n", "\n> ")
    label = passage.heading_path.replace("[", "(").replace("]", ")") or passage.source
    return f"> {excerpt}\n\n[{label}]({passage.citation_url.replace(' ', '%20').replace(')', '%29')}) [{number}]"


def _excerpt(text: str, question: str, language: str) -> str:
    """The stretch of whole sentences, at most `QUOTE_CHARS` long, that shares the most words with the question."""
    if len(text) <= QUOTE_CHARS or "```" in text:
        return _shortened_code(text)
    # Headings inside a passage would stand in the middle of a line once their paragraph is joined to the next.
    sentences = [piece.strip("# \n") for piece in _SENTENCE_END.split(text) if piece.strip("# \n")]
    wanted = {form for forms in query_terms(question, [language]) for form in forms}
    best, best_score = "", -1
    for start in range(len(sentences)):
        stretch = _joined(sentences[start:])
        score = len(wanted & set(terms(stretch, language)))
        if score > best_score:
            best, best_score = stretch, score
    return best if text.startswith(best[:40]) else f"… {best}"


def _joined(sentences: Sequence[str]) -> str:
    taken = sentences[0]
    for sentence in sentences[1:]:
        if len(taken) + len(sentence) + 1 > QUOTE_CHARS:
            break
        taken += f" {sentence}"
    return taken if len(taken) <= QUOTE_CHARS else taken[:QUOTE_CHARS].rsplit(" ", 1)[0] + " …"


def _shortened_code(text: str) -> str:
    """A passage with code, cut between lines at twice the usual length; an open fence is closed."""
    if len(text) <= 2 * QUOTE_CHARS:
        return text
    kept = text[: 2 * QUOTE_CHARS].rsplit("\n", 1)[0]
    return kept + ("\n```" if kept.count("```") % 2 else "") + "\n…"

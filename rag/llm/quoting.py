"""Answers without a language model: the best passages, quoted and linked.

Speaks the same interface as `azure_openai.AzureChat`, for the demo, which has no model, and for the minutes in which
the real one cannot be reached. Which part of a passage is quoted is for `rag.llm.excerpts` to say.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rag.deadline import Deadline
from rag.llm.excerpts import excerpt, is_list, is_table
from rag.text.citing import quoted_at
from rag.text.stopwords import STOP_WORDS
from rag.text.terms import GRAM_MARK, fold, likely_language, terms, words
from rag.types import Completion, Generated, Hit, Missing, Prompt

QUOTED = 3
"""Passages in an answer: what a visitor reads before the page scrolls. Also the pages offered where none fits."""
NAMED = 5
"""Words of a question that are named as missing."""
LEAST_STEM_LETTERS = 4
"""From here on a word also counts as mentioned where a longer one begins with it: `file` in `filename`."""

_OF_ASKING = "many much lot kind kinds type types sort sorts way ways thing things viel viele wieviel wieviele"
UNNAMED = frozenset(word for listed in (*STOP_WORDS.values(), _OF_ASKING) for word in fold(listed).casefold().split())
"""Words that no passage has to mention: the function words of every language, and those that only ask."""

_AS_WRITTEN = re.compile(r"\w+(?:(?:[-_.]+|::)\w+)*")


class QuotingChat:
    """Quotes the passages of a prompt. `degraded` says what is missing from such an answer, `opening` tells readers.

    Passages that were found by their words and have none of the question's are not worth quoting; those that were
    found by meaning are, which `found_by_words` tells apart.
    """

    generated: Generated = "quoted"

    def __init__(self, *, degraded: Missing, opening: str, found_by_words: bool) -> None:
        self.degraded: Missing | None = degraded
        self._opening = opening
        self._found_by_words = found_by_words

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "endpoints": []}

    async def complete(self, prompt: Prompt, *, deadline: Deadline) -> Completion:
        """The whole answer, in Markdown. Needs no time, so that `deadline` does not matter.

        Where no passage has any of the question's words, the answer says so and offers pages instead of quotes.
        """
        return Completion(text=self._answer(prompt), prompt_tokens=0, completion_tokens=0)

    async def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str]:
        """The same, in pieces of one paragraph each."""
        text = (await self.complete(prompt, deadline=deadline)).text
        for piece in re.split(r"(?<=\n\n)", text):
            yield piece

    def _answer(self, prompt: Prompt) -> str:
        asked = _content(prompt.question) if self._found_by_words else {}
        mentioned = [_mentioned(asked, hit, prompt.question) for hit in prompt.hits]
        if asked and not any(mentioned):
            return _nothing_fits(list(asked), prompt.hits)
        # A passage further down that has a word of the question beats three that have none.
        first = 0 if not asked or any(mentioned[:QUOTED]) else next(i for i, found in enumerate(mentioned) if found)
        quoted = range(first, min(first + QUOTED, len(prompt.hits)))
        said = set().union(*(mentioned[place] for place in quoted))
        missing = [word for word in asked if word not in said]
        admission = f"None of them mentions {_listed(missing)}." if missing else ""
        quotes = [_quote(place + 1, prompt.hits[place], prompt.question) for place in quoted]
        return "\n\n".join([" ".join(filter(None, [self._opening, admission])), *quotes])


def _content(question: str) -> dict[str, tuple[str, ...]]:
    """The words of a question that mean something, as they are written, and what the index would make of each."""
    found: dict[str, tuple[str, ...]] = {}
    for written in _AS_WRITTEN.findall(question):
        parts = tuple(word for word, is_run in words(written) if not is_run)
        if not UNNAMED.issuperset(parts) and written.casefold() not in {other.casefold() for other in found}:
            found[written] = parts
    return found


def _mentioned(asked: dict[str, tuple[str, ...]], hit: Hit, question: str) -> set[str]:
    """Which of the words a passage has, in whatever form: as it stands, or with the ending its language gives it."""
    text = hit.passage.indexed_text
    # Passages of little prose have no known language; without the question's, "file" would not be found in "files".
    languages = {"", hit.passage.language, likely_language(question)}
    said = {term for one in languages for term in terms(text, one) if not term.startswith(GRAM_MARK)}

    def has(word: str) -> bool:
        stems = {term for one in languages for term in terms(word, one) if not term.startswith(GRAM_MARK)}
        long = tuple(stem for stem in stems if len(stem) >= LEAST_STEM_LETTERS)
        return not said.isdisjoint(stems) or any(term.startswith(long) for term in said)

    # A compound counts whole or with all of its parts: "auth" alone is no mention of OAuth.
    return {
        written for written, (whole, *parts) in asked.items() if has(whole) or (parts and all(map(has, parts)))
    }  # fmt: skip


def _nothing_fits(missing: Sequence[str], hits: Sequence[Hit]) -> str:
    pages = {hit.passage.url: hit.passage.title or hit.passage.source for hit in reversed(hits)}
    links = [f"- {_link(title, url)}" for url, title in reversed(pages.items())][:QUOTED]
    plain = f"Nothing that I found fits your question: no passage mentions {_listed(missing)}."
    return "\n\n".join([plain, "These pages come closest:", "\n".join(links)])


def _quote(number: int, hit: Hit, question: str) -> str:
    blocks: list[str] = []
    goes_on = False
    quote = excerpt(hit.passage, question)
    for block in quote:
        # Readers that show Markdown while it arrives nest what follows a quoted list, and each row of a quoted table.
        within = block if is_table(block) else "\n".join(f"> {line}".rstrip() for line in block.split("\n"))
        if goes_on and not is_table(block):
            blocks[-1] += f"\n>\n{within}"
        else:
            blocks.append(within)
        goes_on = not is_table(block) and not is_list(block)
    passage = quoted_at(hit.passage, "\n".join(quote))
    return "\n\n".join([*blocks, f"{_link(passage.heading_path or passage.source, passage.citation_url)} [{number}]"])


def _link(label: str, url: str) -> str:
    return f"[{label.replace('[', '(').replace(']', ')')}]({url.replace(' ', '%20').replace(')', '%29')})"


def _listed(missing: Sequence[str]) -> str:
    """`“a”, “b” or “c”`."""
    *others, last = [f"“{word}”" for word in missing[:NAMED]]
    return f"{', '.join(others)} or {last}" if others else last

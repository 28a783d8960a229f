"""Answers without a language model: the best passages, quoted and linked.

Speaks the same interface as `azure_openai.AzureChat`, for the demo, which has no model, and for the minutes in which
the real one cannot be reached. Which part of a passage is quoted is for `rag.llm.excerpts` to say.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from rag.deadline import Deadline
from rag.llm.excerpts import excerpt, is_list, is_table
from rag.text.citing import own_text, quoted_at
from rag.text.fragments import link_target, with_links
from rag.text.stopwords import STOP_WORDS
from rag.text.terms import GRAM_MARK, fold, likely_language, terms, words
from rag.types import Completion, Generated, Hit, Missing, Passage, Prompt

QUOTED = 3
"""Passages in an answer: what a visitor reads before the page scrolls. Also the pages offered where none fits."""
MORE = "moreQuotes"
"""The code of what stands above all quotes but the first. The chat on a page folds what follows it."""
LEAST_SHARE = 0.7
"""Of the first quote's weight: what weighs less is not worth reading beside it."""
NAMED_WEIGHT = 1.5
"""What a question's words count in the headings of a section, beside once for its text and once for its rank."""
NAMED = 5
"""Words of a question that are named as missing."""
LEAST_STEM_LETTERS = 4
"""From here on a word also counts as mentioned where a longer one begins with it: `file` in `filename`."""

_OF_ASKING = (
    "many much lot kind kinds type types sort sorts way ways thing things viel viele wieviel wieviele "
    "make makes give gives put puts get gets use uses work works happen happens need want possible"
)
UNNAMED = frozenset(word for listed in (*STOP_WORDS.values(), _OF_ASKING) for word in fold(listed).casefold().split())
"""Words that no passage has to mention: the function words of every language, and those that only ask."""

_AS_WRITTEN = re.compile(r"\w+(?:(?:[-_.]+|::)\w+)*")


class QuotingChat:
    """Quotes the passages of a prompt. `degraded` says what is missing from such an answer, `opening` tells readers:
    it is the code of a sentence, and the prompt brings the sentences in the visitor's language.

    Passages that were found by their words are only worth quoting if they have the question's; those that were found
    by meaning are in any case, which `found_by_words` tells apart.
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

        The best quote reads as its page does; others that are worth it follow in a quote's marks, below `MORE`. One
        with half of the question's words or fewer is quoted alone, as what comes closest; where no passage has any of
        them, the answer offers pages instead.
        """
        return Completion(text=self._answer(prompt), prompt_tokens=0, completion_tokens=0)

    async def stream(self, prompt: Prompt, *, deadline: Deadline) -> AsyncIterator[str]:
        """The same, in pieces of one paragraph each."""
        text = (await self.complete(prompt, deadline=deadline)).text
        for piece in re.split(r"(?<=\n\n)", text):
            yield piece

    def _answer(self, prompt: Prompt) -> str:
        asked = _content(prompt.question) if self._found_by_words else {}
        quotes = [_Quote.of(number, hit, prompt.question, asked) for number, hit in enumerate(prompt.hits, start=1)]
        quotes.sort(key=lambda quote: -quote.weight)
        if asked and not any(quote.said for quote in quotes):
            return _nothing_fits(list(asked), prompt)
        best, opening = quotes[0], prompt.sentences[self._opening]
        others = [quote for quote in quotes[1:QUOTED] if quote.weight >= LEAST_SHARE * best.weight]
        missing = [word for word in asked if not any(word in quote.said for quote in (best, *others))]
        if asked and not best.fits(asked):
            others = []
            opening = _saying("answer_closest", prompt, [word for word in asked if word not in best.said])
        elif missing:
            opening = f"{opening} {_saying('answer_unmentioned', prompt, missing)}"
        more = [f"#### {prompt.sentences[MORE]}", *(other.within_marks() for other in others)] if others else []
        return "\n\n".join([opening, best.as_prose(), *more])


@dataclass(frozen=True, slots=True)
class _Quote:
    """A part of a passage, from one of its sections."""

    number: int
    passage: Passage
    """Linked at the section."""
    blocks: Sequence[str]
    said: Set[str]
    """The question's words that the section has."""
    named: Set[str]
    """Those that its headings have."""
    weight: float

    @classmethod
    def of(cls, number: int, hit: Hit, question: str, asked: Mapping[str, Sequence[str]]) -> "_Quote":
        blocks = excerpt(hit.passage, question)
        passage = quoted_at(hit.passage, "\n".join(blocks))
        named = _mentioned(asked, passage.heading_path, passage, question)
        said = named | _mentioned(asked, own_text(passage), passage, question)
        count = max(1, len(asked))
        weight = hit.score + len(said) / count + NAMED_WEIGHT * len(named) / count
        return cls(number, passage, blocks, said, named, weight)

    def fits(self, asked: Mapping[str, Sequence[str]]) -> bool:
        """Whether it has most of the question's words, or some in its headings: half of them stand anywhere."""
        return len(self.said) > len(asked) / 2 or bool(self.named)

    def as_prose(self) -> str:
        """The quote as its page has it, with the links in it."""
        return "\n\n".join([*with_links(self.blocks, self.passage), self._link()])

    def within_marks(self) -> str:
        """The quote in a quote's marks."""
        marked: list[str] = []
        goes_on = False
        for block in self.blocks:
            # Readers that show Markdown while it arrives nest what follows a quoted list, and a quoted table's rows.
            within = block if is_table(block) else "\n".join(f"> {line}".rstrip() for line in block.split("\n"))
            if goes_on and not is_table(block):
                marked[-1] += f"\n>\n{within}"
            else:
                marked.append(within)
            goes_on = not is_table(block) and not is_list(block)
        return "\n\n".join([*marked, self._link()])

    def _link(self) -> str:
        label = self.passage.heading_path or self.passage.source
        return f"{_link(label, self.passage.citation_url)} [{self.number}]"


def _content(question: str) -> dict[str, tuple[str, ...]]:
    """The words of a question that mean something, as they are written, and what the index would make of each."""
    found: dict[str, tuple[str, ...]] = {}
    for written in _AS_WRITTEN.findall(question):
        parts = tuple(word for word, is_run in words(written) if not is_run)
        if not UNNAMED.issuperset(parts) and written.casefold() not in {other.casefold() for other in found}:
            found[written] = parts
    return found


def _mentioned(asked: Mapping[str, Sequence[str]], text: str, passage: Passage, question: str) -> set[str]:
    """Which of the words a text of a passage has, in whatever form: as it stands, or with its language's ending."""
    # Passages of little prose have no known language; without the question's, "file" would not be found in "files".
    languages = {"", passage.language, likely_language(question)}
    said = {term for one in languages for term in terms(text, one) if not term.startswith(GRAM_MARK)}

    def has(word: str) -> bool:
        stems = {term for one in languages for term in terms(word, one) if not term.startswith(GRAM_MARK)}
        long = tuple(stem for stem in stems if len(stem) >= LEAST_STEM_LETTERS)
        return not said.isdisjoint(stems) or any(term.startswith(long) for term in said)

    # A compound counts whole or with all of its parts: "auth" alone is no mention of OAuth.
    return {
        written for written, (whole, *parts) in asked.items() if has(whole) or (parts and all(map(has, parts)))
    }  # fmt: skip


def _nothing_fits(missing: Sequence[str], prompt: Prompt) -> str:
    pages = {hit.passage.url: hit.passage.title or hit.passage.source for hit in reversed(prompt.hits)}
    links = [f"- {_link(title, url)}" for url, title in reversed(pages.items())][:QUOTED]
    plain = _saying("answer_unmatched", prompt, missing)
    return "\n\n".join([plain, prompt.sentences["answer_nearest"], "\n".join(links)])


def _link(label: str, url: str) -> str:
    return f"[{label.replace('[', '(').replace(']', ')')}]({link_target(url)})"


def _saying(code: str, prompt: Prompt, missing: Sequence[str]) -> str:
    return prompt.sentences[code].replace("{words}", ", ".join(f"“{word}”" for word in missing[:NAMED]))

"""Links that open a page at the very words: where in a passage there are words that its page has once. Pure.

A browser looks for the words in the page as it is shown, so only words are taken that look there as they do in the
source, and only where the page has them once.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from indexer.documents import Document
from rag.text.fragments import directive, without_marks
from rag.types import Passage

SHOWN_AS_TEXT = frozenset({".md", ".mdx", ".html", ".htm", ".txt"})
"""What a browser shows as text; in a PDF the page is all that a link can open."""
FEWEST_WORDS = 4
MOST_WORDS = 10
FEWEST_CHARACTERS = 8
MOST_CHARACTERS = 20
"""Of a script that is written without spaces."""
TRIED = 3
"""Stretches of one sentence, at most, until one stands in the page once."""
COUNTED_WORDS = 3
"""In a row: what is counted of a whole page once, so that not every stretch must be looked for in all of it."""

_FENCED = re.compile(r"^(`{3,}|~{3,}).*?(?:^\1|\Z)", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"(?m)^(?!\s*#{1,6}\s)(?:[ \t>]*(?:[-*+]|\d+[.)])[ \t]+)?(.+)$")
_SENTENCE = re.compile(r"[^|]+?(?:[.!?:](?=\s)|[。！？]|(?=\|)|\Z)")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_TOKEN = re.compile(r"\S+")
# Quotation marks, dashes and ellipses are often replaced when a page is rendered.
_WORD = re.compile(r"[(]?[\w@/#]+(?:[._/-][\w]+)*[),.;:!?。！？，]?")
_ENDS = ",.;:!?)。！？，"

Span = tuple[int, int]


def with_fragments(document: Document, passages: list[Passage]) -> list[Passage]:
    """The passages with the `phrases` of their sections and the first of them as `fragment`, where there are such."""
    if PurePosixPath(document.source).suffix.lower() not in SHOWN_AS_TEXT:
        return passages
    page = _Page(document)
    return [_with_phrases(passage, page) for passage in passages]


def _with_phrases(passage: Passage, page: "_Page") -> Passage:
    phrases = list(_phrases(passage.text, page))
    sections = tuple(
        replace(one, phrases=tuple(span for span in phrases if one.start <= span[0] and span[1] <= one.end))
        for one in passage.sections
    )
    first = next((directive(passage.text[start:end]) for start, end in phrases), "")
    return replace(passage, fragment=first, sections=sections)


class _Page:
    """All that a page says, as it is compared: marks off, case folded, white space made one."""

    def __init__(self, document: Document) -> None:
        said = [document.title]
        for section in document.sections:
            said += [*section.headings[-1:], *(block.text for block in section.blocks)]
        self._text = _folded(_LINK.sub(r"\1", "\n".join(said)))
        tokens = self._text.split()
        self._runs = Counter(zip(*(tokens[start:] for start in range(COUNTED_WORDS)), strict=False))

    def has_once(self, words: str) -> bool:
        phrase = _folded(words).strip().rstrip(_ENDS)
        tokens = phrase.split()
        # The last word may lack the mark that it has in the page.
        if len(tokens) > COUNTED_WORDS and self._runs[tuple(tokens[:COUNTED_WORDS])] == 1:
            return True
        return self._text.count(phrase) == 1


def _folded(text: str) -> str:
    return f" {' '.join(without_marks(text).split()).casefold()} "


def _phrases(text: str, page: _Page) -> Iterator[Span]:
    """Words of each sentence, item and cell of a passage's prose that the page has once, in reading order."""
    text = _FENCED.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    for line in _LINE.finditer(text):
        for sentence in _SENTENCE.finditer(text, line.start(1), line.end(1)):
            found = (span for span in _stretches(text, *sentence.span()) if page.has_once(text[slice(*span)]))
            if (first := next(found, None)) is not None:
                yield first


def _stretches(text: str, start: int, end: int) -> list[Span]:
    """Where in a sentence words stand in a row that a browser shows as they are written; the first ones."""
    found: list[Span] = []
    for run in _runs([token.span() for token in _TOKEN.finditer(text, start, end)], text):
        if len(run) >= FEWEST_WORDS:
            for first in range(0, len(run) - FEWEST_WORDS + 1, FEWEST_WORDS):
                words = run[first : first + MOST_WORDS]
                found.append((words[0][0], words[-1][1]))
        else:
            spaceless = [span for span in run if span[1] - span[0] >= FEWEST_CHARACTERS]
            found += [
                (begin, min(stop, begin + MOST_CHARACTERS)) for begin, stop in spaceless if not text[begin].isascii()
            ]
        if len(found) >= TRIED:
            break
    return found[:TRIED]


def _runs(tokens: Sequence[Span], text: str) -> Iterator[list[Span]]:
    run: list[Span] = []
    for span in tokens:
        if _WORD.fullmatch(without_marks(text[slice(*span)])):
            run.append(span)
        elif run:
            yield run
            run = []
    if run:
        yield run

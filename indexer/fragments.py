"""Links that open a page at the very words: text fragments (wicg.github.io/scroll-to-text-fragment), made once, here.

A browser looks for the words in the page as it is shown, so only words are taken that look there as they do in the
source, and only where the page has them once. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import quote

from indexer.documents import Document
from rag.types import Passage

SHOWN_AS_TEXT = frozenset({".md", ".mdx", ".html", ".htm", ".txt"})
"""What a browser shows as text; in a PDF the page is all that a link can open."""
FEWEST_WORDS = 4
MOST_WORDS = 10
FEWEST_CHARACTERS = 8
MOST_CHARACTERS = 20
"""Of a script that is written without spaces."""

_FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"`|\*\*|__|(?<!\w)[*_]|[*_](?!\w)")
_LINE_MARK = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|(?<=[。！？])")
# Quotation marks, dashes and ellipses are often replaced when a page is rendered.
_WORD = re.compile(r"[(]?[\w@/#]+(?:[._/-][\w]+)*[),.;:!?。！？，]?")


def with_fragments(document: Document, passages: list[Passage]) -> list[Passage]:
    """The passages with `fragment` set to words that lead to them and stand in the page once, where there are such."""
    if PurePosixPath(document.source).suffix.lower() not in SHOWN_AS_TEXT:
        return passages
    page = _page(document)
    return [replace(passage, fragment=_fragment(passage.text, page)) for passage in passages]


def _page(document: Document) -> str:
    """All that the page says, as it is compared: marks off, case folded, white space made one."""
    said = [document.title]
    for section in document.sections:
        said += [*section.headings[-1:], *(block.text for block in section.blocks)]
    return _folded("\n".join(said))


def _folded(text: str) -> str:
    return f" {' '.join(_MARKS.sub('', text).split()).casefold()} "


def _fragment(text: str, page: str) -> str:
    for words in _phrases(text):
        phrase = " ".join(words)
        if page.count(_folded(phrase).strip()) == 1:
            # A comma, an ampersand and a dash have a meaning of their own in a text directive.
            return quote(phrase, safe="").replace("-", "%2D")
    return ""


def _phrases(text: str) -> Iterator[list[str]]:
    """Stretches of words from the passage's prose, the first of each sentence, in reading order."""
    for line in _FENCED.sub("", text).splitlines():
        if line.lstrip().startswith(("#", "|", "```", "~~~")):
            continue
        for sentence in _SENTENCE.split(_LINE_MARK.sub("", _MARKS.sub("", line))):
            words = []
            for word in sentence.split()[:MOST_WORDS]:
                if not _WORD.fullmatch(word):
                    break
                words.append(word)
            if len(words) >= FEWEST_WORDS:
                yield [*words[:-1], words[-1].rstrip(",.;:!?)")]
            elif words and len(words[0]) >= FEWEST_CHARACTERS and not words[0].isascii():
                yield [words[0].rstrip("。！？，")[:MOST_CHARACTERS]]

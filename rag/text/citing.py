"""Where a citation leads: of a passage's sections the one that says it, opened at the words that say it. Pure.

A passage may hold several sections of its page. What cites it (a quote, a sentence of an answer, a question) is
compared with each of them, by the words that they share: rare ones count more than those that stand everywhere.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rag.text.fragments import directive
from rag.text.stopwords import STOP_WORDS
from rag.types import Hit, Passage, Section

STEM_LETTERS = 6
"""Letters that tell a word from others here, whatever its ending: comparing a few sections needs no stemmer."""
ENDING_LETTERS = 3
"""Letters, at most, by which a short word may be longer: "click" is in "clicked"."""
QUESTION_SHARE = 0.3
"""What a word of the question counts beside one of the sentence that cites."""
BESIDE_SHARE = 0.3
"""What a word counts that stands elsewhere in the section, or in its heading, beside one of its best sentence."""
LINE_CHARS = 80
"""Of a text of so many lines a word in every line says nothing about where."""
SENTENCE_CHARS = 1_000
"""Of a sentence without an end, at most."""
FEWEST_WORDS = 3
"""A sentence of fewer, such as "Yes.", is read together with what stands before it."""

Mark = tuple[int, int, int]
"""Begin, end and number of a citation in an answer."""

# One class first: with it alone most of a text is passed over.
_SENTENCE_END = re.compile(r"[.!?\n。！？](?:(?<![.!?])|(?=\s))")
_SPACELESS = re.compile(r"[\u0e01-\u0eff\u1000-\u109f\u1780-\u17dd\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SPACELESS_RUN = _SPACELESS.pattern.replace("]", "]{2,}")
_WORDS = re.compile(rf"{_SPACELESS_RUN}|[^\W_]{{2,}}")
_WORD = re.compile(r"\w")
_LINK = re.compile(r"\[([^\[\]\n]*)\]\([^()\s]*\)")
_PARAGRAPH = re.compile(r"\n\s*(?=[\n>*+-]|\d+[.)])")
_HEADINGS = re.compile(r"\A(?:\s*#{1,6} [^\n]*(?:\n|\Z))+")
_COMMON = frozenset(word[:STEM_LETTERS] for words in STOP_WORDS.values() for word in words.lower().split())


@dataclass(frozen=True, slots=True)
class Citation:
    """A mark of an answer, with what it stands behind."""

    start: int
    end: int
    number: int
    words: str


def citations(answer: str, marks: Iterable[Mark], *, quoted: bool = False) -> Iterator[Citation]:
    """The marks of an answer, each with the sentence before it; with `quoted` all since the mark before.

    Marks in a row share their sentence. One that nothing stands before has what follows it.
    """
    words, at = "", 0
    for start, end, number in marks:
        before = answer[at:start]
        if _WORD.search(before):
            words = _LINK.sub(r"\1", before) if quoted else _last_sentence(before)
        yield Citation(start, end, number, words or answer[end : end + SENTENCE_CHARS].split("\n", 1)[0])
        at = end


def _last_sentence(text: str) -> str:
    paragraph = next((part for part in reversed(_PARAGRAPH.split(text)) if _WORD.search(part)), text)
    ends = [0, *(stop.end() for stop in _SENTENCE_END.finditer(paragraph)), len(paragraph)]
    sentences = [one for start, end in pairwise(ends) if _WORD.search(one := paragraph[start:end])]
    last = sentences[-1] if sentences else paragraph
    return (last if len(last.split()) >= FEWEST_WORDS or not last.isascii() else paragraph)[-SENTENCE_CHARS:]


def cited_at(hits: Sequence[Hit], found: Iterable[Citation], *, question: str, quoted: bool) -> tuple[Hit, ...]:
    """The hits, by their numbers in the answer, each linked where it is cited first; the others where the question is.

    With `quoted` what cites is a quote.
    """
    words: dict[int, str] = {}
    for one in found:
        words.setdefault(one.number - 1, one.words)
    linked = [
        quoted_at(hit.passage, words[place]) if quoted and place in words
        else led_to(hit.passage, words.get(place, ""), question=question)
        for place, hit in enumerate(hits)
    ]  # fmt: skip
    return tuple(Hit(to, hit.score, hit.similarity, hit.row) for to, hit in zip(linked, hits, strict=True))


def quoted_at(passage: Passage, quote: str) -> Passage:
    """The passage, linked at the section that a quote of it is from, and at the first words in it that can be found;
    at the section alone where there are none.
    """
    if not passage.sections:
        return passage
    for section in passage.sections:
        for start, end in section.phrases:
            if passage.text[start:end] in quote:
                return _linked(passage, section, (start, end))
    return _linked(passage, _section(passage, _Shared.of(passage, quote)), None)


def led_to(passage: Passage, words: str, *, question: str = "") -> Passage:
    """The passage, linked at the section and the sentence of it that share most with `words`.

    Without `words` at the section that has most of the question's, where there are several.
    """
    if not passage.sections:
        return passage
    if not words:
        return _asked_for(passage, question) if question and len(passage.sections) > 1 else passage
    shared = _Shared.of(passage, words, question)
    section = _section(passage, shared)
    for start, end in shared.sentences(section):
        for span in section.phrases:
            if start <= span[0] and span[1] <= end:
                return _linked(passage, section, span)
    return _linked(passage, section, None)


def own_text(passage: Passage) -> str:
    """The text of the section that a passage is linked at, without its heading; all of it where that is not known."""
    if len(passage.sections) != 1:
        return passage.text
    (section,) = passage.sections
    text = passage.text[section.start : section.end]
    return _HEADINGS.sub("", text).strip() or text


def _linked(passage: Passage, section: Section, span: tuple[int, int] | None) -> Passage:
    fragment = directive(passage.text[slice(*span)]) if span else ""
    # `replace` takes several times as long, and every answer links five passages.
    return Passage(
        text=passage.text, title=passage.title, headings=section.headings, url=passage.url, anchor=section.anchor,
        source=passage.source, language=passage.language, fragment=fragment, sections=(section,),
        links=passage.links,
    )  # fmt: skip


def _asked_for(passage: Passage, question: str) -> Passage:
    """The passage, linked at the section with most of the question's words, the first of equal ones."""
    tokens = _tokens(question)
    best, most = passage.sections[0], -1.0
    said = [f"{' '.join(one.headings[-1:])}\n{passage.text[one.start : one.end]}".lower() for one in passage.sections]
    having = {token: [token in text for text in said] for token in tokens}
    for place, section in enumerate(passage.sections):
        weight = sum(1 / sum(having[token]) for token in tokens if having[token][place])
        if weight > most:
            best, most = section, weight
    return _linked(passage, best, next(iter(best.phrases), None))


def _section(passage: Passage, shared: "_Shared") -> Section:
    """The section of the sentence that shares most; what else the section shares counts less, its heading included.

    The first of equal ones.
    """
    if len(passage.sections) == 1:
        return passage.sections[0]
    return max(passage.sections, key=lambda one: shared.best(one) + BESIDE_SHARE * shared.beside(one))


class _Shared:
    """What a passage shares with what cites it: words, where they are, and what each of its sentences has of them."""

    def __init__(self, ends: list[int], found: Sequence[tuple[str, list[int], float]]) -> None:
        self._ends = ends
        """Of the sentences and lines of the text, in order."""
        self._found = found
        """A word, its places, and what it counts."""
        self._weights = [0.0] * len(ends)
        for _, places, weight in found:
            for sentence in {bisect_right(ends, place) for place in places}:
                self._weights[sentence] += weight

    @classmethod
    def of(cls, passage: Passage, words: str, question: str = "") -> "_Shared":
        """A word counts the more, the fewer times it is there."""
        text, lowered = passage.text, passage.text.lower()
        # A letter of another length in lower case moves all places behind it.
        searched = lowered if len(lowered) == len(text) else text
        asked = dict.fromkeys(_tokens(question), QUESTION_SHARE) | dict.fromkeys(_tokens(words), 1.0)
        found = [(token, list(_found(searched, token)), share) for token, share in asked.items()]
        lines = len(text) / LINE_CHARS
        ends = [stop.end() for stop in _SENTENCE_END.finditer(text)]
        return cls(
            [*ends, len(text) + 1],
            [(token, places, share * math.log(1 + lines / len(places))) for token, places, share in found if places],
        )

    def best(self, section: Section) -> float:
        return max(self._weights[slice(*self._range(section))])

    def beside(self, section: Section) -> float:
        # The heading of a passage's first section may stand above its text.
        heading = section.headings[-1].lower() if section.headings else ""
        within = [any(section.start <= at < section.end for at in places) for _, places, _ in self._found]
        named = [token in heading for token, _, _ in self._found]
        return sum(
            weight * (inside + above)
            for (_, _, weight), inside, above in zip(self._found, within, named, strict=True)
        )  # fmt: skip

    def sentences(self, section: Section) -> Iterator[tuple[int, int]]:
        """Begin and end of the section's sentences, those that share most first."""
        for place in sorted(range(*self._range(section)), key=lambda place: -self._weights[place]):
            yield (self._ends[place - 1] if place else 0), self._ends[place]

    def _range(self, section: Section) -> tuple[int, int]:
        return bisect_right(self._ends, section.start), bisect_left(self._ends, section.end) + 1


def _found(text: str, token: str) -> Iterator[int]:
    """Where a word begins with the token, and ends soon after it unless the token is the beginning of a long one."""
    is_whole_word = token.isascii() or not _SPACELESS.match(token)
    at = text.find(token)
    while at >= 0:
        after = at + len(token)
        ending = text[after : after + ENDING_LETTERS + 1]
        if not is_whole_word or (
            not text[at - 1 : at].isalnum()
            and (len(token) == STEM_LETTERS or len(ending) <= ENDING_LETTERS or not ending.isalnum())
        ):
            yield at
        at = text.find(token, after)


def _tokens(text: str) -> frozenset[str]:
    """What words are told apart by: how they begin; pairs of characters where a script has no spaces."""
    found: set[str] = set()
    for word in _WORDS.findall(text.lower()):
        if not word.isascii() and _SPACELESS.match(word):
            found.update(word[at : at + 2] for at in range(len(word) - 1))
        else:
            found.add(word[:STEM_LETTERS].removesuffix("s") if len(word) > STEM_LETTERS // 2 else word)
    return frozenset(found - _COMMON)

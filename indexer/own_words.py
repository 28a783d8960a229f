"""What an owner adds to a build in two files beside the documents: `answers.md` and `synonyms.txt`. They are no pages.

    ## How do I reach you by phone?
    ## What is your telephone number?

    Call 555 0100, from nine to five. More on the [contact page](/contact/).

A heading of the second level is a question, several in a row are one question in several wordings, and what stands
below is the answer. Of synonyms each line is a group, separated by commas; `#` begins a comment.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import numpy as np

from indexer.documents import Skipped
from indexer.reading.finding import File
from rag.errors import SourceUnreadable
from rag.search.owner import answers, synonyms
from rag.text.asked import normalised
from rag.types import Passage

ANSWERS, SYNONYMS = "answers.md", "synonyms.txt"
MOST_QUESTIONS = 1_000
"""With their vectors they stand in the manifest: about 4 kB each."""
LONGEST_QUESTION, LONGEST_ANSWER = 500, 8_000
MOST_GROUPS = 2_000
AT_ONCE = 64
_QUESTION = re.compile(r"##\s+(.+?)(?:\s+#+)?\s*")
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_TARGET = re.compile(r"(?<=\]\()\s*<?([^)\s>]+)>?(?=[\s)])|(?<=<)(https?://[^>\s]+)(?=>)")

Embed = Callable[[Sequence[str]], Awaitable[np.ndarray]]


@dataclass(slots=True)
class Answer:
    questions: list[str]
    text: str
    source: str


@dataclass(slots=True)
class OwnWords:
    """What the files say."""

    answers: list[Answer] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)
    site_url: str = ""

    async def parts(
        self, passages: Iterable[Passage], *, embed: Embed, live: Mapping[str, Any] | None, model: str
    ) -> tuple[dict[str, Any], list[Skipped]]:
        """Their parts of the manifest, and links that lead to no page of the index. Of questions that the `live`
        manifest has from the same model, the vectors are taken from there. Raises what `embed` does."""
        made: dict[str, Any] = {synonyms.PART: self.groups} if self.groups else {}
        if not self.answers:
            return made, []
        vectors = await _vectors([q for one in self.answers for q in one.questions], embed, live, model)
        pages = _Pages(passages, self.site_url)
        entries = []
        for answer in self.answers:
            text, found = pages.linked(answer)
            entries.append(
                {
                    "questions": answer.questions, "vectors": [vectors[question] for question in answer.questions],
                    "text": text, "pages": found,
                }
            )  # fmt: skip
        return made | {answers.PART: entries}, pages.missing


def split(files: Sequence[File], sources: Sequence[Path]) -> tuple[list[File], list[File]]:
    """The owner's files, which stand at the top of a source or are one, and the others."""
    tops = {path.resolve() if path.is_dir() else path.parent.resolve() / path.name for path in sources}

    def is_own(file: File) -> bool:
        return file.path.name in (ANSWERS, SYNONYMS) and bool({file.path, file.path.parent} & tops)

    return [file for file in files if is_own(file)], [file for file in files if not is_own(file)]


def read(files: Sequence[File], *, site_url: str) -> OwnWords:
    """What these files say. Raises `SourceUnreadable` that names file and line."""
    own = OwnWords(site_url=site_url)
    for file in files:
        try:
            text = file.path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceUnreadable(f"{file.source}: cannot be read ({type(error).__name__})") from None
        if file.path.name == ANSWERS:
            own.answers += _answers(text.splitlines(), file.source)
        else:
            own.groups += _groups(text.splitlines(), file.source)
    asked: set[str] = set()
    for answer in own.answers:
        for question in answer.questions:
            if (same := normalised(question)) in asked:
                raise SourceUnreadable(f"{answer.source}: {question!r} is asked twice")
            asked.add(same)
    if len(asked) > MOST_QUESTIONS or len(own.groups) > MOST_GROUPS:
        raise SourceUnreadable(f"more than {MOST_QUESTIONS:,} own questions or {MOST_GROUPS:,} groups of synonyms")
    return own


def _answers(lines: Sequence[str], source: str) -> Iterator[Answer]:
    open_questions: list[str] = []
    said: list[str] = []
    fence = ""

    def ended(number: int) -> Answer:
        text = "\n".join(said).strip()
        if not text:
            raise SourceUnreadable(f"{source}, line {number}: no answer stands below {open_questions[-1]!r}")
        if len(text) > LONGEST_ANSWER:
            raise SourceUnreadable(f"{source}: more than {LONGEST_ANSWER:,} characters below {open_questions[-1]!r}")
        return Answer(open_questions, text, source)

    for number, line in enumerate(lines, start=1):
        if marks := _FENCE.match(line):
            fence = "" if fence and marks[1].startswith(fence) else fence or marks[1]
        question = None if fence else _QUESTION.fullmatch(line)
        if question is None:
            said += [line] if open_questions else []
            continue
        if open_questions and any(map(str.strip, said)):
            yield ended(number)
            open_questions = []
        said = []
        if len(question[1]) > LONGEST_QUESTION:
            raise SourceUnreadable(f"{source}, line {number}: a question of more than {LONGEST_QUESTION} characters")
        open_questions.append(question[1])
    if not open_questions:
        raise SourceUnreadable(f"{source}: holds no question; write each as a heading, ## Like this?")
    yield ended(len(lines))


def _groups(lines: Sequence[str], source: str) -> Iterator[list[str]]:
    for number, line in enumerate(lines, start=1):
        if said := line.partition("#")[0].strip():
            group = [" ".join(term.split()) for term in said.split(",") if term.strip()]
            if len(group) < 2:
                wanted = "words that mean the same, separated by commas"
                raise SourceUnreadable(f"{source}, line {number}: not of the form: {wanted}")
            yield group


async def _vectors(
    questions: Sequence[str], embed: Embed, live: Mapping[str, Any] | None, model: str
) -> dict[str, str]:  # fmt: skip
    known: dict[str, str] = {}
    if live is not None and live["embedding"]["model"] == model:
        for entry in live.get(answers.PART, ()):
            known |= dict(zip(entry["questions"], entry["vectors"], strict=True))
    wanted = [question for question in questions if question not in known]
    for start in range(0, len(wanted), AT_ONCE):
        batch = wanted[start : start + AT_ONCE]
        known |= dict(zip(batch, map(answers.packed, await embed(batch)), strict=True))
    return known


class _Pages:
    """The pages that answers may lead to."""

    def __init__(self, passages: Iterable[Passage], site_url: str) -> None:
        self._site = site_url.rstrip("/")
        self._found: dict[str, Passage] = {}
        self._url_of: dict[str, str] = {}
        self.missing: list[Skipped] = []
        for passage in passages:
            for address in (passage.url, passage.anchored_url):
                self._found.setdefault(address.rstrip("/"), passage)
            self._url_of.setdefault(passage.source, passage.url)
        self._hosts = {urlsplit(address).netloc for address in self._found} - {""}

    def linked(self, answer: Answer) -> tuple[str, list[dict[str, str]]]:
        """The answer with whole addresses, and the pages of the index that it leads to; the answer itself where it
        leads to none."""
        found: dict[str, dict[str, str]] = {}

        def whole(match: re.Match[str]) -> str:
            target = self._address(match[1] or match[2])
            page, _, anchor = target.partition("#")
            passage = self._found.get(target.rstrip("/")) or self._found.get(page.rstrip("/"))
            if passage is not None:
                found.setdefault(passage.url, _page(passage, anchor))
            elif urlsplit(target).netloc in self._hosts:
                self.missing.append(Skipped(answer.source, f"leads to {target}, which is no page of the index"))
            return target

        text = _TARGET.sub(whole, answer.text)
        itself = {
            "text": text, "title": answer.questions[0], "url": self._site or answer.source, "anchor": "",
            "source": answer.source, "language": "",
        }  # fmt: skip
        return text, list(found.values()) or [itself]

    def _address(self, target: str) -> str:
        page, mark, anchor = target.partition("#")
        if page in self._url_of:
            return self._url_of[page] + mark + anchor
        is_path = not urlsplit(target).scheme and not target.startswith(("#", "//"))
        return urljoin(f"{self._site}/", target) if is_path and self._site else target


def _page(passage: Passage, anchor: str) -> dict[str, str]:
    return {
        "text": passage.text, "title": passage.title, "url": passage.url, "anchor": anchor,
        "source": passage.source, "language": passage.language,
    }  # fmt: skip

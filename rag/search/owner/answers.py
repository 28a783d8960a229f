"""Answers that the owner has written, each for some questions: which of them, if any, answers what a visitor asks.

A wrong answer in the site's own name is worse than none: what is not plainly one of the owner's questions is left to
the search. Everything stands in the build's manifest, so that it goes live, is kept and comes back with the build.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag.search.owner.synonyms import Synonyms
from rag.text.asked import normalised
from rag.text.terms import GRAM_MARK, fold, function_words, likely_language, terms, words
from rag.types import Hit, Passage

PART = "answers"
"""The manifest's part that holds them."""
LEAST_ALIKE = 0.8
"""Of a visitor's question to one of the owner's: their cosine, on a scale where two unrelated texts have 0."""
MARGIN = 0.05
"""By how much the next answer's questions have to be less alike, on the same scale."""
NO_ROW = -1
"""The row of a page that an answer leads to: it was not searched for."""
_TURNING_WORDS = """
    not no never without before after until above below under over on off from into out except only more less
    nicht kein keine keinen keinem keiner nie ohne vor nach bis über unter außer nur mehr weniger an aus von
    pas jamais sans avant après sur sous sauf plus moins vers nunca sin antes después sobre bajo salvo más menos
    non mai senza prima dopo sopra sotto tranne più meno não sem depois acima abaixo exceto mais
    niet geen nooit zonder voor boven onder behalve meer minder uit naar bez przed nad pod oprócz
"""
"""Small words that make another question of one, in the languages of the chat that have words."""
_TURNING = frozenset(map(fold, _TURNING_WORDS.split()))
_SHORTENED_NOT = re.compile(r"n['’]t\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """One answer, with the questions that it answers and the pages that it leads to."""

    questions: tuple[str, ...]
    text: str
    """Markdown."""
    hits: tuple[Hit, ...]


class OwnAnswers:
    """The answers of one build. Threads may share it."""

    def __init__(
        self, answers: Sequence[OwnAnswer], vectors: NDArray[np.float32], *, unrelated: float | None, synonyms: Synonyms
    ) -> None:  # fmt: skip
        """`vectors` are the questions', in their order: float32 [questions, dimensions]. `unrelated` is the build's
        similarity of unrelated texts; None for a model that knows no meaning, where only the letter counts."""
        self._answers = answers
        self._vectors = vectors
        self._unrelated = unrelated
        self._synonyms = synonyms
        self._by_letter = {normalised(question): answer for answer in answers for question in answer.questions}
        self._questions = [question for answer in answers for question in answer.questions]
        self._of_question = np.repeat(np.arange(len(answers)), [len(answer.questions) for answer in answers])

    @classmethod
    def of(cls, manifest: Mapping[str, Any], synonyms: Synonyms) -> Self:
        """Those of a build's manifest. Raises KeyError, TypeError or ValueError for a part that `part` did not make."""
        entries = manifest.get(PART, ())
        answers = [
            OwnAnswer(tuple(entry["questions"]), entry["text"], tuple(_hit(page) for page in entry["pages"]))
            for entry in entries
        ]
        rows = [_unpacked(packed) for entry in entries for packed in entry["vectors"]]
        vectors = np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
        return cls(
            answers, vectors, unrelated=manifest.get("embedding", {}).get("unrelated_similarity"), synonyms=synonyms
        )

    def __len__(self) -> int:
        return len(self._answers)

    def pages(self) -> list[Passage]:
        """Every page that an answer leads to."""
        return [hit.passage for answer in self._answers for hit in answer.hits]

    def exact(self, question: str) -> OwnAnswer | None:
        """The answer to this very question, whatever its case, blanks and marks at the end."""
        return self._by_letter.get(normalised(question)) if self._by_letter else None

    def similar(self, question: str, vector: NDArray[np.float32] | None) -> OwnAnswer | None:
        """The answer to a question that means the same beyond doubt. `vector` is the question's, float32
        [dimensions]; None where it could not be had, and then only `exact` can tell."""
        if vector is None or self._unrelated is None or vector.shape != self._vectors.shape[1:]:
            return None
        alike = (self._vectors @ vector - self._unrelated) / (1 - self._unrelated)
        best = int(alike.argmax())
        answer = int(self._of_question[best])
        others = alike[self._of_question != answer]
        if alike[best] < LEAST_ALIKE or (len(others) and alike[best] - others.max() < MARGIN):
            return None
        is_other = self._is_other(question, self._questions[best], self._answers[answer].questions)
        return None if is_other else self._answers[answer]

    def match(self, question: str, vector: NDArray[np.float32] | None) -> OwnAnswer | None:
        """The answer that a visitor who opens a conversation with `question` gets, if any."""
        return self.exact(question) or self.similar(question, vector)

    def _is_other(self, asked: str, owned: str, all_owned: Sequence[str]) -> bool:
        """Whether the words tell that `asked` is another question, however near its vector is: a number, "not" or
        "before" that only one of them has, or a word in another one's place ("heater" for "pump")."""
        if _turns(asked) != _turns(owned):
            return True
        language = likely_language(owned)
        mine, its = self._meant(asked, language), self._meant(owned, language)
        new, lost = mine - its, its - mine
        if any(character.isdigit() for word in new | lost for character in word):
            return True
        said = frozenset[str]().union(*(self._meant(question, language) for question in all_owned))
        return bool(lost) and bool(new - said)

    def _meant(self, question: str, language: str) -> frozenset[str]:
        """The words that mean something, in the form in which they are compared; of synonyms the first."""
        found = {word for word, _ in words(question)}
        kept = " ".join(sorted(found - function_words(found))) or question
        stems = [term for term in terms(kept, language) if not term.startswith(GRAM_MARK)]
        return frozenset(map(self._synonyms.first, stems))


def _turns(question: str) -> frozenset[str]:
    """The small words that turn a question, and "not" for each of its short forms."""
    found = frozenset(word for word, _ in words(question)) & _TURNING
    return found | {"not"} if _SHORTENED_NOT.search(question) else found


def packed(vector: NDArray[np.floating[Any]]) -> str:
    """A vector for the manifest: float16, base64."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def _unpacked(text: str) -> NDArray[np.float32]:
    vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _hit(page: Mapping[str, str]) -> Hit:
    passage = Passage(
        text=page["text"], title=page["title"], headings=(), url=page["url"], anchor=page["anchor"],
        source=page["source"], language=page["language"],
    )  # fmt: skip
    return Hit(passage, 1.0, 1.0, NO_ROW)

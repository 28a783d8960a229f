"""Words that the owner says mean the same: what a visitor calls a thing, and what the pages call it.

They widen what a question asks the index of words for: a word of it stands for all that mean the same, and a passage
that has one of them has met that word. Nothing changes in the index, so that they need no second build to be tried.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rag.text.terms import GRAM_MARK, function_words, terms, words

PART = "synonyms"
"""The manifest's part that holds them: groups of words and phrases."""

Forms = tuple[str, ...]
"""The forms that one word of a question may have in the index: see `rag.text.terms.query_terms`."""


class Synonyms:
    """The groups of one build, for an index in `languages`. Threads may share it."""

    def __init__(self, groups: Sequence[Sequence[str]], languages: Sequence[str]) -> None:
        self._asked: list[tuple[list[Forms], dict[str, None]]] = []
        """What a question has to say, word by word, and the forms that each of its words then stands for too."""
        self._first: dict[str, str] = {}
        for group in groups:
            meant = [[_forms(word, languages) for word in _words(term)] for term in group]
            for term in filter(None, meant):
                others = dict.fromkeys(
                    form for other in meant if other is not term for forms in other for form in forms
                )
                self._asked.append((term, others))
                if len(term) == 1:
                    self._first.update(dict.fromkeys(term[0], group[0]))

    @classmethod
    def of(cls, manifest: Mapping[str, Any], languages: Sequence[str]) -> "Synonyms":
        """Those of a build's manifest."""
        return cls(manifest.get(PART, ()), languages)

    def widened(self, asked: list[Forms]) -> list[Forms]:
        """What a question asks for, each of its words with the forms of those that mean the same."""
        if not self._asked:
            return asked
        more: dict[int, dict[str, None]] = {}
        place_of = {form: place for place, forms in enumerate(asked) for form in forms}
        for term, others in self._asked:
            places = [next((place_of[form] for form in forms if form in place_of), None) for forms in term]
            for place in places if None not in places else ():
                more.setdefault(place or 0, {}).update(others)
        return [tuple(dict.fromkeys((*forms, *more.get(place, ())))) for place, forms in enumerate(asked)]

    def first(self, form: str) -> str:
        """One name for all words that mean the same as this one; the word itself where it stands alone."""
        return self._first.get(form, form)


def _words(term: str) -> list[str]:
    found = [word for word, _ in words(term)]
    return [word for word in found if word not in function_words(set(found))] or found


def _forms(word: str, languages: Sequence[str]) -> Forms:
    stems = (term for language in (*languages, "") for term in terms(word, language))
    return tuple(dict.fromkeys(stem for stem in stems if not stem.startswith(GRAM_MARK)))

"""What a visitor says that asks nothing of the site: a greeting, thanks, "who are you?", "can I talk to a person?".

Told by words alone, in the languages of the chat. A message counts only if all of its words do: "Hi, how do I install
it?" is a question. A message that is missed costs a search; one that is wrongly taken costs an answer.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import orjson

from rag.text.terms import fold

Kind = Literal["greeting", "thanks", "goodbye", "about", "person"]
KINDS: tuple[Kind, ...] = ("person", "about", "thanks", "goodbye", "greeting")
"""The weightiest first: "Hi, who are you?" asks who."""
LONGEST_CHARS = 80

_NO_WORD = re.compile(r"[\W_]+")
_SPACELESS = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")


class SmallTalk(NamedTuple):
    """What is said, and in which language it is."""

    kind: Kind
    language: str


class _Language(NamedTuple):
    whole: re.Pattern[str]
    """A message of nothing but known phrases."""
    phrase: re.Pattern[str]
    """The next one; its group is the kind, or `filler`."""
    speaking: frozenset[str]
    persons: frozenset[str]
    around: frozenset[str]
    """What may stand around a word of speaking and one for a person."""
    askers: frozenset[str]
    """Of which one must be there too, where the language has any: agents talk to servers as well."""


def small_talk(message: str, *, prefer: str = "") -> SmallTalk | None:
    """What `message` is if it asks nothing of the site; None if it may. Words that several languages share count as
    `prefer`'s, then as English.
    """
    if len(message) > LONGEST_CHARS:
        return None
    text = _plain(message)
    known = _languages()
    for language in sorted(known, key=lambda one: (one != prefer, one != "en")):
        if kind := _kind(text, known[language]):
            return SmallTalk(kind, language)
    return None


def _kind(text: str, known: _Language) -> Kind | None:
    words = set(text.split())
    if words & known.speaking and words & known.persons and words <= known.speaking | known.persons | known.around:
        return "person" if not known.askers or words & known.askers else None
    if not known.whole.fullmatch(text):
        return None
    found = {match.lastgroup for match in known.phrase.finditer(text)}
    return next((kind for kind in KINDS if kind in found), None)


@cache
def _languages() -> dict[str, _Language]:
    # Takes a tenth of a second; whoever answers visitors asks once before the first of them.
    listed = orjson.loads(files(__package__).joinpath("small_talk.json").read_bytes())
    return {language: _compiled(phrases) for language, phrases in listed.items()}


def _compiled(listed: dict[str, Any]) -> _Language:
    kinds = {kind: [_pattern(phrase) for phrase in listed[kind].split(", ")] for kind in (*KINDS, "filler")}
    phrases = sorted(((phrase, kind) for kind, all_ in kinds.items() for phrase in all_), key=lambda one: -len(one[0]))
    # Longest first and atomic, so that no text is read in two ways and time grows with its length.
    any_ = "|".join(phrase for phrase, _ in phrases)
    groups = "|".join(f"(?P<{kind}>{'|'.join(sorted(all_, key=len, reverse=True))})" for kind, all_ in kinds.items())
    words = (frozenset(_plain(listed[name]).split()) for name in ("speaking", "persons", "around", "askers"))
    return _Language(re.compile(rf"(?>(?:{any_}) ?)++"), re.compile(groups), *words)


def _plain(text: str) -> str:
    """Without case, accents and marks, for visitors leave them out."""
    return _NO_WORD.sub(" ", fold(text).casefold()).strip()


def _pattern(phrase: str) -> str:
    folded = _plain(phrase)
    # Between scripts without spaces there is no edge of a word.
    return re.escape(folded) if _SPACELESS.search(folded) else rf"(?<!\w){re.escape(folded)}(?!\w)"

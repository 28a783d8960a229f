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
    phrases: dict[str, str]
    """Each with its kind, or `filler`."""
    longest: int
    """Characters of the longest phrase."""
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
    found = _kinds(text, known)
    return next((kind for kind in KINDS if kind in found), None)


def _kinds(text: str, known: _Language) -> set[str]:
    """Of the phrases that `text` is made of, longest first; empty where there is anything else in it."""
    found, at = set(), 0
    while at < len(text):
        ends = range(min(len(text), at + known.longest), at, -1)
        end = next((end for end in ends if text[at:end] in known.phrases and _is_apart(text, at, end)), None)
        if end is None:
            return set()
        found.add(known.phrases[text[at:end]])
        at = end + text.startswith(" ", end)
    return found


def _is_apart(text: str, at: int, end: int) -> bool:
    # Between scripts without spaces there is no edge of a word.
    ends_words = text[at - 1 : at] in ("", " ") and text[end : end + 1] in ("", " ")
    return ends_words or _SPACELESS.search(text, at, end) is not None


@cache
def _languages() -> dict[str, _Language]:
    listed = orjson.loads(files(__package__).joinpath("small_talk.json").read_bytes())
    return {language: _read(phrases) for language, phrases in listed.items()}


def _read(listed: dict[str, Any]) -> _Language:
    # Of a phrase that has two kinds the weightier one counts.
    kinds = ("filler", *reversed(KINDS))
    phrases = {_plain(phrase): kind for kind in kinds for phrase in listed[kind].split(", ")}
    words = (frozenset(_plain(listed[name]).split()) for name in ("speaking", "persons", "around", "askers"))
    return _Language(phrases, max(map(len, phrases)), *words)


def _plain(text: str) -> str:
    """Without case, accents and marks, for visitors leave them out."""
    return _NO_WORD.sub(" ", fold(text).casefold()).strip()

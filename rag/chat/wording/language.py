"""Which of the chat's languages a visitor is spoken to in: told by their words, else by what their browser asks for."""

import re
from collections.abc import Collection, Iterable

from rag.text.terms import likely_languages

DEFAULT = "en"
LOOKED_AT_CHARS = 2_000
"""Of one text: its language shows at once."""
HEADER_CHARS = 200

_ARABIC = re.compile(r"[\u0621-\u064a]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3041-\u30ff]")
# The search knows no function words of Polish; its letters are those of no other language here.
_POLISH = re.compile(r"[ąćęłńśźż]|\b(?:jak|jaki|jaka|jakie|czy|gdzie|jest|kiedy|dlaczego|ile)\b", re.IGNORECASE)
_RANGE = re.compile(r"\s*([A-Za-z]{2,3})(?:-[\w-]*)?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*")


def accepted(header: str, languages: Collection[str]) -> str:
    """The first of `languages` that an `Accept-Language` asks for (RFC 9110, section 12.5.4); "" where none is."""
    wanted: list[tuple[float, str]] = []
    for part in header[:HEADER_CHARS].split(","):
        found = _RANGE.fullmatch(part)
        if found and found[1].lower() in languages and (weight := float(found[2] or 1)):
            wanted.append((weight, found[1].lower()))
    return max(wanted, key=lambda one: one[0])[1] if wanted else ""


def spoken(texts: Iterable[str], *, asked_for: str, languages: Collection[str]) -> str:
    """The language to answer in: of the first of `texts` that tells one of `languages`, newest first; else the one
    `asked_for`, else English.
    """
    for text in texts:
        told = _told(text[:LOOKED_AT_CHARS], asked_for) & set(languages)
        if told:
            return asked_for if asked_for in told else DEFAULT if DEFAULT in told else min(told)
    return asked_for or DEFAULT


def _told(text: str, asked_for: str) -> set[str]:
    letters = sum(character.isalpha() for character in text)
    if _KANA.search(text):
        return {"ja"}
    if 2 * len(_HAN.findall(text)) > letters:
        # Han alone may be Japanese too; who reads Japanese pages says so.
        return {"ja", "zh"} if asked_for == "ja" else {"zh"}
    if 2 * len(_ARABIC.findall(text)) > letters:
        return {"ar"}
    return {"pl"} if _POLISH.search(text) else likely_languages(text)

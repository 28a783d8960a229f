"""Text to terms: what the lexical index stores and what a query asks it for. Pure.

Both sides go through `terms` or `query_terms`, so that whatever is folded, split or stemmed in a passage is folded,
split and stemmed alike in a question. It must not know of passages, files or scores.

Scripts written without spaces become character bigrams, every other script words. An identifier stands whole and in
parts: `response_model`, `responseModel` and `response-model` share the whole `responsemodel`. Stems follow the
passage's own language; a question's language is unknown, so it asks with the stem of each language in the index.
Beside its stem each word leaves grams, pieces of four letters marked `~`: they still meet where a letter is wrong, an
ending unknown or a compound longer than what was asked for. A run of a spaceless script leaves its characters.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence, Set
from functools import lru_cache

import snowballstemmer  # type: ignore[import-untyped, unused-ignore]

from rag.text.stopwords import STOP_WORDS

ANALYSIS_VERSION = 1
"""Rises whenever the same text yields other terms: an index made by another version must not be asked."""

ALGORITHMS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi",
    "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian",
    "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""ISO 639-1 code to Snowball algorithm (snowballstem.org). Other languages, and "", are left unstemmed."""

# Thai, Lao, Myanmar, Khmer, Kana, Han, Hangul: a reader sees words there, a regular expression does not.
_SPACELESS = (
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17dd\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
# Indic vowel signs are marks, not \w: without this range a Hindi word would fall apart at each of them.
_LETTER = rf"(?:[^\W_{_SPACELESS}]|[\u0900-\u0963\u0970-\u0dff])"
_TOKEN = re.compile(
    rf"(?P<spaceless>[{_SPACELESS}]+)"
    r"|(?P<number>\d+(?:[.,]\d+)+)"
    rf"|(?P<words>{_LETTER}+(?:(?:_+|[.-]|::)(?={_LETTER}){_LETTER}+)*)"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_JOINTS = re.compile(r"_+|[.,-]|::")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _folds() -> dict[int, str | None]:
    """Accented letters to plain ones, in the scripts where people leave accents out, and what is invisible to none."""
    table: dict[int, str | None] = {}
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x2000), *range(0x386, 0x3CF)):
        plain = "".join(part for part in unicodedata.normalize("NFD", chr(code)) if not unicodedata.combining(part))
        if plain != chr(code):
            table[code] = plain
    undivided = dict(zip("øØłŁđĐıðёЁ", "oOlLdDidеЕ", strict=True))
    undivided |= {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ß": "ss", "ẞ": "SS", "þ": "th"}
    table |= {ord(letter): plain for letter, plain in undivided.items()}
    invisible = (0xAD, 0x640, *range(0x200B, 0x2010), 0x2060, 0xFEFF)
    points = (*range(0x300, 0x370), *range(0x591, 0x5C8), *range(0x64B, 0x653))
    return table | dict.fromkeys((*invisible, *points))


WORDS_REMEMBERED = 20_000
"""By each cache that saves computing the same for a word again: what most of any text consists of."""
LONGEST_REMEMBERED = 24
"""Letters; longer ones are rare. Caches count entries, and a visitor may send words of 4,000 letters."""

_FOLDS = _folds()
GRAM_MARK = "~"
"""What a gram starts with and no word does."""
GRAM_LETTERS = 4

_STOPS = {language: frozenset(words.translate(_FOLDS).split()) for language, words in STOP_WORDS.items()}


def terms(text: str, language: str) -> list[str]:
    """The terms of a passage, repetitions kept: words in order, each followed by its grams (marked `GRAM_MARK`).

    `language` is ISO 639-1; an unknown one or "" means no stemming. Function words stay in: a question of nothing else
    ("The Who") still needs them.
    """
    found: list[str] = []
    for word, is_run in words(text):
        stem, grams = _remembering(word)
        found.extend(_bigrams(word) if is_run else (stem(word, language),))
        found.extend(grams(word, is_run))
    return found


def query_terms(text: str, languages: Sequence[str]) -> list[tuple[str, ...]]:
    """What a question asks of an index whose passages are in `languages`: one tuple a word or gram, each once.

    A tuple holds the forms that the word may have in the index, one for each way of stemming; they are alternatives,
    to be counted once. Function words are left out, unless nothing would remain.
    """
    found = _question_words(text)
    stops = function_words({word for word, is_run in found if not is_run}, languages)
    kept = [(word, is_run) for word, is_run in found if is_run or word not in stops] or list(found)
    asked: dict[tuple[str, ...], None] = {}
    for word, is_run in kept:
        _, grams = _remembering(word)
        if is_run:
            asked |= {(bigram,): None for bigram in _bigrams(word)}
        else:
            asked[stems(word, languages)] = None
        asked |= {(gram,): None for gram in grams(word, is_run)}
    return list(asked)


def stems(word: str, languages: Sequence[str]) -> tuple[str, ...]:
    """The forms that one word may have in an index whose passages are in `languages`."""
    stem, _ = _remembering(word)
    return tuple(dict.fromkeys(stem(word, language) for language in languages or ("",)))


def words(text: str) -> Iterator[tuple[str, bool]]:
    """The words of a text, folded, and the runs of a spaceless script, which are marked True."""
    for match in _TOKEN.finditer(fold(text)):
        token = match[0]
        if match.lastgroup == "spaceless":
            yield token, True
        elif match.lastgroup == "number" and _THOUSANDS.fullmatch(token):
            # 1,500 and 1.500 are one number to readers of different countries.
            yield re.sub(r"[.,]", "", token), False
        else:
            for part in _parts(token) if len(token) <= LONGEST_REMEMBERED else _parts.__wrapped__(token):
                yield part, False


@lru_cache(maxsize=8)
def _question_words(text: str) -> tuple[tuple[str, bool], ...]:
    # Who searches for a question and who judges it ask for its words one after the other.
    return tuple(words(text))


def function_words(found: Set[str], languages: Sequence[str] = ()) -> frozenset[str]:
    """The function words of the one language, out of `languages` or all known here, that `found` has most of.

    Only one language's: German "die" is an article, English "die" is not.
    """
    known = [language for language in dict.fromkeys(languages) if language in _STOPS]
    candidates = list(_STOPS) if not languages or "" in languages else known
    return max((_STOPS[language] for language in candidates), key=lambda stops: len(found & stops), default=frozenset())


SPACELESS_LANGUAGES = frozenset({"zh", "ja", "ko", "th", "lo", "my", "km"})


def is_spaceless(text: str) -> bool:
    """Whether most of the text's letters are of scripts written without spaces."""
    letters = sum(len(word) * (1 if is_run else -1) for word, is_run in _question_words(text))
    return letters > 0


def is_foreign(text: str, languages: Sequence[str]) -> bool:
    """Whether a question is plainly in none of `languages`, by its script or its function words; False in doubt.

    Passages of no known language ("") are mostly code: they tell nothing.
    """
    known = set(languages) - {""}
    if not known:
        return False
    if is_spaceless(text):
        return not SPACELESS_LANGUAGES & known
    shared = _shared(text)
    return max(shared.values()) > max(shared.get(language, 0) for language in known)


def content_words(text: str) -> int:
    """How many different words a question has beside function words; a spaceless script counts by its characters."""
    found = set(_question_words(text))
    plain = {word for word, is_run in found if not is_run}
    return len(plain - function_words(plain)) + sum(len(run) for run, is_run in found if is_run)


def likely_language(text: str) -> str:
    """The language that a question's function words are of; "" without one. On a tie the one listed first."""
    shared = _shared(text)
    best = max(shared, key=lambda language: shared[language])
    return best if shared[best] else ""


def likely_languages(text: str) -> set[str]:
    """The languages that most of a question's function words are of: several on a tie, or none."""
    shared = _shared(text)
    most = max(shared.values())
    return {language for language, count in shared.items() if count == most} if most else set()


def _shared(text: str) -> dict[str, int]:
    found = {word for word, is_run in _question_words(text) if not is_run}
    return {language: len(found & stops) for language, stops in _STOPS.items()}


def fold(text: str) -> str:
    """NFKC, accents off Latin and Greek letters, invisible characters out; case stays, as humps are read from it."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text).translate(_FOLDS)


@lru_cache(maxsize=WORDS_REMEMBERED)
def _parts(token: str) -> tuple[str, ...]:
    """`response_model` -> responsemodel, response, model; a plain word -> itself."""
    pieces = _JOINTS.split(token)
    parts = [part.casefold() for piece in pieces for part in _HUMPS.split(piece)]
    if len(parts) == 1:
        return (parts[0],)
    # 3.11 stays apart from 311.
    whole = ("." if all(piece.isdecimal() for piece in pieces) else "").join(pieces).casefold()
    return (whole, *parts)


@lru_cache(maxsize=WORDS_REMEMBERED)
def _stem(word: str, language: str) -> str:
    algorithm = ALGORITHMS.get(language)
    if algorithm is None or not word.isalpha():
        return word
    # A stemmer carries state, so each call gets its own: threads share only the cache.
    return str(snowballstemmer.stemmer(algorithm).stemWord(word))


def _bigrams(run: str) -> tuple[str, ...]:
    return tuple(run[i : i + 2] for i in range(max(1, len(run) - 1)))


@lru_cache(maxsize=WORDS_REMEMBERED)
def _grams(word: str, is_run: bool) -> tuple[str, ...]:
    """`cats` -> ~" cat", ~"cats", ~"ats ": a word's edges count as letters. Of a run, its single characters."""
    if is_run:
        return tuple(GRAM_MARK + character for character in word)
    padded = f" {word} "
    return tuple(GRAM_MARK + padded[i : i + GRAM_LETTERS] for i in range(max(1, len(padded) - GRAM_LETTERS + 1)))


def _remembering(word: str) -> tuple[Callable[[str, str], str], Callable[[str, bool], tuple[str, ...]]]:
    """`_stem` and `_grams`, which do not remember a word that is too long."""
    return (_stem, _grams) if len(word) <= LONGEST_REMEMBERED else (_stem.__wrapped__, _grams.__wrapped__)

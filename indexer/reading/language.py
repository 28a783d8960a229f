"""Guesses the language of a text from its script and its most frequent function words; says nothing when unsure."""

import re
from collections import Counter

SAMPLE_CHARS = 6_000
MIN_HITS = 6
"""Function words that must be found before a guess is made."""
MIN_SHARE = 0.08
"""The share of all words that they must be."""
LEAD = 1.3
"""How many times more hits the winner needs than the runner-up."""
SCRIPTS = (
    ("ja", re.compile("[\u3041-\u3096\u30a1-\u30fa]"), 0.05),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]"), 0.2),
    ("zh", re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"), 0.2),
    ("ru", re.compile("[\u0400-\u04ff]"), 0.4),
    ("el", re.compile("[\u0370-\u03ff]"), 0.4),
    ("ar", re.compile("[\u0600-\u06ff]"), 0.4),
    ("he", re.compile("[\u0590-\u05ff]"), 0.4),
    ("th", re.compile("[\u0e00-\u0e7f]"), 0.4),
    ("hi", re.compile("[\u0900-\u097f]"), 0.4),
)
"""A language, its letters, and the share of all letters from which on it is meant; kana decide before Chinese signs."""
UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
FUNCTION_WORDS = {
    "en": "the of and to in is that it for with as are on be this you not or from by at your have can if will an",
    "de": "der die das und ist nicht ein eine zu den von mit für auf sich dem des im werden auch es wird oder sie bei",
    "fr": "le la les des et est une un du pour dans que qui sur pas vous par avec au ce sont plus cette nous ou être",
    "es": "el la los las de es una un por para que en con no del se su como más al lo este está si sus",
    "it": "il la le gli di una un per che in con non del della si sono nel come più al questo anche dei",
    "pt": "os as de uma um por para que em com não do da se no na como mais ao dos são ou você seu",
    "nl": "de het een en van is in dat op te voor met niet zijn die aan er ook als bij door om of worden naar je",
}
ADDRESS = re.compile(r"\S*[/@`]\S*")
"""Paths, addresses and code, whose parts are words of no language."""
WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """ISO 639-1 code of the language that `text` is mostly written in, or an empty string."""
    sample = ADDRESS.sub(" ", text[:SAMPLE_CHARS])
    letters = sum(map(str.isalpha, sample))
    if not letters:
        return ""
    for code, script, share in SCRIPTS:
        if len(script.findall(sample)) >= share * letters:
            return "uk" if code == "ru" and len(UKRAINIAN.findall(sample)) > letters / 100 else code
    counts = Counter(WORD.findall(sample.lower()))
    hits = {code: sum(counts[word] for word in words.split()) for code, words in FUNCTION_WORDS.items()}
    (best, most), (_, second) = Counter(hits).most_common(2)
    return best if most >= MIN_HITS and most >= LEAD * second and most >= MIN_SHARE * counts.total() else ""

"""Takes out of a text what names a person: mail addresses, telephone and card numbers, keys. Pure."""

import re

_PATTERNS = (
    # Before the others: an address in a link or a key may look like one of them.
    (re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"), "[mail]"),
    (re.compile(r"\b(?:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,4})?)\b"), "[account]"),
    # Words with digits in them that are too long for a word: keys, tokens, hashes.
    (re.compile(r"(?<![\w/.-])(?=[\w+/=.-]*\d)(?=[\w+/=.-]*[A-Za-z])[\w+/=.-]{20,}"), "[key]"),
    (re.compile(r"(?<![\w.])\+?\(?\d(?:[ ./()-]{0,2}\d){6,18}(?![\w])"), "[number]"),
)


def masked(text: str) -> str:
    """The text with a word in square brackets in each of their places."""
    for pattern, word in _PATTERNS:
        text = pattern.sub(word, text)
    return text

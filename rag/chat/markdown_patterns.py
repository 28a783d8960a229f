"""What links, tags, citations and code look like within a line of Markdown, and where they may begin.

A pattern that ends with `\\Z` also matches what has not arrived as a whole. All take time in proportion to the text.
"""

import re

# Where a construct begins, or may begin at the end of what has arrived. A run of blanks is looked at from its begin
# alone: from each of its places, the time would grow with their square.
BEGIN = re.compile(
    # The first class alone passes over most text; one case for all letters would take half as long again.
    r"(?=[`!\[<\n\\ \t\]hHfFwW/])(?:[`!\[<\n\\]|/(?=/|\Z)|(?<![ \t])[ \t]++(?=\[|\Z)|\](?=[ \t]*(?:[(:]|\Z))"
    r"|[hH](?=(?i:ttps?://|t?t?p?s?:?/?/?\Z))|[fF](?=(?i:tp://|t?p?:?/?/?\Z))|[wW](?=(?i:ww\.|w?w?\.?\Z)))"
)
HELD_CHARS = 2_000
"""Of an unfinished link or code span that may wait for its end; beyond that it is taken for plain text."""
BLANK = re.compile(r"\s")
ENDLESS = re.compile(r"\]\([^)\n]*(?:\n|\Z)")
BLANKS = re.compile(r"[ \t]+")
TICKS = re.compile(r"`+")
NUMBERS = re.compile(r"\d{1,3}(?:\s*,\s*\d{1,3})*")
LABEL = re.compile(r"\[((?:[^\[\]\n]|\[[^\[\]\n]*\])*)(\]|\n|(?:\[[^\[\]\n]*)?\Z|\[)")
TARGET = re.compile(r"\(((?:[^()\n]|\([^()\n]*\))*)(\)|\n|(?:\([^()\n]*)?\Z|\()")
DEFINED = re.compile(r":[ \t]*<?(?:[a-z][a-z0-9+.-]*:|[/#.])[^\n]*", re.IGNORECASE)
# What may lead elsewhere although it is no link on one line: its words, or its address, may stand on two. A path is
# harmless; escapes may hide anything.
ASTRAY = re.compile(
    r"\][(:]\s*(?:<\s*)?(?:[a-z][a-z0-9+.-]*(?:[:&\\]|\Z)|[/\\]{2}|[\\&\[!<]|/?\Z)"
    # A definition may take the marks of the next line's code for its address.
    r"|\]:[ \t]*\n[ \t>]*[`~]",
    re.IGNORECASE,
)
# An older reader lets blanks stand between a link's words and its address.
SPACED = re.compile(r"\][ \t]+\(\s*<?(?:javascript|data|vbscript|[\w+.-]*[&\\%])", re.IGNORECASE)
SPACED_BEGUN = re.compile(r"\][ \t]+(?:\(\s*<?[\w+.-]{0,12})?\Z")
# After an address that is only a host, whatever makes it another host.
OTHER_HOST = re.compile(r"[\"'`\])}|\\<.,;:!?*_]+(?:[\w@%]|\Z)")
AUTOLINK = re.compile(r"<([a-z][a-z0-9+.-]{1,31}:[^\s<>]*)>|<[a-z][a-z0-9+.-]{0,31}(?::[^\s<>]*)?\Z", re.IGNORECASE)
_HARMLESS_TAGS = "br|kbd|sub|sup|details|summary"
HARMLESS_TAG = re.compile(rf"</?(?:{_HARMLESS_TAGS})[ ]?/?>", re.IGNORECASE)
HARMLESS_TAG_BEGUN = re.compile(r"</?[a-z]{0,7}[ ]?/?\Z", re.IGNORECASE)
TAG_BEGINS = re.compile(r"<[a-z/!?]", re.IGNORECASE)
# What would grow together where something between was taken out: parts of an address.
PART = re.compile(r"[\w/.:<&=\\-]")
JOINS = re.compile(r"[^\s.,;:!?)\]}*_|\"'`~]|[.:][\w/]")
MARKS = " \t>*+-.)0123456789"
OPENS_BLOCK = tuple("`~>#*+-=<|0123456789 \t")
# Without any of these it does not matter whether something is code.
LINKS = re.compile(r"://|www\.|\]\s*[(:]|<[a-z/!?]", re.IGNORECASE)


def whole_words(text: str, at: int, final: bool) -> int:
    """Where the line's words that have arrived as a whole end, from `at` on: an address is one word."""
    end = text.find("\n", at)
    if end >= 0 or final:
        return end if end >= 0 else len(text)
    return max(text.rfind(" ", at), text.rfind("\t", at), at - 1) + 1


def grow_together(before: str, follows: str) -> bool:
    """Whether the character before and what follows would be read as one thing."""
    if before in ("\\", "/") or f"{before}{follows[:1]}" in ("``", "~~"):
        return bool(follows[:1].strip())
    return PART.match(before) is not None and JOINS.match(follows) is not None


def cites(label: str, *, before: str, count: int) -> bool:
    """Whether a bracket cites: it holds numbers of the `count` sources and nothing else, and follows no word.

    `items[0]`, `m[1]` and `[0, 1]` are the answer's own words. One number that no source has is an invented citation; a
    list with one is an array.
    """
    if not NUMBERS.fullmatch(label) or before.isalnum() or before == "_":
        return False
    numbers = [int(number) for number in re.findall(r"\d+", label)]
    return all(1 <= number <= count for number in numbers) or (len(numbers) == 1 and numbers[0] > 0)


def closing(text: str, at: int, *, final: bool) -> tuple[str, int] | None:
    """What is shown for a bracket that closes no link that was seen, and how many characters that settles.

    What follows is kept from making it one. None where more has to arrive.
    """
    if not final and (at + 1 == len(text) or SPACED_BEGUN.match(text, at)):
        return None
    if SPACED.match(text, at):
        return "],", 1
    astray = ASTRAY.match(text, at)
    if not astray and text.startswith("(", at + 1):
        # For some readers an address goes on over any lines until it is closed.
        astray = ENDLESS.match(text, at, at + HELD_CHARS)
    if astray and astray.end() == len(text) and not final:
        return None
    if not astray:
        return "]", 1
    return ("], " if text[at + 1] == "(" else "] "), 1

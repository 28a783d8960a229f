"""What links, tags, citations and code look like within a line of Markdown, and where they may begin.

A pattern that ends with `\\Z` also matches what has not arrived as a whole. All take time in proportion to the text.
"""

import re

# Where a construct begins, or may begin at the end of what has arrived. A run of blanks is looked at from its begin
# alone: from each of its places, the time would grow with their square.
BEGIN = re.compile(
    # The first class alone passes over most text; one case for all letters would take half as long again.
    r"(?=[`!\[<\n\\ \t\]hHfFwW])(?:[`!\[<\n\\]|(?<![ \t])[ \t]++(?=\[|\Z)|\](?=[(:]|\Z)"
    r"|[hH](?=(?i:ttps?://|t?t?p?s?:?/?/?\Z))|[fF](?=(?i:tp://|t?p?:?/?/?\Z))|[wW](?=(?i:ww\.|w?w?\.?\Z)))"
)
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
ASTRAY = re.compile(r"\][(:]\s*(?:<\s*)?(?:[a-z][a-z0-9+.-]*(?:[:&\\]|\Z)|[/\\]{2}|[\\&\[!<]|/?\Z)", re.IGNORECASE)
# After an address that is only a host, whatever makes it another host.
OTHER_HOST = re.compile(r"[\"'`\])}|\\<.,;:!?*_]+(?:[\w@%]|\Z)")
AUTOLINK = re.compile(r"<([a-z][a-z0-9+.-]{1,31}:[^\s<>]*)>|<[a-z][a-z0-9+.-]{0,31}(?::[^\s<>]*)?\Z", re.IGNORECASE)
_HARMLESS_TAGS = "br|kbd|sub|sup|details|summary"
HARMLESS_TAG = re.compile(rf"</?(?:{_HARMLESS_TAGS})[ ]?/?>", re.IGNORECASE)
HARMLESS_TAG_BEGUN = re.compile(r"</?[a-z]{0,7}[ ]?/?\Z", re.IGNORECASE)
TAG_BEGINS = re.compile(r"<[a-z/!?]", re.IGNORECASE)
# What would grow together where something between was taken out: parts of an address.
PART = re.compile(r"[\w/.:<&\\-]")
JOINS = re.compile(r"[^\s.,;:!?)\]}*_|\"'`~]|[.:][\w/]")
MARKS = " \t>*+-.)0123456789"
OPENS_BLOCK = tuple("`~>#*+-=<|0123456789 \t")
# Without any of these it does not matter whether something is code.
LINKS = re.compile(r"://|www\.|\]\s*[(:]|<[a-z/!?]", re.IGNORECASE)


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

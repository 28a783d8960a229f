"""The shapes of single Markdown lines, and which lines make a list item or a table row. Knows no blocks or output."""

import re
from collections.abc import Iterator

FENCE = re.compile(r"^([ >]*)(`{3,}(?=[^`]*$)|~{3,})(.*)$")
ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
RULE = re.compile(r"^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
DELIMITERS = re.compile(r"^ *\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$")
ITEM = re.compile(r"^( *)([-*+]|\d{1,9}[.)])( +|$)")
QUOTE = re.compile(r"^ {0,3}> ?")
ALERT = re.compile(r"^\[!\w+\][+-]?[ \t]*")
ADMONITION = re.compile(r"^ *(?:!!!|\?\?\?\+?|===[!+]?)[ \t]+(?:[\w -]*?(?:\"(.*)\"|'(.*)')|[\w-]+(?: [\w-]+)*)[ \t]*$")
CONTAINER = re.compile(r"^ *(?:/{3,}|:{3,})[ \t]*\{?[A-Za-z][\w-]*\}?(.*)$")
CONTAINER_END = re.compile(r"^ *(?:/{3,}|:{3,})[ \t]*$")
AUTODOC = re.compile(r"^:::[ \t]+(\w+(?:\.\w+)+)[ \t]*$")
DROPPED = re.compile(r"^\s*(?:\{[*!%].*[*!%]\}|\{\{.*\}\}|;?--8<--.*|\[TOC\]|\[\[_?TOC_?\]\])\s*$", re.I)
OPTION = re.compile(r"^ {4,}[\w-]+:.*$")
INDENTED = re.compile(r"^ {2,}\S.*$")
BLANK = re.compile(r"^\s*$")
HTML_OPEN = re.compile(r"^ {0,3}</?([A-Za-z][A-Za-z0-9-]*)(?=[\s/>]|$)")


def after(lines: list[str], at: int, pattern: re.Pattern[str]) -> int:
    """The first line from `at` on that `pattern` does not match."""
    while at < len(lines) and pattern.match(lines[at]):
        at += 1
    return at


def indent_of(line: str) -> int:
    """Leading spaces."""
    return len(line) - len(line.lstrip(" "))


def container_title(match: re.Match[str]) -> str:
    """The title of `/// tip | Title`, `:::tip Title` and `:::note[Title]`, or nothing."""
    return re.sub(r"\{[^{}]*\}\s*$", "", match[1]).strip().lstrip("|[").rstrip("]").strip()


def starts_item(line: str, *, in_paragraph: bool) -> bool:
    """Whether a list starts here; inside a paragraph a number must be 1, or every year at a line's start would do."""
    match = ITEM.match(line)
    if not match or RULE.match(line):
        return False
    return not in_paragraph or (bool(match[3]) and (match[2] in "-*+" or match[2][:-1] == "1"))


def starts_block(line: str) -> bool:
    """Whether a line cannot be the lazy continuation of the paragraph above it."""
    patterns = (ITEM, ATX, FENCE, RULE, QUOTE, CONTAINER, CONTAINER_END, ADMONITION, DROPPED)
    return any(pattern.match(line) for pattern in patterns)


def list_items(lines: list[str], at: int) -> Iterator[tuple[str, list[str], int]]:
    """The items of the list at `at`: the marker to show, the lines inside, and the line after the item."""
    outer = indent_of(lines[at])
    number = 0
    while at < len(lines) and (match := ITEM.match(lines[at])) and not RULE.match(lines[at]):
        own = len(match[1])
        if own >= outer + 4:
            return
        content = own + len(match[2]) + min(len(match[3]) or 1, 4)
        body = [lines[at][match.end() :]]
        at += 1
        while at < len(lines):
            line = lines[at]
            if not line.strip():
                following = after(lines, at, BLANK)
                if following == len(lines) or indent_of(lines[following]) < min(content, own + 2):
                    break
            elif indent_of(line) < min(content, own + 2) and (not body[-1].strip() or starts_block(line)):
                break
            body.append(line[min(indent_of(line), content) :])
            at += 1
        if match[2] in "-*+":
            marker = "-"
        else:
            number = number + 1 if number else int(match[2][:-1])
            marker = f"{number}."
        yield marker, body, at
        following = after(lines, at, BLANK)
        if following < len(lines) and ITEM.match(lines[following]):
            at = following


def cells_of(line: str) -> list[str]:
    """The cells of a table's row; a pipe that is escaped or in code does not divide."""
    bare = line.strip().removeprefix("|")
    bare = bare if bare.endswith("\\|") else bare.removesuffix("|")
    even = bare.count("`") % 2 == 0
    cells: list[str] = []
    current: list[str] = []
    code = False
    for at, character in enumerate(bare):
        if character == "`" and even:
            code = not code
        if character == "|" and not code and not (at and bare[at - 1] == "\\"):
            cells.append("".join(current).strip())
            current = []
        else:
            current.append(character)
    return [*cells, "".join(current).strip()]

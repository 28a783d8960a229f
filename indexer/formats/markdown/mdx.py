"""MDX -> draft: what runs (imports, exports, expressions, comments, tags) is taken out, the rest read as Markdown."""

import re

from indexer.documents import Draft
from indexer.formats import front_matter
from indexer.formats.decoding import decoded
from indexer.formats.markdown import page

NEXT = re.compile(
    r"\\[\s\S]|^[ >]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,}).*(?:\n(?![ >]*(?P=fence)).*)*(?:\n.*)?"
    r"|(?P<ticks>`+)(?!`)[\s\S]+?(?<!`)(?P=ticks)(?!`)|\{\s*#[\w.:-]+\s*\}"
    r"|(?P<module>^import\s+(?:[{*\"']|type\s+[\w{]|[\w$]+\s*,\s*(?:[{*]|$)|[\w$]+\s+from\s+[\"'])"
    r"|^export\s+(?:const|let|var|default|function|async|class|type|interface|[{*]))"
    r"|\{|</?(?:[A-Z][\w.]*|[a-z][a-z0-9-]*)(?=[\s/>{])|</?>",
    re.M,
)
"""What is no plain text: escapes, code and anchors, which stay; modules, expressions and tags."""
UNFINISHED = re.compile(r"(?:[=,(\[{+:?|&]|=>|\bfrom|\bdefault)\s*$")
QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|//.*", re.S)
SHOWN = re.compile(r"\b(?:title|label|heading|summary)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|\{\s*[\"']([^\"']*)[\"']\s*\})")
SCAN_LIMIT_CHARS = 4_000
"""No tag or expression is longer; looking further for the end of each would take minutes on a hostile file."""
STRING = re.compile(r"\{\s*(?:\"([^\"\\]*)\"|'([^'\\]*)')\s*\}\Z")


def read(data: bytes) -> Draft:
    """The draft of an MDX file; SourceUnreadable where it is not text."""
    parts = front_matter.split(decoded(data))
    return page.drafted(parts._replace(body=_markdown(parts.body)), indented_code=False)


def _markdown(text: str) -> str:
    """The Markdown that is left of MDX; code is untouched."""
    out: list[str] = []
    at = 0
    while found := NEXT.search(text, at):
        out.append(text[at : found.start()])
        at = found.end()
        if found["module"]:
            at = _module_end(text, found.start())
        elif found[0] == "{":
            at = _closing(text, found.start())
            string = STRING.match(text[found.start() : at])
            out.append((string[1] or string[2] or "") if string else "")
        elif found[0].startswith("<"):
            at = _tag_end(text, found.start())
            out.append(_left_of_tag(text[found.start() : at]))
        else:
            out.append(found[0])
    return "".join([*out, text[at:]])


def _module_end(text: str, start: int) -> int:
    """The end of an import or export: where its brackets are closed, or the next blank line if they never are."""
    end = start
    for _ in range(500):
        end = text.find("\n", end + 1)
        if end < 0:
            break
        bare = QUOTED.sub('""', text[start:end])
        opened = sum(bare.count(bracket) for bracket in "([{") - sum(bare.count(bracket) for bracket in ")]}")
        if opened <= 0 and not UNFINISHED.search(bare) and bare.count("`") % 2 == 0:
            return end
    blank = text.find("\n\n", start)
    return len(text) if blank < 0 else blank


def _left_of_tag(tag: str) -> str:
    """What stays: HTML and what turned out to be no tag, for the Markdown reader; of a component its visible title."""
    if tag == "<" or (re.match(r"</?[a-z]", tag) and "{" not in tag):
        return tag
    shown = SHOWN.search(tag) if re.match(r"<[A-Z]", tag) else None
    return f"\n\n{shown[1] or shown[2] or shown[3]}\n\n" if shown else ""


def _closing(text: str, at: int) -> int:
    """The place after the brace that closes the one at `at`; just after it where none does."""
    depth = 0
    quote = ""
    for place in range(at, min(len(text), at + SCAN_LIMIT_CHARS)):
        character = text[place]
        if quote:
            if character == quote and text[place - 1] != "\\":
                quote = ""
        elif text.startswith("/*", place):
            end = text.find("*/", place)
            if end > 0 and depth == 1 and text[end + 2 : end + 3] == "}":
                return end + 3
        elif character in '"`' or (character == "'" and not text[place - 1].isalnum()):
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return place + 1
    return at + 1


def _tag_end(text: str, at: int) -> int:
    """The place after the tag at `at`; attributes may hold `>` in strings and in braces."""
    place = at + 1
    quote = ""
    while place < min(len(text), at + SCAN_LIMIT_CHARS):
        character = text[place]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "{":
            place = _closing(text, place)
            continue
        elif character == ">":
            return place + 1
        place += 1
    return at + 1

"""MDX -> draft: what runs (imports, exports, expressions, comments, tags) is taken out, the rest read as Markdown."""

import re

from indexer.documents import Draft
from indexer.formats import front_matter
from indexer.formats.decoding import decoded
from indexer.formats.markdown import page
from indexer.formats.markdown.lines import FENCE

MODULE = re.compile(
    r"^(?:import\s+(?:[{*\"']|type\s+[\w{]|[\w$]+\s*,\s*(?:[{*]|$)|[\w$]+\s+from\s+[\"'])"
    r"|export\s+(?:const|let|var|default|function|async|class|type|interface|[{*]))"
)
UNFINISHED = re.compile(r"(?:[=,(\[{+:?|&]|=>|\bfrom|\bdefault)\s*$")
QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|//.*", re.S)
HEADING_ANCHOR = re.compile(r"\{\s*#[\w.:-]+\s*\}")
CODE_SPAN = re.compile(r"(`+)(?!`)(?:.+?)(?<!`)\1(?!`)", re.S)
COMPONENT = re.compile(r"</?(?:[A-Z][\w.]*|[a-z][a-z0-9-]*)(?=[\s/>{])|</?>")
SHOWN = re.compile(r"\b(?:title|label|heading|summary)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|\{\s*[\"']([^\"']*)[\"']\s*\})")
SCAN_LIMIT_CHARS = 4_000
"""No tag or expression is longer; looking further for the end of each would take minutes on a hostile file."""
STRING = re.compile(r"\{\s*(?:\"([^\"\\]*)\"|'([^'\\]*)')\s*\}\Z")


def read(data: bytes) -> Draft:
    """The draft of an MDX file; SourceUnreadable where it is not text."""
    parts = front_matter.split(decoded(data))
    return page.drafted(parts._replace(body=_markdown(parts.body)), indented_code=False)


def _markdown(text: str) -> str:
    """The Markdown that is left of MDX; fenced code is untouched."""
    out: list[str] = []
    prose: list[str] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        match = FENCE.match(lines[at])
        if match:
            end = at + 1
            while end < len(lines):
                bare = lines[end].strip()
                if bare.startswith(match[2]) and not bare.strip(match[2][0]):
                    break
                end += 1
            out += [_prose("\n".join(prose)), *lines[at : end + 1]]
            prose = []
            at = end + 1
        elif MODULE.match(lines[at]):
            at = _module_end(lines, at)
            prose.append("")
        else:
            prose.append(lines[at])
            at += 1
    return "\n".join([*out, _prose("\n".join(prose))])


def _module_end(lines: list[str], at: int) -> int:
    """The line after an import or export: where its brackets are closed, or the next blank line if they never are."""
    source = ""
    for end in range(at, min(len(lines), at + 500)):
        source += lines[end] + "\n"
        bare = QUOTED.sub('""', source)
        opened = sum(bare.count(bracket) for bracket in "([{") - sum(bare.count(bracket) for bracket in ")]}")
        if opened <= 0 and not UNFINISHED.search(bare) and bare.count("`") % 2 == 0:
            return end + 1
    end = at + 1
    while end < len(lines) and lines[end].strip():
        end += 1
    return end


def _prose(text: str) -> str:
    """Text outside code blocks, without expressions and tags."""
    out: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "\\" and at + 1 < len(text):
            out.append(text[at : at + 2])
            at += 2
        elif character == "`" and (span := CODE_SPAN.match(text, at)):
            out.append(span[0])
            at = span.end()
        elif character == "{":
            anchor = HEADING_ANCHOR.match(text, at)
            end = anchor.end() if anchor else _closing(text, at)
            string = STRING.match(text[at:end])
            out.append(anchor[0] if anchor else (string[1] or string[2] or "") if string else "")
            at = end
        elif character == "<" and COMPONENT.match(text, at):
            end = _tag_end(text, at)
            out.append(_left_of_tag(text[at:end]))
            at = end
        else:
            out.append(character)
            at += 1
    return "".join(out)


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

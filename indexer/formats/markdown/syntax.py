"""CommonMark with tables, and what the generators of sites add to it, as rules of markdown-it. Knows no output."""

import re
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.common.html_blocks import block_names
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock, paragraph
from markdown_it.rules_inline import StateInline

FENCE = re.compile(r" *(`{3,}(?=[^`]*$)|~{3,})")
ADMONITION = re.compile(r"(?:!!!|\?\?\?\+?|===[!+]?)[ \t]+(?:[\w -]*?(?:\"(.*)\"|'(.*)')|[\w-]+(?: [\w-]+)*)[ \t]*$")
CONTAINER = re.compile(r"(?:/{3,}|:{3,})[ \t]*\{?[A-Za-z][\w-]*\}?(.*)$")
AUTODOC = re.compile(r":::[ \t]+(\w+(?:\.\w+)+)[ \t]*$")
DROPPED = re.compile(r"\s*(?:\{[*!%].*[*!%]\}|\{\{.*\}\}|;?--8<--.*|\[TOC\]|\[\[_?TOC_?\]\]|/{3,}|:{3,})\s*$", re.I)
OPTION = re.compile(r"[\w-]+:.*$")
NOTE = re.compile(r"\[\^[^\[\]\s]+\](?::[ \t]*)?")
TEMPLATE = re.compile(r"\{[%{*!].{0,1000}?[%}*!]\}", re.S)
ATTRIBUTES = re.compile(r"\{[:.# ][^{}]*\}")
HTML = re.compile(r"<(?:/?([a-z][a-z0-9-]*)(?=[\s/>]|$)|!--)", re.I)
WHOLE = frozenset({"", "style", "script", "pre", "table", "svg", "iframe", "noscript", "template"})
"""HTML that is taken or dropped through its end, blank lines included; a comment has no name."""
STARTS_BLOCK = WHOLE.union(block_names)
"""HTML elements that end a paragraph and hold raw HTML until the next blank line; others are part of the text."""
DEPTH_LIMIT = 40
"""Containers deeper than this are shown as they stand; nobody writes them, and recursion must end."""


class Syntax(MarkdownIt):
    """The parser. Where a link leads is decided later, so that the words of every link are read as words."""

    def normalizeLink(self, url: str) -> str:
        return url

    def validateLink(self, url: str) -> bool:
        return True


@cache
def syntax(*, indented_code: bool) -> Syntax:
    """The parser of Markdown, or of what is left of MDX, which has no code by indentation."""
    md = Syntax("commonmark", {"maxNesting": 4 * DEPTH_LIMIT})
    md.enable(["table", "strikethrough"]).disable(["inline", "html_block", *([] if indented_code else ["code"])])
    ends: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    md.block.ruler.before("table", "deep", _deep)
    md.block.ruler.before("fence", "added", _added, ends)
    md.block.ruler.before("html_block", "html", _html, ends)
    md.block.ruler.before("reference", "footnote", _footnote)
    md.inline.ruler.before("link", "note", _note)
    md.inline.ruler.before("link", "template", _template)
    return md


def _line(state: StateBlock, at: int) -> str:
    return state.src[state.bMarks[at] + state.tShift[at] : state.eMarks[at]]


def _deep(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if silent or state.level < DEPTH_LIMIT:
        return False
    state.push("inline", "", 0).content = state.getLines(start, end, 0, False)
    state.line = end
    return True


def _added(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Containers become their title and what they hold; templates and directives go."""
    if state.is_code_block(start):
        return False
    line = _line(state, start)
    stop = start + 1
    autodoc = AUTODOC.match(line)
    container = autodoc or CONTAINER.match(line)
    admonition = ADMONITION.match(line)
    if silent or not (DROPPED.match(line) or container or admonition):
        return bool(DROPPED.match(line) or container or admonition)
    indent = state.sCount[start]
    if container:
        least = indent + (2 if autodoc else 4)
        while stop < end and state.sCount[stop] >= least and (autodoc or OPTION.match(_line(state, stop))):
            stop += 1
    if autodoc:
        # The name whose documentation a build would put here, and the members that are asked for.
        options = [_line(state, at).strip() for at in range(start + 1, stop)]
        members = ", ".join(f"`{option[2:]}`" for option in options if option.startswith("- "))
        state.push("inline", "", 0).content = f"`{autodoc[1]}`" + (f": {members}" if members else "")
    elif container:
        # `/// tip | Title`, `:::tip Title` and `:::note[Title]`
        title = re.sub(r"\{[^{}]*\}\s*$", "", container[1]).strip()
        state.push("inline", "", 0).content = title.lstrip("|[").rstrip("]").strip()
    elif admonition:
        state.push("inline", "", 0).content = admonition[1] or admonition[2] or ""
        while stop < end and (state.isEmpty(stop) or state.sCount[stop] >= indent + 4):
            stop += 1
        outer, state.blkIndent = state.blkIndent, indent + 4
        state.level += 1
        state.md.block.tokenize(state, start + 1, stop)
        state.level -= 1
        state.blkIndent = outer
    state.line = stop
    return True


def _html(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    found = None if state.is_code_block(start) else HTML.match(_line(state, start))
    tag = (found[1] or "").lower() if found else "?"
    if silent or tag not in STARTS_BLOCK:
        return tag in STARTS_BLOCK
    stop = 0
    if tag in WHOLE:
        closing = f"</{tag}" if tag else "-->"
        stop = next((at + 1 for at in range(start, end) if closing in _line(state, at).lower()), 0)
    token = state.push("html_block", tag, 0)
    token.hidden = bool(stop)
    if not stop:
        stop = start + 1  # of a comment that is never closed one line is lost, not the page
        while tag and stop < end and state.sCount[stop] >= state.blkIndent and not state.isEmpty(stop):
            if FENCE.match(_line(state, stop)):
                break
            stop += 1
    token.content = state.getLines(start, stop, state.blkIndent, False)
    state.line = stop
    return True


def _footnote(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A footnote of one word looks like the definition of a link."""
    return not silent and bool(NOTE.match(_line(state, start))) and paragraph(state, start, end, silent)


def _note(state: StateInline, silent: bool) -> bool:
    """The mark of a footnote, where it is set and where it is explained."""
    return _passed(state, NOTE.match(state.src, state.pos))


def _template(state: StateInline, silent: bool) -> bool:
    after_link = state.src[state.pos - 1 : state.pos] == ")"
    return _passed(state, (ATTRIBUTES if after_link else TEMPLATE).match(state.src, state.pos))


def _passed(state: StateInline, found: re.Match[str] | None) -> bool:
    if found:
        state.pos = found.end()
    return bool(found)

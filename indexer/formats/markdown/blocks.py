"""Markdown -> headings, blocks and links, in reading order. Knows no file, anchor rule or front matter.

Containers that only decorate (quotes, admonitions, tabs, details) become their inner text; their titles stay.
"""

import html
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markdown_it.common.html_blocks import block_names
from markdown_it.token import Token

from indexer.documents import Block, PageLink, fenced, piped
from indexer.formats.markdown.syntax import DROPPED, TEMPLATE, WHOLE, syntax

HTML_HEADING = re.compile(r"<h([1-6])\b([^<>]*)>(.{0,1000}?)</h\1\s*>", re.I | re.S)
HTML_ID = re.compile(r"\bid\s*=\s*[\"']?([^\s\"'>]+)", re.I)
HEADING_ANCHOR = re.compile(r"\{:?[ \t]*#([^\s{}]+)[^{}]*\}[ \t]*$")
HEADING_ATTRIBUTES = re.compile(r"[ \t]*\{:?[ \t]*[.#][^{}]*\}[ \t]*$")
ALERT = re.compile(r"^\[!\w+\][+-]?[ \t]*")
INFO = re.compile(r"\{?[ \t]*\.?([A-Za-z0-9_+#.-]+)(?!\S*=)")
COLOURS = re.compile(r"</?(?:font|span|u|b|i|em|strong)(?:\s[^<>]*)?>")
TAG = re.compile(r"</?([a-z][a-z0-9-]*)(?=[\s/>])", re.I)
ALT = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.I)
INLINE_TAG = re.compile(
    "a|abbr|acronym|audio|b|bdi|bdo|big|button|canvas|cite|code|data|datalist|del|dfn|em|embed|font|i|img|input|ins|"
    "kbd|label|map|mark|meter|object|output|picture|progress|q|rp|rt|ruby|s|samp|script|select|slot|small|span|strike|"
    "strong|style|sub|sup|svg|template|textarea|time|tt|u|var|video|wbr"
)
"""Only these and `block_names` are HTML in Markdown: `List<T>` and `<your-name>` are what the author meant to show."""
MARKED = re.compile(r"[`\\<>\[\]*_~&{!\n]")
CODE_PIPE = re.compile(r"(?<!`)(`+)(?!`)[^\n]+?(?<!`)\1(?!`)")
WIDE = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
SOFT_WIDE = re.compile(rf"(?<=[{WIDE}])\n[ \t]*(?=[{WIDE}])")
WIDE_STRONG = re.compile(rf"(?<=[{WIDE}])\*\*|\*\*(?=[{WIDE}])")
"""CommonMark does not take `**` for emphasis between a wide letter and wide punctuation; who writes it means it."""
BREAK, PIPE, BEGIN, END = "\ue000\ue001\ue002\ue003"
LINKED = re.compile(f"{BEGIN}([^{BEGIN}{END}]*){END}")
UNMARKED = str.maketrans(PIPE, "|", BEGIN + END)
BEFORE_CHARS = 24
AFTER_CHARS = 16


class Heading(NamedTuple):
    level: int
    text: str
    anchor: str
    """The anchor that the page states, or empty."""


class Page:
    """One page's blocks, and the `links` of those that were read."""

    def __init__(self, source: str, *, indented_code: bool) -> None:
        self.links: list[PageLink] = []
        self._syntax = syntax(indented_code=indented_code)
        self._env: dict[str, object] = {}
        # In tables of CommonMark a pipe divides even code; generators of sites, and authors, know it better.
        source = source.translate(dict.fromkeys(map(ord, (BREAK, PIPE, BEGIN, END))))
        self._source = CODE_PIPE.sub(lambda code: code[0].replace("|", PIPE), source)

    def items(self) -> Iterator[Heading | Block]:
        """Headings and blocks."""
        return self._items(iter(self._syntax.parse(self._source, self._env)), "")

    def plain(self, source: str) -> str:
        """Inline Markdown as a heading or title shows it: one line, without backticks."""
        return " ".join(self._text(source).replace("`", "").split())

    def _items(self, tokens: Iterator[Token], end: str) -> Iterator[Heading | Block]:
        for token in tokens:
            if token.type == end:
                return
            if token.type == "heading_open":
                yield self._heading(int(token.tag[1]), next(tokens).content)
                next(tokens)
            elif token.type == "inline":
                yield from self._paragraph(ALERT.sub("", token.content))
            elif token.type in {"fence", "code_block"}:
                yield from self._code(token.info, token.content)
            elif token.type in {"bullet_list_open", "ordered_list_open"}:
                yield from self._list(tokens, token)
            elif token.type == "table_open":
                yield from self._table(tokens)
            elif token.type == "html_block":
                yield from self._html(token)

    def _heading(self, level: int, source: str, anchor: str = "") -> Heading:
        stated = HEADING_ANCHOR.search(source)
        return Heading(level, self.plain(HEADING_ATTRIBUTES.sub("", source)), anchor or (stated[1] if stated else ""))

    def _paragraph(self, source: str) -> Iterator[Block]:
        if text := self._text(source):
            yield Block("paragraph", text)

    def _code(self, info: str, code: str) -> Iterator[Block]:
        found = INFO.match(info.strip())
        language = found[1] if found else ""
        if language in {"console", "termynal"}:
            code = COLOURS.sub("", code)
        if any(line.strip() and not DROPPED.match(line) for line in code.split("\n")):
            yield Block("code", fenced(code.replace(PIPE, "|"), language))

    def _table(self, tokens: Iterator[Token]) -> Iterator[Block]:
        rows: list[list[str]] = []
        for token in tokens:
            if token.type == "table_close":
                break
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(self._text(token.content).replace("\n", " "))
        if any(map(any, rows)):
            yield Block("table", piped(rows))

    def _list(self, tokens: Iterator[Token], opening: Token) -> Iterator[Block]:
        shown: list[str] = []
        number = int(opening.attrs.get("start", 1))
        for token in tokens:
            if token.type != "list_item_open":
                break
            marker = f"{number}." if opening.type == "ordered_list_open" else "-"
            number += 1
            first = True
            for item in self._items(tokens, "list_item_close"):
                kind, text = Block("paragraph", item.text) if isinstance(item, Heading) else item
                if kind in {"code", "table"}:
                    shown += [marker] if first else []
                    if any(line.strip("- ") for line in shown):
                        yield Block("list", "\n".join(shown))
                    yield Block(kind, text)
                    shown = []
                else:
                    inner = text.split("\n")
                    if first:
                        shown.append(f"{marker} {inner.pop(0)}" if kind == "paragraph" else marker)
                    shown += [f"  {line}" for line in inner]
                first = False
        if shown:
            yield Block("list", "\n".join(shown))

    def _html(self, token: Token) -> Iterator[Heading | Block]:
        source = token.content
        if not token.tag:
            yield from self._paragraph(source.partition("-->")[2])
        elif token.tag in WHOLE and token.hidden:
            if token.tag in {"pre", "table"}:
                # Only a page that holds raw tables or <pre> pays for an HTML parser.
                from indexer.formats.html.page import read_text

                for section in read_text(source.translate(UNMARKED)).sections:
                    yield from section.blocks
        else:
            source = "\n".join(line.strip() for line in source.split("\n"))
            start = 0
            for heading in HTML_HEADING.finditer(source):
                yield from self._paragraph(source[start : heading.start()])
                identifier = HTML_ID.search(heading[2])
                yield self._heading(int(heading[1]), " ".join(heading[3].split()), identifier[1] if identifier else "")
                start = heading.end()
            yield from self._paragraph(source[start:])

    def _text(self, source: str) -> str:
        """Inline Markdown as its reader sees it: the words of links and images; code stays in its backticks.

        A hard line break stays one, a soft one becomes a space, or nothing between Chinese or Japanese characters.
        """
        if not MARKED.search(source):
            return " ".join(source.split()).translate(UNMARKED)
        tokens: list[Token] = []
        self._syntax.inline.parse(source, self._syntax, self._env, tokens)
        text = SOFT_WIDE.sub("", _shown(tokens))
        text = re.sub(rf"\s+{END}", f"{END} ", re.sub(rf"{BEGIN}\s+", f" {BEGIN}", text))
        lines = [" ".join(line.split()) for line in text.split(BREAK)]
        text = "\n".join(line for line in lines if line.translate(UNMARKED).strip())
        targets = [str(token.attrs["href"]) for token in tokens if token.type == "link_open" and not token.markup]
        for link, target in zip(LINKED.finditer(text), targets, strict=True):
            around = text[max(0, link.start() - 99) : link.start()], link[1], text[link.end() : link.end() + 99]
            before, words, after = (part.translate(UNMARKED) for part in around)
            if words.strip():
                before, after = before.rpartition("\n")[2], after.partition("\n")[0]
                self.links.append(PageLink(before[-BEFORE_CHARS:], words, after[:AFTER_CHARS], target))
        return text.translate(UNMARKED)


def _shown(tokens: Sequence[Token]) -> str:
    shown = ""
    for token in tokens:
        if token.type == "code_inline":
            shown += f"{token.markup}{' '.join(token.content.split())}{token.markup}"
        elif token.type == "image":
            shown += _shown(token.children or ()).replace(BEGIN, "").replace(END, "")
        elif token.type == "html_inline":
            shown += _shown_tag(token.content)
        elif token.type == "link_open":
            shown += "" if token.markup else BEGIN
        elif token.type == "link_close":
            shown += "" if token.markup else END
        else:
            text = WIDE_STRONG.sub("", token.content) if token.type == "text" else token.content
            shown += {"softbreak": "\n", "hardbreak": BREAK}.get(token.type, text)
    return shown


def _shown_tag(source: str) -> str:
    tag = TAG.match(source)
    if not tag:
        return ""  # a comment
    name = tag[1].lower()
    if name in {"br", "hr"}:
        return BREAK
    if name == "img":
        alt = ALT.search(source)
        return TEMPLATE.sub("", html.unescape(alt[1] or alt[2] or "")) if alt else ""
    if name in block_names:
        return " "  # words around it never touch
    return "" if INLINE_TAG.fullmatch(name) else source

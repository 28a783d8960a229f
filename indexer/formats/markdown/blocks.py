"""Lines of Markdown -> headings and blocks, containers opened recursively. Knows no file, anchor rule or front matter.

Containers that only decorate (quotes, admonitions, tabs, details) become their inner text; their titles stay.
"""

import re
from collections.abc import Container
from typing import NamedTuple

from indexer.documents import Block, fenced, piped
from indexer.formats.markdown import lines as shape
from indexer.formats.markdown.inline import text_of
from indexer.formats.markdown.lines import after, cells_of, container_title, indent_of

HTML_HEADING = re.compile(r"<h([1-6])\b([^<>]*)>(.*?)</h\1\s*>", re.I | re.S)
HTML_ID = re.compile(r"\bid\s*=\s*[\"']?([^\s\"'>]+)", re.I)
INFO = re.compile(r"^\{?[ \t]*\.?([A-Za-z0-9_+#.-]+)")
COLOURS = re.compile(r"</?(?:font|span|u|b|i|em|strong)(?:\s[^<>]*)?>")
WHOLE = frozenset({"style", "script", "pre", "table", "svg", "iframe", "noscript", "template"})
"""HTML elements that are taken or dropped through their end, blank lines included."""
STARTS_BLOCK = re.compile(
    r"address|article|aside|blockquote|body|center|dd|details|dialog|dir|div|dl|dt|fieldset|"
    r"figcaption|figure|footer|form|h1|h2|h3|h4|h5|h6|head|header|hr|html|legend|li|link|main|"
    r"menu|meta|nav|ol|p|section|summary|ul"
    r"|" + "|".join(sorted(WHOLE))
)
"""HTML elements that end a paragraph and hold raw HTML until the next blank line; others are part of the text."""
DEPTH_LIMIT = 24
"""Containers deeper than this are shown as they stand; nobody writes them, and recursion must end."""


class Heading(NamedTuple):
    level: int
    source: str
    """The heading's Markdown, with its attribute list."""
    anchor: str = ""


Item = Heading | Block


class Blocks:
    """The block structure of one page."""

    def __init__(self, references: Container[str], *, indented_code: bool) -> None:
        self._references = references
        self._indented_code = indented_code

    def parse(self, lines: list[str], depth: int = 0) -> list[Item]:
        """Headings and blocks of `lines`, in order."""
        items: list[Item] = []
        paragraph: list[str] = []
        at = 0

        def flush() -> None:
            text = self._text("\n".join(paragraph))
            if text:
                items.append(Block("paragraph", text))
            paragraph.clear()

        while at < len(lines):
            line = lines[at]
            if not line.strip():
                flush()
                at += 1
                continue
            if paragraph and shape.SETEXT.match(line):
                level = 1 if line.strip()[0] == "=" else 2
                items.append(Heading(level, " ".join(part.strip() for part in paragraph)))
                paragraph.clear()
                at += 1
                continue
            taken = self._container(lines, at, depth, in_paragraph=bool(paragraph))
            if taken is None:
                paragraph.append(line)
                at += 1
            else:
                flush()
                at = taken[0]
                items.extend(taken[1])
        flush()
        return items

    def _text(self, source: str) -> str:
        return text_of(source, self._references)

    def _container(self, lines: list[str], at: int, depth: int, *, in_paragraph: bool) -> tuple[int, list[Item]] | None:
        """What starts at `at`, other than a paragraph: the line after it, and its items."""
        line = lines[at]
        if indent_of(line) >= 4 and self._indented_code:
            return None if in_paragraph else self._indented(lines, at)
        if match := shape.FENCE.match(line):
            return self._fence(lines, at, match)
        if match := shape.ATX.match(line):
            return at + 1, [Heading(len(match[1]), match[2] or "")]
        if shape.RULE.match(line) or shape.DROPPED.match(line) or shape.CONTAINER_END.match(line):
            return at + 1, []
        if match := shape.AUTODOC.match(line):
            return self._autodoc(lines, at, match[1])
        if depth < DEPTH_LIMIT:
            if shape.QUOTE.match(line):
                return self._quote(lines, at, depth)
            if match := shape.ADMONITION.match(line):
                return self._admonition(lines, at, depth, match[1] or match[2] or "")
            if shape.starts_item(line, in_paragraph=in_paragraph):
                return self._list(lines, at, depth)
        if match := shape.CONTAINER.match(line):
            return after(lines, at + 1, shape.OPTION), self._paragraph(container_title(match))
        if "|" in line and at + 1 < len(lines) and "-" in lines[at + 1] and shape.DELIMITERS.match(lines[at + 1]):
            return self._table(lines, at)
        if line.lstrip().startswith("<!--"):
            return self._comment(lines, at)
        if (match := shape.HTML_OPEN.match(line)) and STARTS_BLOCK.fullmatch(match[1].lower()):
            return self._html(lines, at, match[1].lower(), depth)
        return None

    def _paragraph(self, source: str) -> list[Item]:
        text = self._text(source)
        return [Block("paragraph", text)] if text else []

    def _autodoc(self, lines: list[str], at: int, name: str) -> tuple[int, list[Item]]:
        """The name whose documentation a build would put here, and the members that are asked for."""
        end = after(lines, at + 1, shape.INDENTED)
        members = [f"`{line.strip()[2:]}`" for line in lines[at + 1 : end] if line.strip().startswith("- ")]
        return end, [Block("paragraph", f"`{name}`" + (f": {', '.join(members)}" if members else ""))]

    def _indented(self, lines: list[str], at: int) -> tuple[int, list[Item]]:
        end = at
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
            end += 1
        code = fenced("\n".join(line[4:] for line in lines[at:end]))
        return end, [Block("code", code)] if code else []

    def _fence(self, lines: list[str], at: int, match: re.Match[str]) -> tuple[int, list[Item]]:
        indent, fence = len(match[1]), match[2]
        end = at + 1
        while end < len(lines):
            bare = lines[end].strip()
            if bare.startswith(fence) and not bare.strip(fence[0]):
                break
            end += 1
        body = [line[min(indent, indent_of(line)) :] for line in lines[at + 1 : end]]
        info = INFO.match(match[3].strip())
        language = info[1] if info and "=" not in info[1] else ""
        if all(shape.DROPPED.match(line) for line in body if line.strip()):
            body = []
        if language in {"console", "termynal"}:
            body = [COLOURS.sub("", line) for line in body]
        code = fenced("\n".join(body), language)
        return end + 1, [Block("code", code)] if code else []

    def _quote(self, lines: list[str], at: int, depth: int) -> tuple[int, list[Item]]:
        inner: list[str] = []
        end = at
        while end < len(lines) and lines[end].strip():
            line = lines[end]
            if shape.QUOTE.match(line):
                inner.append(shape.QUOTE.sub("", line, count=1))
            elif inner[-1].strip() and not shape.starts_block(line):
                inner.append(line.strip())
            else:
                break
            end += 1
        inner[0] = shape.ALERT.sub("", inner[0])
        return end, self.parse(inner, depth + 1)

    def _admonition(self, lines: list[str], at: int, depth: int, title: str) -> tuple[int, list[Item]]:
        body = indent_of(lines[at]) + 4
        end = at + 1
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" " * body)):
            end += 1
        return end, self._paragraph(title) + self.parse([line[body:] for line in lines[at + 1 : end]], depth + 1)

    def _table(self, lines: list[str], at: int) -> tuple[int, list[Item]]:
        end = at + 2
        while end < len(lines) and lines[end].strip() and "|" in lines[end] and not shape.FENCE.match(lines[end]):
            end += 1
        shown = (lines[at], *lines[at + 2 : end])
        rows = [[self._text(cell).replace("\n", " ") for cell in cells_of(line)] for line in shown]
        return end, [Block("table", piped(rows))] if any(map(any, rows)) else []

    def _comment(self, lines: list[str], at: int) -> tuple[int, list[Item]]:
        end = at
        while end < len(lines) and "-->" not in lines[end]:
            end += 1
        if end == len(lines):
            return at + 1, []  # never closed: losing one line is better than losing the page
        rest = lines[end].split("-->", 1)[1]
        return end + 1, self._paragraph(rest)

    def _html(self, lines: list[str], at: int, tag: str, depth: int) -> tuple[int, list[Item]]:
        if tag in WHOLE:
            end = at
            closing = f"</{tag}"
            while end < len(lines) and closing not in lines[end].lower():
                end += 1
            if end < len(lines):
                return end + 1, self._whole(tag, "\n".join(lines[at : end + 1]))
        end = at + 1
        while end < len(lines) and lines[end].strip() and not shape.FENCE.match(lines[end]):
            end += 1
        source = "\n".join(line.strip() for line in lines[at:end])
        items: list[Item] = []
        start = 0
        for match in HTML_HEADING.finditer(source):
            items += self._paragraph(source[start : match.start()])
            identifier = HTML_ID.search(match[2])
            items.append(Heading(int(match[1]), " ".join(match[3].split()), identifier[1] if identifier else ""))
            start = match.end()
        return end, items + self._paragraph(source[start:])

    def _whole(self, tag: str, source: str) -> list[Item]:
        if tag not in {"pre", "table"}:
            return []
        # Only a page that holds raw tables or <pre> pays for an HTML parser.
        from indexer.formats.html.page import read_text

        return [block for section in read_text(source).sections for block in section.blocks]

    def _list(self, lines: list[str], at: int, depth: int) -> tuple[int, list[Item]]:
        items: list[Item] = []
        shown: list[str] = []
        end = at
        for marker, body, following in shape.list_items(lines, at):
            end = following
            first = True
            for item in self.parse(body, depth + 1) or [Block("paragraph", "")]:
                kind, text = ("paragraph", self._text(item.source)) if isinstance(item, Heading) else item
                if kind in {"code", "table"}:
                    if first:
                        shown.append(marker)
                    items += [Block("list", "\n".join(shown))] if any(line.strip("- ") for line in shown) else []
                    items.append(Block("code" if kind == "code" else "table", text))
                    shown = []
                else:
                    inner = text.split("\n")
                    if first:
                        shown.append(f"{marker} {inner.pop(0)}" if kind == "paragraph" else marker)
                    shown += [f"  {line}" for line in inner]
                first = False
        if shown:
            items.append(Block("list", "\n".join(shown)))
        return end, items

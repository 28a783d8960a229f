"""A cleaned HTML tree -> an outline of headings and blocks. Knows no encoding, head or banner."""

import re

from selectolax.lexbor import LexborNode

from indexer.documents import Block, Outline, fenced, piped

HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
INLINE = re.compile(
    r"a|abbr|acronym|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|img|input|ins|kbd|label|mark|meter|output|picture|q"
    r"|ruby|s|samp|slot|small|span|strike|strong|sub|sup|time|tt|u|var|wbr|br|-text|-comment|rt|rp|source|link|meta"
)
PERMALINKS = {"¶", "#", "§", "🔗", "\uf0c1"}
LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|highlight|highlight-source|brush:)-?\s*([A-Za-z0-9+#.]+)")
BLOCKS = "p, div, ul, ol, table, pre, h1, h2, h3, h4, dl"
LAYOUT = "td table, td h1, td h2, td h3, td pre, td ul, td p + p"
"""A table with such cells places things on the page; its cells are read one after another."""
NO_LANGUAGE = {"default", "text", "plaintext", "none", "notranslate"}


def text_within(node: LexborNode | None) -> str:
    """A node's text on one line."""
    return " ".join(node.text().split()) if node else ""


class Walk:
    """One pass over a tree, collecting text until a block begins or ends."""

    def __init__(self) -> None:
        self._outline = Outline()
        self._text: list[str] = []
        self._wrapping_ids: list[str] = []
        """The ids of open elements in which no heading has stood yet: the next heading's anchor."""

    def outline(self, root: LexborNode | None) -> Outline:
        """Headings and blocks below `root`, in order; RecursionError where it is nested beyond reason."""
        if root is not None:
            self._children(root)
            self._flush()
        return self._outline

    def _flush(self) -> None:
        self._outline.add("paragraph", _collapsed("".join(self._text)))
        self._text.clear()

    def _children(self, node: LexborNode) -> None:
        for child in node.iter(include_text=True):
            self._node(child)

    def _node(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if INLINE.fullmatch(tag) and not _holds_blocks(node):
            self._text.append(_inline(node))
            return
        self._flush()
        if tag in HEADINGS:
            self._heading(node, HEADINGS[tag])
        elif tag == "pre":
            self._outline.add("code", _code(node))
        elif tag == "table":
            self._table(node)
        elif tag in {"ul", "ol", "menu"}:
            self._outline.extend(_list(node))
        elif tag == "dl":
            self._outline.extend(_definitions(node))
        elif tag != "hr":
            identifier = node.attributes.get("id") or ""
            if identifier:
                self._wrapping_ids.append(identifier)
            self._children(node)
            if identifier and identifier in self._wrapping_ids:
                self._wrapping_ids.remove(identifier)
            self._flush()

    def _heading(self, node: LexborNode, level: int) -> None:
        inner = node.css_first("[id], a[name]")
        anchor = node.attributes.get("id") or ""
        if not anchor and inner is not None:
            anchor = inner.attributes.get("id") or inner.attributes.get("name") or ""
        if not anchor and self._wrapping_ids:
            anchor = self._wrapping_ids[-1]
        self._wrapping_ids.clear()
        for link in node.css("a"):
            if link.text().strip() in PERMALINKS:
                link.decompose()
        self._outline.heading(level, _collapsed(_inline(node)).replace("`", "").replace("\n", " "), anchor)

    def _table(self, node: LexborNode) -> None:
        gutter = node.css_first("td.code pre, td.rouge-code pre")
        if gutter is not None:  # a listing with its line numbers in a column of their own
            self._outline.add("code", _code(gutter))
        elif node.attributes.get("role") == "presentation" or node.css_first(LAYOUT):
            for cell in node.css("td, th"):
                if _nearest(cell, "table") == node.mem_id:
                    self._children(cell)
                    self._flush()
        else:
            caption = node.css_first("caption")
            self._outline.add("paragraph", _collapsed(_inline(caption)) if caption else "")
            self._outline.add("table", _pipes(node))


def _collapsed(text: str) -> str:
    """Whitespace as a browser shows it; `\\x1e` is a line break that was meant."""
    lines = (" ".join(line.split()) for line in text.split("\x1e"))
    return "\n".join(line for line in lines if line)


def _holds_blocks(node: LexborNode) -> bool:
    return not (node.tag or "-").startswith("-") and node.css_first(BLOCKS) is not None


def _inline(node: LexborNode) -> str:
    tag = node.tag or ""
    if tag == "-text":
        return node.text_content or ""
    if tag == "-comment" or tag in {"rp", "rt", "input", "source", "link", "meta"}:
        return ""
    if tag == "br":
        return "\x1e"
    if tag == "img":
        return node.attributes.get("alt") or ""
    inner = "".join(_inline(child) for child in node.iter(include_text=True))
    if tag in {"code", "tt", "kbd", "samp"} and inner.strip() and "`" not in inner:
        return f"`{inner.strip()}`"
    return inner if INLINE.fullmatch(tag) else f"\x1e{inner}\x1e"


def _code(node: LexborNode) -> str:
    for line_break in node.css("br"):
        line_break.replace_with("\n")
    for line_number in node.css(".linenos, .lineno, .gutter"):
        line_number.decompose()
    inside = node.css_first("code")
    nodes = [inside, node, node.parent, node.parent.parent if node.parent else None]
    for candidate in nodes:
        match = LANGUAGE.search(candidate.attributes.get("class") or "") if candidate is not None else None
        if match:
            return fenced(node.text(), "" if match[1] in NO_LANGUAGE else match[1])
    return fenced(node.text())


def _list(node: LexborNode) -> list[Block]:
    """A list's items, one a line, nested ones indented; code and tables in an item are blocks of their own."""
    blocks: list[Block] = []
    lines: list[str] = []
    start = node.attributes.get("start") or "1"
    number = int(start) if start.isdecimal() and len(start) < 6 else 1
    for item in node.iter():
        if item.tag in {"ul", "ol"}:  # nested without an item around it: wrong, and common
            lines += [f"  {line}" for block in _list(item) for line in block.text.split("\n")]
        if item.tag != "li":
            continue
        marker = f"{number}." if node.tag == "ol" else "-"
        number += 1
        for place, block in enumerate(_within(item)):
            if block.kind in {"code", "table"}:
                if lines:
                    blocks.append(Block("list", "\n".join(lines)))
                    lines = []
                blocks.append(block)
            else:
                shown = block.text.split("\n")
                if place == 0 and block.kind != "list":
                    lines.append(f"{marker} {shown.pop(0)}")
                lines += [f"  {line}" for line in shown]
    if lines:
        blocks.append(Block("list", "\n".join(lines)))
    return blocks


def _within(node: LexborNode) -> list[Block]:
    """The blocks inside a list's item, whose headings are plain lines."""
    blocks: list[Block] = []
    for section in Walk().outline(node).sections():
        if section.headings:
            blocks.append(Block("paragraph", section.headings[-1]))
        blocks += section.blocks
    return blocks


def _definitions(node: LexborNode) -> list[Block]:
    """Terms and what they mean, `term: meaning` on a line; what follows the first paragraph stands below it."""
    blocks: list[Block] = []
    lines: list[str] = []
    terms: list[str] = []
    for part in node.css("dt, dd"):
        if _nearest(part, "dl") != node.mem_id:
            continue
        if part.tag == "dt":
            terms.append(_collapsed(_inline(part)).replace("\n", " "))
            continue
        inner = _within(part)
        label = ", ".join(terms)
        terms = []
        if inner and inner[0].kind == "paragraph":
            lines.append(f"- {label}: {inner[0].text}" if label else f"  {inner[0].text}")
            inner = inner[1:]
        elif label:
            lines.append(f"- {label}:")
        if inner:
            blocks += [*([Block("list", "\n".join(lines))] if lines else []), *inner]
            lines = []
    lines += [f"- {term}" for term in terms]
    return [*blocks, Block("list", "\n".join(lines))] if lines else blocks


def _pipes(node: LexborNode) -> str:
    rows: list[list[str]] = []
    for row in node.css("tr"):
        cells: list[str] = []
        for cell in row.iter():
            if cell.tag in {"td", "th"}:
                span = cell.attributes.get("colspan") or "1"
                cells.append(_collapsed("".join(_inline(child) for child in cell.iter(include_text=True))))
                cells += [""] * (min(int(span), 50) - 1 if span.isdecimal() else 0)
        rows.append(cells)
    return piped(rows)


def _nearest(node: LexborNode, tag: str) -> int | None:
    parent = node.parent
    while parent is not None and parent.tag != tag:
        parent = parent.parent
    return parent.mem_id if parent is not None else None

"""Word (.docx) -> draft: headings by style, lists, tables in their place. Knows no pages: Word makes those itself."""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from docx import Document as open_docx
from docx.oxml.ns import qn

from indexer.documents import Block, Draft, Outline, Section, piped
from rag.errors import SourceUnreadable

UNPACKED_LIMIT_BYTES = 200 * 1024 * 1024
"""What the parts of a file may unpack to by its own directory; python-docx reads all of it into memory."""
PARTS_LIMIT = 5_000
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HEADING = re.compile(r"heading ([1-9])$", re.I)
LIST = re.compile(r"list (?:bullet|number|paragraph|continue)|list$", re.I)
CONTENTS = re.compile(r"toc(?: heading|\s*\d)?$", re.I)
OPENED = ("w:r", "w:hyperlink", "w:ins", "w:smartTag", "w:sdt", "w:sdtContent", "w:fldSimple")
INSIDE_RUNS = {qn(name) for name in OPENED}


def read(data: bytes) -> Draft:
    """The draft of a .docx file; SourceUnreadable where it is protected, old, none, too large, or has macros."""
    if data.startswith(OLE):
        raise SourceUnreadable("password-protected, or an old .doc file under a new name")
    _refuse_bombs(data)
    document = open_docx(io.BytesIO(data))
    styles = {style.style_id: str(style.name) for style in document.styles}
    outline = Outline()
    title = ""
    for element in _blocks(document.element.body):
        if element.tag == qn("w:tbl"):
            outline.add("table", piped(_rows(element)))
            continue
        text = _text(element)
        style = _style(element, styles)
        heading = HEADING.match(style)
        if not text or CONTENTS.match(style):
            continue
        if style.lower() == "title":
            title = title or text
            if title != text:
                outline.add("paragraph", text)
        elif heading:
            outline.heading(int(heading[1]), text.replace("\n", " "))
        elif _listed(element) or LIST.match(style):
            outline.add("list", f"{'  ' * _depth(element)}- {text}")
        else:
            outline.add("paragraph", text)
    properties = document.core_properties
    stated = (properties.title or "").strip()
    sections = _with_joined_lists(outline)
    first_heading = next((section.headings[0] for section in sections if section.headings), "")
    return Draft(
        sections=sections,
        title=stated or title,
        top_heading=outline.top_heading or first_heading,
        language=(properties.language or "").strip(),
    )


def _refuse_bombs(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile:
        raise SourceUnreadable("broken .docx file (not a ZIP archive)") from None
    if any(part.filename.lower().endswith("vbaproject.bin") for part in parts):
        raise SourceUnreadable("holds macros; save it without them")
    if len(parts) > PARTS_LIMIT:
        raise SourceUnreadable(f"holds {len(parts)} parts (limit {PARTS_LIMIT})")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > UNPACKED_LIMIT_BYTES:
        limit_mib = UNPACKED_LIMIT_BYTES // 1024**2
        raise SourceUnreadable(f"unpacks to {unpacked // 1024**2} MiB (limit {limit_mib} MiB)")


def _blocks(parent: Any) -> Iterator[Any]:
    """Paragraphs and tables in order, those in content controls included, which python-docx passes over."""
    for child in parent:
        if child.tag in {qn("w:p"), qn("w:tbl")}:
            yield child
        elif child.tag in {qn("w:sdt"), qn("w:sdtContent"), qn("w:ins"), qn("w:customXml")}:
            yield from _blocks(child)


def _text(paragraph: Any) -> str:
    """A paragraph's words as shown: inserted ones are in, deleted ones out; line breaks stay."""
    shown: list[str] = []

    def collect(parent: Any) -> None:
        for child in parent:
            if child.tag == qn("w:t"):
                shown.append(child.text or "")
            elif child.tag in {qn("w:tab"), qn("w:ptab")}:
                shown.append(" ")
            elif child.tag in {qn("w:br"), qn("w:cr")}:
                shown.append("\n" if child.get(qn("w:type")) in {None, "textWrapping"} else " ")
            elif child.tag == qn("w:noBreakHyphen"):
                shown.append("-")
            elif child.tag in INSIDE_RUNS:
                collect(child)

    collect(paragraph)
    lines = (" ".join(line.split()) for line in "".join(shown).split("\n"))
    return "\n".join(line for line in lines if line)


def _style(paragraph: Any, styles: dict[str, str]) -> str:
    """The style's English name; Word keeps it in every translation, in a case of its own."""
    named = paragraph.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
    return styles.get(named.get(qn("w:val")), "") if named is not None else ""


def _listed(paragraph: Any) -> bool:
    number = paragraph.find(f"{qn('w:pPr')}/{qn('w:numPr')}/{qn('w:numId')}")
    return number is not None and number.get(qn("w:val")) != "0"


def _depth(paragraph: Any) -> int:
    level = paragraph.find(f"{qn('w:pPr')}/{qn('w:numPr')}/{qn('w:ilvl')}")
    value = level.get(qn("w:val")) if level is not None else "0"
    return int(value) if value.isdecimal() else 0


def _rows(table: Any) -> list[list[str]]:
    """Cells as text; one that spans columns is followed by empty ones, one merged downwards shows its words once."""
    rows = []
    for row in table.iter(qn("w:tr")):
        if row.getparent() is not table and next(row.iterancestors(qn("w:tbl"))) is not table:
            continue
        cells: list[str] = []
        for cell in row.iterchildren(qn("w:tc")):
            texts = [_text(paragraph) for paragraph in cell.iter(qn("w:p"))]
            cells.append(" ".join(text for text in texts if text))
            span = cell.find(f"{qn('w:tcPr')}/{qn('w:gridSpan')}")
            value = span.get(qn("w:val")) if span is not None else "1"
            cells += [""] * (min(int(value), 50) - 1 if value.isdecimal() else 0)
        rows.append(cells)
    return rows


def _with_joined_lists(outline: Outline) -> tuple[Section, ...]:
    """Word knows list items, not lists: items that follow each other become one."""
    joined: list[Section] = []
    for section in outline.sections():
        blocks: list[Block] = []
        for block in section.blocks:
            if blocks and block.kind == "list" and blocks[-1].kind == "list":
                blocks[-1] = Block("list", f"{blocks[-1].text}\n{block.text}")
            else:
                blocks.append(block)
        joined.append(Section(section.headings, section.anchor, tuple(blocks)))
    return tuple(joined)

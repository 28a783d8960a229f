"""Sample files made on the spot: small PDFs with text at given places, Word files, and documents for the chunker."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from docx import Document as new_docx
from pypdf import PdfReader, PdfWriter

from indexer.documents import Block, Document, Section
from indexer.reading import document as reading
from indexer.reading.processes import Limits

CORPORA = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
needs_corpora = pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is not there")

LineOfText = tuple[float, float, str]
"""Letter size in points, distance from the page's bottom in points, text."""


def pdf_bytes(
    pages: Sequence[Sequence[LineOfText]], *, title: str = "", outline: Sequence[tuple[str, int]] = ()
) -> bytes:
    """A PDF with these lines a page, in Helvetica; `outline` holds titles and their page number from 0."""
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    kids = []
    for lines in pages:
        parts = []
        for size, y, text in lines:
            shown = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            parts.append(f"BT /F1 {size} Tf 72 {y} Td ({shown}) Tj ET")
        stream = "\n".join(parts).encode("cp1252")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    body += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    body += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)
    if not title and not outline:
        return body
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(body)))
    if title:
        writer.add_metadata({"/Title": title})
    for name, page in outline:
        writer.add_outline_item(title=name, page_number=page)
    return _written(writer)


def protected_pdf_bytes(password: str) -> bytes:
    """A PDF that needs a password to be read."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_bytes([paragraph("secret text")]))))
    writer.encrypt(password, algorithm="RC4-128")
    return _written(writer)


def paragraph(text: str, *, top: float = 700, size: float = 11, width: int = 80) -> list[LineOfText]:
    """`text` as the lines of one paragraph, broken between words."""
    lines: list[str] = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [(size, top - 14 * place, line) for place, line in enumerate(lines)]


def _written(writer: PdfWriter) -> bytes:
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def docx_bytes() -> bytes:
    """A Word file with a title, headings, lists and a table with merged cells."""
    document = new_docx()
    document.add_heading("Travel policy", 0)
    document.add_paragraph("Every trip needs approval.")
    document.add_heading("Booking", 1)
    document.add_paragraph("Book trains first", style="List Bullet")
    document.add_paragraph("Then hotels", style="List Bullet")
    document.add_heading("Limits", 2)
    table = document.add_table(rows=3, cols=2)
    for row, values in zip(table.rows, (("Country", "Per night"), ("France", "120 | 140"), ("both", "")), strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    table.rows[2].cells[0].merge(table.rows[2].cells[1])
    document.add_paragraph("Text after the table.")
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def read_file(path: Path, *, source: str, site_url: str = "") -> Document:
    """Read a file in this process, as the reading processes do."""
    return reading.read(path, source=source, site_url=site_url, limit_bytes=Limits().file_bytes)


def read(folder: Path, name: str, content: str | bytes, *, site_url: str = "https://example.org/docs") -> Document:
    """Write a file and read it back as a document."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_file(path, source=name, site_url=site_url)


def text_of(document: Document) -> str:
    """All block texts of a document."""
    return "\n\n".join(block.text for section in document.sections for block in section.blocks)


def document_of(*sections: Section, title: str = "Page") -> Document:
    return Document("page.md", "https://example.org/page/", title, "en", sections)


def section(text: str, *headings: str, anchor: str = "") -> Section:
    """A section of paragraphs, which blank lines part."""
    blocks = tuple(Block("paragraph", part) for part in text.split("\n\n") if part)
    return Section(headings, anchor or "-".join(headings).lower(), blocks)


def prose(chars: int, word: str = "word") -> str:
    """Sentences of about 60 characters, `chars` in all."""
    sentence = f"This sentence talks about the {word} and nothing beyond it. "
    return (sentence * (chars // len(sentence) + 1))[: chars - 1].rsplit(" ", 1)[0].rstrip(".") + "."

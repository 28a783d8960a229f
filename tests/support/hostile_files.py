"""Files made to break whoever reads them: bombs, loops, lies about types, and what only looks like a document.

Each is a name and its bytes, below the 10 MB that a server takes. None may cost more than itself.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator

from pypdf import PdfReader, PdfWriter

from tests.indexer.samples import docx_bytes, paragraph, pdf_bytes, protected_pdf_bytes

SECRET_FILE = "/etc/passwd"
"""What some of them try to read."""
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'

File = tuple[str, bytes]


def all_files() -> list[File]:
    """Each name once."""
    return [*pdfs(), *words(), *texts(), *liars()]


def pdfs() -> Iterator[File]:
    plain = pdf_bytes([paragraph("plain words of a page")])
    start, end = plain.index(b"<< /Length"), plain.index(b"endstream")

    def with_stream(head: bytes, stream: bytes) -> bytes:
        return plain[:start] + head % len(stream) + b"\nstream\n" + stream + b"\n" + plain[end:]

    yield "header-only.pdf", b"%PDF-1.7\n"
    yield "cut.pdf", plain[: len(plain) // 2]
    yield "garbage.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 400
    yield "late-header.pdf", b"\n" * 1000 + plain
    bomb = zlib.compress(b" " * 100_000_000, 9)
    yield "bomb.pdf", with_stream(b"<< /Filter /FlateDecode /Length %d >>", bomb)
    twice = zlib.compress(bomb, 9)
    yield "bomb-in-a-bomb.pdf", with_stream(b"<< /Filter [/FlateDecode /FlateDecode] /Length %d >>", twice)
    yield "operators.pdf", with_stream(b"<< /Length %d >>", b"q " * 200_000)
    yield "long-string.pdf", with_stream(b"<< /Length %d >>", b"BT /F1 9 Tf (" + b"(" * 500_000 + b") Tj ET")
    yield "kids-of-itself.pdf", plain.replace(b"/Kids [", b"/Kids [2 0 R ", 1)
    yield "parent-of-itself.pdf", plain.replace(b"/Root 1 0 R", b"/Root 2 0 R", 1)
    yield "many-pages.pdf", plain.replace(b"/Count 1", b"/Count 99999999", 1)
    yield "previous-of-itself.pdf", plain.replace(b"/Root 1 0 R", b"/Root 1 0 R /Prev 9", 1)
    yield "negative-length.pdf", plain.replace(b"/Length ", b"/Length -", 1)
    yield "deep-array.pdf", plain.replace(b"/MediaBox [0 0 612 792]", b"/MediaBox " + b"[" * 50_000 + b"]" * 50_000, 1)
    yield "script.pdf", plain.replace(b"/Type /Catalog", b"/Type /Catalog /OpenAction << /S /JavaScript /JS (x) >>", 1)
    yield "launch.pdf", plain.replace(b"/Type /Catalog", b"/Type /Catalog /OpenAction << /S /Launch /F (x) >>", 1)
    yield "protected.pdf", protected_pdf_bytes("secret")
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(plain)))
    writer.add_attachment("passwd", b"root:x:0:0")
    attached = io.BytesIO()
    writer.write(attached)
    yield "attachment.pdf", attached.getvalue()
    yield "no-text.pdf", pdf_bytes([[]])


def words() -> Iterator[File]:
    plain = docx_bytes()
    yield "cut.docx", plain[:2000]
    yield "empty-archive.docx", _archive({})
    yield "no-document.docx", _archive({"a.txt": b"text"})
    yield "bomb.docx", _archive({"word/document.xml": b" " * 210_000_000})
    yield "many-parts.docx", _archive({f"word/{number}.xml": b"" for number in range(6_000)})
    yield "macros.docx", _changed(plain, {"word/vbaProject.bin": b"\xd0\xcf\x11\xe0"})
    yield "escaping.docx", _changed(plain, {"../../../../tmp/escaped": b"out"})
    laughs = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(8))
    yield "laughs.docx", _document(plain, f'<!DOCTYPE x [<!ENTITY a "ha">{laughs}]>', "&i;")
    yield "outside.docx", _document(plain, f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{SECRET_FILE}">]>', "&a;")
    yield "remote.docx", _document(plain, '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">', "words")
    yield "deep.docx", _changed(plain, {"word/document.xml": b"<a>" * 200_000 + b"</a>" * 200_000})
    lying = bytearray(_archive({"word/document.xml": b" " * 150_000_000}))
    at = lying.rindex(b"PK\x01\x02") + 24
    lying[at : at + 4] = (1000).to_bytes(4, "little")
    yield "lies-about-its-size.docx", bytes(lying)
    yield "archive-in-it.docx", _changed(plain, {"word/embeddings/a.zip": _archive({"b": b" " * 5_000_000})})


def texts() -> Iterator[File]:
    yield "empty.txt", b""
    yield "blanks.txt", b" \n" * 10_000
    yield "latin.txt", "Süßwasser für Garnelen".encode("latin-1")
    yield "odd-utf16.txt", b"\xff\xfeab\x00"
    yield "one-line.txt", b"x" * 300_000
    yield "controls.txt", b"\x1b[31mred\x1b[0m \x07" * 100
    yield "deep.html", b"<div>" * 2_000 + b"text"
    yield "attribute.html", b'<p title="' + b"a" * 2_000_000 + b'">text</p>'
    yield "scripts.html", b"<script>alert(1)</script><style>x{}</style>"
    yield "claims-utf16.html", b'<meta charset="utf-16"><p>words of a page</p>'
    yield "quotes.md", b">" * 50_000 + b" text"
    yield "aliases.md", b"---\na: &a [x]\n" + b"".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n".encode() for n in range(9)
    ) + b"---\ntext\n"  # fmt: skip
    yield "code-of-yaml.md", b"---\ntitle: !!python/object/apply:os.system ['touch /tmp/ran']\n---\ntext\n"
    yield "brackets.md", b"[" * 50_000 + b"](x)"
    yield "columns.csv", b"," * 300_000 + b"\n" + b"," * 300_000
    yield "open-quote.csv", b'a,b\n"' + b"never closed " * 100_000
    yield "formula.csv", b'Item,Price\n=HYPERLINK("http://127.0.0.1:9"),1\n'


def liars() -> Iterator[File]:
    yield "program.pdf", b"\x7fELF\x02\x01\x01" + b"\x00" * 500
    yield "picture.md", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    yield "page.docx", b"<html><p>no Word file</p></html>"
    yield "old.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 500
    yield "archive.txt", _archive({"a": b"b"})
    yield "pdf.html", b"<!-- %PDF-1.4 --><p>both</p>"
    yield "word.pdf", docx_bytes()


def _archive(parts: dict[str, bytes]) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return result.getvalue()


def _changed(plain: bytes, parts: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(plain)) as source:
        held = {name: source.read(name) for name in source.namelist()}
    return _archive({**held, **parts})


def _document(plain: bytes, head: str, text: str) -> bytes:
    body = f"<w:document {WORD}><w:body><w:p><w:r><w:t>before {text} after</w:t></w:r></w:p></w:body></w:document>"
    return _changed(plain, {"word/document.xml": f'<?xml version="1.0"?>{head}{body}'.encode()})

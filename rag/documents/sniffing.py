"""What a file holds, told by its bytes: a name alone makes no PDF. What a client says of the type does not count."""

from rag.documents.receiving import Received
from rag.errors import UnsupportedType

HEAD_BYTES = 64 * 1024
PDF_WITHIN_BYTES = 1024
"""Readers take a PDF whose first words come this late."""
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
TEXT_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
HOLDS = {"pdf": "a PDF", "zip": "a ZIP archive", "old": "an old or password-protected Office file",
         "text": "plain text", "other": "something else"}  # fmt: skip
ENDINGS = {"pdf": "pdf", "docx": "zip"}
"""What files of these types hold; all others are text."""


def require_content(file: Received) -> None:
    """Raises `UnsupportedType` where the file holds something else than its name says. An empty one may be anything."""
    with file.path.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    expected, found = ENDINGS.get(file.name.rpartition(".")[2].lower(), "text"), kind_of(head)
    if head and found != expected:
        ending = file.name.rpartition(".")[2].lower()
        raise UnsupportedType(detail=f"{file.name} is named .{ending}, but holds {HOLDS[found]}.")


def kind_of(head: bytes) -> str:
    """One of `HOLDS`, by the first bytes of a file."""
    if head.startswith(TEXT_MARKS):
        return "text"
    if b"%PDF-" in head[:PDF_WITHIN_BYTES]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(OLE):
        return "old"
    return "other" if b"\x00" in head else "text"

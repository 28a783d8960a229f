"""Bytes to text, strictly: a file in another encoding is named, never indexed as rubbish."""

import codecs
import re

from rag.errors import SourceUnreadable

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def decoded(data: bytes, *, declared: str = "") -> str:
    """Text with `\\n` line ends and without control characters.

    A byte order mark decides, then `declared` where Python knows it, then UTF-8. Raises SourceUnreadable.
    """
    encoding = "utf-8"
    for mark, name in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            encoding, data = name, data[len(mark) :]
            break
    else:
        encoding = _known(declared) or encoding
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        label = "UTF-8" if encoding == "utf-8" else encoding
        raise SourceUnreadable(f"not {label} text (byte 0x{data[error.start]:02x} at position {error.start})") from None
    if text.count("\x00") > len(text) // 100:
        raise SourceUnreadable("not text (it holds NUL bytes)")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return CONTROLS.sub("", text)


def _known(label: str) -> str:
    """Python's name for a declared encoding; browsers read every kind of Latin-1 as Windows-1252."""
    try:
        name = codecs.lookup(label.strip().lower()).name if label.strip() else ""
    except LookupError:
        return ""
    if name in {"iso8859-1", "ascii"}:
        return "cp1252"
    # A page whose meta tag could be read as ASCII is not UTF-16, whatever it claims.
    return "" if name.startswith(("utf-16", "utf-32")) or name in NOT_CHARSETS else name


NOT_CHARSETS = {"base64", "bz2", "hex", "quopri", "rot13", "uu", "zlib", "idna", "punycode", "unicode-escape"} | {
    "raw-unicode-escape",
    "undefined",
    "utf-7",
}
"""Python codecs that are no character sets of pages."""

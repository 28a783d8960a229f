"""Word files."""

import io
import re
import zipfile
from pathlib import Path

import pytest

from indexer.documents import Block
from rag.errors import SourceUnreadable
from tests.indexer.samples import docx_bytes, read, text_of


def _with_body(xml: str) -> bytes:
    """A Word file whose body is this XML."""
    source, result = zipfile.ZipFile(io.BytesIO(docx_bytes())), io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name in source.namelist():
            part = source.read(name)
            if name == "word/document.xml":
                part = re.sub(rb"<w:body>.*</w:body>", f"<w:body>{xml}</w:body>".encode(), part, flags=re.S)
            archive.writestr(name, part)
    return result.getvalue()


def test_headings_lists_and_tables_stay_in_their_order(tmp_path: Path) -> None:
    document = read(tmp_path, "travel.docx", docx_bytes())
    assert document.title == "Travel policy"
    assert [(section.headings, section.blocks) for section in document.sections] == [
        ((), (Block("paragraph", "Every trip needs approval."),)),
        (("Booking",), (Block("list", "- Book trains first\n- Then hotels"),)),
        (
            ("Booking", "Limits"),
            (
                Block("table", "| Country | Per night |\n| --- | --- |\n| France | 120 \\| 140 |\n| both |  |"),
                Block("paragraph", "Text after the table."),
            ),
        ),
    ]


def test_words_are_taken_as_shown_tracked_changes_and_controls_included(tmp_path: Path) -> None:
    body = (
        "<w:p><w:r><w:t>Kept </w:t></w:r><w:ins><w:r><w:t>new </w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>old </w:delText></w:r></w:del>"
        "<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink><w:r><w:br/><w:t>next</w:t></w:r></w:p>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    assert text_of(read(tmp_path, "a.docx", _with_body(body))) == "Kept new link\nnext\n\ncontrolled"


def test_a_file_that_would_unpack_to_gigabytes_is_refused_unopened(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as part:
        for _ in range(210):
            part.write(b" " * 1024 * 1024)
    assert len(bomb.getvalue()) < 1024 * 1024
    with pytest.raises(SourceUnreadable, match=r"unpacks to 210 MiB \(limit 200 MiB\)"):
        read(tmp_path, "bomb.docx", bomb.getvalue())


def test_a_file_of_multiplying_entities_is_refused(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE w:document [<!ENTITY a "haha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(8)
    )
    content = _with_body("<w:p><w:r><w:t>x &i; y</w:t></w:r></w:p>")
    source, result = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name in source.namelist():
            part = source.read(name)
            if name == "word/document.xml":
                part = part.replace(b"<w:document", laughs.encode() + b"]><w:document", 1)
            archive.writestr(name, part)
    with pytest.raises(SourceUnreadable, match=r"^broken \.docx file"):
        read(tmp_path, "laughs.docx", result.getvalue())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 500, "^password-protected, or an old .doc file"),
        (b"not a Word file", "^broken .docx file"),
        (docx_bytes()[:2000], "^broken .docx file"),
        (_with_body("<w:p/>"), "^nothing readable inside$"),
    ],
)
def test_a_word_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(SourceUnreadable, match=reason):
        read(tmp_path, "a.docx", content)

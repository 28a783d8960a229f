"""One file -> one document: its draft, with address, title and language settled. Knows no process or folder."""

import re
from pathlib import Path, PurePosixPath

from indexer import formats
from indexer.documents import Document, Draft, Section
from indexer.reading.addresses import FOLDER_PAGES, page_url
from indexer.reading.language import SAMPLE_CHARS, language_of
from indexer.reading.links import resolved
from rag.errors import SourceUnreadable

LANGUAGE_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_].*)?$")


def read(path: Path, *, source: str, site_url: str, limit_bytes: int, with_unpublished: bool = False) -> Document:
    """Read the file at `path`, known as `source`.

    SourceUnreadable with a short reason where that cannot be done, and for a page that its site withholds, unless
    `with_unpublished`.
    """
    extension = path.suffix.lower()
    if extension not in formats.FORMATS:
        raise SourceUnreadable(f"{extension or 'a file without extension'} is not a type that can be read")
    data = _bytes(path, limit_bytes)
    kind = "PDF" if extension == ".pdf" else f"{extension} file"
    try:
        draft = formats.read(data, extension)
    except (SourceUnreadable, MemoryError):
        raise
    except RecursionError:
        raise SourceUnreadable("nested too deeply") from None
    except Exception as error:  # parsers fail in every way there is; the file is what they have in common
        raise SourceUnreadable(f"broken {kind} ({type(error).__name__})") from error
    if draft.withheld and not with_unpublished:
        raise SourceUnreadable(draft.withheld)
    if not any(block.text.strip() for section in draft.sections for block in section.blocks):
        raise SourceUnreadable("only headings, no text" if draft.sections else "nothing readable inside")
    title = draft.title or draft.top_heading or _from_name(source)
    url = page_url(source, site_url=site_url, stated=draft.address)
    return Document(
        source=source,
        url=url,
        title=title,
        language=_language(draft),
        sections=_below(title, draft.sections),
        links=tuple(resolved(draft.links, path=path, source=source, url=url, site_url=site_url)),
    )


def _bytes(path: Path, limit_bytes: int) -> bytes:
    try:
        if not path.is_file():
            raise SourceUnreadable("not a regular file")
        size = path.stat().st_size
        if size > limit_bytes:
            raise SourceUnreadable(f"too large ({size / 1024**2:.1f} MiB, limit {limit_bytes / 1024**2:g} MiB)")
        data = path.read_bytes()
    except OSError as error:
        raise SourceUnreadable((error.strerror or "cannot be opened").lower()) from None
    if not data.strip():
        raise SourceUnreadable("empty file")
    return data


def _from_name(source: str) -> str:
    """A title from the file's name: `employee_handbook.pdf` -> `Employee handbook`; an index is named by its folder."""
    path = PurePosixPath(source)
    named = path.parent.name if path.stem.lower() in FOLDER_PAGES and path.parent.name else path.stem
    words = " ".join(re.sub(r"[_\-.+]+", " ", named).split()) or named
    return words[:1].upper() + words[1:]


def _below(title: str, sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """Sections without the title as their outermost heading, where it says nothing."""
    return tuple(
        Section(section.headings[1:], section.anchor, section.blocks) if section.headings[:1] == (title,) else section
        for section in sections
        if section.blocks or section.headings != (title,)
    )


def _language(draft: Draft) -> str:
    stated = LANGUAGE_TAG.match(draft.language.strip())
    if stated:
        return stated[1].lower()
    sample: list[str] = []
    chars = 0
    for section in draft.sections:
        for block in section.blocks:
            if block.kind != "code" and chars < SAMPLE_CHARS:
                sample.append(block.text)
                chars += len(block.text)
    return language_of("\n".join(sample))

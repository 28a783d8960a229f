"""A document's passages, as they are stored."""

from dataclasses import replace

from indexer.documents import Document
from indexer.passages.chunking import passages as cut
from indexer.passages.fragments import with_fragments
from indexer.passages.links import with_links
from rag.types import Passage


def passages_of(document: Document) -> list[Passage]:
    """The document's passages, as they are stored; none where there is no text."""
    passages = with_fragments(document, [_storable(passage) for passage in cut(document)])
    return with_links(document.links, passages)


def _storable(passage: Passage) -> Passage:
    """The passage without lone surrogates, which undecodable names and broken PDFs bring: no JSON can hold them."""

    def clean(text: str) -> str:
        return text.encode("utf-8", "replace").decode("utf-8")

    return replace(
        passage,
        text=clean(passage.text),
        title=clean(passage.title),
        headings=tuple(map(clean, passage.headings)),
        url=clean(passage.url),
        anchor=clean(passage.anchor),
        source=clean(passage.source),
        sections=tuple(
            replace(section, headings=tuple(map(clean, section.headings)), anchor=clean(section.anchor))
            for section in passage.sections
        ),
    )

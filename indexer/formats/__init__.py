"""One module or package a file type, each with `read(data: bytes) -> Draft`; knows no path, address or
pool of processes.

A format is imported only when a file of it is read, so that a reading process starts at once. A reader raises
`SourceUnreadable` with a short sentence for a person; whatever else a parser raises is a broken file.
"""

from importlib import import_module

from indexer.documents import Draft

FORMATS = {
    ".md": "markdown.page",
    ".mdx": "markdown.mdx",
    ".html": "html.page",
    ".htm": "html.page",
    ".txt": "text",
    ".csv": "csv",
    ".pdf": "pdf.pages",
    ".docx": "docx",
}
"""Which module reads a file, by its lower-case extension."""


def read(data: bytes, extension: str) -> Draft:
    """The draft of a file's bytes; KeyError for an extension outside `FORMATS`."""
    draft: Draft = import_module(f"indexer.formats.{FORMATS[extension]}").read(data)
    return draft

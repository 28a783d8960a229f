"""Markdown -> draft: front matter, headings with their anchors, and blocks in reading order."""

from indexer.documents import Draft, Outline
from indexer.formats import front_matter
from indexer.formats.decoding import decoded
from indexer.formats.markdown.blocks import Heading, Page
from rag.text.anchors import anchor as github_anchor


def read(data: bytes) -> Draft:
    """The draft of a Markdown file; SourceUnreadable where it is not text."""
    return drafted(front_matter.split(decoded(data)), indented_code=True)


def drafted(parts: front_matter.FrontMatter, *, indented_code: bool) -> Draft:
    """The draft of a page whose front matter is split off; MDX has no code by indentation."""
    page = Page(parts.body, indented_code=indented_code)
    outline = Outline()
    taken: set[str] = set()
    for item in page.items():
        if isinstance(item, Heading):
            anchor = item.anchor or github_anchor(item.text, taken)
            taken.add(anchor)
            outline.heading(item.level, item.text, anchor)
        else:
            outline.add(item.kind, item.text)
    return Draft(
        sections=outline.sections(),
        title=page.plain(parts.title),
        top_heading=outline.top_heading,
        address=_rooted(parts),
        language=parts.language,
        withheld=parts.withheld,
        links=tuple(page.links),
    )


def address(data: bytes) -> str | None:
    """The address that a Markdown file states for itself; None for one that its site withholds."""
    parts = front_matter.split(decoded(data))
    return None if parts.withheld else _rooted(parts)


def _rooted(parts: front_matter.FrontMatter) -> str:
    """A slug without a slash is a sibling of its file, which `./` says; every other path starts at the site's root."""
    return f"./{parts.address}" if parts.slug and not parts.address.startswith("/") else parts.address

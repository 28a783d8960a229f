"""Markdown -> draft: front matter, headings with their anchors, and blocks in reading order."""

import re

from indexer.documents import Draft, Outline
from indexer.formats import front_matter
from indexer.formats.decoding import decoded
from indexer.formats.markdown.blocks import Blocks, Heading
from indexer.formats.markdown.inline import plain
from indexer.formats.markdown.lines import FENCE
from indexer.formats.markdown.links import links
from rag.text.anchors import anchor as github_anchor

DEFINITION = re.compile(r"^ {0,3}\[([^\[\]^][^\[\]]*)\]:[ \t]+\S")
ANCHOR = re.compile(r"[ \t]*\{:?[ \t]*#([^\s{}]+)[^{}]*\}[ \t]*$")
ATTRIBUTES = re.compile(r"[ \t]*\{:?[ \t]*[.#][^{}]*\}[ \t]*$")


def read(data: bytes) -> Draft:
    """The draft of a Markdown file; SourceUnreadable where it is not text."""
    return drafted(front_matter.split(decoded(data)), indented_code=True)


def drafted(parts: front_matter.FrontMatter, *, indented_code: bool) -> Draft:
    """The draft of a page whose front matter is split off; MDX has no code by indentation."""
    lines = [line.expandtabs(4) if line[:1] in " \t" else line for line in parts.body.split("\n")]
    lines, references = _without_definitions(lines)
    outline = Outline()
    taken: set[str] = set()
    for item in Blocks(references, indented_code=indented_code).parse(lines):
        if isinstance(item, Heading):
            stated = ANCHOR.search(item.source)
            text = plain(ATTRIBUTES.sub("", item.source), references)
            anchor = item.anchor or (stated[1] if stated else github_anchor(text, taken))
            taken.add(anchor)
            outline.heading(item.level, text, anchor)
        else:
            outline.add(item.kind, item.text)
    return Draft(
        sections=outline.sections(),
        title=plain(parts.title),
        top_heading=outline.top_heading,
        address=_rooted(parts),
        language=parts.language,
        withheld=parts.withheld,
        links=tuple(links(lines, references)),
    )


def address(data: bytes) -> str | None:
    """The address that a Markdown file states for itself; None for one that its site withholds."""
    parts = front_matter.split(decoded(data))
    return None if parts.withheld else _rooted(parts)


def _rooted(parts: front_matter.FrontMatter) -> str:
    """A slug without a slash is a sibling of its file, which `./` says; every other path starts at the site's root."""
    return f"./{parts.address}" if parts.slug and not parts.address.startswith("/") else parts.address


def _without_definitions(lines: list[str]) -> tuple[list[str], set[str]]:
    """Lines without link reference definitions, and the labels that were defined, in lower case."""
    kept: list[str] = []
    labels: set[str] = set()
    fence = ""
    for line in lines:
        match = FENCE.match(line)
        if match and (not fence or (match[2].startswith(fence) and not match[3].strip())):
            fence = "" if fence else match[2]
        definition = None if fence else DEFINITION.match(line)
        if definition:
            labels.add(definition[1].strip().lower())
        else:
            kept.append(line)
    return kept, labels

"""The project's own documentation as pages, so that the demo's sources can be opened. Mounted in the demo alone."""

import re
from html import escape
from itertools import pairwise
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt

from rag.anchors import anchor
from rag.errors import NotFound

PREFIX = "/demo/pages"
DOCS = Path(__file__).resolve().parents[2] / "docs"

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/demo.css"></head>
<body><header class="top"><strong>RAG Server</strong><nav><a href="/demo">Back to the chat</a></nav></header>
<article class="page">{content}</article></body></html>
"""

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)

router = APIRouter(prefix=PREFIX)


@router.get("/{path:path}", include_in_schema=False)
async def page(path: str) -> HTMLResponse:
    # Looked up among the pages that exist, so that no path leads out of the folder.
    pages = {file.relative_to(DOCS).as_posix().removesuffix(".md"): file for file in DOCS.rglob("*.md")}
    name = path.strip("/")
    file = pages.get(name) or pages.get(f"{name}/README".lstrip("/")) or pages.get(name.removesuffix(".md"))
    if file is None:
        raise NotFound
    return HTMLResponse(rendered(file.read_text("utf-8"), title=name))


def rendered(text: str, *, title: str) -> str:
    """A page of HTML; raw HTML in `text` is shown, not obeyed."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(_FRONT_MATTER.sub("", text))
    taken: set[str] = set()
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            heading = "".join(child.content for child in content.children or () if child.content)
            opening.attrSet("id", anchor(heading, taken))
            taken.add(str(opening.attrGet("id")))
            title = heading if opening.tag == "h1" else title
    content_html = reader.renderer.render(tokens, reader.options, {})
    return PAGE.format(title=escape(title), content=content_html)

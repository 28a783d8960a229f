"""The project's own documentation as pages, so that the demo's sources can be opened. Mounted in the demo alone.

Knows how the files link to one another; what a link leads to here is a page or an image of this folder, or nothing.
"""

import posixpath
import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rag.errors import NotFound
from rag.http.admission import AdmittedRoute, rule
from rag.text.anchors import anchor

PREFIX = "/demo/pages"
DOCS = Path(__file__).resolve().parents[2] / "docs"
IMAGES = {".png": "image/png", ".svg": "image/svg+xml"}
"""What is served from `docs/images`, by the ending of its name."""
FIRST_PAGE = "getting-started"

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/demo.css"></head>
<body><header class="top"><strong>RAG Server</strong>
<nav><a href="{prefix}/">All pages</a><a href="/demo">Back to the chat</a></nav></header>
<article class="page">{content}</article></body></html>
"""

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_TITLE = re.compile(r"^# +(.+)$", re.MULTILINE)

router = APIRouter(prefix=PREFIX, route_class=AdmittedRoute)


@router.get("/{path:path}", include_in_schema=False)
@rule()
async def page(path: str) -> Response:
    name = path.strip("/")
    if not name:
        return HTMLResponse(contents())
    if image := images().get(name):
        return FileResponse(image, media_type=IMAGES[image.suffix])
    found = pages()
    known = next((one for one in (name, f"{name}/README", name.removesuffix(".md")) if one in found), None)
    if known is None:
        raise NotFound
    folder = posixpath.dirname(known)
    return HTMLResponse(rendered(found[known].read_text("utf-8"), title=known, folder=folder))


def pages() -> dict[str, Path]:
    """Every page by its name: the path below the folder, without `.md`. What is not in here has no address."""
    return {file.relative_to(DOCS).as_posix().removesuffix(".md"): file for file in sorted(DOCS.rglob("*.md"))}


def images() -> dict[str, Path]:
    """Every image that is served, by its path below the folder."""
    return {f.relative_to(DOCS).as_posix(): f for f in (DOCS / "images").rglob("*") if f.suffix in IMAGES}


def contents() -> str:
    """The page that lists all others by their titles, the first to read first, folders last, each under its own."""
    listed = []
    for name, file in pages().items():
        title = _TITLE.search(file.read_text("utf-8"))
        order = (name.count("/"), name != FIRST_PAGE, name.removesuffix("README"))
        listed.append((order, title[1] if title else name, address(name)))
    items = [f'<li><a href="{escape(url)}">{escape(title)}</a></li>\n' for _, title, url in sorted(listed)]
    content = f"<h1>All pages</h1>\n<ul>\n{''.join(items)}</ul>"
    return PAGE.format(title="All pages", content=content, prefix=PREFIX)


def address(name: str) -> str:
    """Where the page of that name stands, as the index cites it."""
    place = quote(name.removesuffix("README").rstrip("/"))
    return f"{PREFIX}/{place}/" if place else f"{PREFIX}/"


def rendered(text: str, *, title: str, folder: str = "") -> str:
    """A page of HTML; raw HTML in `text` is shown, not obeyed. Its links are those of a file in `folder`."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(_FRONT_MATTER.sub("", text))
    taken: set[str] = set()
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            heading = "".join(child.content for child in content.children or () if child.content)
            opening.attrSet("id", anchor(heading, taken))
            taken.add(str(opening.attrGet("id")))
            title = heading if opening.tag == "h1" else title
    for token in tokens:
        if token.children:
            token.children = _mended(token.children, folder)
    content_html = reader.renderer.render(tokens, reader.options, {})
    return PAGE.format(title=escape(title), content=content_html, prefix=PREFIX)


def _mended(tokens: Sequence[Token], folder: str) -> list[Token]:
    """The same text with links to where their targets stand here; one that leads nowhere is taken off its words."""
    kept: list[Token] = []
    dead = False
    for token in tokens:
        if token.type == "link_open":
            target = led_to(str(token.attrGet("href")), folder)
            dead = target is None
            token.attrSet("href", target or "")
        elif token.type == "image":
            target = led_to(str(token.attrGet("src")), folder)
            if target is None:
                token = Token("text", "", 0, content=token.content)
            else:
                token.attrSet("src", target)
        if not (dead and token.type in ("link_open", "link_close")):
            kept.append(token)
        dead = dead and token.type != "link_close"
    return kept


def led_to(target: str, folder: str) -> str | None:
    """The address here of what a file in `folder` calls `target`; None for what is not served."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return target
    path = posixpath.normpath(posixpath.join(folder, unquote(parts.path)))
    if path in images():
        return f"{PREFIX}/{quote(path)}"
    known = next((one for one in (path.removesuffix(".md"), f"{path}/README") if one in pages()), None)
    if path.endswith(".md") or known == f"{path}/README":
        return address(known) + (f"#{parts.fragment}" if parts.fragment else "") if known else None
    return None

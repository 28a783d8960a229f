"""The demo's pages: every source that the demo cites can be opened, and nothing else can."""

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from indexer import sources
from indexer.documents import Document
from rag.routes import demo_pages, problems

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    app = FastAPI()
    problems.install(app, document=lambda document: None)
    app.include_router(demo_pages.router)
    return app


def get(app: FastAPI, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://demo") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_every_section_of_the_docs_can_be_opened_where_the_index_says(app: FastAPI) -> None:
    checked = 0
    for document in sources.read_all(sources.find([DOCS]), site_url=demo_pages.PREFIX):
        assert isinstance(document, Document), document
        page = get(app, document.url)
        assert page.status_code == 200, document.url
        for section in document.sections:
            if section.anchor:
                assert f'id="{section.anchor}"' in page.text, f"{document.url}#{section.anchor}"
                checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "path", ["missing", "../LICENSE", "..%2f..%2frag_server.py", "%2e%2e/README", "/etc/passwd", "configuration.md/x"]
)
def test_no_path_leads_out_of_the_docs(app: FastAPI, path: str) -> None:
    assert get(app, f"{demo_pages.PREFIX}/{path}").status_code == 404


def test_html_in_a_page_is_shown_and_not_obeyed() -> None:
    page = demo_pages.rendered("# A <b>\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1))", title="t")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert 'href="javascript' not in page


def test_front_matter_is_not_shown() -> None:
    assert "title:" not in demo_pages.rendered("---\ntitle: Kettle\n---\n# Kettle\n", title="t")

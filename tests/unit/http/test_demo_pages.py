"""The demo's pages: every source that the demo cites can be opened, and nothing else can."""

import asyncio
import re
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI

from indexer.documents import Document
from indexer.reading import finding
from indexer.reading.files import read_all
from rag.access.callers import PAGE_CSP, content_security_policy
from rag.http import demo_pages, problems
from tests.support.admission import admitting

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    app = FastAPI()
    problems.install(app, document=lambda document: None)
    app.include_router(demo_pages.router)
    return app


def get(app: FastAPI, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(admitting(app)), base_url="http://demo") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_every_section_of_the_docs_can_be_opened_where_the_index_says(app: FastAPI) -> None:
    checked = 0
    for document in read_all(finding.find([DOCS]).files, site_url=demo_pages.PREFIX):
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


def links(page: str) -> list[str]:
    article = page.split('<article class="page">')[1]
    return [unescape(found) for found in re.findall(r'(?:href|src)="([^"]*)"', article)]


def test_every_link_of_every_page_leads_somewhere(app: FastAPI) -> None:
    waiting, read = [f"{demo_pages.PREFIX}/"], dict[str, str]()
    followed = 0
    while waiting:
        address = waiting.pop()
        answered = get(app, address)
        assert answered.status_code == 200, address
        read[address] = answered.text if answered.headers["content-type"].startswith("text/html") else ""
        for link in links(read[address]) if read[address] else []:
            if not link.startswith(("http://", "https://", "mailto:")):
                target = urljoin(address, link).split("#")[0]
                assert target.startswith(f"{demo_pages.PREFIX}/"), f"{address} links to {link}"
                followed += 1
                if target not in read and target not in waiting:
                    waiting.append(target)
    assert {demo_pages.address(name) for name in demo_pages.pages()} <= read.keys()
    assert followed > 40


def test_the_list_names_every_page_by_its_title_and_begins_with_the_first_to_read(app: FastAPI) -> None:
    listed = get(app, f"{demo_pages.PREFIX}/").text
    assert links(listed)[0] == f"{demo_pages.PREFIX}/getting-started/"
    assert len(links(listed)) == len(demo_pages.pages())
    assert ">The chat on your pages</a>" in listed
    assert get(app, "/demo/pages").status_code in (200, 307)


@pytest.mark.parametrize(
    ("written", "folder", "led"),
    [
        ("troubleshooting.md", "", "/demo/pages/troubleshooting/"),
        ("configuration.md#serving", "", "/demo/pages/configuration/#serving"),
        ("../configuration.md#serving", "decisions", "/demo/pages/configuration/#serving"),
        ("0010-redis.md", "decisions", "/demo/pages/decisions/0010-redis/"),
        ("decisions/README.md", "", "/demo/pages/decisions/"),
        ("decisions/", "", "/demo/pages/decisions/"),
        ("images/chat-on-a-page.png", "", "/demo/pages/images/chat-on-a-page.png"),
        ("#serving", "", "#serving"),
        ("https://example.com/a.md", "", "https://example.com/a.md"),
        ("/demo", "", "/demo"),
        ("../README.md", "", None),
        ("../LICENSE", "", None),
        ("../../etc/passwd", "", None),
        ("missing.md", "", None),
        ("images/missing.png", "", None),
    ],
)
def test_a_link_leads_to_where_its_file_is_shown(written: str, folder: str, led: str | None) -> None:
    assert demo_pages.led_to(written, folder) == led


def test_a_link_that_leads_nowhere_is_taken_off_its_words() -> None:
    page = demo_pages.rendered("See [the `licence`](../LICENSE), [API](api.md), ![a plan](../plan.png).", title="t")
    assert 'See the <code>licence</code>, <a href="/demo/pages/api/">API</a>, a plan.' in page


def test_images_of_the_docs_are_shown_and_no_other_file_is_served(app: FastAPI) -> None:
    answered = get(app, f"{demo_pages.PREFIX}/images/chat-on-a-page.png")
    assert (answered.status_code, answered.headers["content-type"]) == (200, "image/png")
    page = demo_pages.rendered("![a chat](images/chat-on-a-page.png)", title="t")
    assert '<img src="/demo/pages/images/chat-on-a-page.png" alt="a chat"' in page
    for path in ("images/../api.md", "images/missing.png", "images/", "api.png"):
        assert get(app, f"{demo_pages.PREFIX}/{path.replace('..', '%2e%2e')}").status_code == 404, path


def test_the_policy_of_the_pages_lets_their_images_and_styles_load() -> None:
    policy = content_security_policy(f"{demo_pages.PREFIX}/api/")
    assert policy == PAGE_CSP
    assert "img-src 'self'" in policy
    assert "style-src 'self'" in policy

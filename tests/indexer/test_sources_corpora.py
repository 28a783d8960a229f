"""What holds for every passage of a real site: the documentation of FastAPI."""

import re
from collections.abc import Iterator
from statistics import median

import pytest

from indexer.documents import Document
from indexer.passages.chunking import passages
from indexer.reading.files import read_all
from indexer.reading.finding import find
from rag.types import Passage
from tests.indexer.samples import CORPORA, needs_corpora

pytestmark = needs_corpora

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.S | re.M)
NOT_SHOWN = re.compile(
    r"\A---\n.*?^---$|\{[*%{].*?[*%}]\}|<!--.*?-->|<(?:style|script)\b.*?</(?:style|script)>"
    r"|\]\([^()\s]*(?: \"[^\"]*\")?\)|</?[a-z][^<>]*>|\{ ?#[^{}]*\}|^ *[/:]{3,} *\w*|^ *```.*$|^ {4,}\w+:$|\[\^\d+\]",
    re.S | re.M,
)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    outcomes = read_all(find([CORPORA / "fastapi_docs"]).files, site_url="https://fastapi.tiangolo.com")
    return [outcome for outcome in outcomes if isinstance(outcome, Document)]


@pytest.fixture(scope="module")
def site(documents: list[Document]) -> list[Passage]:
    return [passage for document in documents for passage in passages(document)]


def _prose(site: list[Passage]) -> Iterator[tuple[str, str]]:
    for passage in site:
        yield passage.citation_url, CODE.sub("", passage.text)


def test_only_a_code_block_makes_a_passage_longer_than_the_limit(site: list[Passage]) -> None:
    assert [passage.citation_url for passage in site if len(passage.text) > 1600 and "\n```" not in passage.text] == []


def test_most_passages_have_the_length_that_retrieves_best(site: list[Passage]) -> None:
    lengths = [len(passage.text) for passage in site]
    assert sum(500 <= length <= 1600 for length in lengths) >= 0.85 * len(lengths)
    assert 800 <= median(lengths) <= 1200
    assert sum(length < 200 for length in lengths) <= 0.02 * len(lengths)


@pytest.mark.parametrize(
    "rest",
    [
        r"\{\*",
        r"^ */{3,}",
        r"^:::",
        r"<!--",
        r"\{[%{]",
        r"</?(?:div|span|a|img|p|abbr|dfn|details)\b",
        r"\]\(http",
        r"\{ ?#",
    ],
)
def test_no_markup_is_left_in_prose(site: list[Passage], rest: str) -> None:
    assert [url for url, text in _prose(site) if re.search(rest, text, re.M)] == []


def test_every_passage_says_something_and_can_be_cited(site: list[Passage]) -> None:
    for passage in site:
        body = [line for line in passage.text.split("\n") if line.strip() and not line.startswith("#")]
        assert body, passage.citation_url
        assert passage.title
        assert passage.url.startswith("https://fastapi.tiangolo.com/")
        assert passage.text == passage.text.strip()


def test_every_fence_that_opens_also_closes(site: list[Passage]) -> None:
    for passage in site:
        assert len(re.findall(r"^```", passage.text, re.M)) % 2 == 0, passage.citation_url


def test_all_words_of_a_page_are_in_its_passages(documents: list[Document], site: list[Passage]) -> None:
    shown: dict[str, set[str]] = {}
    for passage in site:
        shown.setdefault(passage.source, set()).update(
            re.findall(r"[^\W_]+", f"{passage.heading_path}\n{passage.text}")
        )
    lost: dict[str, list[str]] = {}
    for document in documents:
        source = (CORPORA / "fastapi_docs" / document.source).read_text()
        if "include_yaml" in source or "{% raw" in source or "mermaid" in source:
            continue  # pages whose template code cannot be told from words by a pattern
        missing = [
            word for word in re.findall(r"[^\W_]+", NOT_SHOWN.sub(" ", source)) if word not in shown[document.source]
        ]
        if missing:
            lost[document.source] = missing
    assert lost == {}


def test_the_addresses_are_those_of_the_real_site(site: list[Passage]) -> None:
    urls = {passage.citation_url for passage in site}
    assert "https://fastapi.tiangolo.com/tutorial/response-model/#response-model-parameter" in urls
    assert any(url.startswith("https://fastapi.tiangolo.com/tutorial/#") for url in urls)
    assert any(url.startswith("https://fastapi.tiangolo.com/#") for url in urls)


def test_the_language_of_nearly_every_page_is_known(documents: list[Document]) -> None:
    assert {document.language for document in documents} <= {"en", ""}
    assert sum(document.language == "en" for document in documents) >= 0.9 * len(documents)

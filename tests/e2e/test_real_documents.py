"""Real documentation and a real handbook, indexed and asked through four workers; a transcript is left behind."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rag.search.hybrid import open_build
from tests.support.azure import AzureEmulator
from tests.support.server import RagServer, build_index

SITE_URL = "https://docs.example"
HANDBOOK = "employee_handbook.pdf"


@dataclass(frozen=True)
class Asked:
    """A real question, and the page that answers it, where there is a clear one."""

    question: str
    page: str | None


QUESTIONS = (
    Asked("What does response_model do?", "tutorial/response-model.md"),
    Asked("How do I run several workers?", "deployment/server-workers.md"),
    Asked("How many vacation days do employees get?", None),
    Asked("How do I allow requests from another origin with CORS?", "tutorial/cors.md"),
    Asked("How can I declare a dependency with yield?", "tutorial/dependencies/dependencies-with-yield.md"),
    Asked("How do I upload a file?", "tutorial/request-files.md"),
    Asked("How do I run a task in the background after returning a response?", "tutorial/background-tasks.md"),
    Asked("How do I use WebSockets?", "advanced/websockets.md"),
    Asked("How do I test my application with TestClient?", "tutorial/testing.md"),
    Asked("What is the difference between async def and def?", "async.md"),
    Asked("How do I deploy FastAPI with Docker?", "deployment/docker.md"),
    Asked("How do I set up OAuth2 with JWT tokens?", "tutorial/security/oauth2-jwt.md"),
    Asked("Is harassment tolerated in the workplace?", HANDBOOK),
)


@pytest.fixture(scope="module")
def documents(
    corpora: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The build of both corpora, and what the indexer said."""
    output = tmp_path_factory.mktemp("documents") / "vector_db"
    done = build_index(
        [corpora / "fastapi_docs", corpora / "pdf"], env=azure_process.environment, output=output,
        extra_args=["--site-url", SITE_URL],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output, done.stdout


@pytest.fixture(scope="module")
def asked(
    documents: tuple[Path, str], azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RagServer]:
    settings = {
        **azure_process.environment, "VECTOR_DB_PATH": str(documents[0]), "RATE_LIMIT_ENABLED": "false",
        "SITE_NAME": "the documentation",
    }  # fmt: skip
    with RagServer.start(settings, tmp_path_factory.mktemp("asked")) as running:
        yield running


def sources_by_url(output: Path) -> dict[str, str]:
    return {passage.url: passage.source for passage in open_build(output).passages()}


def test_real_questions_find_the_pages_that_answer_them(
    asked: RagServer, documents: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    source_of = sources_by_url(documents[0])
    lines = [documents[1]]
    misses = []
    for one in QUESTIONS:
        with httpx.Client(base_url=asked.base_url, timeout=30, trust_env=False) as client:
            answer = client.post("/chat", json={"message": one.question}).json()
            found = client.post("/search", json={"query": one.question}).json()["results"]
        scores = {result["content"]: result["score"] for result in found}
        lines += ["", f"## {one.question}", "", answer["response"], ""]
        for number, source in enumerate(answer["sources"], start=1):
            score = scores[source["content_full"]]
            lines.append(f"{number}. {score:.3f} (similarity {source['similarity_score']:.3f}) {source['title']}")
            lines.append(f"   {source['url']}")
        assert answer["degraded"] is None
        if one.page and one.page not in {source_of[source["url"].partition("#")[0]] for source in answer["sources"]}:
            misses.append(one)
    transcript = tmp_path_factory.mktemp("transcript") / "transcript.md"
    transcript.write_text("\n".join(lines), encoding="utf-8")
    print(f"\ntranscript: {transcript}")
    assert misses == []


def test_what_the_handbook_does_not_say_is_not_invented(asked: RagServer, azure: AzureEmulator) -> None:
    question = "How many vacation days do employees get?"
    answer = httpx.post(f"{asked.base_url}/chat", json={"message": question}, timeout=30, trust_env=False).json()
    if answer["sources"]:
        # Something came near: then the model is told to say so, and is shown nothing but passages.
        (request,) = azure.requests("chat")
        system, user = request["body"]["messages"]
        assert "say that you could not find it on the documentation" in system["content"]
        assert all(source["content_full"] in user["content"] for source in answer["sources"])
    else:
        assert "could not find anything about this on the documentation" in answer["response"]
        assert azure.requests("chat") == []


def test_every_passage_of_the_real_documents_leads_somewhere_and_says_something(documents: tuple[Path, str]) -> None:
    build = open_build(documents[0])
    assert build.count > 1_000
    passages = list(build.passages())
    assert all(passage.text.strip() and passage.title for passage in passages)
    assert all(passage.url.startswith(SITE_URL) for passage in passages)
    pages = {passage.anchor for passage in passages if passage.source == HANDBOOK}
    assert len(pages) > 5
    assert all(anchor.startswith("page=") for anchor in pages)


def test_the_real_documents_cost_no_embedding_call_the_second_time(
    documents: tuple[Path, str], corpora: Path, azure: AzureEmulator
) -> None:
    done = build_index(
        [corpora / "fastapi_docs", corpora / "pdf"], env=azure.environment, output=documents[0],
        extra_args=["--site-url", SITE_URL],
    )  # fmt: skip
    assert done.returncode == 0
    assert [seen["body"]["input"] for seen in azure.requests()] == [["probe"]]
    assert "0 embedded in 0 embedding calls" in done.stdout

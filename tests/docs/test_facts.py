"""What the documentation names exists: links, settings, routes, codes, commands, files, log lines, and answers."""

import asyncio
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from fastapi import APIRouter

import rag.http
from indexer.arguments import parsed
from rag.errors import RagError
from rag.llm.embedded import LocalEmbedder
from rag.llm.quoting import QUOTED
from rag.search.hybrid import Build, open_build
from rag.settings import Settings
from rag.types import Passage
from rag_server import create_app
from tests.docs import documents
from tests.docs.documents import blocks, pages, prose, rows, unquoted
from tests.support.server import build_index
from tests.support.waiting import REPOSITORY

SPECS = {spec.metadata["variable"]: spec for spec in fields(Settings)}
OTHERS_VARIABLES = {
    "STATE_DIRECTORY",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "POSTGRES_PASSWORD",
    "INDEX_MOUNT",
    "LOCAL_MODEL",
}
"""Set by others, and heard, or read by Compose or a build of the image."""
CAPITALS = re.compile(r"(?<![\w*?/-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w*])")
ROUTE = re.compile(r"\b(GET|POST|DELETE)\s+(/[\w/.{}-]*)")
OUR_FILES = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*\w[\w.-]*\.(?:py|txt|yml|service|example)\b")
INVENTED = {"prompt.txt", "robots.txt", "synonyms.txt"}
DECISIONS = REPOSITORY / "docs" / "decisions"


def guides() -> list[Path]:
    """Pages for users; decisions speak of what might have been, too."""
    return [page for page in pages() if "decisions" not in page.parts]


def sources() -> str:
    """The text of all of the product's Python files."""
    files = [*REPOSITORY.glob("rag/**/*.py"), *REPOSITORY.glob("indexer/**/*.py"), *REPOSITORY.glob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def app_routes() -> set[tuple[str, str]]:
    """(method, path) of every route, with `{}` for what varies."""
    rooms = [import_module(module.name) for module in walk_packages(rag.http.__path__, "rag.http.")]
    routers = [
        create_app(Settings(demo=True)),
        *(one for room in rooms for one in vars(room).values() if isinstance(one, APIRouter)),
    ]
    found = set()
    for router in routers:
        for route in router.routes:
            for method in getattr(route, "methods", None) or ():
                found.add((method, re.sub(r"\{[^}]*\}", "{}", route.path)))
    return found


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) for every command line in `sh` and `console` blocks, lines that go on put together."""
    for block in blocks("sh", "console"):
        text = block.text.replace("\\\n", " ")
        if block.language == "console":
            text = "\n".join(line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
        yield from ((block.page, line) for line in text.splitlines() if line.strip())


@pytest.mark.parametrize("page", pages(), ids=documents.name_of)
def test_every_link_between_pages_leads_to_a_page_and_a_heading(page: Path) -> None:
    broken = []
    for link in documents.links(page):
        target, _, anchor = link.partition("#")
        if link.startswith(("http://", "https://")):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in documents.anchors(path)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme_or_from_the_list_of_decisions() -> None:
    for folder, start in ((REPOSITORY / "docs", REPOSITORY / "README.md"), (DECISIONS, DECISIONS / "README.md")):
        linked = {(start.parent / link.partition("#")[0]).resolve() for link in documents.links(start)}
        assert {page for page in folder.glob("*.md") if page != start} - linked == set()


def test_every_setting_is_documented_once_with_its_default() -> None:
    described = {unquoted(row[0]): row for row in rows("docs/configuration.md", "Variable")}
    assert described.keys() == SPECS.keys()
    assert sum(1 for _ in rows("docs/configuration.md", "Variable")) == len(described)
    for variable, (_, default, *_) in described.items():
        spec = SPECS[variable]
        if default == "required":
            assert any(variable in line for line in Settings().missing("CHAT", "EMBEDDINGS")), variable
        elif default in ("none", "measured"):
            assert spec.default in (None, "", ()), variable
        else:
            assert spec.metadata["parser"](unquoted(default)) == spec.default, variable


def test_every_example_of_a_setting_is_allowed_and_not_the_default() -> None:
    for name, _, _, example in rows("docs/configuration.md", "Variable"):
        spec = SPECS[unquoted(name)]
        assert spec.metadata["parser"](unquoted(example)) != spec.default, name


def test_every_block_of_settings_is_one_that_the_server_takes() -> None:
    found = blocks("ini")
    assert found
    for block in found:
        pairs = dict(line.split("=", 1) for line in block.text.splitlines() if line.strip())
        assert pairs.keys() <= SPECS.keys(), block
        Settings.from_environment(pairs)


@pytest.mark.parametrize("page", guides(), ids=documents.name_of)
def test_every_variable_that_is_named_exists(page: Path) -> None:
    named = set(CAPITALS.findall(page.read_text(encoding="utf-8")))
    assert named - SPECS.keys() - OTHERS_VARIABLES == set()


@pytest.mark.parametrize("page", guides(), ids=documents.name_of)
def test_every_route_that_is_named_exists(page: Path) -> None:
    named = {(method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path in ROUTE.findall(prose(page))}
    assert named - app_routes() == set()


def test_every_route_of_the_api_is_documented() -> None:
    text = documents.read("docs/api.md")
    named = {re.sub(r"\{[^}]*\}", "{}", path) for _, path in ROUTE.findall(text)}
    document = create_app(Settings(demo=True)).openapi()
    assert {re.sub(r"\{[^}]*\}", "{}", path) for path in document["paths"]} - named == set()


def test_the_script_that_goes_onto_pages_is_served() -> None:
    paths = {path for block in blocks("html") for path in re.findall(r"https://your-host(/[\w.]+)", block.text)}
    assert paths
    assert {("GET", path) for path in paths} - app_routes() == set()


def problems() -> set[type[RagError]]:
    """Every kind of error, the root included."""
    found, new = {RagError}, [RagError]
    while new:
        new = [kind for parent in new for kind in parent.__subclasses__() if kind not in found]
        found |= set(new)
    return found


def test_every_error_code_is_documented_with_its_status_and_no_other() -> None:
    described = {unquoted(code): int(status) for code, status, _ in rows("docs/api.md", "`code`")}
    assert described == {kind.code: kind.status for kind in problems()}


def test_every_error_that_is_shown_has_the_words_of_the_code() -> None:
    titles = {kind.title for kind in problems()}
    shown = re.findall(r'"title": "([^"]+)",\s*"status"', documents.read("docs/api.md"))
    assert shown
    assert set(shown) <= titles


def test_every_json_block_is_json() -> None:
    for block in blocks("json"):
        lines = block.text.splitlines() if not block.text.startswith("{\n") else [block.text]
        assert all(isinstance(json.loads(line), dict) for line in lines), block


def test_every_command_is_one_that_a_shell_can_read() -> None:
    for page, command in commands():
        done = subprocess.run(["/bin/sh", "-n"], input=command, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0, f"{page}: {command}\n{done.stderr}"


def test_every_make_target_and_option_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", documents.read("Makefile"), re.MULTILINE))
    options = set(re.findall(r'"(--[a-z]+)"', documents.read("run_production.py")))
    everywhere = [line for page in guides() for line in re.findall(r"`([^`\n]+)`", prose(page))]
    lines = [line for _, line in commands()] + everywhere
    assert {target for line in lines for target in re.findall(r"\bmake ([a-z]+)", line)} - targets == set()
    production = [line.partition("run_production.py")[2] for line in lines if "run_production.py" in line]
    assert {option for rest in production for option in re.findall(r"--[a-z]+", rest)} - options == set()
    for line in lines:
        _, found, rest = line.partition("-m indexer ")
        if found:
            assert is_taken(shlex.split(rest)), f"the indexer does not take: {line}"


def is_taken(arguments: list[str]) -> bool:
    """Whether the indexer's command line takes these; a text may name a command without what it is about."""
    for given in (arguments, [*arguments, "SOMETHING"]):
        with suppress(SystemExit):
            return bool(parsed(given).command)
    return False


def test_every_file_of_ours_that_is_named_exists() -> None:
    text = "\n".join([*(prose(page) for page in guides()), *(line for _, line in commands())])
    named = set(OUR_FILES.findall(text)) - INVENTED
    assert "docker-compose.prod.yml" in named
    assert {name for name in named if not (REPOSITORY / name).is_file()} == set()


def test_every_log_line_and_reason_that_is_shown_is_one_of_ours() -> None:
    text = " ".join((documents.read("docs/troubleshooting.md") + documents.read("docs/api.md")).split())
    code = sources()
    shown = {
        json.loads(line)["message"] for block in blocks("json") for line in block.text.splitlines() if "logger" in line
    }
    shown |= set(re.findall(r'(?:[Ll]og (?:line|says|of the server says)(?: is)?|`degraded` says) "([^"]+)"', text))
    shown |= {unquoted(row[0]) for row in rows("docs/api.md", "`degraded`")}
    assert len(shown) > 8
    assert {line for line in shown if f'"{line}"' not in code} == set()


@pytest.fixture(scope="module")
def demo_index(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """docs/ as the demo indexes it."""
    output = tmp_path_factory.mktemp("docs") / "vector_db"
    done = build_index(sorted((REPOSITORY / "docs").glob("*.md")), env={"DEMO": "true"}, output=output)
    assert done.returncode == 0, done.stderr
    return open_build(output)


@pytest.mark.parametrize(
    ("question", "page", "words"),
    [
        ("How do I change the rate limit?", "configuration.md", "RATE_LIMIT_CHAT"),
        ("Which file formats can be indexed?", "indexing.md", "Word (.docx)"),
        ("What happens when Azure is down?", "how-it-works.md", "still get an answer"),
        ("How do I roll back an index?", "indexing.md", "indexer rollback"),
        ("How long is a conversation remembered?", "configuration.md", "24 hours"),
        ("Does it work with Ollama?", "questions.md", "OpenAI-compatible API"),
        ("Which file types can I index?", "questions.md", "Markdown (.md)"),
        ("What file formats are supported?", "questions.md", "Markdown (.md)"),
        ("How much does it cost?", "questions.md", "embedding model"),
        ("Is it free?", "questions.md", "MIT licence"),
        ("What licence does it have?", "questions.md", "MIT licence"),
        ("And how do I go back?", "questions.md", "indexer rollback"),
        ("Where are conversations stored?", "questions.md", "conversations.sqlite3"),
        ("How do I index my own site?", "questions.md", "python -m indexer build ./site"),
        ("Can visitors ask in other languages?", "questions.md", "language"),
        ("How do I change the colour of the chat?", "questions.md", "data-accent"),
        ("How do I make a backup?", "deployment.md", "feedback"),
        ("How do I run it with Docker?", "deployment.md", "docker compose"),
        ("How do I use nginx?", "deployment.md", "proxy_buffering off"),
    ],
)
def test_the_first_passage_answers_a_question_about_the_product(
    demo_index: Build, question: str, page: str, words: str
) -> None:
    [first, *_] = found(demo_index, question)
    assert (first.url, words in first.text) == (page, True)


@pytest.mark.parametrize(
    ("question", "page", "words"),
    [
        ("Does it invent answers?", "how-it-works.md", "not even asked"),
        ("Who can read my conversation?", "how-it-works.md", "session id"),
        ("Why was my PDF skipped?", "indexing.md", "password-protected"),
        ("What does error 429 mean?", "api.md", "rate_limited"),
        ("How do I change the system prompt?", "configuration.md", "SYSTEM_PROMPT_FILE"),
        ("Why do I get a CORS error?", "troubleshooting.md", "ALLOWED_ORIGINS"),
        ("Can I use OpenAI's SDK?", "dialects.md", "OpenAI's API"),
        ("How do I update the index?", "indexing.md", "only what changed"),
        ("How do I share conversations between servers?", "configuration.md", "REDIS_URL"),
    ],
)
def test_the_demo_quotes_a_passage_that_answers(demo_index: Build, question: str, page: str, words: str) -> None:
    quoted = found(demo_index, question)[:QUOTED]
    assert any(passage.url == page and words in passage.text for passage in quoted), [one.url for one in quoted]


def found(index: Build, question: str) -> list[Passage]:
    """What the demo retrieves."""
    [vector] = asyncio.run(LocalEmbedder().embed([question]))
    return [hit.passage for hit in index.search(question, vector=vector, k=5)]


def test_every_place_that_contributing_sends_to_exists() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    places = re.findall(r"`((?:rag|indexer|widget|tests)/[^`]*)`", "\n".join(rows))
    assert len(places) >= 15
    assert [place for place in places if not (REPOSITORY / place).exists()] == []

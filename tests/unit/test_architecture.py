"""The direction of imports and the other lines that the house is drawn with. Reads the source, runs none of it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = ["rag_server.py", "run_production.py", "gunicorn.conf.py"]

RANKS = {
    rank: modules.split()
    for rank, modules in enumerate(
        [
            # values, pure functions, and what stands alone
            "errors models setting_types stopwords resilience fusion floor duplicates access anchors log_file "
            "live_order mapped_arrays master patience refusals code_blocks markdown_patterns wire",
            "settings telemetry text builds passages shortlist vectors state calls metric_files prompt addresses "
            "citation_marks redis_link connections conversations",
            "lexical citations vector_files upstream metrics backup_archive local_embedder excerpts follow_ups "
            "sqlite_conversations feedback sqlite_limits redis_limits tracing worker",
            "vector_db azure_openai local_models rate_limits redis_conversations",
            "live_index preflight backup",
            "retrieval",
            "chat in_flight",
            "routes.bodies routes.paths routes.problems routes.rooms",
            "routes.middleware routes.streams",
            "routes.answers routes.demo_pages routes.feedback routes.sessions routes.site",
            "routes.dialects routes.metrics",
            "routes.openai routes.ai_sdk",
        ]
    )
}
RANK_OF = {f"rag.{module}": rank for rank, modules in RANKS.items() for module in modules}
"""A module imports strictly lower ranks, never a sibling."""

ONLY_IN = {
    "faiss": ["rag/vectors.py", "rag/vector_files.py"],
    "redis": ["rag/redis_"],
    "apsw": ["rag/backup_archive.py", "rag/sqlite_conversations.py", "rag/state.py"],
    "httpx": ["rag/azure_openai.py", "rag/upstream.py", "rag/wire.py"],
    "httpx_aiohttp": ["rag/wire.py"],
    "aiohttp": ["rag/azure_openai.py", "rag/upstream.py"],
    "opentelemetry": ["rag/tracing.py"],
    "prometheus_client": ["rag/metric_files.py", "rag/metrics.py"],
    "fastapi": ["rag_server.py", "rag/routes/"],
    "uvicorn": ["rag/connections.py", "rag/worker.py"],
    "gunicorn": ["rag/worker.py"],
    "tenacity": ["rag/upstream.py"],
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


def imports(path: Path) -> Iterator[str]:
    """Full names of all imported modules, inside functions too; `from rag import state` counts as `rag.state`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: a relative import hides its direction"
            module = node.module or ""
            for alias in node.names:
                inner = ROOT / Path(*module.split("."), f"{alias.name}.py")
                yield f"{module}.{alias.name}" if inner.exists() else module


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_every_module_of_the_server_has_a_rank() -> None:
    modules = {module_of(path) for path in ROOT.glob("rag/**/*.py") if path.name != "__init__.py"}
    assert modules - RANK_OF.keys() == set()


def test_a_module_imports_strictly_lower_ranks() -> None:
    wrong = [
        f"{module_of(path)} (rank {RANK_OF[module_of(path)]}) imports {imported} (rank {RANK_OF.get(imported)})"
        for path in ROOT.glob("rag/**/*.py")
        if module_of(path) in RANK_OF
        for imported in imports(path)
        if imported.startswith("rag.") and RANK_OF.get(imported, 99) >= RANK_OF[module_of(path)]
    ]
    assert wrong == []


def test_the_packages_themselves_import_nothing() -> None:
    assert [name_of(path) for path in ROOT.glob("rag/**/__init__.py") if list(imports(path))] == []


def test_the_server_never_imports_the_indexer() -> None:
    outside = [path for path in sources() if not name_of(path).startswith("indexer/")]
    assert [name_of(path) for path in outside if any(name.split(".")[0] == "indexer" for name in imports(path))] == []


def test_the_indexer_knows_neither_the_chat_nor_the_routes() -> None:
    lowest_of_the_server = RANK_OF["rag.retrieval"]
    wrong = [
        f"{name_of(path)} imports {name}"
        for path in ROOT.glob("indexer/**/*.py")
        for name in imports(path)
        if name == "rag_server" or RANK_OF.get(name, 0) >= lowest_of_the_server
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_room(library: str) -> None:
    users = {name_of(path) for path in sources() if any(name.split(".")[0] == library for name in imports(path))}
    strangers = {user for user in users if not user.startswith(tuple(ONLY_IN[library]))} if ONLY_IN[library] else users
    assert strangers == set()


def test_the_environment_is_read_in_one_place() -> None:
    def reads(path: Path) -> bool:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
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
    silent = [name_of(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "util", "helper", "helpers", "manager", "service", "common", "misc"}
    assert [name_of(path) for path in sources() if empty_names & set(path.stem.split("_"))] == []


def test_third_party_imports_are_only_those_that_the_requirements_name() -> None:
    texts = [(ROOT / f"requirements-{kind}.txt").read_text(encoding="utf-8") for kind in ("prod", "otel")]
    lines = [line for text in texts for line in text.split("# What the above need")[0].splitlines()]
    direct = {line.split("==")[0].lower() for line in lines if "==" in line}
    package_of = {
        "faiss": "faiss-cpu", "dotenv": "python-dotenv", "docx": "python-docx", "yaml": "pyyaml",
        "httpx_aiohttp": "httpx-aiohttp", "uvicorn_worker": "uvicorn-worker", "markdown_it": "markdown-it-py",
        "prometheus_client": "prometheus-client", "opentelemetry": "opentelemetry-sdk",
        # FastAPI's own floor: it is pinned with it, and its types are part of FastAPI's interface.
        "starlette": "fastapi", "pydantic": "fastapi",
    }  # fmt: skip
    ours = {"rag", "indexer", "rag_server"}
    imported = {name.split(".")[0] for path in sources() for name in imports(path)}
    foreign = {name for name in imported if name not in sys.stdlib_module_names and name not in ours}
    assert {name for name in foreign if package_of.get(name, name).lower() not in direct} == set()

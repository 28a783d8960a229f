"""What stands beside the code agrees with it: .env.example, pins, unit, Compose file, Dockerfile, Makefile."""

import configparser
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rag.settings import Settings
from tests.support.locks import KINDS

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "AZURE_OPENAI_CHAT_ENDPOINT",
    "AZURE_OPENAI_CHAT_API_KEY",
    "AZURE_OPENAI_EMBEDDINGS_ENDPOINT",
    "AZURE_OPENAI_EMBEDDINGS_API_KEY",
}
PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([A-Za-z0-9._]+)(?: ; (.+))?")
PYTHONS = ("3.11.0", "3.11.2", "3.11.14", "3.12.12", "3.13.9", "3.14.0")
"""That of Debian 12 among them; what a package needs may hang on the last figure."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def example_lines() -> list[tuple[bool, str, str]]:
    """(whether it is commented, variable, value) for each assignment of .env.example."""
    found = re.findall(r"^(#?)([A-Z][A-Z0-9_]+)=(.*)$", read(".env.example"), re.MULTILINE)
    return [(bool(comment), name, value) for comment, name, value in found]


def on(python: str) -> dict[str, str]:
    """What markers see on that Python, on the systems that are ours."""
    return {"python_version": python.rpartition(".")[0], "python_full_version": python, "extra": ""}


def pins(name: str, python: str = platform.python_version()) -> dict[str, str]:
    """The packages that are installed on that Python, each with its version."""
    lines = [line.split("#")[0].strip() for line in read(name).splitlines()]
    found = {}
    for line in lines:
        if line and not line.startswith("-r "):
            match = PINNED.fullmatch(line)
            assert match, f"{name}: {line!r} is no exact pin"
            if not match[3] or Marker(match[3]).evaluate(on(python)):
                found[canonicalize_name(match[1])] = match[2]
    return found


def compose() -> dict[str, Any]:
    parsed = yaml.safe_load(read("docker-compose.prod.yml"))
    assert isinstance(parsed, dict)
    return parsed


def test_the_env_example_holds_every_variable_once_and_no_other() -> None:
    names = [name for _, name, _ in example_lines()]
    assert sorted(names) == sorted(spec.metadata["variable"] for spec in fields(Settings))


def test_the_env_example_shows_the_defaults() -> None:
    for spec in fields(Settings):
        [shown] = [value for _, name, value in example_lines() if name == spec.metadata["variable"]]
        if shown:
            assert spec.metadata["parser"](shown) == spec.default, f"{spec.metadata['variable']}={shown}"
        else:
            assert spec.default in ((), "", None), f"{spec.metadata['variable']} has a default that is not shown"


def test_only_what_is_required_is_uncommented_in_the_env_example() -> None:
    assert {name for commented, name, _ in example_lines() if not commented} == REQUIRED


def test_a_fresh_copy_of_the_env_example_is_valid_and_misses_only_what_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    monkeypatch.chdir(tmp_path)
    for spec in fields(Settings):
        monkeypatch.delenv(spec.metadata["variable"], raising=False)
    lines = Settings.from_environment().missing("CHAT", "EMBEDDINGS")
    assert {line.split()[0] for line in lines} == REQUIRED


def test_every_requirement_is_pinned_exactly_and_names_no_host() -> None:
    for name in (f"requirements-{kind}.txt" for kind in KINDS):
        assert len(pins(name)) > 2
        assert "://" not in read(name)
        assert "index-url" not in read(name)


def test_the_tests_run_on_the_pinned_versions() -> None:
    pinned = {name: version for kind in KINDS for name, version in pins(f"requirements-{kind}.txt").items()}
    installed = {name: metadata.version(name) for name in pinned}
    assert installed == pinned


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    "names", [["prod"], ["prod", "otel"], ["prod", "postgres"], ["prod", "entra"], ["prod", "local"]], ids="+".join
)
def test_the_pins_are_complete_on_every_python(names: list[str], python: str) -> None:
    pinned: set[str] = set()
    installed: set[str] = set()
    for name in names:
        pinned |= pins(f"requirements-{name}.txt", python).keys()
        installed |= pins(f"requirements-{name}.txt").keys()
    needed = set()
    # What another Python alone has is not installed here, and needs nothing more.
    for package in pinned & installed:
        for requirement in map(Requirement, metadata.requires(package) or []):
            if requirement.marker is None or requirement.marker.evaluate(on(python)):
                needed.add(canonicalize_name(requirement.name))
    assert needed - pinned == set()


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = read("systemd/rag-server.service")
    assert "/opt/rag-server/.venv/bin/python " in unit
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        # Without systemd its syntax is still held: sections and assignments, nothing else.
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string(unit)
        assert {"Unit", "Service", "Install"} == set(parser.sections())
        return
    copy = tmp_path / "rag-server.service"
    copy.write_text(unit.replace("/opt/rag-server/.venv/bin/python ", f"{sys.executable} "), encoding="utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def seconds(name: str, pattern: str) -> int:
    found = re.search(pattern, read(name), re.MULTILINE)
    assert found, f"{name} has no {pattern}"
    return int(found[1])


def test_whoever_stops_the_server_waits_longer_than_gunicorn_does() -> None:
    # Drain and finish of the defaults, and gunicorn's margin above both: see gunicorn.conf.py.
    gunicorn = 1 + (25 + 2) + 5
    assert Settings().request_timeout_s == 25
    assert seconds("systemd/rag-server.service", r"^TimeoutStopSec=(\d+)$") > gunicorn
    assert seconds("docker-compose.prod.yml", r"stop_grace_period: (\d+)s$") > gunicorn


def test_the_compose_file_mounts_the_index_for_reading_and_keeps_the_state() -> None:
    # The whole file, its profiles and its schema: tests/deploy/test_compose.py.
    service = compose()["services"]["rag-server"]
    targets = {volume.split(":")[1]: volume for volume in service["volumes"]}
    assert targets[service["environment"]["VECTOR_DB_PATH"]].endswith(":${INDEX_MOUNT:-ro}")
    assert service["environment"]["STATE_DIR"] in targets
    assert service["env_file"] == ".env"
    assert service["restart"] == "unless-stopped"
    assert "/health" in service["healthcheck"]["test"][-1]
    known = {spec.metadata["variable"] for spec in fields(Settings)}
    assert set(service["environment"]) <= known


def test_the_image_holds_only_what_runs_and_runs_as_nobody_special() -> None:
    ignored = read(".dockerignore").splitlines()
    assert "*" in ignored
    admitted = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    needed = {"rag", "indexer", "docs", "rag_server.py", "run_production.py", "gunicorn.conf.py"}
    assert admitted == needed | {f"requirements-{kind}.lock" for kind in ("prod", "otel", "postgres", "entra", "local")}
    dockerfile = read("Dockerfile")
    assert re.search(r"^USER 1001:1001$", dockerfile, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", dockerfile, re.MULTILINE)
    assert 'CMD ["python", "run_production.py"]' in dockerfile
    stages = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert stages == ["${PYTHON_IMAGE}"] * 2, "packages are installed in a stage that is thrown away"
    base = re.search(r"^ARG PYTHON_IMAGE=python:(\d+\.\d+\.\d+-slim-\w+)$", dockerfile, re.MULTILINE)
    assert base, "the base is an exact version"
    last = dockerfile.rpartition("\nFROM ")[2]
    assert not re.search(r"\b(apt-get|curl|wget|gcc|pip install)\b", last)
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in last


def test_secrets_and_state_stay_out_of_the_repository() -> None:
    ignored = set(read(".gitignore").splitlines())
    assert {".env", "/state/", "/vector_db/", "/.demo/", "/.venv/"} <= ignored


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))


def test_the_makefile_has_the_promised_targets_and_lists_them() -> None:
    promised = {"help", "demo", "run", "test", "check", "bench", "image-test", "clean"}
    assert promised <= make_targets()
    make = shutil.which("make")
    if make is not None:
        listed = subprocess.run([make, "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert listed.returncode == 0
        assert make_targets() == set(re.findall(r"^  make ([\w-]+)", listed.stdout, re.MULTILINE))


def test_the_documents_name_only_make_targets_that_exist() -> None:
    documents = [path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.name != "CHANGELOG.md"]
    named = {
        (path.name, target)
        for path in documents
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {(name, target) for name, target in named if target not in make_targets()} == set()


def test_continuous_integration_runs_what_developers_run() -> None:
    script = read(".ci/run")
    assert "set -euo pipefail" in script
    assert script.rstrip().endswith("make test")
    for name in (".ci/run", "scripts/check"):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is not executable"

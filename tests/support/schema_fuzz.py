"""Runs schemathesis over a server's own OpenAPI document, as a process of its own. Knows no test."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import REPOSITORY


@dataclass(frozen=True)
class Round:
    """What one run of schemathesis found."""

    cases: int
    operations: int
    exit_code: int
    output: str


def fuzz(base_url: str, *, admin_key: str, max_examples: int, folder: Path, seed: int | None = None) -> Round:
    """At most `max_examples` random cases an operation, after the ones that its schema makes by rule.

    RuntimeError if schemathesis leaves no report; faults of the server are in the answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(REPOSITORY / "tests" / "schemathesis.toml"),
        "run", f"{base_url}/openapi.json", "--max-examples", str(max_examples), "--continue-on-failure", "--no-color",
        "--workers", "2", "--request-timeout", "30", "--header", f"Authorization: Bearer {admin_key}",
        "--report", "json", "--report-json-path", str(report),
    ]  # fmt: skip
    command += [] if seed is None else ["--seed", str(seed)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if not report.exists():
        raise RuntimeError(f"schemathesis ended with {done.returncode}:\n{output}")
    found = json.loads(report.read_text(encoding="utf-8"))
    return Round(found["test_cases"]["generated"], found["operations"]["tested"], done.returncode, output)

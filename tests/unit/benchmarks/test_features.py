"""The benchmark of optional features, once and small: that it runs with all of them on, and tells what they cost."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_it_tells_what_a_chat_costs_with_all_features_on_and_off(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks/features.py", "--tiny"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    default, everything = done.stdout.splitlines()
    assert default.startswith("server ")
    assert everything.startswith("everything on ")
    assert everything.endswith("of the default")

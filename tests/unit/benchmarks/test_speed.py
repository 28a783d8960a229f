"""The benchmarks of speed, each part once and small: that they run and tell what they are for, not how fast we are."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.measuring.figures import Spread, percentile, spread
from benchmarks.measuring.picture import Panel, drawn
from benchmarks.measuring.site import questions, write_site

ROOT = Path(__file__).resolve().parents[3]
PARTS = {"chats", "streams", "relayed", "ready_s", "built", "lines"}


def test_the_benchmark_measures_server_and_floor_and_tells_it_as_text_json_and_picture(tmp_path: Path) -> None:
    assert shutil.which("wrk"), "wrk is needed; on Debian and Ubuntu: sudo apt-get install wrk"
    figures, picture = tmp_path / "speed.json", tmp_path / "speed.svg"
    command = [sys.executable, ROOT / "benchmarks/speed.py", "--tiny", "--json", figures, "--picture", picture]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found.keys() >= PARTS
    for name in ("floor", "server"):
        runs = [run for several in found["chats"][name].values() for run in several]
        assert all(run["per_second"] > 0 and run["cpu_ms"] > 0 and run["failed"] == 0 for run in runs)
        assert all(run["streams"] > 0 and run["dropped"] == 0 for run in found["streams"][name])
        assert found["relayed"][name]["tokens"] > 0
    assert found["built"]["again"]["calls"] == 0
    assert all(line["what"] in done.stdout for line in found["lines"])
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (50.0, 99.0, 7.0)


def test_a_spread_is_shown_with_its_extremes_where_it_has_any() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([1.0, 2.0, 3.0]).shown(".1f") == "2.0 (1.0–3.0)"
    assert spread([2.0]).shown(".1f") == "2.0"


@pytest.mark.parametrize("highest", [0.0, 0.9, 7.3, 1200.0])
def test_the_picture_holds_a_curve_for_each_server_in_each_panel(highest: float) -> None:
    curves = {"floor": [(16, 0.0), (64, highest)], "server": [(16, 0.0), (64, highest / 2)]}
    picture = ElementTree.fromstring(drawn([Panel("a", "x", curves), Panel("b < c", "y", curves)], title="d & e"))
    assert len([part for part in picture if part.tag.endswith("polyline")]) == 4


def test_the_site_is_the_same_every_time_and_has_a_question_for_each_page(tmp_path: Path) -> None:
    first, second = (write_site(tmp_path / name, 5) for name in ("one", "two"))
    pages = sorted(path.name for path in first.iterdir())
    assert len(pages) == len(questions(5)) == 5
    assert all((first / page).read_bytes() == (second / page).read_bytes() for page in pages)
    for page, question in zip(pages, questions(5), strict=True):
        assert set(question.removesuffix(" of").split()) & set((first / page).read_text().lower().split())

"""requirements-*.lock: the packages of the readable lists, as wheels with their hashes; all installations use them."""

import hashlib
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.locks import KINDS, read_lock, read_pins, without_a_wheel

ROOT = Path(__file__).resolve().parents[2]
LOCKED = "packages changed; run: make lock"


def lock_of(kind: str) -> str:
    return (ROOT / f"requirements-{kind}.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_holds_exactly_the_pins_of_its_list(kind: str) -> None:
    included, pins = read_pins((ROOT / f"requirements-{kind}.txt").read_text(encoding="utf-8"))
    locks, packages = read_lock(lock_of(kind))
    assert [package.pin for package in packages] == pins, LOCKED
    assert locks == [name.replace(".txt", ".lock") for name in included], LOCKED
    assert all(package.wheels for package in packages)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_has_a_wheel_for_every_python_and_machine_that_are_ours(kind: str) -> None:
    assert list(without_a_wheel(lock_of(kind))) == []


def test_a_missing_wheel_is_named_with_its_python_and_machine() -> None:
    text = lock_of("prod")
    # The wheel of httptools for one Python on one machine, with its hash.
    found = re.search(r"((?:# .*\n)+)httptools==(\S+) \\\n((?: {4}--hash=.*\n)+)", text)
    assert found
    [index] = [
        i for i, tags in enumerate(found[1].splitlines()) if "cp313-cp313-manylinux" in tags and "aarch64" in tags
    ]
    lines = found[0].splitlines(keepends=True)
    wheels = len(found[1].splitlines())
    del lines[wheels + 1 + index], lines[index]
    fault = f"httptools {found[2]} has no wheel for Python 3.13 on aarch64"
    assert list(without_a_wheel(text.replace(found[0], "".join(lines)))) == [fault]


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_others_name_with_an_extra_is_locked_with_it(kind: str) -> None:
    # Else pip takes it for one that is not pinned, and installs nothing; where they name its version all is well.
    included, pins = read_pins((ROOT / f"requirements-{kind}.txt").read_text(encoding="utf-8"))
    for name in included:
        pins += read_pins((ROOT / name).read_text(encoding="utf-8"))[1]
    named = {str(canonicalize_name(pin.line.split("==")[0])) for pin in pins}
    here = {pin.name for pin in pins if pin.marker is None or Marker(pin.marker).evaluate()}
    needed = {
        f"{canonicalize_name(needs.name)}[{extra}]"
        for name in here
        for needs in map(Requirement, metadata.requires(name) or [])
        for extra in needs.extras
        if not any(spec.operator == "==" for spec in needs.specifier)
        and (needs.marker is None or needs.marker.evaluate({"extra": ""}))
    }
    assert needed - named == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_names_no_host(kind: str) -> None:
    assert not re.search(r"://|index-url|find-links|\.(com|org|net|io)\b", lock_of(kind))


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile", "deploy/deploy.sh", "tests/deploy/vm-test.sh"])
def test_whatever_installs_the_server_installs_by_hash(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    if name == "Makefile":  # its other list is that of packages to compare with, which are no part of the product
        text = "\n".join(line for line in text.splitlines() if "PEERS" not in line)
    assert not re.search(r"-r\s+\S*requirements[\w-]*\.txt", text)
    assert "requirements-prod.lock" in text
    assert "--require-hashes --only-binary :all:" in text


def test_pip_refuses_a_package_whose_bytes_are_not_those_of_the_lock(tmp_path: Path) -> None:
    wheel = tmp_path / "sample_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "sample_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: sample-package\nVersion: 1.0\n"
        )
        archive.writestr(
            "sample_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("sample_package-1.0.dist-info/RECORD", "")

    def install(sha256: str) -> subprocess.CompletedProcess[str]:
        lock = tmp_path / "requirements.lock"
        lock.write_text(f"# head\n# py3-none-any\nsample-package==1.0 \\\n    --hash=sha256:{sha256}\n")
        assert read_lock(lock.read_text())[1][0].wheels == {"py3-none-any": sha256}
        flags = re.search(r"^PIP := \$\(BIN\)/python (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert flags
        command = [sys.executable, *flags[1].split(), "--isolated", "--no-index", "--find-links", str(tmp_path),
                   "--target", str(tmp_path / "to"), "-r", str(lock)]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    other = install("0" * 64)
    assert other.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in other.stderr
    assert install(hashlib.sha256(wheel.read_bytes()).hexdigest()).returncode == 0

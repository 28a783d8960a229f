"""The lists of packages, read: requirements-*.txt with pins, requirements-*.lock with the hashes of their wheels."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

KINDS = ("prod", "otel", "postgres", "entra", "local", "dev")
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
MACHINES = ("x86_64", "aarch64")
PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([A-Za-z0-9._]+)(?: ; ([^\\]+?))?( \\)?")
HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})( \\)?")
OLDEST_GLIBC = 28
"""2.28, of 2018: every distribution that still gets updates has a newer one."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One package, as it stands in a list: `line` is what pip reads of it, without hashes."""

    name: str
    version: str
    marker: str | None
    line: str


@dataclass(frozen=True, slots=True)
class Locked:
    pin: Pin
    wheels: dict[str, str]
    """The SHA-256 by what the wheel's name says behind name and version."""


def read_pins(text: str) -> tuple[list[str], list[Pin]]:
    """The other lists that this one includes, and its own pins. Raises `ValueError` for a line that is no exact pin."""
    included, pins = [], []
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        if line.startswith("-r "):
            included.append(line.removeprefix("-r "))
        else:
            pins.append(_pin(line))
    return included, pins


def read_lock(text: str) -> tuple[list[str], list[Locked]]:
    """The other locks that this one includes, and its own packages. Raises `ValueError` for any other line."""
    included: list[str] = []
    packages: list[tuple[Pin, list[str], list[str]]] = []
    tags: list[str] = []
    for line in text.splitlines()[1:]:
        if line.startswith("-r "):
            included.append(line.removeprefix("-r "))
        elif line.startswith("# "):
            tags.append(line.removeprefix("# "))
        elif found := HASH.fullmatch(line):
            packages[-1][2].append(found[1])
        else:
            packages.append((_pin(line), tags, []))
            tags = []
    return included, [Locked(pin, dict(zip(tags, hashes, strict=True))) for pin, tags, hashes in packages]


def _pin(line: str) -> Pin:
    found = PINNED.fullmatch(line)
    if not found:
        raise ValueError(f"{line!r} is no exact pin")
    return Pin(canonicalize_name(found[1]), found[2], found[3], line.removesuffix(" \\"))


def tags_of(wheel: str) -> str:
    """What a wheel's name says behind name and version: for which Python, which interface, which machine."""
    return wheel.removesuffix(".whl").split("-", 2)[2]


def fits_somewhere(wheel: str) -> bool:
    """Whether the server or its tests may be installed from it: CPython from 3.11 to 3.14, on Linux or macOS."""
    *_, tags = parse_wheel_filename(wheel)
    return any(_is_ours(tag) for tag in tags)


def _is_ours(tag: Tag) -> bool:
    interpreter = re.fullmatch(r"(py|cp)(\d)(\d*)", tag.interpreter)
    if not interpreter or interpreter[2] != "3":
        return False
    minor = int(interpreter[3] or 0)
    newest = PYTHONS[-1][1]
    python = {"none": minor <= newest, "abi3": minor <= newest}.get(
        tag.abi, (3, minor) in PYTHONS and tag.abi == f"cp3{minor}"
    )
    linux = tag.platform.startswith(("manylinux", "musllinux", "linux")) and tag.platform.endswith(MACHINES)
    return python and (tag.platform == "any" or tag.platform.startswith("macosx") or linux)


def without_a_wheel(lock: str) -> Iterator[str]:
    """Each package of a lock with the Pythons and machines, of those that are ours, for which it has no wheel."""
    for package in read_lock(lock)[1]:
        tags = {tag for name in package.wheels for tag in parse_wheel_filename(f"name-1-{name}.whl")[3]}
        for python in PYTHONS:
            marker = package.pin.marker
            # The oldest one stands for them all: what only it needs is needed there.
            if marker and not Marker(marker).evaluate({"python_full_version": f"{python[0]}.{python[1]}.0"}):
                continue
            for machine in MACHINES:
                if not tags & _taken(python, machine):
                    name = f"{package.pin.name} {package.pin.version}"
                    yield f"{name} has no wheel for Python {python[0]}.{python[1]} on {machine}"


def _taken(python: tuple[int, int], machine: str) -> set[Tag]:
    """The tags that such a Python takes on a Linux with glibc."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(5, OLDEST_GLIBC + 1)]
    platforms += [f"manylinux{year}_{machine}" for year in ("1", "2010", "2014")]
    interpreter = f"cp{python[0]}{python[1]}"
    return {*cpython_tags(python, platforms=platforms), *compatible_tags(python, interpreter, platforms)}

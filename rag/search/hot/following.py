"""The segments of one worker: opened as generations name them, and laid over the build that it serves."""

import logging
import time
from pathlib import Path
from typing import Any

from rag.errors import BuildDamaged, BuildMismatch, IndexUnavailable
from rag.search import builds
from rag.search.hot import generation
from rag.search.hot.generation import NOTHING, Generation
from rag.search.hot.layered import LayeredBuild
from rag.search.hybrid import Build

log = logging.getLogger(__name__)

LOOK_AT_REFUSED_EVERY_S = 5.0
"""Between two looks at a segment that was refused."""


class Segments:
    """What is in force beside the builds in `root`.

    A segment that is not sound, or was made with another model than the build, is left out, with one line in the log:
    the rest is served, and above all what was removed stays removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, Build] = {}
        self._seen: tuple[int, ...] | None = None
        self._generation = NOTHING
        self._look_again_at = 0.0
        self.refused: dict[str, str] = {}
        """Segments that are left out, and in a few words why; under an empty name the generation itself."""

    def changed(self) -> bool:
        """Whether there is something to take up: one look at the file, as often as one likes."""
        if self.refused and time.monotonic() >= self._look_again_at:
            return True
        return self._identity() != self._seen

    def over(self, base: Build) -> Build:
        """`base` with everything on it that is in force; `base` itself where that is nothing."""
        while True:
            self._seen = self._identity()
            self._look_again_at = time.monotonic() + LOOK_AT_REFUSED_EVERY_S
            try:
                self._generation = generation.read(self._root)
            except IndexUnavailable as error:
                # The generation before goes on: what it names is open.
                self._refuse({"": str(error)})
            else:
                opened, faults = self._opened(self._generation, base)
                if faults and self._identity() != self._seen:
                    continue  # they were merged into others meanwhile
                self._open = opened
                self._refuse(faults)
            fitting = {name: one for name, one in self._open.items() if _misfit(one, base) is None}
            return LayeredBuild(base, fitting, self._generation) if self._generation.documents else base

    def health(self, served: Build) -> dict[str, Any]:
        """For `/ready`: nothing where nothing was added."""
        state: dict[str, Any] = {}
        if isinstance(served, LayeredBuild):
            state["uploads"] = len(served.added)
            state["segments"] = len(served.parts) - 1
        return state | ({"uploads_refused": sorted(self.refused)} if self.refused else {})

    def _opened(self, present: Generation, base: Build) -> tuple[dict[str, Build], dict[str, str]]:
        opened, faults = dict[str, Build](), dict[str, str]()
        for name in present.segments:
            try:
                opened[name] = self._open.get(name) or open_segment(self._root, name)
                if misfit := _misfit(opened[name], base):
                    faults[name] = misfit
            except IndexUnavailable as error:
                faults[name] = str(error)
        return opened, faults

    def _identity(self) -> tuple[int, ...] | None:
        try:
            found = (self._root / generation.NAME).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _refuse(self, faults: dict[str, str]) -> None:
        for name, reason in faults.items():
            if self.refused.get(name) != reason:
                log.error("added documents left out", extra={"segment": name, "reason": reason})
        self.refused = faults


def open_segment(root: Path, name: str) -> Build:
    """A segment, every checksum computed again. Raises `BuildDamaged` or `BuildMismatch`."""
    folder = generation.folder_of(root, name)
    try:
        return Build(folder=folder, manifest=builds.verify(folder))
    except BuildDamaged as error:
        what = str(error).partition("; ")[0]
        raise BuildDamaged(f"{what}; add its documents again, or put them back from a backup") from None
    except BuildMismatch as error:
        raise BuildMismatch(f"{error}; run: python -m indexer build SOURCE") from None


def _misfit(segment: Build, base: Build) -> str | None:
    """Why a segment cannot stand beside `base`; None where it can."""
    if (segment.model, segment.dimensions) == (base.model, base.dimensions):
        return None
    made = f"made with the embedding model {segment.model!r} in {segment.dimensions} dimensions"
    return f"{made}, the build with {base.model!r} in {base.dimensions}; run: python -m indexer build SOURCE"

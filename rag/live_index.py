"""The build that is being served, and how the next one takes its place.

A new build is opened beside the old one, checked, and swapped in by one assignment; a search that runs keeps its own.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from rag import builds
from rag.errors import IndexUnavailable
from rag.vector_db import Build, open_build

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Between two looks at `CURRENT`: one small read, and a new build is served well within five seconds."""

LOOK_AT_REFUSED_EVERY_S = 5.0
"""Between two looks at a build that was refused: one that is copied here file by file becomes whole after its name."""


class LiveIndex:
    """Holds the live build of `root` for one worker. `model` is the embedding model that it has to be made with."""

    def __init__(self, *, root: Path, model: str) -> None:
        """Open the live build. Raises `BuildMissing`, `BuildDamaged` or `BuildMismatch`."""
        self._root = root
        self._model = model
        self.build: Build = open_build(root, model=model)
        self._refused: dict[str, str] | None = None
        self._look_again_at = 0.0

    def health(self) -> dict[str, Any]:
        """For `/ready`: what is served, and what was refused and why."""
        build = self.build
        state: dict[str, Any] = {
            "status": "ok", "build": build.id, "passages": build.count,
            "model": build.model, "dimensions": build.dimensions,
        }  # fmt: skip
        return state | ({"refused": self._refused} if self._refused else {})

    async def watch(self) -> None:
        """Follow `CURRENT` until cancelled; a build that is not sound is refused, with one line in the log."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                named = builds.live_id(self._root)
            except IndexUnavailable as error:
                self._refuse("", error)
                continue
            if named == self.build.id:
                self._refused = None
            elif not self._refused or self._refused["build"] != named or time.monotonic() >= self._look_again_at:
                await self._take(named)

    async def _take(self, named: str) -> None:
        try:
            build = await asyncio.to_thread(open_build, self._root, model=self._model)
        except IndexUnavailable as error:
            self._refuse(named, error)
            self._look_again_at = time.monotonic() + LOOK_AT_REFUSED_EVERY_S
            return
        previous, self.build, self._refused = self.build, build, None
        log.info("new build is live", extra={"build": build.id, "previous": previous.id, "passages": build.count})

    def _refuse(self, named: str, error: IndexUnavailable) -> None:
        reasons = {"BuildMissing": "missing", "BuildDamaged": "damaged", "BuildMismatch": "another model or format"}
        refused = {"build": named, "reason": reasons[type(error).__name__]}
        if refused == self._refused:
            return
        self._refused = refused
        log.error("build refused, the live one keeps serving", extra={"build": named, "reason": str(error)})

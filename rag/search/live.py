"""The build that is being served, and how the next one takes its place. Where builds are kept the backend knows.

A new build is opened beside the old one, checked, and swapped in by one assignment; a search that runs keeps its own.
A worker that starts while the live build is not sound serves the newest kept one that is; without any it starts all
the same and waits for one. That the whole server does not start without a build is not decided here. What was added
beside the builds (`hot`) is laid over the one that is served, and taken up in the same way.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any, NoReturn

from rag.errors import IndexUnavailable
from rag.search.backends.protocol import Backend
from rag.search.hybrid import Build

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Between two looks at which build is live: one small read, and a new one is served well within five seconds."""

LOOK_AT_REFUSED_EVERY_S = 5.0
"""Between two looks at a build that was refused: one that is copied here file by file becomes whole after its name."""

LOOK_FOR_ANY_EVERY_S = 2.0
"""The same while nothing is served, when reading every checksum again costs nobody anything."""


REASONS = {
    "BuildMissing": "missing", "BuildDamaged": "damaged", "BuildMismatch": "another model or format",
    "BuildUnreachable": "unreachable",
}  # fmt: skip
"""In a word, for `/ready`, why a build is not served."""


class NoBuild(Build):
    """Stands where nothing can be served: it is empty, and whatever is asked of it raises `IndexUnavailable`."""

    def __init__(self) -> None:
        # Not the base class's: there is no file to open. What is not set here is asked of `__getattr__`.
        self.id, self.count = "", 0

    def __getattr__(self, name: str) -> NoReturn:
        raise IndexUnavailable("no sound build is at hand; run: python -m indexer build SOURCE")


class LiveIndex:
    """Holds the live build of `backend` for one worker. `model` is the embedding model that it has to be made with."""

    def __init__(self, *, backend: Backend, model: str) -> None:
        """Open the live build, else the newest kept one that is sound, else none. Never raises for a build."""
        self.backend = backend
        self._model = model
        self.build: Build = NoBuild()
        """What is searched: the build, with what was added."""
        self._base: Build = self.build
        self._overlay = backend.overlay()
        self._refused: dict[str, str] | None = None
        self._look_again_at = 0.0
        try:
            self._base = backend.open(model=model)
        except IndexUnavailable as error:
            named = self._named()
            self._base = self._newest_sound(but=named)
            self._refuse(named, error)
        if self._base.id:
            self.build = self._overlay.over(self._base)

    def health(self) -> dict[str, Any]:
        """For `/ready`: what is served, and what was refused and why."""
        build = self.build
        state: dict[str, Any] = {"status": "unavailable"}
        if build.id:
            state = {
                # What is in a database cannot be searched while that does not answer.
                "status": "unavailable" if self._is_unreachable() else "ok", "build": self._base.id,
                "passages": build.count, "model": build.model, "dimensions": build.dimensions,
                **self._overlay.health(build),
            }  # fmt: skip
        return state | ({"refused": self._refused} if self._refused else {})

    async def watch(self) -> None:
        """Follow the live build until cancelled; one that is not sound is refused, with one line in the log."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except Exception:
                # Whatever it was: a worker that looks no more would serve the old build for ever, and tell nobody.
                log.exception("live build not looked at")

    async def _look(self) -> None:
        try:
            named = await asyncio.to_thread(self.backend.live_id)
        except IndexUnavailable as error:
            self._refuse("", error)
            if not self.build.id and time.monotonic() >= self._look_again_at:
                await self._take_any(but="")
            await self._take_added()
            return
        if named == self._base.id:
            self._refused = None
            await self._take_added()
        elif not self._refused or self._refused["build"] != named or time.monotonic() >= self._look_again_at:
            await self._take(named)
        else:
            await self._take_added()
        if self._base.id:
            await asyncio.to_thread(self.backend.serving, self._base.id)

    async def _take_added(self) -> None:
        """Take up what was added or removed beside the build that is served."""
        if self._base.id and self._overlay.changed():
            before = self.build.id
            self.build = await asyncio.to_thread(self._overlay.over, self._base)
            if self.build.id != before:
                log.info("added documents are live", extra={"build": self.build.id, "passages": self.build.count})

    async def _take(self, named: str) -> None:
        try:
            build = await asyncio.to_thread(self.backend.open, model=self._model)
        except IndexUnavailable as error:
            self._refuse(named, error)
            self._look_again_at = time.monotonic() + LOOK_AT_REFUSED_EVERY_S
            if not self.build.id:
                await self._take_any(but=named)
            return
        self._refused = None
        await self._serve(build)

    async def _take_any(self, *, but: str) -> None:
        await self._serve(await asyncio.to_thread(self._newest_sound, but=but))
        if not self.build.id:
            self._look_again_at = time.monotonic() + LOOK_FOR_ANY_EVERY_S

    async def _serve(self, build: Build) -> None:
        if build.id:
            served = await asyncio.to_thread(self._overlay.over, build)
            previous, self._base, self.build = self._base, build, served
            log.info("new build is live", extra={"build": build.id, "previous": previous.id, "passages": served.count})

    def _newest_sound(self, *, but: str) -> Build:
        """The newest kept build that can be served, `but` left out; `NoBuild` where there is none."""
        try:
            kept = self.backend.kept_ids()
        except (OSError, IndexUnavailable):
            kept = []
        for build_id in kept:
            # Those that are not sound were never asked for, so that nobody needs to hear of them.
            if build_id != but:
                with contextlib.suppress(IndexUnavailable):
                    return self.backend.open(model=self._model, build_id=build_id)
        return NoBuild()

    def _is_unreachable(self) -> bool:
        return self._refused is not None and self._refused["reason"] == REASONS["BuildUnreachable"]

    def _named(self) -> str:
        try:
            return self.backend.live_id()
        except IndexUnavailable:
            return ""

    def _refuse(self, named: str, error: IndexUnavailable) -> None:
        refused = {"build": named, "reason": REASONS[type(error).__name__]}
        if refused == self._refused:
            return
        self._refused = refused
        if self._is_unreachable():
            log.error("index cannot be reached, nothing is found until it can", extra={"reason": str(error)})
            return
        log.error(
            "build refused, the live one keeps serving" if self.build.id else "build refused, nothing can be served",
            extra={"build": named, "reason": str(error), "serving": self.build.id},
        )

"""What keeps builds, as everybody else sees it. Another one is one class, and one line in `opening`.

Imports nothing that starts threads: gunicorn's master asks a backend too, before it forks.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from rag.search.hybrid import Build


class Draft(Protocol):
    """A build that is being made. Nobody else sees it before it is published; left without that, it is gone."""

    folder: Path
    """Where its passages are written, with `PassageWriter`."""

    def room(self, count: int, dimensions: int) -> "np.ndarray":
        """Where `count` vectors can be put, row by row."""

    def complete(self, vectors: "np.ndarray") -> dict[str, Any]:
        """Make everything that is searched, from the passages and their unit vectors [passages, dimensions].

        Returns the manifest's part: `passages`, `index` and `lexical`.
        """

    def opened(self, manifest: Mapping[str, Any]) -> "Build":
        """The complete build, to be looked at before it is published; `manifest` lacks what publishing adds."""

    def publish(self, manifest: Mapping[str, Any]) -> str:
        """Make it live, at once and as a whole; return its id. The oldest kept builds are removed."""


class Overlay(Protocol):
    """What was added beside the builds of a backend, as one process sees it."""

    def over(self, base: "Build") -> "Build":
        """`base` with everything on it that is in force; `base` itself where that is nothing."""

    def changed(self) -> bool:
        """Whether there is something to take up: asked about once a second."""

    def health(self, served: "Build") -> dict[str, Any]:
        """For `/ready`: nothing where nothing was added."""


class NothingAdded:
    """The overlay of a backend beside whose builds nothing can be added."""

    def over(self, base: "Build") -> "Build":
        return base

    def changed(self) -> bool:
        return False

    def health(self, served: "Build") -> dict[str, Any]:
        return {}


class Backend(Protocol):
    """Kept builds, and which one is live. Whatever fails raises `IndexUnavailable`. Threads may share it."""

    where: str
    """For logs and screens, without a password."""
    added_in: Path | None
    """The folder in which documents are added beside the builds: see `rag.search.hot`. None where that cannot be."""

    def live_id(self) -> str:
        """The live build's id. Raises `BuildMissing`."""

    def kept_ids(self) -> Sequence[str]:
        """Ids of the complete builds, newest first."""

    def manifest(self, build_id: str) -> dict[str, Any]:
        """Of a kept build; its `files` say how many bytes each of its parts has."""

    def verify(self, *, anew: bool = False) -> dict[str, Any]:
        """The live build's manifest, once the build was found sound; with `anew` down to the last byte."""

    def open(self, *, model: str | None = None, build_id: str | None = None) -> "Build":
        """`build_id`, or else the live build. Raises `BuildMismatch` for one made with another model than `model`."""

    def overlay(self) -> Overlay:
        """What is laid over the build that a process serves; kept for as long as that goes on."""

    def known_vectors(self, *, model: str) -> "Mapping[str, np.ndarray]":
        """Vectors of the live build by content hash; empty where none of `model` are to be had."""

    def writing(self) -> AbstractContextManager[Draft]:
        """A new build, made by one process at a time. Raises `BlockingIOError` while another one makes one."""

    def rollback(self, build_id: str | None = None) -> str:
        """Make `build_id`, or else the build that was live before, live again, after checking it; return its id."""

    def serving(self, build_id: str) -> None:
        """Told about once a second which build this process serves, so that it is not removed meanwhile."""

    def output(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """What another indexer needs to build here: arguments, and variables of its environment."""

    def close(self) -> None: ...

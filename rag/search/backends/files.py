"""Builds in the files of one folder: see `rag.search.builds`. What loads faiss is imported when it is needed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.search import builds
from rag.search.backends.protocol import Overlay

if TYPE_CHECKING:
    import numpy as np

    from rag.search.hybrid import Build


class FileDraft:
    """See `rag.search.backends.protocol.Draft`."""

    def __init__(self, root: Path, folder: Path, bounds: Mapping[str, int]) -> None:
        self._root = root
        self.folder = folder
        self._bounds = bounds

    def room(self, count: int, dimensions: int) -> "np.ndarray":
        from rag.search import vector_files

        return vector_files.room(self.folder, count, dimensions, **self._bounds)

    def complete(self, vectors: "np.ndarray") -> dict[str, Any]:
        from rag.search import hybrid

        return hybrid.complete(self.folder, vectors, **self._bounds)

    def opened(self, manifest: Mapping[str, Any]) -> "Build":
        from rag.search import hybrid

        return hybrid.Build(folder=self.folder, manifest={**manifest, "id": "not published"})

    def publish(self, manifest: Mapping[str, Any]) -> str:
        return builds.publish(self._root, self.folder, dict(manifest))


class FileBackend:
    """See `rag.search.backends.protocol.Backend`."""

    def __init__(self, root: Path, *, exact_up_to: int | None = None) -> None:
        """Beyond `exact_up_to` passages times dimensions an index is approximate: see `vector_files`."""
        self.root = root
        self.where = str(root)
        self.added_in: Path | None = root
        self._bounds = {} if exact_up_to is None else {"exact_up_to": exact_up_to}

    def live_id(self) -> str:
        return builds.live_id(self.root)

    def kept_ids(self) -> list[str]:
        return builds.kept_ids(self.root)

    def manifest(self, build_id: str) -> dict[str, Any]:
        return builds.read_manifest(builds.folder_of(self.root, build_id))

    def verify(self, *, anew: bool = False) -> dict[str, Any]:
        return builds.verify(builds.folder_of(self.root, self.live_id()), anew=anew)

    def open(self, *, model: str | None = None, build_id: str | None = None) -> "Build":
        from rag.search import hybrid

        return hybrid.open_build(self.root, model=model, build_id=build_id)

    def overlay(self) -> Overlay:
        from rag.search.hot.following import Segments

        return Segments(self.root)

    def known_vectors(self, *, model: str) -> "Mapping[str, np.ndarray]":
        from rag.search import hybrid

        return hybrid.known_vectors(self.root, model=model)

    @contextmanager
    def writing(self) -> Iterator[FileDraft]:
        with builds.writing(self.root) as folder:
            yield FileDraft(self.root, folder, self._bounds)

    def rollback(self, build_id: str | None = None) -> str:
        return builds.rollback(self.root, build_id)

    def serving(self, build_id: str) -> None:
        """Open files stay readable after they are removed."""

    def output(self) -> tuple[Sequence[str], Mapping[str, str]]:
        return ["--output", str(self.root.absolute())], {}

    def close(self) -> None:
        """Nothing is held open."""

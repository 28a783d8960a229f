"""What a server serves of an index in files: the build, with all that was added."""

from pathlib import Path

from rag.search.backends.files import FileBackend
from rag.search.hybrid import Build


def open_served(root: Path, *, model: str | None = None, build_id: str | None = None) -> Build:
    backend = FileBackend(root)
    return backend.overlay().over(backend.open(model=model, build_id=build_id))

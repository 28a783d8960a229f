"""The files of the live index at one moment, held open for whoever copies them, and put back where they belong."""

from pathlib import Path
from typing import IO, NamedTuple

from rag import durable
from rag.errors import BuildDamaged
from rag.search import builds
from rag.search.hot import generation

NAME = rf"(?:{generation.NAME}|(?:{generation.SEGMENTS}/)?{builds.ID.pattern}/[A-Za-z0-9_-][A-Za-z0-9._-]*)"
"""A pattern for what the files are called."""
TAKEN = ("CURRENT", "builds", generation.NAME, generation.SEGMENTS)
"""What must not be there where an index is put back."""


class Held(NamedTuple):
    """One file, open."""

    name: str
    """`<build>/<file>`, `segments/<segment>/<file>` or `GENERATION`."""
    content: IO[bytes]
    sha256: str | None
    """What its manifest says; None for a manifest itself."""


def opened(root: Path) -> list[Held]:
    """The live build and what was added beside it. A publisher that removes files meanwhile takes nothing away.

    Raises `IndexUnavailable` and OSError.
    """
    for attempt in range(3):
        folders = [builds.folder_of(root, builds.live_id(root))]
        held: list[Held] = []
        try:
            if present := generation.read(root).segments:
                folders += [generation.folder_of(root, name) for name in present]
                held.append(Held(generation.NAME, (root / generation.NAME).open("rb"), None))
            for place, folder in enumerate(folders):
                manifest, above = builds.read_manifest(folder), f"{generation.SEGMENTS}/" if place else ""
                held.append(Held(f"{above}{folder.name}/manifest.json", (folder / "manifest.json").open("rb"), None))
                for name, about in manifest["files"].items():
                    held.append(Held(f"{above}{folder.name}/{name}", (folder / name).open("rb"), about["sha256"]))
            if present == generation.read(root).segments:
                return held
        except (OSError, BuildDamaged):
            if attempt == 2 or all(folder.exists() for folder in folders):
                raise
        for one in held:
            one.content.close()
    raise BuildDamaged(f"{root} changes all the time; try again")


def put_back(staged: Path, root: Path) -> None:
    """Move what was copied, now in `staged`, into the empty `root`. Raises `BuildDamaged` where it is not sound."""
    segments = staged / generation.SEGMENTS
    if segments.is_dir():
        for folder in segments.iterdir():
            folder.chmod(0o755)
            builds.verify(folder)
        segments.chmod(0o755)
        segments.rename(root / generation.SEGMENTS)
        (staged / generation.NAME).rename(root / generation.NAME)
    for build in (path for path in staged.iterdir() if builds.ID.fullmatch(path.name)):
        place = builds.folder_of(root, build.name)
        place.parent.mkdir()
        build.chmod(0o755)
        build.rename(place)
        durable.sync(place.parent)
        builds.verify(place)
        builds.make_live(root, build.name)

"""Which files there are below the folders and files that are named. Opens none of them."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from indexer.documents import Skipped
from indexer.formats import FORMATS
from rag.errors import ConfigError

NOT_ENTERED = {
    **dict.fromkeys(("node_modules", "bower_components", "site-packages"), "packages of others"),
    **dict.fromkeys(("_includes", "_layouts", "_sass"), "parts that pages are made of"),
    "_sources": "what pages were made from",
}
"""Folders that hold no pages of the site, and what they hold: npm's and pip's, Jekyll's and Eleventy's, Sphinx's."""
DRAFTS = "_drafts"
"""Where Jekyll and Hexo keep what is not published yet."""
NOT_FOUND = re.compile(r"(?:[a-z]{2}(?:-[a-z]{2,4})?/)?404(?:/index)?\.(?:html?|mdx?)", re.IGNORECASE)
"""What a server shows where there is nothing, at the root of the site or of a language. Deeper ones may explain it."""


class File(NamedTuple):
    path: Path
    source: str
    """The path relative to the folder that was named, with forward slashes."""


class Found(NamedTuple):
    files: list[File]
    """Sorted by name, each once."""
    skipped: list[Skipped]
    """What was found and is not read: single files, and folders as a whole, with a slash at the end."""


def find(sources: Sequence[Path], *, with_unpublished: bool = False) -> Found:
    """Every readable file in the folders and files named, hidden ones left out.

    What is named is always taken. Below a folder that is named, what belongs to no site is skipped, and so are drafts
    unless `with_unpublished`. Links are followed within a folder, never out of it: a file from elsewhere must be named
    to be published. Raises ConfigError that names every source that does not exist or cannot be read.
    """
    faults: list[str] = []
    files: dict[str, File] = {}
    skipped: list[Skipped] = []
    taken: set[str] = set()
    for given in sources:
        root = given.resolve()
        if root.is_file() and root.suffix.lower() in FORMATS:
            found = [(root, given.name, root.parent)]
        elif root.is_dir():
            below = [(path, path.relative_to(root).as_posix()) for path in _walk(root, faults, skipped)]
            reasons = {relative: _reason(relative, with_unpublished=with_unpublished) for _, relative in below}
            skipped += [Skipped(relative, reason) for relative, reason in reasons.items() if reason]
            found = [(path, relative, root) for path, relative in below if not reasons[relative]]
        else:
            found = []
            known = f"not a type that can be read ({' '.join(FORMATS)})"
            faults.append(f"{given}: {known if root.exists() else 'there is no such file or folder'}")
        for path, relative, folder in found:
            real = os.path.realpath(path)
            if real not in files:
                files[real] = File(path, _unique(relative, folder, path, taken))
    if faults:
        raise ConfigError(faults)
    return Found(sorted(files.values(), key=lambda file: file.source), skipped)


def _walk(root: Path, faults: list[str], skipped: list[Skipped]) -> Iterator[Path]:
    """Readable files below `root`; every folder is entered once, so that links cannot go round in circles."""
    entered = {os.path.realpath(root)}

    def refuse(error: OSError) -> None:
        faults.append(f"{error.filename}: {(error.strerror or 'cannot be opened').lower()}")

    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        kept = []
        for name in sorted(folders):
            path = Path(folder, name)
            real = os.path.realpath(path)
            if name.startswith(".") or real in entered or not _is_within(real, root):
                continue
            if holds := NOT_ENTERED.get(name) or ("packages of others" if (path / "pyvenv.cfg").is_file() else ""):
                skipped.append(Skipped(f"{path.relative_to(root).as_posix()}/", holds))
                continue
            entered.add(real)
            kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in FORMATS or not path.is_file():
                continue
            if _is_within(os.path.realpath(path), root):
                yield path


def _reason(relative: str, *, with_unpublished: bool) -> str:
    """Why a file below a folder is no page of the site; empty for one that is."""
    if NOT_FOUND.fullmatch(relative):
        return "the page for addresses that do not exist"
    return f"a draft (in {DRAFTS})" if not with_unpublished and DRAFTS in relative.split("/")[:-1] else ""


def _is_within(real: str, root: Path) -> bool:
    return Path(real).is_relative_to(root)


def _unique(relative: str, folder: Path, path: Path, taken: set[str]) -> str:
    """The relative name, or one with its folder in front where another source has the same."""
    for name in (relative, f"{folder.name}/{relative}", path.as_posix().lstrip("/")):
        if name not in taken:
            break
    taken.add(name)
    return name

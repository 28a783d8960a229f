"""Which files there are below the folders and files that are named. Opens none of them."""

import os
import re
from collections import Counter
from collections.abc import Sequence
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
ERROR_PAGES = {"400", "401", "403", "404", "410", "429", "500", "502", "503", "504"}


class File(NamedTuple):
    path: Path
    source: str
    """Its path below the folder that was named, with forward slashes; each once."""


class Found(NamedTuple):
    files: list[File]
    """Sorted by name, each once."""
    skipped: list[Skipped]
    """What was found and is not read: single files, and folders as a whole, with a slash at the end."""
    passed_over: Counter[str]
    """How many files of other types there were, by their extension in lower case."""


def find(sources: Sequence[Path], *, with_unpublished: bool = False) -> Found:
    """Every readable file in the folders and files named, hidden ones left out.

    What is named is always taken. Below a folder that is named, what belongs to no site is skipped, and so are drafts
    unless `with_unpublished`. Links are followed within a folder, never out of it: a file from elsewhere must be named
    to be published. Raises ConfigError that names every source that does not exist or cannot be read.
    """
    roots = [_rooted(given) for given in sources]
    faults = [fault for given, root in zip(sources, roots, strict=True) if (fault := _fault(given, root))]
    if faults:
        raise ConfigError(faults)
    walk = _Walk(with_unpublished=with_unpublished)
    for root in roots:
        walk.take(root)
    return Found(sorted(walk.files.values(), key=lambda file: file.source), walk.skipped, walk.passed_over)


def _rooted(given: Path) -> Path:
    """The source without links and dots on the way to it; a link that is named itself keeps its name."""
    return given.resolve() if given.is_dir() else given.parent.resolve() / given.name


def _fault(given: Path, root: Path) -> str:
    """Why a source cannot be taken, or nothing."""
    if root.is_dir():
        try:
            os.scandir(root).close()
        except OSError as error:
            return f"{given}: {(error.strerror or 'cannot be opened').lower()}"
        return ""
    if root.is_file() and root.suffix.lower() in FORMATS:
        return ""
    known = f"not a type that can be read ({' '.join(FORMATS)})"
    return f"{given}: {known if root.exists() else 'there is no such file or folder'}"


class _Walk:
    """Goes through what was named, and notes what it finds under its name below that."""

    def __init__(self, *, with_unpublished: bool) -> None:
        self._with_unpublished = with_unpublished
        self.files: dict[str, File] = {}
        """By their real paths."""
        self.skipped: list[Skipped] = []
        self.passed_over: Counter[str] = Counter()
        self._taken: set[str] = set()

    def take(self, root: Path) -> None:
        self._top = root if root.is_dir() else root.parent
        if not root.is_dir():
            self._add(root)
            return
        entered = {os.path.realpath(root)}
        for folder, folders, names in os.walk(root, followlinks=True, onerror=self._closed):
            # Every folder is entered once, so that links cannot go round in circles.
            folders[:] = [name for name in sorted(folders) if self._enters(Path(folder, name), root, entered)]
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or not path.is_file() or not _is_within(os.path.realpath(path), root):
                    continue
                if path.suffix.lower() not in FORMATS:
                    self.passed_over[path.suffix.lower()] += 1
                elif reason := self._reason(path, root):
                    self.skipped.append(Skipped(self._name(path), reason))
                else:
                    self._add(path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._top).as_posix()

    def _add(self, path: Path) -> None:
        real = os.path.realpath(path)
        if real not in self.files:
            self.files[real] = File(path, self._unique(path))

    def _unique(self, path: Path) -> str:
        """Its name, or one with its folder in front where a file of another source has the same."""
        relative = self._name(path)
        names = (relative, f"{self._top.name}/{relative}", path.as_posix().lstrip("/"))
        name = next((name for name in names if name not in self._taken), relative)
        self._taken.add(name)
        return name

    def _closed(self, error: OSError) -> None:
        reason = (error.strerror or "cannot be opened").lower()
        self.skipped.append(Skipped(f"{self._name(Path(error.filename))}/", reason))

    def _enters(self, path: Path, root: Path, entered: set[str]) -> bool:
        real = os.path.realpath(path)
        if path.name.startswith(".") or real in entered or not _is_within(real, root):
            return False
        holds = NOT_ENTERED.get(path.name) or ("packages of others" if (path / "pyvenv.cfg").is_file() else "")
        if holds:
            self.skipped.append(Skipped(f"{self._name(path)}/", holds))
            return False
        entered.add(real)
        return True

    def _reason(self, path: Path, root: Path) -> str:
        """Why a file below a folder is no page of the site; empty for one that is."""
        relative = path.relative_to(root)
        if NOT_FOUND.fullmatch(relative.as_posix()) and not self._is_numbered(path):
            return "the page for addresses that do not exist"
        is_draft = not self._with_unpublished and DRAFTS in relative.parent.parts
        return f"a draft (in {DRAFTS})" if is_draft else ""

    def _is_numbered(self, path: Path) -> bool:
        """Whether it is one of a collection, with 405 after it, and not an error page beside those for 403 and 500."""
        folder = path.parent if path.stem == "404" else path.parent.parent
        return any(other.stem.isdecimal() and other.stem not in ERROR_PAGES for other in folder.iterdir())


def _is_within(real: str, root: Path) -> bool:
    return Path(real).is_relative_to(root)

"""Patterns of what is left out, `LICENSE*` or `drafts/*`, and whether each left anything out. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit


class Exclusions:
    """Shell patterns: `*` stands for any text, slashes too, `?` for one character, `[ab]` for one of these."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._matched = dict.fromkeys(patterns, 0)

    def excludes(self, name: str) -> bool:
        """Whether a file is left out, known by its path below the folder that was named."""
        matching = [pattern for pattern in self._matched if fnmatchcase(name, pattern)]
        for pattern in matching:
            self._matched[pattern] += 1
        return bool(matching)

    def excludes_address(self, url: str) -> bool:
        """Whether a page is left out, by its whole address or by its path, with and without the first slash."""
        path = unquote(urlsplit(url).path)
        # All are asked, not the first that matches: each pattern's effect counts.
        return sum(self.excludes(name) for name in (url, path, path.removeprefix("/"))) > 0

    def unmatched(self) -> list[str]:
        """The patterns that left nothing out: misspelled, or no longer needed."""
        return [pattern for pattern, count in self._matched.items() if not count]

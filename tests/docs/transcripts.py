"""Console blocks as commands with their output, and whether a real output is the one that is shown. Runs nothing.

What is shown may be abridged with an ellipsis: a line of its own stands for any lines, one at the end of a list for
further items, a key of that name for further keys, one within a text for any text. Times, ids and scores need only be
of the same kind; a build's id must be the same one wherever the page shows the same.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.docs.documents import Block

MORE = "…"
BUILD = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
CHANGING = {
    "timestamp", "given_at", "oldest", "request_id", "session_id", "build", "passages", "messages", "sessions",
    "similarity_score", "similarity", "created",
}  # fmt: skip
"""Fields whose values differ from run to run; the ids that a page chooses itself (`example-…`) do not."""
CHANGING_NUMBERS = re.compile(r"(?i)^(seconds +|x-ratelimit-(?:remaining|reset): )[\d.]+$|(?<=, )\d+\.\d MB$")


@dataclass(frozen=True, slots=True)
class Step:
    command: str
    shown: str


def steps(block: Block) -> list[Step]:
    """The commands of a console block, each with the lines below it."""
    first, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not first.strip(), f"{block.page}: a console block begins with a command, not with {first.strip()[:60]!r}"
    found = []
    for part in parts:
        command, _, shown = part.partition("\n")
        found.append(Step(command, shown.strip("\n")))
    return found


@dataclass(slots=True)
class Transcript:
    """Compares what a page shows with what happened, and remembers which build is meant by which id."""

    builds: dict[str, str] = field(default_factory=dict)

    def command(self, step: Step) -> str:
        """The step's command, with the ids of this run."""
        return BUILD.sub(lambda found: self.builds[found[0]], step.command)

    def difference(self, shown: str, happened: str) -> str | None:
        """What differs, in words; None where nothing does."""
        document = _json(shown)
        if document is None:
            return self._lines(shown.splitlines(), happened.strip("\n").splitlines())
        real = _json(happened)
        return f"no JSON: {happened[:300]!r}" if real is None else self._value(document, real, "")

    def _lines(self, shown: list[str], happened: list[str]) -> str | None:
        at, skipping = 0, False
        for line in shown:
            if line.strip() == MORE:
                skipping = True
                continue
            places = range(at, len(happened)) if skipping else range(at, min(at + 1, len(happened)))
            place = next((place for place in places if self._line(line, happened[place])), None)
            if place is None:
                return f"shown is {line!r}, but there is {happened[at : at + 3]!r}"
            at, skipping = place + 1, False
        rest = [line for line in happened[at:] if line.strip()]
        return f"not shown is {rest[:3]!r}" if rest and not skipping else None

    def _line(self, shown: str, happened: str) -> bool:
        if shown.startswith("data: ") and happened.startswith("data: "):
            document, real = _json(shown[6:]), _json(happened[6:])
            if document is not None:
                return real is not None and self._value(document, real, "") is None
        plain_shown, plain_happened = (CHANGING_NUMBERS.sub(r"\1N", BUILD.sub("B", line)) for line in (shown, happened))
        if not _fits(plain_shown.rstrip(), plain_happened.rstrip()):
            return False
        pairs = zip(BUILD.findall(shown), BUILD.findall(happened), strict=False)
        return all(self.builds.setdefault(one, other) == other for one, other in pairs)

    def _value(self, shown: Any, happened: Any, place: str) -> str | None:
        name = place.rpartition(".")[2]
        if name in CHANGING and not str(shown).startswith("example-"):
            return None if type(shown) is type(happened) else f"{place} is {happened!r}"
        match shown, happened:
            case dict(), dict():
                names = shown.keys() - {MORE}
                if names - happened.keys() or (MORE not in shown and happened.keys() - names):
                    return f"{place} has the fields {sorted(happened)}, not {sorted(names)}"
                found = (self._value(shown[key], happened[key], f"{place}.{key}") for key in names)
                return next((fault for fault in found if fault), None)
            case list(), list():
                wanted = shown[:-1] if shown[-1:] == [MORE] else shown
                if len(happened) < len(wanted) or (wanted is shown and len(happened) != len(shown)):
                    return f"{place} has {len(happened)} items"
                found = (self._value(one, other, place) for one, other in zip(wanted, happened, strict=False))
                return next((fault for fault in found if fault), None)
            case str(), str():
                return None if _fits(shown, happened) else f"{place} is {happened[:200]!r}"
        return None if shown == happened else f"{place} is {happened!r}"


def _fits(shown: str, happened: str) -> bool:
    """Whether `happened` is `shown`, where an ellipsis in `shown` stands for any text."""
    if shown == happened:
        return True
    pattern = ".*".join(re.escape(part) for part in shown.split(MORE))
    return MORE in shown and re.fullmatch(pattern, happened, re.DOTALL) is not None


def _json(text: str) -> Any:
    """The document in `text`, None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None

"""The passages of a build on disk: JSON, one line a passage, and where each line begins. Knows no vector or checksum.

Neither writing nor reading holds more than one passage in memory, however many there are.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import orjson

from rag.search.mapped_arrays import mapped
from rag.types import Link, Passage, Section

LINES = "passages.jsonl"
OFFSETS = "passages.npy"


class PassageList(Protocol):
    """Passages by their rows, wherever they are kept."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Passage: ...

    def __iter__(self) -> Iterator[Passage]: ...


class PassageWriter:
    """Writes the passages of a build into `folder`, in the order of their rows. Complete once it is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / LINES).open("wb")
        self._offsets = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        np.save(self._folder / OFFSETS, np.frombuffer(self._offsets, dtype=np.int64), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def add(self, passage: Passage) -> None:
        self._offsets.append(self._offsets[-1] + self._file.write(orjson.dumps(passage) + b"\n"))


class Passages:
    """The passages of a build, mapped from disk; `passages[row]` is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError or ValueError for files that are not what `PassageWriter` left."""
        # Plain views of the mappings: numpy's memmap subclass doubles the price of every slice.
        self._offsets = np.asarray(mapped(folder / OFFSETS))
        has_text = (folder / LINES).stat().st_size > 0  # nothing cannot be mapped
        self._lines = np.asarray(np.memmap(folder / LINES, dtype=np.uint8, mode="r")) if has_text else np.empty(0, "u1")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> Passage:
        """Raises IndexError beyond the last row."""
        return decoded(self.line(row))

    def line(self, row: int) -> bytes:
        """The passage as it was written."""
        return self._lines[int(self._offsets[row]) : int(self._offsets[row + 1])].tobytes()

    def __iter__(self) -> Iterator[Passage]:
        return (self[row] for row in range(len(self)))


def decoded(line: bytes) -> Passage:
    """The passage of a line that `PassageWriter` wrote."""
    fields = orjson.loads(line)
    sections = tuple(map(_section, fields.get("sections", ())))
    links = tuple(Link(**link) for link in fields.get("links", ()))
    return Passage(**{**fields, "headings": tuple(fields["headings"]), "sections": sections, "links": links})


def _section(fields: dict[str, Any]) -> Section:
    phrases = tuple((start, end) for start, end in fields["phrases"])
    return Section(fields["start"], fields["end"], tuple(fields["headings"]), fields["anchor"], phrases)

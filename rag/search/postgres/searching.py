"""One build in PostgreSQL, open: what is searched is asked of the database, what is weighed and fused is done here.

A search is four statements: the question's words, its nearest vectors, and vectors and texts of the best passages.
Vectors and words behave as those of files do, so that `rag.search.hybrid` does not tell which it has.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from rag.errors import BuildDamaged, BuildMismatch
from rag.search.bm25 import Lexical, hashes_of
from rag.search.fusion import Nearest, sample_rows
from rag.search.hybrid import Build
from rag.search.passages import decoded
from rag.search.postgres import halves
from rag.search.postgres.catalogue import schema_of
from rag.search.postgres.halves import Floats
from rag.search.postgres.link import Link
from rag.search.spelling.vocabulary import KINDS, Vocabulary
from rag.text.terms import ANALYSIS_VERSION
from rag.types import Passage

AT_A_TIME = 512
"""Passages that are read in one statement, where all of them are."""
REMEMBERED_BYTES = 32 * 1024 * 1024
"""Of words' postings, for each build and process: those that stand in many passages are asked for often."""

Postings = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Rows and shares of the score, as `rag.search.bm25` has them."""


class PostgresBuild(Build):
    """A build in the schema of its id."""

    def __init__(self, *, link: Link, build_id: str, manifest: dict[str, Any]) -> None:
        """Raises `BuildDamaged`, `BuildMismatch` or `BuildUnreachable`."""
        schema, where = schema_of(build_id), f"build {build_id} in {link.where}"
        passages = PostgresPassages(link, schema, count=int(manifest["passages"]))
        self._read(
            manifest, where=where,
            parts=lambda: (
                PostgresVectors(link, schema, count=len(passages), dimensions=manifest["embedding"]["dimensions"]),
                passages, PostgresLexical(link, schema, manifest["lexical"], where=where),
            ),
        )  # fmt: skip
        self._several = passages.several
        self._vocabulary = _vocabulary(link, schema)

    def passages_of(self, rows: Sequence[int]) -> list[Passage]:
        return self._several(rows)


class PostgresPassages:
    """See `rag.search.passages.PassageList`."""

    def __init__(self, link: Link, schema: sql.Identifier, *, count: int) -> None:
        self._link = link
        self._statement = sql.SQL(
            "SELECT row, convert_to(passage::text, 'UTF8') FROM {}.passages WHERE row = ANY(%s)"
        ).format(schema)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Passage:
        return self.several([row])[0]

    def __iter__(self) -> Iterator[Passage]:
        for first in range(0, self._count, AT_A_TIME):
            yield from self.several(range(first, min(first + AT_A_TIME, self._count)))

    def several(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of `rows`, in their order. Raises `BuildDamaged` for one that is gone."""
        found = dict(self._link.rows(self._statement, [list(rows)])) if rows else {}
        if missing := [row for row in rows if row not in found]:
            raise BuildDamaged(f"{self._link.where}: passages {missing[:3]} are gone; run: python -m indexer verify")
        return [decoded(found[row]) for row in rows]


class PostgresVectors:
    """See `rag.search.vectors.Vectors`. Cosines are those of vectors and questions rounded to float16: within .0005."""

    is_exact = False

    def __init__(self, link: Link, schema: sql.Identifier, *, count: int, dimensions: int) -> None:
        self._link = link
        self._several = sql.SQL("SELECT row, vector FROM {}.passages WHERE row = ANY(%s)").format(schema)
        self._nearest = sql.SQL("SELECT place, similarity FROM {}.nearest(%s, %s)").format(schema)
        self._all = sql.SQL("SELECT -(vector <#> %s::halfvec) FROM {}.passages ORDER BY row").format(schema)
        self.count, self.dimensions = count, dimensions
        # Some vectors that tell how all similarities are spread; on files they are mapped.
        self._sample = self.vectors(sample_rows(count).tolist())

    def vector(self, row: int) -> Floats:
        return np.asarray(self.vectors([row])[0])

    def vectors(self, rows: Sequence[int]) -> Floats:
        found = dict(self._link.rows(self._several, [list(rows)])) if rows else {}
        if missing := [row for row in rows if row not in found]:
            raise BuildDamaged(f"{self._link.where}: vectors {missing[:3]} are gone; run: python -m indexer verify")
        return halves.received([found[row] for row in rows], self.dimensions)

    def nearest(self, question: Floats, *, also: NDArray[np.int64]) -> Nearest:
        found = dict(self._link.rows(self._nearest, [halves.sent(question), also.tolist()]))
        rows = np.fromiter(found, dtype=np.int64, count=len(found))
        similarities = np.fromiter(found.values(), dtype=np.float32, count=len(found))
        order = np.argsort(rows)
        spread = self._sample @ np.asarray(question, dtype=np.float32)
        return Nearest(rows[order], similarities[order], mean=float(spread.mean()), deviation=float(spread.std()))

    def similarities(self, question: Floats) -> Floats:
        found = self._link.rows(self._all, [halves.sent(question)], timeout_s=None)
        return np.array([similarity for (similarity,) in found], dtype=np.float32)


class PostgresLexical(Lexical):
    """The words of a build: the postings of a question's terms are fetched, and scored as those of files are."""

    def __init__(self, link: Link, schema: sql.Identifier, about: Mapping[str, Any], *, where: str) -> None:
        """`about` is the manifest's `lexical`. Raises `BuildMismatch` for terms made by another version."""
        # Not the base class's: there are no arrays of its own.
        if about.get("analysis_version") != ANALYSIS_VERSION:
            version = about.get("analysis_version")
            raise BuildMismatch(f"{where}: terms of version {version}, this server reads {ANALYSIS_VERSION}; rebuild")
        self.languages = tuple(str(code) for code in about["languages"])
        self.passages = int(about["passages"])
        self._link = link
        self._statement = sql.SQL("SELECT term, postings FROM {}.postings WHERE term = ANY(%s)").format(schema)
        self._known: OrderedDict[int, Postings] = OrderedDict()
        self._known_bytes = 0
        self._changing = threading.Lock()

    def words(self, question: str) -> list[tuple[str, ...]]:
        asked = super().words(question)
        # All at once: each of them is asked about next.
        self._postings(hashes_of(form for forms in asked for form in forms))
        return asked

    def knows(self, forms: Sequence[str]) -> bool:
        return any(len(rows) for rows, _ in self._postings(hashes_of(forms)).values())

    def scores(self, words: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        asked = [tuple(forms) for forms in words]
        return self._of(asked).scores(asked)

    def coverage(self, words: Iterable[Sequence[str]], rows: Sequence[int]) -> list[float]:
        asked = [tuple(forms) for forms in words]
        return self._of(asked).coverage(asked, rows)

    def _of(self, asked: Iterable[tuple[str, ...]]) -> Lexical:
        """An index of the same passages that has no terms but those that are asked for."""
        wanted = sorted(set(hashes_of(form for forms in asked for form in forms)))
        postings = self._postings(wanted)
        present = [term for term in wanted if len(postings[term][0])]
        counts = [len(postings[term][0]) for term in present]
        return Lexical(
            hashes=np.array(present, dtype=np.uint64),
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            rows=np.concatenate([np.empty(0, dtype=np.int32), *(postings[term][0] for term in present)]),
            impacts=np.concatenate([np.empty(0, dtype=np.float32), *(postings[term][1] for term in present)]),
            languages=self.languages, passages=self.passages,
        )  # fmt: skip

    def _postings(self, terms: Sequence[int]) -> dict[int, Postings]:
        """Of each term what stands in the build; empty for one that no passage has."""
        with self._changing:
            found = {term: self._known[term] for term in terms if term in self._known}
            for term in found:
                self._known.move_to_end(term)
        if missing := [term for term in terms if term not in found]:
            nothing = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))
            fetched = dict.fromkeys(missing, nothing)
            for term, sent in self._link.rows(self._statement, [[signed(term) for term in missing]]):
                half = len(sent) // 2
                fetched[term % 2**64] = (
                    np.frombuffer(sent, dtype="<i4", count=half // 4),
                    np.frombuffer(sent, dtype="<f4", offset=half),
                )
            found |= fetched
            self._remember(fetched)
        return found

    def _remember(self, fetched: Mapping[int, Postings]) -> None:
        with self._changing:
            for term, postings in fetched.items():
                if term not in self._known:
                    self._known[term] = postings
                    self._known_bytes += _bytes(postings)
            while self._known_bytes > REMEMBERED_BYTES:
                _, forgotten = self._known.popitem(last=False)
                self._known_bytes -= _bytes(forgotten)


def _vocabulary(link: Link, schema: sql.Identifier) -> Vocabulary:
    """A build's words, from which misspelled ones are told: some megabytes of each process, 25 at most."""
    found = dict(link.rows(sql.SQL("SELECT name, content FROM {}.spelling").format(schema), timeout_s=60))
    return Vocabulary({
        name: np.frombuffer(found[name], dtype=np.dtype(kind).newbyteorder("<")) for name, kind in KINDS.items()
    })  # fmt: skip


def signed(term: int) -> int:
    """The hash of a term as PostgreSQL's bigint holds it."""
    return term - 2**64 if term >= 2**63 else term


def _bytes(postings: Postings) -> int:
    return 200 + postings[0].nbytes + postings[1].nbytes


class KnownVectors(Mapping[str, np.ndarray]):
    """Vectors by content hash, read from a build as they are asked for, with those of the rows behind them."""

    def __init__(self, link: Link, build_id: str) -> None:
        schema = schema_of(build_id)
        self._link = link
        self._block = sql.SQL("SELECT row, vector FROM {}.passages WHERE row BETWEEN %s AND %s").format(schema)
        found = link.rows(sql.SQL("SELECT content, row FROM {}.passages").format(schema), timeout_s=None)
        self._rows = {bytes(content): row for content, row in found}
        self._read: dict[int, np.ndarray] = {}

    def __getitem__(self, content_hash: str) -> np.ndarray:
        row = self._rows[bytes.fromhex(content_hash)]
        if row not in self._read:
            found = self._link.rows(self._block, [row, row + AT_A_TIME], timeout_s=60)
            vectors = halves.received([sent for _, sent in found], (len(found[0][1]) - 4) // 2)
            # Of a new version of a site most passages come in the order of the last one.
            self._read = {place: vector for (place, _), vector in zip(found, vectors, strict=True)}
        return self._read[row]

    def __contains__(self, content_hash: object) -> bool:
        return isinstance(content_hash, str) and bytes.fromhex(content_hash) in self._rows

    def __iter__(self) -> Iterator[str]:
        return (content.hex() for content in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

"""Makes a build in PostgreSQL: passages, words and vectors are prepared as files, copied, indexed and measured.

The order is that of `rag.search.builds.publish`: everything is there before the catalogue names it, and what is live
changes last.
"""

import hashlib
import logging
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from psycopg import Connection, errors, sql

from rag.errors import BuildMismatch, BuildUnreachable
from rag.search import hybrid, vector_files
from rag.search.bm25 import FILES
from rag.search.mapped_arrays import mapped
from rag.search.passages import Passages
from rag.search.postgres import halves
from rag.search.postgres.catalogue import FORMAT, Catalogue, name_of_schema, schema_of
from rag.search.postgres.link import Link
from rag.search.postgres.searching import PostgresBuild, signed
from rag.search.spelling import vocabulary

log = logging.getLogger(__name__)

M: Final = 16
EF_CONSTRUCTION: Final = 128
NEAREST: Final = 100
"""What one search names: more than four times what a question may ask for. `ef_search` begins here."""
MOST_EF_SEARCH: Final = 1_000
"""pgvector's own limit."""
INDEX_MEMORY_MB: Final = 1_024
"""What building an index may take where maintenance_work_mem allows less; beyond it, that decides. A graph that does
not fit takes many times as long."""
BLOCK_ROWS: Final = 1_024

_TABLES: Final = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.passages (
    row integer, content bytea NOT NULL, passage json NOT NULL, vector halfvec({dimensions}) NOT NULL
);
CREATE TABLE {schema}.postings (term bigint, postings bytea NOT NULL);
ALTER TABLE {schema}.postings ALTER postings SET STORAGE EXTERNAL;
CREATE TABLE {schema}.spelling (name text PRIMARY KEY, content bytea NOT NULL);
"""
_KEYS: Final = """
ALTER TABLE {schema}.passages ADD PRIMARY KEY (row);
ALTER TABLE {schema}.postings ADD PRIMARY KEY (term);
ANALYZE {schema}.passages, {schema}.postings
"""
_ALLOWED_MB: Final = "SELECT setting::integer / 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'"
_INDEX: Final = """
CREATE INDEX vectors ON {schema}.passages USING hnsw (vector halfvec_ip_ops) WITH (m = {m}, ef_construction = {ef})
"""
_NAMED: Final = "SELECT row FROM {schema}.passages ORDER BY vector <#> %s::halfvec LIMIT 10"
# One statement for a search, with what it needs set for it alone: behind PgBouncer nothing can be set for a session.
# Long vectors stand beside their table, which the planner does not know: it takes sorting all of them for cheap.
_NEAREST: Final = """
CREATE FUNCTION {schema}.nearest(question halfvec, also integer[]) RETURNS TABLE (place integer, similarity real)
LANGUAGE plpgsql STABLE SET hnsw.ef_search = {ef} SET enable_sort = off SET jit = off AS $$ BEGIN
    RETURN QUERY
    (SELECT one.row, -(one.vector <#> question)::real FROM {schema}.passages one
     ORDER BY one.vector <#> question LIMIT {nearest})
    UNION
    SELECT one.row, -(one.vector <#> question)::real FROM {schema}.passages one WHERE one.row = ANY (also);
END $$
"""


class PostgresDraft:
    """See `rag.search.backends.protocol.Draft`."""

    def __init__(
        self, link: Link, catalogue: Catalogue, *, folder: Path, build_id: str, created_at: str, in_parallel: bool
    ) -> None:
        self.folder = folder
        self._link = link
        self._catalogue = catalogue
        self._id = build_id
        self._created_at = created_at
        self._in_parallel = in_parallel
        self._parts: dict[str, Any] = {}

    def room(self, count: int, dimensions: int) -> np.ndarray:
        # As they are stored, so that what is taken from the live build and what is new are rounded alike.
        return open_memmap(self.folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(count, dimensions))

    def complete(self, vectors: np.ndarray) -> dict[str, Any]:
        count, dimensions = vectors.shape
        if dimensions > halves.MOST_DIMENSIONS:
            raise BuildMismatch(
                f"vectors of {dimensions} dimensions: pgvector indexes {halves.MOST_DIMENSIONS:,} at most; ask the "
                "embedding model for fewer, or keep the index in files"
            )
        passages = Passages(self.folder)
        lexical = hybrid.write_words(self.folder)
        spelling = vocabulary.write(self.folder, (passage.indexed_text for passage in passages))
        with self._link.transaction() as connection:
            self._run(connection, _TABLES, dimensions=dimensions)
            of_passages = self._copy(connection, "passages", _passage_rows(passages, vectors))
            of_postings = self._copy(connection, "postings", _posting_rows(self.folder))
            of_spelling = self._copy(connection, "spelling", _spelling_rows(self.folder))
            self._run(connection, _KEYS)
        index = self._indexed(np.asarray(vectors))
        self._parts = {
            name: {**about, "bytes": self._bytes(name)}
            for name, about in (("passages", of_passages), ("postings", of_postings), ("spelling", of_spelling))
        }
        return {"passages": count, "index": index, "lexical": lexical, "spelling": spelling}

    def opened(self, manifest: Mapping[str, Any]) -> hybrid.Build:
        return PostgresBuild(link=self._link, build_id=self._id, manifest={**manifest, "id": "not published"})

    def publish(self, manifest: Mapping[str, Any]) -> str:
        complete = {
            "format": FORMAT, "id": self._id, "created_at": self._created_at, **manifest, "files": self._parts
        }  # fmt: skip
        with self._link.transaction() as connection:
            self._catalogue.add(connection, self._id, complete)
        self._catalogue.make_live(self._id)
        try:
            self._catalogue.remove_old()
        except BuildUnreachable as error:
            # It is live all the same, and the next build removes them.
            log.warning("old builds not removed: %s", error)
        return self._id

    def _copy(self, connection: Connection[Any], table: str, rows: Iterator[list[bytes]]) -> dict[str, Any]:
        """Copy rows of fields into a table; return how many, and the checksum of `catalogue.DIGESTS`."""
        digest, count = hashlib.sha256(), 0
        into = sql.SQL("COPY {}.{} FROM STDIN (FORMAT BINARY)").format(schema_of(self._id), sql.Identifier(table))
        with connection.cursor() as cursor, cursor.copy(into) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
            for fields in rows:
                digest.update(hashlib.sha256(b"".join(fields)).digest())
                sized = b"".join(struct.pack("!i", len(field)) + field for field in fields)
                copy.write(struct.pack("!h", len(fields)) + sized)
                count += 1
            copy.write(struct.pack("!h", -1))
        return {"rows": count, "sha256": digest.hexdigest()}

    def _indexed(self, vectors: np.ndarray) -> dict[str, Any]:
        """Index the vectors, and look as far as it takes to find `RECALL_AT_10`, or as far as can be."""
        try:
            self._build_index(vectors, in_parallel=self._in_parallel)
        except errors.DiskFull:
            # Of shared memory, which containers have little of, and only several processes need.
            self._build_index(vectors, in_parallel=False)
        ef_search, recall = self._measured(vectors)
        self._link.rows(self._sql(_NEAREST, ef=ef_search, nearest=NEAREST), timeout_s=None)
        return {
            "type": "hnsw", "metric": "cosine", "m": M, "ef_construction": EF_CONSTRUCTION, "ef_search": ef_search,
            "recall_at_10": round(recall, 3),
        }  # fmt: skip

    def _build_index(self, vectors: np.ndarray, *, in_parallel: bool) -> None:
        # Of each passage its vector, and twice M neighbours on the lowest of its levels.
        graph_mb = len(vectors) * (2 * vectors.shape[1] + 2 * M * 16 + 256) // 2**20 + 1
        try:
            with self._link.transaction() as connection:
                connection.add_notice_handler(lambda notice: log.warning(notice.message_primary or ""))
                [(allowed_mb,)] = connection.execute(_ALLOWED_MB).fetchall()
                wanted_mb = max(allowed_mb, min(2 * graph_mb, INDEX_MEMORY_MB))
                connection.execute(sql.SQL("SET LOCAL maintenance_work_mem = {}").format(f"{wanted_mb}MB"))
                if not in_parallel:
                    connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
                self._run(connection, _INDEX, m=M, ef=EF_CONSTRUCTION)
        except BuildUnreachable as error:
            if isinstance(error.__cause__, errors.DiskFull) and in_parallel:
                raise error.__cause__ from None
            raise

    def _measured(self, vectors: np.ndarray) -> tuple[int, float]:
        """How far a search looks, and how many of the ten nearest passages of exact search it then finds."""
        asked = vector_files.trials(vectors)
        truth = vector_files.nearest(vectors, asked, count=min(10, len(vectors)))
        # Among equals any will do: what is found counts where it is no farther than the last of the ten.
        least = np.array([
            _products(vectors, rows, question).min() for rows, question in zip(truth, asked, strict=True)
        ])  # fmt: skip
        named, ef_search = self._sql(_NAMED), NEAREST
        while True:
            shares = []
            with self._link.transaction() as connection:
                connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(ef_search))
                connection.execute("SET LOCAL enable_sort = off")
                for question, far in zip(asked, least, strict=True):
                    found = connection.execute(named, [halves.sent(question)]).fetchall()
                    near = _products(vectors, np.array([row for (row,) in found]), question) >= far - 1e-6
                    shares.append(near.sum() / truth.shape[1])
            recall = float(np.mean(shares))
            if recall >= vector_files.RECALL_AT_10 or ef_search == MOST_EF_SEARCH:
                return ef_search, recall
            ef_search = min(ef_search + ef_search // 2, MOST_EF_SEARCH)

    def _bytes(self, table: str) -> int:
        of = f"{name_of_schema(self._id)}.{table}"
        return int(self._link.rows(self._sql("SELECT pg_total_relation_size({of}::regclass)", of=of))[0][0])

    def _run(self, connection: Connection[Any], script: str, **values: int) -> None:
        connection.execute(self._sql(script, **values))

    def _sql(self, script: Any, **values: Any) -> sql.Composed:
        return sql.SQL(script).format(schema=schema_of(self._id), **values)


def _products(vectors: np.ndarray, rows: NDArray[np.int64], question: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.asarray(vectors[rows], dtype=np.float32) @ question)


def _passage_rows(passages: Passages, vectors: np.ndarray) -> Iterator[list[bytes]]:
    for first in range(0, len(passages), BLOCK_ROWS):
        packed = halves.packed(vectors[first : first + BLOCK_ROWS])
        for place, vector in enumerate(packed):
            row = first + place
            line = passages.line(row).rstrip(b"\n")
            yield [struct.pack("!i", row), bytes.fromhex(passages[row].content_hash), line, vector.tobytes()]


def _posting_rows(folder: Path) -> Iterator[list[bytes]]:
    """From the files that `bm25.write` left in `folder`, in the order of their terms as PostgreSQL sorts them."""
    arrays = {name: np.asarray(mapped(folder / f"lexical_{name}.npy")) for name in FILES}
    for at in arrays["hashes"].view(np.int64).argsort().tolist():
        span = slice(int(arrays["starts"][at]), int(arrays["starts"][at + 1]))
        rows, impacts = arrays["rows"][span].astype("<i4"), arrays["impacts"][span].astype("<f4")
        yield [struct.pack("!q", signed(int(arrays["hashes"][at]))), rows.tobytes() + impacts.tobytes()]


def _spelling_rows(folder: Path) -> Iterator[list[bytes]]:
    """From the files that `vocabulary.write` left in `folder`."""
    for name, kind in sorted(vocabulary.KINDS.items()):
        values = np.asarray(mapped(folder / f"spelling_{name}.npy"))
        yield [name.encode(), values.astype(np.dtype(kind).newbyteorder("<")).tobytes()]

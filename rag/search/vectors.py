"""The vectors of an open build: every one compared while they are few, the likely ones when they are many.

The only user of faiss beside `vector_files`, which writes what is opened here. Knows nothing of passages, words or
builds. Everything is mapped or read from disk as it is needed, so that all workers together hold it once.
"""

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from rag.search.fusion import Nearest
from rag.search.mapped_arrays import mapped

INDEX = "vectors.faiss"
ORIGINALS = "vectors.npy"
"""Of an approximate index: every vector as it was, in float16. Cosines from it are right within .0005."""
SAMPLE = "sample.npy"
"""Of an approximate index: the vectors of `fusion.sample_rows`, float32."""
RERANKED = 200
"""Passages that the approximate index names, to be compared again with their originals."""
BLOCK_ROWS = 16_384

faiss.omp_set_num_threads(1)  # one search is short; the workers are what runs side by side

Floats = NDArray[np.float32]


class Vectors(Protocol):
    """What a search asks of the vectors of a build, however they are kept."""

    is_exact: bool
    """Whether comparing a question with all of them is meant to be done for each search."""
    count: int
    dimensions: int

    def vector(self, row: int) -> Floats: ...

    def vectors(self, rows: Sequence[int]) -> Floats: ...

    def similarities(self, question: Floats) -> Floats: ...

    def nearest(self, question: Floats, *, also: NDArray[np.int64]) -> Nearest: ...


class Exact:
    """All vectors in float32, one after the other: a question is compared with each of them."""

    is_exact = True

    def __init__(self, folder: Path) -> None:
        """Raises OSError, RuntimeError or AttributeError for a file that is none."""
        self._index = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        self.count, self.dimensions = int(self._index.ntotal), int(self._index.d)
        self._rows = self._index.get_xb()  # type: ignore[attr-defined]  # faiss's stubs are not complete
        # The same memory for numpy, which gathers some rows faster than faiss hands out one.
        flat = faiss.rev_swig_ptr(self._rows, self.count * self.dimensions)
        self._matrix = flat.reshape(self.count, self.dimensions)

    def vector(self, row: int) -> Floats:
        """The unit vector of a row: float32 [dimensions]."""
        return np.asarray(self.vectors([row])[0])

    def vectors(self, rows: Sequence[int]) -> Floats:
        """The unit vectors of `rows`: float32 [len(rows), dimensions], a copy."""
        return self._matrix[rows]

    def similarities(self, question: Floats) -> Floats:
        """Cosine similarity of every row to the unit vector `question`: float32 [count]."""
        similarities = np.empty(self.count, dtype=np.float32)
        # The mapped rows are read where they are; a sorted search for all of them would only take longer.
        _products(similarities, question, self._rows)
        return similarities

    def nearest(self, question: Floats, *, also: NDArray[np.int64]) -> Nearest:
        """The `RERANKED` nearest rows, and those in `also`, ascending, with their cosines."""
        similarities = self.similarities(question)
        most = min(RERANKED, self.count)
        rows = np.union1d(np.argpartition(-similarities, most - 1)[:most], also)
        return Nearest(rows, similarities[rows], float(similarities.mean()), float(similarities.std()))


class Approximate:
    """Vectors in clusters, one byte a number: the nearest clusters are searched, and what they give compared exactly.

    Clusters and bytes are mapped. Originals are read with `pread`, in no process's memory: of a mapping every page
    ever touched would count, and 64 KiB around it.
    """

    is_exact = False

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """`about` is the manifest's `index`. Raises OSError, ValueError, KeyError or RuntimeError for other files."""
        self._index = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        self.count, self.dimensions = int(self._index.ntotal), int(self._index.d)
        self._probes = int(about["probes"])
        self._sample = mapped(folder / SAMPLE)
        originals = mapped(folder / ORIGINALS)
        if originals.shape != (self.count, self.dimensions) or originals.dtype != np.float16:
            raise ValueError(f"{ORIGINALS} holds {originals.dtype} {originals.shape}")
        self._offset = int(originals.offset)
        self._bytes_a_row = self.dimensions * originals.itemsize
        self._file = os.open(folder / ORIGINALS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        # Single rows from all over the file: what stands beside them is not worth reading ahead.
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def vector(self, row: int) -> Floats:
        """The unit vector of a row: float32 [dimensions], rounded to float16 once."""
        return np.asarray(self.vectors([row])[0])

    def vectors(self, rows: Sequence[int]) -> Floats:
        """The unit vectors of `rows`: float32 [len(rows), dimensions]."""
        found = np.empty((len(rows), self.dimensions), dtype=np.float16)
        for place, row in enumerate(rows):
            if os.preadv(self._file, [found[place]], self._offset + row * self._bytes_a_row) != self._bytes_a_row:
                raise OSError(f"{ORIGINALS} ends before row {row}")
        return found.astype(np.float32)

    def nearest(self, question: Floats, *, also: NDArray[np.int64]) -> Nearest:
        """The nearest rows to the unit vector `question`, and those in `also`, ascending, with their cosines."""
        rows = np.union1d(self.named(question[None, :], probes=self._probes)[0], also)
        rows = rows[rows >= 0]
        similarities = np.empty(len(rows), dtype=np.float32)
        _products(similarities, question, self.vectors(rows.tolist()))
        spread = np.empty(len(self._sample), dtype=np.float32)
        _products(spread, question, self._sample)
        return Nearest(rows, similarities, mean=float(spread.mean()), deviation=float(spread.std()))

    def named(self, questions: Floats, *, probes: int) -> NDArray[np.int64]:
        """What the index takes for nearest, looking into `probes` clusters: rows [questions, RERANKED], -1 is none."""
        parameters = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
        _, rows = self._index.search(questions, min(RERANKED, self.count), params=parameters)
        return np.asarray(rows)

    def similarities(self, question: Floats) -> Floats:
        """Cosine similarity of every row, as `Exact.similarities`: for measuring, since it reads every original."""
        return np.concatenate([block @ question for block in self.blocks()])

    def blocks(self) -> Iterator[Floats]:
        """All vectors in the order of their rows, `BLOCK_ROWS` at a time."""
        for start in range(0, self.count, BLOCK_ROWS):
            yield self.vectors(range(start, min(start + BLOCK_ROWS, self.count)))


def opened(folder: Path, about: Mapping[str, Any]) -> Vectors:
    """The vectors in `folder`; `about` is the manifest's `index`. ValueError for a type that is not known."""
    if about["type"] == "flat":
        return Exact(folder)
    if about["type"] == "ivf_sq8":
        return Approximate(folder, about)
    raise ValueError(f"an index of type {about['type']!r}")


def _products(results: Floats, question: Floats, rows: Any) -> None:
    """`rows` are faiss's own, or an array of numpy's, float32 [len(results), len(question)], that the caller holds."""
    question = np.ascontiguousarray(question, dtype=np.float32)
    pointer = faiss.swig_ptr(rows) if isinstance(rows, np.ndarray) else rows
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
        faiss.swig_ptr(results), faiss.swig_ptr(question), pointer, len(question), len(results)
    )

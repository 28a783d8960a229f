"""Writes the vectors of a build: which index they need is decided by their number, and how far it looks is measured.

What is written is opened by `vectors`. Knows nothing of passages, words or builds. Vectors that are many stay on
disk, in float16, and pass through memory in blocks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from rag.search.fusion import sample_rows
from rag.search.vectors import BLOCK_ROWS, INDEX, ORIGINALS, RERANKED, SAMPLE, Approximate

EXACT_UP_TO = 20_000_000
"""Passages times dimensions: 80 MB, compared with a question in some 8 ms on one core, and never wrong."""

RECALL_AT_10 = 0.985
"""Of the ten nearest passages by exact search, how many an approximate index has to name, on its own vectors. Above
the .98 that is promised, because real questions are not the `TRIALS` that it is measured with."""
TRIALS = 256
NOISE = 1.5
"""How far a trial lies from its passage. Measured on two public sets, questions have a cosine of .48 and .57."""
POINTS_PER_LIST = 32
ROUNDS = 8
"""Of k-means. More of both moves the centroids, not the recall."""

Vectors = NDArray[np.floating[Any]]


def room(folder: Path, count: int, dimensions: int, *, exact_up_to: int = EXACT_UP_TO) -> Vectors:
    """Where `count` vectors can be put, row by row, before `write`: in memory, or in a file of `folder` if many."""
    if count * dimensions <= exact_up_to:
        return np.empty((count, dimensions), dtype=np.float32)
    return open_memmap(folder / ORIGINALS, mode="w+", dtype=np.float16, shape=(count, dimensions))


def write(folder: Path, vectors: Vectors, *, exact_up_to: int = EXACT_UP_TO) -> dict[str, Any]:
    """Write the index of unit `vectors` [count, dimensions] into `folder`; return the manifest's `index`.

    `vectors` may be what `room` gave for the same folder. Of unit vectors the inner product is the cosine.
    """
    count, dimensions = vectors.shape
    if count * dimensions <= exact_up_to:
        flat = faiss.IndexFlatIP(dimensions)
        flat.add(np.ascontiguousarray(vectors, dtype=np.float32))
        faiss.write_index(flat, str(folder / INDEX))
        return {"type": "flat", "metric": "cosine"}
    if not _is_room(vectors, folder):
        placed = room(folder, count, dimensions, exact_up_to=exact_up_to)
        for rows in _blocks(count):
            placed[rows] = vectors[rows]
        vectors = placed
    vectors.flush()  # type: ignore[attr-defined]  # a memory map is what `room` gives for many
    np.save(folder / SAMPLE, _float32(vectors[sample_rows(count)]), allow_pickle=False)
    lists = max(1, min(round(3 * count**0.5), count // POINTS_PER_LIST))
    with _all_cores():
        faiss.write_index(_trained_and_filled(vectors, lists), str(folder / INDEX))
        about = {"type": "ivf_sq8", "metric": "cosine", "lists": lists, "reranked": RERANKED}
        return about | _looked_far_enough(folder, vectors, lists)


def _trained_and_filled(vectors: Vectors, lists: int) -> Any:
    count, dimensions = vectors.shape
    centroids = faiss.IndexFlatIP(dimensions)
    index = faiss.IndexIVFScalarQuantizer(
        centroids, dimensions, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter, index.cp.spherical, index.cp.min_points_per_centroid = ROUNDS, True, 1
    drawn = np.random.default_rng(0).choice(count, min(count, lists * POINTS_PER_LIST), replace=False)
    index.train(_float32(vectors[np.sort(drawn)]))
    for rows in _blocks(count):
        index.add(_float32(vectors[rows]))
    return index


def _looked_far_enough(folder: Path, vectors: Vectors, lists: int) -> dict[str, Any]:
    """How many lists a search has to look into, so that it finds `RECALL_AT_10`, and how much it then finds."""
    asked = trials(vectors)
    truth = nearest(vectors, asked, count=min(10, len(vectors)))
    index = Approximate(folder, {"probes": lists})
    probes = 4
    while True:
        probes = min(probes, lists)
        # All that is named is compared with its original, so that naming it is finding it.
        named = index.named(asked, probes=probes)
        found = [len(np.intersect1d(near, those)) / len(near) for near, those in zip(truth, named, strict=True)]
        recall = float(np.mean(found))
        if recall >= RECALL_AT_10 or probes == lists:
            return {"probes": probes, "recall_at_10": round(recall, 3)}
        probes += max(1, probes // 5)


def trials(vectors: Vectors) -> NDArray[np.float32]:
    """Questions that lie as questions do: near some passage but not on it, at a cosine of .5 to .6.

    A passage itself would be found too easily: it lies in the middle of its own neighbours.
    """
    draw = np.random.default_rng(1)
    near, one, other = (_float32(vectors[draw.choice(len(vectors), TRIALS)]) for _ in range(3))
    # The difference of two passages is noise that is spread as the vectors are, and has no mean.
    mixed = near + NOISE * (one - other) / 2**0.5
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


def nearest(vectors: Vectors, questions: NDArray[np.float32], *, count: int) -> NDArray[np.int64]:
    """Rows of the `count` nearest by exact search, [questions, count]."""
    best = np.full((len(questions), count), -np.inf, dtype=np.float32)
    best_rows = np.full((len(questions), count), -1, dtype=np.int64)
    for rows in _blocks(len(vectors)):
        similarities = np.hstack([best, questions @ _float32(vectors[rows]).T])
        of_block = np.tile(np.arange(rows.start, rows.stop), (len(questions), 1))
        numbers = np.hstack([best_rows, of_block])
        top = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
        best, best_rows = (np.take_along_axis(values, top, axis=1) for values in (similarities, numbers))
    return best_rows


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, count)) for start in range(0, count, BLOCK_ROWS))


def _float32(vectors: Vectors) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _is_room(vectors: Vectors, folder: Path) -> bool:
    name = getattr(vectors, "filename", None)
    return name is not None and Path(name) == (folder / ORIGINALS).absolute() and vectors.dtype == np.float16


@contextmanager
def _all_cores() -> Iterator[None]:
    """A build has the machine to itself, unlike a worker."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

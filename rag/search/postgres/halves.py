"""Vectors as pgvector's halfvec crosses the wire: float16, big-endian, behind their dimensions. Knows no database."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.search.postgres.link import Halves

MOST_DIMENSIONS = 4_000
"""Of what pgvector can index."""
_HEADER_BYTES = 4

Floats = NDArray[np.float32]


def sent(vector: "np.ndarray") -> Halves:
    """A vector [dimensions] for a statement."""
    return Halves(packed(vector[None, :])[0].tobytes())


def packed(vectors: "np.ndarray") -> NDArray[np.uint8]:
    """Vectors [count, dimensions] as they are sent, uint8 [count, bytes]."""
    count, dimensions = vectors.shape
    rows = np.zeros((count, _HEADER_BYTES + 2 * dimensions), dtype=np.uint8)
    rows[:, :2] = np.frombuffer(dimensions.to_bytes(2, "big"), dtype=np.uint8)
    rows[:, _HEADER_BYTES:] = np.ascontiguousarray(vectors, dtype=">f2").view(np.uint8)
    return rows


def received(values: Sequence[bytes], dimensions: int) -> Floats:
    """What came back, float32 [count, dimensions]. Raises ValueError for vectors of other dimensions."""
    rows = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), _HEADER_BYTES + 2 * dimensions)
    return np.ascontiguousarray(rows[:, _HEADER_BYTES:]).view(">f2").astype(np.float32)

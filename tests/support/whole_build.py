"""A build's files written in one go, from passages and vectors that stand in memory. Knows nothing of publishing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag.search import hybrid, vector_files
from rag.search.passages import PassageWriter
from rag.types import Passage


def write(
    folder: Path, passages: Sequence[Passage], vectors: np.ndarray, *, exact_up_to: int = vector_files.EXACT_UP_TO
) -> dict[str, Any]:
    """Write the files into `folder`, as the indexer does passage by passage; return their part of the manifest."""
    with PassageWriter(folder) as writer:
        for passage in passages:
            writer.add(passage)
    return hybrid.complete(folder, vectors, exact_up_to=exact_up_to)

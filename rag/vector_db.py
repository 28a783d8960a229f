"""One build, open: its passages, their vectors and their words, mapped from disk and searched together.

The only user of faiss. Files and publishing are `builds`' business, ranking is `lexical`'s and `fusion`'s.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson

from rag import builds, floor, fusion, lexical
from rag.duplicates import says_the_same
from rag.errors import BuildDamaged, BuildMismatch, BuildMissing, IndexUnavailable
from rag.lexical import Lexical
from rag.models import Hit, Passage
from rag.text import content_words, is_foreign, is_spaceless

faiss.omp_set_num_threads(1)  # one search is short; the workers are what runs side by side

ALIKE = 0.9
"""Cosine above which two passages' texts are compared: reading all of them would cost more than the search."""


class Build:
    """A build opened for reading. Threads may share it: a search changes nothing in it."""

    def __init__(self, *, folder: Path, manifest: dict[str, Any]) -> None:
        """`manifest` is what `builds.read_manifest` or `builds.verify` returned for `folder`.

        Raises `BuildDamaged` or `BuildMismatch`.
        """
        self.folder = folder
        self.manifest = manifest
        try:
            self.id = str(manifest["id"])
            self.model = str(manifest["embedding"]["model"])
            self.dimensions = int(manifest["embedding"]["dimensions"])
            self.dense_weight = float(manifest["embedding"]["dense_weight"])
            # Builds of earlier versions lack it: without a measure nothing is called off-topic.
            self._has_floor = "unrelated_similarity" in manifest["embedding"]
            self._unrelated: float | None = manifest["embedding"].get("unrelated_similarity")
            self.count = int(manifest["passages"])
            self._vectors = faiss.read_index(str(folder / "vectors.faiss"), faiss.IO_FLAG_MMAP_IFC)
            self._rows = self._vectors.get_xb()  # type: ignore[attr-defined]
            self._offsets = np.load(folder / "passages.npy", mmap_mode="r", allow_pickle=False)
            self._texts = np.memmap(folder / "passages.jsonl", dtype=np.uint8, mode="r")
            self.lexical = Lexical.open(folder, manifest["lexical"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise BuildDamaged(f"{folder}: cannot be opened ({type(error).__name__}: {error})") from None
        counts = {self.count, self._vectors.ntotal, len(self._offsets) - 1, self.lexical.passages}
        if len(counts) != 1 or self._vectors.d != self.dimensions:
            raise BuildDamaged(f"{folder}: its files hold different numbers of passages")

    def passage(self, row: int) -> Passage:
        """The passage of a row, read from the mapped file."""
        line = self._texts[int(self._offsets[row]) : int(self._offsets[row + 1])].tobytes()
        fields = orjson.loads(line)
        return Passage(**{**fields, "headings": tuple(fields["headings"])})

    def passages(self) -> Iterator[Passage]:
        """All passages in the order of their rows."""
        return (self.passage(row) for row in range(self.count))

    def vector(self, row: int) -> np.ndarray:
        """The passage's unit vector, float32 [dimensions]."""
        return np.asarray(self._vectors.reconstruct(row), dtype=np.float32)

    def search(self, question: str, *, vector: np.ndarray | None, k: int) -> list[Hit]:
        """The `k` best passages, best first; fewer where fewer have anything in common with the question.

        Of passages that say the same only the best is among them.

        `vector` is the question's, float32 [dimensions]; None searches by words alone. Raises `BuildMismatch` for a
        vector of another dimension.
        """
        words = self.lexical.scores(self.lexical.words(question))
        similarities = self.similarities(vector) if vector is not None else None
        rows, scores = fusion.fuse(lexical=words, dense=similarities, dense_weight=self.dense_weight)
        hits: list[Hit] = []
        kept = np.empty((k, self.dimensions), dtype=np.float32)
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            if len(hits) == k:
                break
            kept[len(hits)] = self.vector(row)
            passage = self.passage(row)
            alike = np.flatnonzero(kept[: len(hits)] @ kept[len(hits)] > ALIKE)
            if not any(says_the_same(hits[place].passage.text, passage.text) for place in alike):
                hits.append(Hit(passage, score, 0.0 if similarities is None else float(similarities[row]), row))
        return hits

    def has_something_on(self, question: str, hits: Sequence[Hit], *, by_words_alone: bool) -> bool:
        """Whether the best of `hits`, found for `question`, have anything to do with it: see `floor.is_on_topic`."""
        least_words = 1 if by_words_alone or self._unrelated is None else floor.LEAST_WORDS
        if not self._has_floor or content_words(question) < least_words:
            return bool(hits)
        best = hits[: floor.CHECKED]
        return floor.is_on_topic(
            similarities=None if by_words_alone else [hit.similarity for hit in best],
            coverages=self.lexical.coverage(self.lexical.words(question), [hit.row for hit in best]),
            unrelated=self._unrelated,
            in_spaceless_script=is_spaceless(question),
            is_foreign=is_foreign(question, self.lexical.languages),
        )

    def similarities(self, vector: np.ndarray) -> np.ndarray:
        """Cosine similarity of every passage to `vector`: float32 [passages]. Raises `BuildMismatch`."""
        if vector.shape != (self.dimensions,):
            raise BuildMismatch(f"a question of {vector.shape} dimensions for a build of {self.dimensions}")
        question = np.ascontiguousarray(vector, dtype=np.float32)
        similarities = np.empty(self.count, dtype=np.float32)
        # The mapped rows are read where they are; a sorted search for all of them would only take longer.
        faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # faiss's stubs are not complete
            faiss.swig_ptr(similarities), faiss.swig_ptr(question), self._rows, self.dimensions, self.count
        )
        return similarities


def open_build(root: Path, *, model: str | None = None, build_id: str | None = None) -> Build:
    """Open `build_id`, or else the build that `CURRENT` names, every checksum computed again.

    Raises `BuildMissing`, `BuildDamaged`, or `BuildMismatch` for one that was made with another model than `model`.
    """
    if build_id is not None:
        if build_id not in builds.kept_ids(root):
            raise BuildMissing(f"no build {build_id} in {root}; run: python -m indexer info")
        return _opened(builds.folder_of(root, build_id), model)
    while True:
        live = builds.live_id(root)
        try:
            return _opened(builds.folder_of(root, live), model)
        except IndexUnavailable:
            # Others may have been published meanwhile, and this one removed while it was being read.
            if builds.live_id(root) == live:
                raise


def _opened(folder: Path, model: str | None) -> Build:
    build = Build(folder=folder, manifest=builds.verify(folder))
    if model is not None and build.model != model:
        raise BuildMismatch(
            f"{folder}: made with the embedding model {build.model!r}, the settings name {model!r}; "
            "run: python -m indexer build SOURCE, or set the model it was made with"
        )
    return build


def write(folder: Path, passages: Sequence[Passage], vectors: np.ndarray) -> dict[str, Any]:
    """Write a build's files into `folder`; return its part of the manifest.

    `vectors` are unit vectors, float32 [len(passages), dimensions], in the order of `passages`.
    """
    offsets = np.zeros(len(passages) + 1, dtype=np.int64)
    with (folder / "passages.jsonl").open("wb") as file:
        for row, passage in enumerate(passages):
            file.write(orjson.dumps(passage) + b"\n")
            offsets[row + 1] = file.tell()
    np.save(folder / "passages.npy", offsets, allow_pickle=False)
    # Of unit vectors the inner product is the cosine.
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    faiss.write_index(index, str(folder / "vectors.faiss"))
    entries = ((p.title, " › ".join(p.headings), p.text, p.language) for p in passages)
    return {
        "passages": len(passages),
        "index": {"type": "flat", "metric": "cosine"},
        "lexical": lexical.write(folder, entries),
    }


def known_vectors(root: Path, *, model: str) -> Mapping[str, np.ndarray]:
    """Vectors of the live build by content hash, for passages that need not be embedded again; empty where none fit."""
    try:
        build = open_build(root, model=model)
    except IndexUnavailable:
        return {}
    return {passage.content_hash: build.vector(row) for row, passage in enumerate(build.passages())}

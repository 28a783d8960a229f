"""One build, open: its passages, their vectors and their words, mapped from disk and searched together.

Files and publishing are `builds`' business, vectors are `vectors`', ranking is `lexical`'s, `fusion`'s and
`shortlist`'s.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BuildDamaged, BuildMismatch, BuildMissing, IndexUnavailable
from rag.search import bm25, builds, fusion, relevance, shortlist, vector_files, vectors
from rag.search.bm25 import Lexical
from rag.search.duplicates import says_the_same
from rag.search.owner.answers import OwnAnswers
from rag.search.owner.synonyms import Forms, Synonyms
from rag.search.passages import PassageList, Passages
from rag.search.spelling import vocabulary
from rag.search.spelling.correction import completed
from rag.search.spelling.vocabulary import Vocabulary
from rag.text.terms import content_words, is_foreign, is_spaceless, stems, words
from rag.types import Hit, Passage

ALIKE = 0.9
"""Cosine above which two passages' texts are compared: reading all of them would cost more than the search."""
QUICK = 4_000_000
"""Passages times dimensions that are searched in under a millisecond."""

Parts = tuple[vectors.Vectors, PassageList, Lexical]
"""What a build is searched with."""


class Build:
    """A build opened for reading. Threads may share it: a search changes nothing in it."""

    _vocabulary: Vocabulary | None = None
    """Its words, from which misspelled ones are told; None where they are not kept."""

    def __init__(self, *, folder: Path, manifest: dict[str, Any]) -> None:
        """`manifest` is what `builds.read_manifest` or `builds.verify` returned for `folder`.

        Raises `BuildDamaged` or `BuildMismatch`.
        """
        self.folder = folder

        def parts() -> Parts:
            if spelling := manifest.get("spelling"):  # Builds of earlier versions have none.
                self._vocabulary = Vocabulary.open(folder, spelling)
            words = Lexical.open(folder, manifest["lexical"])
            return vectors.opened(folder, manifest["index"]), Passages(folder), words

        self._read(manifest, where=str(folder), parts=parts)

    def _read(self, manifest: dict[str, Any], *, where: str, parts: Callable[[], "Parts"]) -> None:
        """Take over what the manifest says, and the `parts` that are searched. Raises as `__init__`."""
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
            self._vectors, self._passages, self.lexical = parts()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise BuildDamaged(f"{where}: cannot be opened ({type(error).__name__}: {error})") from None
        counts = {self.count, self._vectors.count, len(self._passages), self.lexical.passages}
        if len(counts) != 1 or self._vectors.dimensions != self.dimensions:
            raise BuildDamaged(f"{where}: its parts hold different numbers of passages")

    @property
    def is_quick(self) -> bool:
        """Whether a search takes less than handing it to a thread would cost: under a millisecond."""
        return self._vectors.is_exact and self.count * self.dimensions <= QUICK

    def passage(self, row: int) -> Passage:
        """The passage of a row, read from the mapped file."""
        return self._passages[row]

    def passages_of(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of several rows, in their order."""
        return [self.passage(row) for row in rows]

    def passages(self) -> Iterator[Passage]:
        """All passages in the order of their rows."""
        return iter(self._passages)

    def vector(self, row: int) -> np.ndarray:
        """The passage's unit vector, float32 [dimensions]; of a large index rounded to float16 once."""
        return self._vectors.vector(row)

    @cached_property
    def synonyms(self) -> Synonyms:
        """What the owner says means the same."""
        return Synonyms.of(self.manifest, self.lexical.languages)

    @cached_property
    def own_answers(self) -> OwnAnswers:
        """What the owner has answered already."""
        return OwnAnswers.of(self.manifest, self.synonyms)

    def words(self, question: str) -> list[Forms]:
        """What `question` asks of the index of words, with the owner's synonyms."""
        return self.synonyms.widened(self._asked(question))

    def by_words(self, question: str) -> np.ndarray:
        """How well each passage fits by words, float32 [passages]: the part of a search that needs no vector."""
        return self.lexical.scores(self.words(question))

    @cached_property
    def _asked(self) -> Callable[[str], list[tuple[str, ...]]]:
        return lru_cache(maxsize=8)(self._corrected)

    def _corrected(self, question: str) -> list[tuple[str, ...]]:
        """The words that a question asks for, and for each that no passage has the one that may be meant."""
        asked, languages = self.lexical.words(question), self.lexical.languages
        # The words of another language are no misspellings of this one's, however near.
        if self._vocabulary is None or is_foreign(question, languages):
            return asked
        return completed(
            asked, written=[word for word, is_run in words(question) if not is_run], known=self.lexical.knows,
            forms_of=partial(stems, languages=languages), vocabulary=self._vocabulary,
        )  # fmt: skip

    def search(
        self, question: str, *, vector: np.ndarray | None, k: int, by_words: np.ndarray | None = None
    ) -> list[Hit]:
        """The `k` best passages, best first; fewer where fewer have anything in common with the question.

        Of passages that say the same only the best is among them.

        `vector` is the question's, float32 [dimensions]; None searches by words alone. `by_words` is what the method of
        that name tells of the question, where that is known already. Raises `BuildMismatch` for a vector of another
        dimension.
        """
        by_words = self.by_words(question) if by_words is None else by_words
        rows, scores, similarities = (found.tolist() for found in self._ranked(by_words, vector))
        hits: list[Hit] = []
        for first in range(0, len(rows), k):
            # As many at a time as are wanted: mostly no two of them say the same, and these are all.
            new = range(first, min(first + k, len(rows)))
            near = self._vectors.vectors([*(hit.row for hit in hits), *rows[new.start : new.stop]])
            alike = (near @ near.T > ALIKE).tolist()
            rivals = list(enumerate(hits))
            passages = self.passages_of(rows[new.start : new.stop])
            for at, (place, passage) in enumerate(zip(new, passages, strict=True), start=len(hits)):
                if any(alike[at][its] and says_the_same(hit.passage.text, passage.text) for its, hit in rivals):
                    continue
                hits.append(Hit(passage, scores[place], similarities[place], rows[place]))
                if len(hits) == k:
                    return hits
                rivals.append((at, hits[-1]))
        return hits

    def _ranked(self, words: np.ndarray, vector: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, best first, their fused scores, and their cosines; 0 where there is no vector."""
        if vector is not None:
            self._require_dimensions(vector)
        if self._vectors.is_exact:
            similarities = self._vectors.similarities(vector) if vector is not None else None
            rows, scores = fusion.fuse(lexical=words, dense=similarities, dense_weight=self.dense_weight)
            return rows, scores, np.zeros(len(rows)) if similarities is None else similarities[rows]
        best = shortlist.of_words(words, length=2 * fusion.DEPTH)
        nearest = self._vectors.nearest(vector, also=best.best) if vector is not None else None
        rows, scores = shortlist.fuse(best, nearest, dense_weight=self.dense_weight)
        if nearest is None:
            return rows, scores, np.zeros(len(rows))
        return rows, scores, nearest.similarities[np.searchsorted(nearest.rows, rows)]

    def has_something_on(self, question: str, hits: Sequence[Hit], *, by_words_alone: bool) -> bool:
        """Whether the best of `hits`, found for `question`, have anything to do with it: see `floor.is_on_topic`."""
        least_words = 1 if by_words_alone or self._unrelated is None else relevance.LEAST_WORDS
        if not self._has_floor or content_words(question) < least_words:
            return bool(hits)
        best = hits[: relevance.CHECKED]
        return relevance.is_on_topic(
            similarities=None if by_words_alone else [hit.similarity for hit in best],
            coverages=self.lexical.coverage(self.words(question), [hit.row for hit in best]),
            unrelated=self._unrelated,
            in_spaceless_script=is_spaceless(question),
            is_foreign=is_foreign(question, self.lexical.languages),
            least=relevance.LEAST_OF_MODELS.get(self.model, relevance.LEAST),
        )

    def sharing_words(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Those of `hits` whose passage has a word of `question`, function words aside."""
        coverages = self.lexical.coverage(self.words(question), [hit.row for hit in hits])
        return [hit for hit, coverage in zip(hits, coverages, strict=True) if coverage > 0]

    def similarities(self, vector: np.ndarray) -> np.ndarray:
        """Cosine similarity of every passage to `vector`: float32 [passages]. Raises `BuildMismatch`.

        Exact for every index, and slow for a large one.
        """
        self._require_dimensions(vector)
        return self._vectors.similarities(vector)

    def _require_dimensions(self, vector: np.ndarray) -> None:
        if vector.shape != (self.dimensions,):
            raise BuildMismatch(f"a question of {vector.shape} dimensions for a build of {self.dimensions}")


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


def complete(
    folder: Path, vectors: np.ndarray, *, exact_up_to: int = vector_files.EXACT_UP_TO,
    beside_length: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write what `folder` lacks beside its passages; return its part of the manifest.

    `vectors` are unit vectors, float32 [passages, dimensions], in the order of the passages, and may be
    `vector_files.room`'s. Beyond `exact_up_to` numbers the index is approximate. `beside_length` is `bm25.write`'s, for
    passages that are searched beside a build.
    """
    return {
        "passages": len(Passages(folder)),
        "index": vector_files.write(folder, vectors, exact_up_to=exact_up_to),
        "lexical": write_words(folder, beside_length=beside_length),
        "spelling": vocabulary.write(folder, (passage.indexed_text for passage in Passages(folder))),
    }


def write_words(folder: Path, *, beside_length: float | None = None) -> dict[str, Any]:
    """Write the lexical index of the passages in `folder` beside them; return its part of the manifest."""
    entries = ((p.title, " › ".join(p.headings), p.text, p.language) for p in Passages(folder))
    return bm25.write(folder, entries, beside_length=beside_length)


class KnownVectors(Mapping[str, np.ndarray]):
    """Vectors by content hash, read from a build one by one: all of a large one would not fit into memory."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._rows = {bytes.fromhex(passage.content_hash): row for row, passage in enumerate(build.passages())}

    def __getitem__(self, content_hash: str) -> np.ndarray:
        return self._build.vector(self._rows[bytes.fromhex(content_hash)])

    def __contains__(self, content_hash: object) -> bool:
        return isinstance(content_hash, str) and bytes.fromhex(content_hash) in self._rows

    def __iter__(self) -> Iterator[str]:
        return (content.hex() for content in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def known_vectors(root: Path, *, model: str) -> Mapping[str, np.ndarray]:
    """Vectors of the live build by content hash, for passages that need not be embedded again; empty where none fit."""
    try:
        return KnownVectors(open_build(root, model=model))
    except IndexUnavailable:
        return {}

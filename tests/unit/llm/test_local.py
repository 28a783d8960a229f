"""The model inside the server: meaning in sixteen languages, one table for all workers, nothing fetched."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rag.errors import ConfigError
from rag.llm import opening
from rag.llm.embedded import LocalEmbedder
from rag.llm.local import sentences
from rag.llm.local.sentences import SentenceEmbedder
from rag.settings import LOCAL_MODEL, Settings
from tests.support.server import REPOSITORY

pytestmark = pytest.mark.skipif(bool(sentences.missing_packages()), reason="requirements-local.txt is not installed")


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder.open()


def embed(embedder: SentenceEmbedder, *texts: str) -> np.ndarray:
    return asyncio.run(embedder.embed(texts))


def test_vectors_are_unit_float32_and_the_same_each_time(embedder: SentenceEmbedder) -> None:
    texts = ("How long does the warranty last?", "", "日本語 🌊", "lone \ud800 surrogate", "x" * 5_000)
    vectors = embed(embedder, *texts)
    assert (vectors.shape, vectors.dtype) == ((5, SentenceEmbedder.dimensions), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)
    assert embed(embedder).shape == (0, SentenceEmbedder.dimensions)
    assert embed(embedder, texts[0])[0] @ vectors[0] == pytest.approx(1, abs=1e-4)


def test_meaning_counts_before_words_and_across_languages(embedder: SentenceEmbedder) -> None:
    asked, *others = embed(
        embedder, "How do I get my money back?", "Refunds are paid within two weeks.",
        "Wie bekomme ich mein Geld zurück?",
        "How do I get my cat back?",
    )  # fmt: skip
    refund, german, cat = (float(asked @ other) for other in others)
    assert german > 0.7
    assert min(german, refund) > 0.1
    assert german > cat


def test_all_workers_of_a_server_map_one_table(tmp_path: Path, embedder: SentenceEmbedder) -> None:
    opened: list[SentenceEmbedder] = []
    threads = [threading.Thread(target=lambda: opened.append(SentenceEmbedder.open(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = tmp_path.iterdir()
    assert all(isinstance(one._encoder.table, np.memmap) for one in opened)
    assert {Path(str(one._encoder.table.filename)) for one in opened} == {file}
    assert embed(opened[0], "a question") == pytest.approx(embed(embedder, "a question"), abs=1e-6)


def test_a_table_that_cannot_be_shared_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not isinstance(SentenceEmbedder.open(tmp_path / "file")._encoder.table, np.memmap)
    shared = tmp_path / "state"
    SentenceEmbedder.open(shared)
    (file,) = shared.iterdir()
    file.write_bytes(b"\x93NUMPY damaged")
    assert embed(SentenceEmbedder.open(shared), "a question").shape == (1, SentenceEmbedder.dimensions)


def test_the_table_of_another_version_goes(tmp_path: Path) -> None:
    (tmp_path / "local-model-0.0.1.npy").write_bytes(b"old")
    SentenceEmbedder.open(tmp_path)
    (file,) = tmp_path.iterdir()
    assert "0.0.1" not in file.name


def test_nothing_is_fetched_and_a_worker_grows_by_little(tmp_path: Path) -> None:
    program = """
import asyncio, socket, sys
from pathlib import Path
socket.socket.connect = None
import numpy, rag.llm.azure
def private_kb():
    lines = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(lines[name].split()[0]) for name in ("Private_Dirty", "Private_Clean"))
from rag.llm.local.sentences import SentenceEmbedder
SentenceEmbedder.open(Path(sys.argv[1]))  # Writes the table: a server's first worker, at its first start.
"""
    measured = """
before = private_kb()
embedder = SentenceEmbedder.open(Path(sys.argv[1]))
for number in range(20):
    asyncio.run(embedder.embed([f"How long does the warranty of probe {number} last?"]))
print((private_kb() - before) / 1024)
"""
    run = [sys.executable, "-c"]
    first, second = program, program.rpartition("SentenceEmbedder.open(")[0] + measured
    subprocess.run([*run, first, str(tmp_path)], cwd=REPOSITORY, check=True)
    grown = subprocess.run([*run, second, str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    print(f"\n{float(grown.stdout):.0f} MB more")
    assert float(grown.stdout) < 60


def test_the_setting_decides_which_model_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(embeddings="local", state_dir=tmp_path)
    assert isinstance(opening.own_embedder(settings), SentenceEmbedder)
    assert settings.embedding_model == LOCAL_MODEL == SentenceEmbedder.name
    assert settings.missing("EMBEDDINGS") == []
    assert settings.missing("CHAT") != []
    assert isinstance(opening.own_embedder(Settings(demo=True)), LocalEmbedder)
    assert opening.own_embedder(Settings()) is None
    monkeypatch.setattr(sentences, "MODULES", ("json", "no_such_module"))
    with pytest.raises(ConfigError, match="EMBEDDINGS=local needs no_such_module: pip install"):
        opening.own_embedder(settings)

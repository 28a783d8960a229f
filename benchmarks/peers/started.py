"""Starts the assemblies of `assembly`, by their own interpreter, on the passages of the product's build."""

import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from benchmarks.measuring.servers import Running, application
from rag.search.hybrid import open_build


def started(python: str, env: Mapping[str, str], folder: Path) -> list[AbstractContextManager[Running]]:
    """Both forms, to be entered; `env` is the product's, `folder` holds its build, `python` has what they need."""
    build = open_build(folder / "vector_db")
    (folder / "texts.json").write_text(json.dumps([passage.text for passage in build.passages()]), encoding="utf-8")
    np.save(folder / "vectors.npy", np.stack([build.vector(row) for row in range(build.count)]), allow_pickle=False)
    chat, embeddings = (_parts(env[f"AZURE_OPENAI_{kind}_ENDPOINT"]) for kind in ("CHAT", "EMBEDDINGS"))
    settings = {
        "PEERS_FOLDER": str(folder), "PEERS_AZURE": chat[0], "PEERS_VERSION": chat[2],
        "PEERS_KEY": env["AZURE_OPENAI_CHAT_API_KEY"], "PEERS_CHAT": chat[1], "PEERS_EMBEDDINGS": embeddings[1],
    }  # fmt: skip
    return [
        application(f"LangChain, {form}", f"benchmarks.peers.assembly:{form}", settings, folder, python=python)
        for form in ("blocking", "awaiting")
    ]


def _parts(url: str) -> tuple[str, str, str]:
    """Resource, deployment and version of a deployment's full URL."""
    found = re.fullmatch(r"(https?://[^/]+)/openai/deployments/([^/]+)/.*api-version=([^&]+)", url)
    if found is None:
        raise ValueError(f"not a deployment's URL: {url}")
    return found[1], found[2], found[3]

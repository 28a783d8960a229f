"""What was answered to requests that told themselves from others with an Idempotency-Key."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from rag import durable
from rag.documents.records import Record
from rag.errors import InvalidRequest

REMEMBERED_S = 24 * 3600.0
"""How long a request with an Idempotency-Key is answered the same again."""


def answered(folder: Path, request: str, print_of: list[list[str]]) -> list[Record] | None:
    """The answer of then; None for a request that is new. Raises `InvalidRequest` where it came with other files."""
    try:
        kept = orjson.loads(_file(folder, request).read_bytes())
    except (OSError, ValueError):
        return None
    if time.time() - kept["at"] > REMEMBERED_S:
        return None
    if kept["files"] != print_of:
        raise InvalidRequest(detail="This Idempotency-Key came with other files before.")
    return [Record(**one) for one in kept["records"]]


def staged(folder: Path, request: str, print_of: list[list[str]], records: Sequence[Record]) -> tuple[Path, Path]:
    """Remember the answer, once the first file is settled as the second."""
    path = _file(folder, request)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    return durable.stage(path, orjson.dumps({"at": time.time(), "files": print_of, "records": records})), path


def _file(folder: Path, request: str) -> Path:
    return folder / ".requests" / hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()

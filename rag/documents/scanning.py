"""Asks a virus scanner, clamd, what it thinks of a file. A scanner that does not answer has found nothing clean."""

import logging
import socket
from collections.abc import Iterable
from itertools import chain
from urllib.parse import urlsplit

from rag.documents.receiving import Received
from rag.errors import InvalidRequest, ScannerUnavailable

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
PROBE_S = 2.0
CHUNK_BYTES = 256 * 1024
PORT = 3310
MOST_ANSWER_BYTES = 4096


def scan(address: str, file: Received) -> None:
    """Raises `InvalidRequest` for a file that is refused, and `ScannerUnavailable` where nothing is known of it.

    clamd's INSTREAM: chunks with their length before them, and one of no length at the end.
    """
    with file.path.open("rb") as content:
        answer = _asked(address, b"zINSTREAM\0", chain(iter(lambda: content.read(CHUNK_BYTES), b""), [b""]), TIMEOUT_S)
    if answer == "stream: OK":
        return
    if answer.endswith(" FOUND"):
        log.warning("upload refused by the scanner", extra={"found": answer.removeprefix("stream: ")})
        raise InvalidRequest(detail=f"{file.name} was refused by the virus scanner.")
    raise ScannerUnavailable(f"{address} answered {answer[:200]!r}")


def probe(address: str) -> None:
    """Raises `ScannerUnavailable` unless the scanner answers."""
    if (answer := _asked(address, b"zPING\0", [], PROBE_S)) != "PONG":
        raise ScannerUnavailable(f"{address} answered {answer[:200]!r}")


def _asked(address: str, command: bytes, chunks: Iterable[bytes], timeout_s: float) -> str:
    answer = b""
    try:
        with _connected(address, timeout_s) as connection:
            connection.sendall(command)
            for chunk in chunks:
                connection.sendall(len(chunk).to_bytes(4, "big") + chunk)
            while not answer.endswith(b"\0") and len(answer) < MOST_ANSWER_BYTES:
                if not (received := connection.recv(MOST_ANSWER_BYTES)):
                    break
                answer += received
    except OSError as error:
        raise ScannerUnavailable(f"{address}: {error.strerror or type(error).__name__}") from None
    return answer.rstrip(b"\0").decode("utf-8", "replace")


def _connected(address: str, timeout_s: float) -> socket.socket:
    parts = urlsplit(address)
    if parts.hostname:
        return socket.create_connection((parts.hostname, parts.port or PORT), timeout=timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(parts.path)
    except OSError:
        connection.close()
        raise
    return connection

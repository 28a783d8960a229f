"""Our Azure OpenAI emulator: a real HTTP server on loopback, in a process of its own.

    with AzureEmulator.start() as azure:
        azure.fail("status", target="chat", status=429, headers={"Retry-After": "1"}, times=2)

`python -m tests.support.azure --port 0` prints one JSON line with the port when it listens. This module is the handle
and the command line; what is emulated stands in the modules `azure_*` beside it.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.support.waiting import REPOSITORY

API_KEY = "emulated-key-0123456789abcdef"
API_VERSION = "2024-10-21"
CHAT_DEPLOYMENT = "emulated-chat"
EMBEDDINGS_DEPLOYMENT = "emulated-embeddings"
START_TIMEOUT_S = 30.0


class AzureEmulator:
    """A running emulator. Synchronous; ends exactly its own process."""

    def __init__(self, process: subprocess.Popen[str], port: int, api_key: str) -> None:
        self.port = port
        self.api_key = api_key
        self.base_url = f"http://127.0.0.1:{port}"
        self._process = process
        self._control = httpx.Client(base_url=f"{self.base_url}/_control/", timeout=20.0, trust_env=False)

    @classmethod
    def start(
        cls, *, port: int = 0, dimension: int = 256, vectors: list[Path] | None = None, api_key: str = API_KEY,
        embeddings_delay_ms: float = 0, chat_delay_ms: float = 0, token_delay_ms: float = 0,
    ) -> "AzureEmulator":  # fmt: skip
        """`vectors` are .npz files of given vectors, with corpus.jsonl and queries.jsonl beside each."""
        command = [
            sys.executable, "-m", "tests.support.azure", "--port", str(port), "--dimension", str(dimension),
            "--api-key", api_key, "--embeddings-delay-ms", str(embeddings_delay_ms),
            "--chat-delay-ms", str(chat_delay_ms), "--token-delay-ms", str(token_delay_ms), "--end-with-stdin",
        ]  # fmt: skip
        for file in vectors or []:
            command += ["--vectors", str(Path(file).resolve())]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline() if ready else ""
        if not line:
            process.kill()
            process.wait()
            raise RuntimeError(f"the emulator did not start, exit code {process.returncode}")
        return cls(process, json.loads(line)["port"], api_key)

    def __enter__(self) -> "AzureEmulator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process; there is nothing in it to save."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def chat_url(self) -> str:
        return self.chat_url_of(CHAT_DEPLOYMENT)

    @property
    def embeddings_url(self) -> str:
        return self.embeddings_url_of(EMBEDDINGS_DEPLOYMENT)

    def chat_url_of(self, deployment: str) -> str:
        """The full deployment URL, as Azure shows it; a name that begins with `missing` is not deployed.

        One that begins with `reasoning` thinks, and refuses `max_tokens` and every `temperature` but 1.
        """
        return f"{self.base_url}/openai/deployments/{deployment}/chat/completions?api-version={API_VERSION}"

    def embeddings_url_of(self, deployment: str) -> str:
        return f"{self.base_url}/openai/deployments/{deployment}/embeddings?api-version={API_VERSION}"

    @property
    def environment(self) -> dict[str, str]:
        """The four required settings of the product, pointing here."""
        return {
            "AZURE_OPENAI_CHAT_ENDPOINT": self.chat_url,
            "AZURE_OPENAI_CHAT_API_KEY": self.api_key,
            "AZURE_OPENAI_EMBEDDINGS_ENDPOINT": self.embeddings_url,
            "AZURE_OPENAI_EMBEDDINGS_API_KEY": self.api_key,
        }

    @property
    def without_keys(self) -> dict[str, str]:
        """The same without the keys: for those who have an identity (`tests.support.entra`)."""
        return {name: value for name, value in self.environment.items() if not name.endswith("_API_KEY")}

    def _ask(self, method: str, what: str, given: Any = None) -> Any:
        response = self._control.request(method, what, json=given)
        if response.status_code != 200:
            raise ValueError(f"the emulator refused: {response.text}")
        return response.json()

    def fail(self, kind: str, *, target: str = "any", times: int | None = None, **more: Any) -> None:
        """From now on, `times` fitting requests go wrong (None: all). Kinds and fields: `azure_faults.Fault`."""
        self._ask("POST", "faults", {"kind": kind, "target": target, "times": times, **more})

    def behave(self, **profile: Any) -> None:
        """Changes fields of `azure_delivery.Profile`: delays, a fixed reply, a list of tokens."""
        self._ask("POST", "profile", profile)

    def heal(self) -> None:
        """No fault any more, and the behaviour that the process was started with."""
        self._ask("DELETE", "faults")
        self._ask("DELETE", "profile")

    def requests(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What was received since `clear`, oldest first: kind (chat or embeddings), route, query, deployment, headers,
        body, inputs, at (seconds since 1970), outcome (open, answered, fault, cancelled), fault, status."""
        return [seen for seen in self._ask("GET", "requests") if kind in (None, seen["kind"])]

    def clear(self) -> None:
        """Forgets requests and counts."""
        self._ask("DELETE", "requests")

    def stats(self) -> dict[str, Any]:
        """Per kind `total`, `now`, `peak`, `cancelled`; `statuses`; `connections` seen; `dimension` of vectors;
        `billed`: tokens of calls that have ended."""
        answer: dict[str, Any] = self._ask("GET", "stats")
        return answer


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(2048)
        yield listener


def _end_with_stdin() -> None:
    """Ends this process when the one that started it is gone, however that one ended."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    # Only the emulator's own process needs these.
    import uvicorn

    from tests.support.azure_app import Emulator
    from tests.support.azure_delivery import Profile
    from tests.support.azure_exchange import Protocol
    from tests.support.azure_vectors import Vectors

    parser = argparse.ArgumentParser(description="An Azure OpenAI emulator on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", default=API_KEY)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument(
        "--vectors", type=Path, action="append", default=[], help="an .npz of given vectors; repeatable"
    )
    parser.add_argument("--embeddings-delay-ms", type=float, default=0)
    parser.add_argument("--chat-delay-ms", type=float, default=0)
    parser.add_argument("--token-delay-ms", type=float, default=0)
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input is closed")
    given = parser.parse_args()
    profile = Profile(given.embeddings_delay_ms, given.chat_delay_ms, given.token_delay_ms)
    vectors = Vectors(dimension=given.dimension, files=given.vectors)
    app = Emulator(vectors=vectors, api_key=given.api_key, profile=profile)
    config = uvicorn.Config(
        app, loop="uvloop", http=Protocol, ws="none", lifespan="off", access_log=False, log_level="critical",
        server_header=False, date_header=False, timeout_keep_alive=300, timeout_graceful_shutdown=1,
    )  # fmt: skip
    if given.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with _listening(given.port) as listener:
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1], "dimension": vectors.dimension}) + "\n")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

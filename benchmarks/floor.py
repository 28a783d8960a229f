"""The floor that the server is measured against: the same two upstream calls, the same search, and nothing else.

One bare ASGI handler: no limits, memory, checks, citations, logs, metrics or retries. A stream's bytes are passed on as
they come. It takes the server's own settings and build, so that both do the same work against the same upstream.

    gunicorn --worker-class uvicorn_worker.UvicornWorker --workers 4 benchmarks.floor:app
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import faiss
import httpx
import numpy as np
import orjson
from httpx_aiohttp import AiohttpTransport

from rag.settings import Settings
from rag.types import Endpoint

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PASSAGES = 5
CONNECTIONS = 1024
SYSTEM = "Answer from the sources, and cite them by their numbers in square brackets."
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream")]

faiss.omp_set_num_threads(1)


class _Upstream:
    """One address, called in the leanest way that httpx has."""

    def __init__(self, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        self._client = client
        self._url = httpx.URL(endpoint.url)
        fixed = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._headers = httpx.Headers(fixed | {"api-key": endpoint.api_key})

    async def post(self, body: dict[str, Any]) -> httpx.Response:
        """The response, its body unread."""
        request = httpx.Request("POST", self._url, content=orjson.dumps(body), headers=self._headers)
        return await self._client.send(request, stream=True)


class Floor:
    """The application. `settings` names the build and the two endpoints."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == "/chat":
            await self._chat(receive, send)
        elif scope["path"] == "/chat/stream":
            await self._stream(receive, send)
        else:
            await _answer(send, b'{"status":"ready"}')

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        client = await self._stack.enter_async_context(_client())
        self._embeddings = _Upstream(client, self._settings.embeddings_endpoints[0])
        self._model = _Upstream(client, self._settings.chat_endpoints[0])
        root = self._settings.vector_db_path
        folder = root / "builds" / (root / "CURRENT").read_text("utf-8").strip()
        self._vectors = faiss.read_index(str(folder / "vectors.faiss"), faiss.IO_FLAG_MMAP_IFC)
        self._offsets = np.load(folder / "passages.npy", mmap_mode="r", allow_pickle=False)
        self._texts = np.memmap(folder / "passages.jsonl", dtype=np.uint8, mode="r")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _chat(self, receive: Receive, send: Send) -> None:
        response = await self._model.post(await self._prompt(await _question(receive)))
        answer = orjson.loads(await response.aread())["choices"][0]["message"]["content"]
        await _answer(send, orjson.dumps({"response": answer}))

    async def _stream(self, receive: Receive, send: Send) -> None:
        response = await self._model.post(await self._prompt(await _question(receive)) | {"stream": True})
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        async for piece in response.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await response.aclose()
        await send({"type": "http.response.body", "body": b""})

    async def _prompt(self, question: str) -> dict[str, Any]:
        response = await self._embeddings.post({"input": [question], "encoding_format": "base64"})
        embedding = orjson.loads(await response.aread())["data"][0]["embedding"]
        vector = np.frombuffer(base64.b64decode(embedding), dtype="<f4").reshape(1, -1)
        _, rows = self._vectors.search(vector, PASSAGES)
        sources = "\n\n".join(f"[{number}] {self._text(row)}" for number, row in enumerate(rows[0].tolist(), start=1))
        said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{sources}\n\n{question}"}]
        return {"messages": said, "temperature": 0.1, "max_tokens": 1000}

    def _text(self, row: int) -> str:
        line = self._texts[int(self._offsets[row]) : int(self._offsets[row + 1])].tobytes()
        return str(orjson.loads(line)["text"])


@asynccontextmanager
async def _client() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=60)
    async with httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=None, trust_env=False) as client:
        yield client


async def _question(receive: Receive) -> str:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return str(orjson.loads(body)["message"])


async def _answer(send: Send, body: bytes) -> None:
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": JSON + length})
    await send({"type": "http.response.body", "body": body})


def __getattr__(name: str) -> Any:
    # Made on demand, so that importing this module needs no settings.
    if name == "app":
        return Floor(Settings.from_environment())
    raise AttributeError(name)

"""One request and its answer, down to the socket. Knows nothing of what is answered."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TRANSPORT = "emulator.transport"
LONGEST_BLIND_WAIT_S = 0.1
"""A shorter wait does not look whether the client is still there: that would cost more than the wait."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json; charset=utf-8"
EVENTS = b"text/event-stream; charset=utf-8"


class Protocol(HttpToolsProtocol):
    """uvicorn's, handing the connection to the application: ASGI alone cannot reset one."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {TRANSPORT: self.transport}


class ClientGone(Exception):
    """The client left before its answer was complete."""


class Exchange:
    """Sends an answer, and notices when nobody waits for it any more."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope = scope
        self.status = 0
        """What was sent; 0 until then."""
        self.billed = 0
        """Tokens that the service charges for: those it read, and those it wrote, heard or not."""
        self._receive = receive
        self._send = send
        self._leaving: asyncio.Task[None] | None = None

    async def body(self) -> bytes:
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def pause(self, seconds: float | None) -> None:
        """Waits, None is for ever; ClientGone as soon as the client leaves."""
        if seconds is not None and seconds <= 0:
            return
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._until_gone())
        if seconds is not None and seconds <= LONGEST_BLIND_WAIT_S:
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait({self._leaving}, timeout=seconds)
        if self._leaving.done():
            raise ClientGone

    async def start(self, status: int, content_type: bytes, headers: Headers | None = None) -> None:
        self.status = status
        fixed = [(b"content-type", content_type), (b"x-ms-region", b"Emulated"), (b"apim-request-id", b"emulated")]
        await self._send({"type": "http.response.start", "status": status, "headers": fixed + (headers or [])})

    async def write(self, data: bytes) -> None:
        """One network chunk of a body that goes on."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data})

    async def answer(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers | None = None
    ) -> None:
        """A whole answer of known length."""
        await self.start(status, content_type, [(b"content-length", str(len(body)).encode()), *(headers or [])])
        await self.end(body)

    async def answer_json(self, data: Any, status: int = 200) -> None:
        await self.answer(status, orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY))

    def close(self) -> None:
        """The connection ends after what was written, whatever was promised."""
        self.scope["extensions"][TRANSPORT].close()

    def reset(self) -> None:
        """The connection ends at once, with a TCP reset."""
        transport = self.scope["extensions"][TRANSPORT]
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

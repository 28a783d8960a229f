"""Uploads out of a request's body, byte by byte: nothing is held in memory, and every byte counts against the limit.

Bytes are counted as they arrive, below the parser: what stands before, between and behind the parts counts too.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from rag.documents.naming import document_name, require_type
from rag.documents.receiving import Places, Received, Receiving
from rag.documents.sniffing import require_content
from rag.errors import BodyTooLarge, InvalidRequest, UnsupportedType, VisitorLeft
from rag.setting_parsers import shown_size

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

AROUND_FILES_BYTES = 64 * 1024
"""Boundaries, headers and small fields."""
SILENCE_S = 10.0
"""How long the next bytes may keep us waiting."""
WHOLE_S = 300.0
FIELDS = ("files", "file", "files[]")


async def body(request: Request, *, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `BodyTooLarge` at once where it says so itself, else at the byte that is too many.

    Raises `InvalidRequest` where it comes too slowly, and `VisitorLeft`.
    """
    too_large = BodyTooLarge(detail=f"The request is larger than {shown_size(limit_bytes)}.")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 15 or int(length) > limit_bytes:
        raise too_large
    count, ends_at = 0, asyncio.get_running_loop().time() + WHOLE_S
    while True:
        try:
            async with asyncio.timeout_at(min(ends_at, asyncio.get_running_loop().time() + SILENCE_S)):
                message = await request.receive()
        except TimeoutError:
            raise InvalidRequest("slow body", detail="The request body did not arrive in time.") from None
        if message["type"] == "http.disconnect":
            raise VisitorLeft
        data = message.get("body", b"")
        count += len(data)
        if count > limit_bytes:
            raise too_large
        if data:
            yield data
        if not message.get("more_body"):
            return


async def files_of(
    request: Request, places: Places, *, most_files: int, limit_bytes: int, allowed: Collection[str]
) -> list[Received]:
    """The files of a multipart body. `limit_bytes` is a file's; `places` hold the same.

    Raises `InvalidRequest`, `UnsupportedType`, `BodyTooLarge` and `StorageFull`.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise UnsupportedType(detail="Send the files as multipart/form-data, each in a field `files`.")
    parts = _Parts(places, most_files=most_files, allowed=allowed)
    parser = MultipartParser(boundary, parts.callbacks())
    try:
        async for data in body(request, limit_bytes=most_files * limit_bytes + AROUND_FILES_BYTES):
            # Not on the event loop: a disk that is slow or full must keep nobody else waiting.
            await asyncio.to_thread(parser.write, data)
        parser.finalize()
    except FormParserError:
        raise InvalidRequest(detail="The body is not valid multipart/form-data.") from None
    if not parts.is_whole:
        raise InvalidRequest(detail="The body ended before its last part.")
    if not parts.files:
        raise InvalidRequest(detail="There is no file in the field `files`.")
    return parts.files


async def file_of(request: Request, places: Places, *, name: str, limit_bytes: int) -> Received:
    """The body itself as one file."""
    receiving = places.begin(name)
    async for data in body(request, limit_bytes=limit_bytes):
        await asyncio.to_thread(receiving.write, data)
    file = await asyncio.to_thread(receiving.whole)
    await asyncio.to_thread(require_content, file)
    return file


class _Parts:
    """What the parser tells, part by part."""

    def __init__(self, places: Places, *, most_files: int, allowed: Collection[str]) -> None:
        self.files: list[Received] = []
        self.is_whole = False
        self._places = places
        self._most = most_files
        self._allowed = allowed
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._file: Receiving | None = None
        self._beside = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begins, "on_header_field": lambda *data: self._in_header(0, *data),
            "on_header_value": lambda *data: self._in_header(1, *data), "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end, "on_part_data": self._data, "on_part_end": self._part_ends,
            "on_end": self._ends,
        }  # fmt: skip

    def _part_begins(self) -> None:
        self._disposition, self._file = b"", None

    def _in_header(self, place: int, data: bytes, start: int, end: int) -> None:
        self._header[place] += data[start:end]

    def _header_ends(self) -> None:
        name, value = (bytes(one) for one in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [bytearray(), bytearray()]

    def _headers_end(self) -> None:
        # What is no UTF-8 is shown as it may have been meant, and never fails.
        shown = self._disposition.decode("utf-8", "replace").encode("utf-8")
        _, options = parse_options_header(shown.decode("latin-1"))
        given = options.get(b"filename", b"").decode("utf-8", "replace")
        if not given:
            return  # a field of another kind, or a form's empty place for a file
        if options.get(b"name", b"").decode("utf-8", "replace") not in FIELDS:
            raise InvalidRequest(detail="Send each file in a field `files`.")
        if len(self.files) == self._most:
            raise InvalidRequest(detail=f"A request may hold {self._most} files at most.")
        name = document_name(given)
        require_type(name, self._allowed)
        self._file = self._places.begin(name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
            return
        self._beside += end - start
        if self._beside > AROUND_FILES_BYTES:
            raise BodyTooLarge(detail="A field that is no file is too large.")

    def _part_ends(self) -> None:
        if self._file is not None:
            file = self._file.whole()
            require_content(file)
            self.files.append(file)
            self._file = None

    def _ends(self) -> None:
        self.is_whole = True

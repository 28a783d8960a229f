"""Documents come in while the server runs: they are taken here, and read, embedded and indexed by another process.

Only there with `UPLOADS=on`. What is asked of a caller is asked before a byte of the body is read.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field

from rag.access.admission import UPLOADS
from rag.documents.leading import Ingest
from rag.documents.library import Library
from rag.documents.naming import document_name, require_type
from rag.documents.receiving import Received, receiving
from rag.documents.records import Record
from rag.documents.scanning import scan
from rag.errors import IndexUnavailable, InvalidRequest, NotFound
from rag.http import problems
from rag.http.admission import AdmittedRoute, rule
from rag.http.owner import multipart
from rag.http.services import Services, WithServices
from rag.search.hot import generation
from rag.search.hot.generation import Added

BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}

router = APIRouter(route_class=AdmittedRoute)

Key = Annotated[
    str | None, Header(alias="Idempotency-Key", max_length=255, description="the same request again is done once")
]
Name = Annotated[str, Path(description="what the file is called")]
Wanted = Annotated[str, Path(description="its id, or its name")]
REFUSALS = problems.described(413, 415, 422, 503, 507)


class Taken(BaseModel):
    id: str
    name: str
    status: Literal["queued", "reading", "embedding", "live", "failed"]


class TakenList(BaseModel):
    documents: list[Taken]


class Document(Taken):
    reason: str | None = Field(description="why it failed, or why it waits")
    passages: int | None = Field(description="how many of its passages are found; null before it was read")
    bytes: int | None = Field(description="the file's size; null for what was added on the machine")
    updated_at: str


class DocumentList(BaseModel):
    documents: list[Document]


@router.post(
    "/documents", status_code=202, summary="Add documents", responses=REFUSALS,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
        "type": "object", "required": ["files"],
        "properties": {"files": {"type": "array", "items": BYTES}},
    }}}}},
)  # fmt: skip
@rule(scope="ingest", limit=UPLOADS[0], reads_own_body=True)
async def add(request: Request, services: WithServices, key: Key = None) -> TakenList:
    settings, library = services.settings, _library(services)
    limit = settings.max_file_size
    with receiving(library.folder, limit_bytes=limit) as places:
        files = await multipart.files_of(
            request, places, most_files=settings.max_files_per_request, limit_bytes=limit,
            allowed=settings.allowed_file_types,
        )  # fmt: skip
        return await _put(files, request, services, key)


@router.put(
    "/documents/{document}", status_code=202, summary="Add or replace one document", responses=REFUSALS,
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": BYTES}}}},
)  # fmt: skip
@rule(scope="ingest", limit=UPLOADS[0], reads_own_body=True)
async def replace(request: Request, document: Name, services: WithServices, key: Key = None) -> TakenList:
    settings, library = services.settings, _library(services)
    if document_name(document) != document:
        raise InvalidRequest(detail="The name in the address is no file's name.")
    require_type(document, settings.allowed_file_types)
    limit = settings.max_file_size
    with receiving(library.folder, limit_bytes=limit) as places:
        file = await multipart.file_of(request, places, name=document, limit_bytes=limit)
        return await _put([file], request, services, key)


@router.get("/documents", summary="All documents, and what became of each", responses=problems.described(422, 503))
@rule(scope="ingest")
async def listed(
    services: WithServices, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000, after: str = ""
) -> DocumentList:
    """By name; `after` is the name that the last page ended with."""
    known = await asyncio.to_thread(_all, services)
    return DocumentList(documents=[one for one in known if one.name > after][:limit])


@router.get("/documents/{document}", summary="What became of a document", responses=problems.described(404, 422, 503))
@rule(scope="ingest")
async def one(document: Wanted, services: WithServices) -> Document:
    for shown in await asyncio.to_thread(_all, services):
        if document in (shown.id, shown.name):
            return shown
    raise NotFound(f"no document {document}")


@router.delete(
    "/documents/{document}", status_code=204, summary="Remove a document for good",
    responses=problems.described(404, 422, 503),
)  # fmt: skip
@rule(scope="ingest", limit=UPLOADS[0])
async def remove(document: Wanted, services: WithServices) -> Response:
    def work() -> bool:
        library, root = _library(services), services.settings.vector_db_path
        known = library.find(document) or generation.read(root).find(document)
        if known is not None:
            library.discard(known.id)
            generation.take_out(root, [known.id])
            library.forget(known.id)
        return known is not None

    if not await asyncio.to_thread(work):
        raise NotFound(f"no document {document}")
    return Response(status_code=204)


async def _put(files: list[Received], request: Request, services: Services, key: str | None) -> TakenList:
    # A key belongs to its caller: others could not even learn that it was used.
    identity = f"{request.state.caller.bucket}\0{key}" if key else None
    ingest, scanner = _ingest(services), services.settings.upload_scan
    for file in files if scanner else ():
        await asyncio.to_thread(scan, scanner, file)
    by_name = {one.name: one.id for one in (await asyncio.to_thread(_added, services))}
    records = await asyncio.to_thread(ingest.library.put, files, request=identity, ids=by_name)
    ingest.wake()
    return TakenList(documents=[Taken(id=one.id, name=one.name, status=_status(one)) for one in records])


def _all(services: Services) -> list[Document]:
    added = {one.id: one for one in _added(services)}
    known = [_shown(record, added.pop(record.id, None)) for record in _library(services).records()]
    by_hand = [
        Document(id=one.id, name=one.name, status="live", reason=None, passages=one.passages, bytes=None,
                 updated_at=one.added_at)
        for one in added.values()
    ]  # fmt: skip
    return sorted([*known, *by_hand], key=lambda one: one.name)


def _added(services: Services) -> Sequence[Added]:
    """What is in the index beside the build."""
    try:
        return generation.read(services.settings.vector_db_path).documents
    except IndexUnavailable:
        return ()


def _shown(record: Record, added: Added | None) -> Document:
    return Document(
        id=record.id, name=record.name, status=_status(record), reason=record.reason,
        passages=added.passages if added else None, bytes=record.bytes, updated_at=record.updated_at,
    )  # fmt: skip


def _status(record: Record) -> Literal["queued", "reading", "embedding", "live", "failed"]:
    return "failed" if record.status == "removed" else record.status


def _library(services: Services) -> Library:
    return _ingest(services).library


def _ingest(services: Services) -> Ingest:
    if services.ingest is None:
        raise NotFound("UPLOADS is off")
    return services.ingest

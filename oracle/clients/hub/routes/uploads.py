"""Resumable uploads of bundles: the tus protocol 1.0.0 (https://tus.io/protocols/resumable-upload),
core, with the extensions creation, termination and expiration."""

from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from oracle.clients.hub.callers import Caller, Developer, TheHub
from oracle.clients.hub.errors import ContentTypeRefused, TusRefused, UploadMisplaced
from oracle.clients.hub.upload_store import Upload
from settlement.bundle import MAX_ARCHIVE_BYTES
from settlement.hub.market import UploadView
from settlement.types import Bytes32, to_hex

VERSION = "1.0.0"
CONTENT_TYPE = "application/offset+octet-stream"
PART = 256 * 1024
"""Bytes that are kept at once: what comes before a connection breaks is not sent again."""

UploadId = Annotated[Bytes32, Path()]
TusResumable = Annotated[str | None, Header()]
Count = Annotated[int, Header(ge=0, lt=2**63)]
router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


def _check_version(version: str | None) -> None:
    if version != VERSION:
        raise TusRefused(version)


def _told(upload: Upload, **more: str) -> dict[str, str]:
    return {
        "tus-resumable": VERSION,
        "upload-offset": str(upload.offset),
        "upload-length": str(upload.length),
        "upload-expires": formatdate(upload.expires_at, usegmt=True),
        "cache-control": "no-store",
        **more,
    }


@router.options("", status_code=204)
def capabilities(_caller: Caller) -> Response:
    """What of the protocol there is."""
    headers = {
        "tus-resumable": VERSION,
        "tus-version": VERSION,
        "tus-max-size": str(MAX_ARCHIVE_BYTES),
        "tus-extension": "creation,termination,expiration",
    }
    return Response(status_code=204, headers=headers)


@router.post("", status_code=201, response_class=Response)
def begin(
    hub: TheHub,
    developer: Developer,
    upload_length: Count,
    tus_resumable: TusResumable = None,
) -> Response:
    """Begin an upload of `Upload-Length` bytes; `Location` is where it goes."""
    _check_version(tus_resumable)
    upload = hub.uploads.begin(developer, upload_length)
    location = f"/v1/uploads/{to_hex(upload.upload_id)}"
    return Response(status_code=201, headers=_told(upload, location=location))


@router.head("/{upload_id}", response_class=Response)
def offset(hub: TheHub, developer: Developer, upload_id: UploadId) -> Response:
    """Where to go on: `Upload-Offset`."""
    return Response(headers=_told(hub.uploads.find(developer, upload_id)))


@router.patch(
    "/{upload_id}",
    status_code=204,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def append(
    hub: TheHub,
    developer: Developer,
    upload_id: UploadId,
    request: Request,
    upload_offset: Count,
    tus_resumable: TusResumable = None,
) -> Response:
    """Go on at `Upload-Offset`; what comes before a connection breaks is kept."""
    _check_version(tus_resumable)
    if request.headers.get("content-type") != CONTENT_TYPE:
        raise ContentTypeRefused(CONTENT_TYPE)
    upload = await run_in_threadpool(hub.uploads.find, developer, upload_id)
    if upload.offset != upload_offset:
        raise UploadMisplaced(upload.offset)

    async def keep(data: bytes) -> Upload:
        return await run_in_threadpool(
            hub.uploads.append, developer, upload_id, upload.offset, data
        )

    waiting = bytearray()
    try:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= PART:
                upload = await keep(bytes(waiting))
                waiting.clear()
    except ClientDisconnect:
        await keep(bytes(waiting))
        raise
    if waiting:
        upload = await keep(bytes(waiting))
    return Response(status_code=204, headers=_told(upload))


@router.delete("/{upload_id}", status_code=204)
def drop(
    hub: TheHub, developer: Developer, upload_id: UploadId, tus_resumable: TusResumable = None
) -> Response:
    """Forget an upload."""
    _check_version(tus_resumable)
    hub.uploads.drop(developer, upload_id)
    return Response(status_code=204, headers={"tus-resumable": VERSION})


@router.get("/{upload_id}")
def view(hub: TheHub, developer: Developer, upload_id: UploadId) -> UploadView:
    """How far an upload is; once complete, what was found in it."""
    return hub.uploads.view(developer, upload_id)

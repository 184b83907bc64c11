"""Jobs: asked for and paid by developers, done by nodes, delivered."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from oracle.client import JobStatus
from oracle.clients.hub.callers import (
    Developer,
    JobId,
    Limit,
    Node,
    NodeId,
    OwnNode,
    Reader,
    ReadingDeveloper,
    TheHub,
)
from oracle.clients.hub.errors import NotYourNode
from settlement.hub.market import (
    EscrowOffer,
    EscrowOrder,
    JobCalls,
    JobDetail,
    JobPage,
    Reroute,
)
from settlement.hub.messages import (
    ArtifactName,
    DatasetProfile,
    Failure,
    JobAssignment,
    JobCreated,
    JobRequest,
    JobState,
    JobView,
    Progress,
)
from settlement.verify import ReceiptBundle

MAX_WAIT = 30
"""Seconds that a node's question for work may stay open."""

Position = Annotated[str | None, Query(pattern=r"^[0-9]{1,12}\.0x[0-9a-f]{64}$")]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255, pattern=r"^[ -~]+$")]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
BINARY: dict[str, Any] = {"content": {"application/octet-stream": _BYTES}}
_AS_IT_WAS = Reroute()
router = APIRouter(prefix="/v1", tags=["jobs"])
nodes = APIRouter(prefix="/v1", tags=["nodes"])


@router.post("/jobs", status_code=201)
def create_job(
    hub: TheHub,
    developer: Developer,
    request: JobRequest,
    idempotency_key: IdempotencyKey = None,
) -> JobCreated:
    """Quote a job; it runs once its terms are in escrow. The same `Idempotency-Key` with the same
    request gets the same job."""
    return hub.service.create_job(developer, request, idempotency_key)


@router.get("/jobs")
def jobs(
    hub: TheHub,
    reader: Reader,
    state: JobState | None = None,
    before: Position = None,
    limit: Limit = 50,
) -> JobPage:
    """A developer's or a node's own jobs, the newest first; to an operator all."""
    return hub.service.jobs(reader, state, before, limit)


@router.get("/jobs/{job_id}")
def job(hub: TheHub, reader: Reader, job_id: JobId) -> JobView:
    """Where a job stands."""
    return hub.service.view(reader, job_id)


@router.get("/jobs/{job_id}/detail")
def job_detail(hub: TheHub, developer: ReadingDeveloper, job_id: JobId) -> JobDetail:
    """All about a job: how it was routed and why, what it waits for, what is delivered."""
    return hub.service.detail(developer, job_id)


@router.post("/jobs/{job_id}/reroute", status_code=201)
def reroute(
    hub: TheHub, developer: Developer, job_id: JobId, changes: Reroute = _AS_IT_WAS
) -> JobCreated:
    """Ask for a job again at another node: new terms, to be signed anew. The same again gets the
    same job; refused while the first is in escrow and not cancelled."""
    return hub.service.reroute(developer, job_id, changes)


@router.get("/jobs/{job_id}/escrow")
def escrow(hub: TheHub, developer: ReadingDeveloper, job_id: JobId) -> EscrowOffer:
    """What the payer signs, once, to fund the job; and how far that is."""
    return hub.service.escrow(developer, job_id)


@router.post("/jobs/{job_id}/escrow", status_code=202)
def relay_escrow(
    hub: TheHub, developer: Developer, job_id: JobId, order: EscrowOrder
) -> EscrowOffer:
    """Bring the payer's signature on its way; the payer needs no gas."""
    return hub.service.relay_escrow(developer, job_id, order)


@router.get("/jobs/{job_id}/settlement")
def settlement(hub: TheHub, reader: Reader, job_id: JobId) -> JobStatus:
    """What the finalized chain says: funded, paid, refunded, each receipt and transaction."""
    return hub.service.settlement(reader, job_id)


@router.get("/jobs/{job_id}/receipts")
def receipts(hub: TheHub, developer: ReadingDeveloper, job_id: JobId) -> ReceiptBundle:
    """What the job's enclave signed and what paid for it: what `rapha verify` takes."""
    return hub.service.receipts(developer, job_id)


@router.get("/jobs/{job_id}/calls")
def calls(hub: TheHub, developer: ReadingDeveloper, job_id: JobId) -> JobCalls:
    """Transactions that a wallet may send: to cancel, to have a refund."""
    return hub.service.calls(developer, job_id)


@router.get(
    "/jobs/{job_id}/artifacts/{name}",
    response_class=FileResponse,
    responses={200: BINARY, 206: BINARY, 416: {"content": {"text/plain": {}}}},
)
def artifact(
    hub: TheHub, developer: ReadingDeveloper, job_id: JobId, name: ArtifactName
) -> FileResponse:
    """Download an artifact; `Range` goes on where a download broke off, `ETag` is its SHA-256."""
    path, sha256 = hub.service.artifact(developer, job_id, name)
    headers = {"etag": f'"{sha256}"', "cache-control": "private, no-store"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


# What nodes do


@nodes.put("/nodes/{node_id}/profile")
def put_profile(
    hub: TheHub, node: OwnNode, node_id: NodeId, profile: DatasetProfile
) -> DatasetProfile:
    """Publish, or replace, the profile of a node's dataset."""
    if profile.node_id != node_id:
        raise NotYourNode(profile.node_id)
    return hub.service.put_profile(node, profile)


@nodes.post("/nodes/{node_id}/heartbeat", status_code=204)
def heartbeat(hub: TheHub, node: OwnNode, node_id: NodeId) -> None:
    """The node lives, and goes on with what it does."""
    hub.service.heartbeat(node_id)


@nodes.post("/nodes/{node_id}/lease", response_model=JobAssignment, responses={204: {}})
async def lease(
    hub: TheHub,
    node: OwnNode,
    node_id: NodeId,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0,
) -> JobAssignment | Response:
    """The node's unfinished job, or its next funded one; after `wait` seconds 204 when there is
    none."""
    until = time.monotonic() + wait
    while True:
        assignment = await run_in_threadpool(hub.service.lease, node, node_id)
        left = until - time.monotonic()
        if assignment is not None:
            return assignment
        if left <= 0:
            return Response(status_code=204)
        await hub.wakeups.wait(node_id, min(left, hub.poll))


@nodes.post("/jobs/{job_id}/progress")
def progress(hub: TheHub, node: Node, job_id: JobId, told: Progress) -> JobView:
    """How far a running job is."""
    return hub.service.record_progress(node, job_id, told)


@nodes.post("/jobs/{job_id}/failure")
def failure(hub: TheHub, node: Node, job_id: JobId, told: Failure) -> JobView:
    """A running job ends without a result."""
    return hub.service.fail(node, job_id, told)


@nodes.put(
    "/jobs/{job_id}/artifacts/{name}",
    openapi_extra={"requestBody": {"required": True, **BINARY}},
)
async def put_artifact(
    hub: TheHub, node: Node, job_id: JobId, name: ArtifactName, request: Request
) -> JobView:
    """Upload an artifact as raw bytes; write-once."""
    upload = await run_in_threadpool(hub.service.begin_upload, node, job_id, name)
    with upload:
        async for chunk in request.stream():
            await run_in_threadpool(upload.write, chunk)
        return await run_in_threadpool(hub.service.finish_upload, node, job_id, name, upload)

"""The hub over HTTP. Every error is a problem document; keys are bearer tokens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from oracle.clients.bundle import MAX_ARCHIVE_BYTES
from oracle.clients.hub import problems
from oracle.clients.hub.errors import NotYourNode, Unauthorized, WrongRole
from oracle.clients.hub.files import MAX_BYTES
from oracle.clients.hub.keys import KeyRing, Principal, Role
from oracle.clients.hub.limits import BodyLimit
from oracle.clients.hub.messages import (
    ArtifactName,
    CatalogueEntry,
    DatasetProfile,
    Failure,
    JobAssignment,
    JobCreated,
    JobRequest,
    JobView,
    Progress,
)
from oracle.clients.hub.registration import Registration, RegistrationRequest, RegistrationTerms
from oracle.clients.hub.service import HubService
from settlement.types import Bytes32

MAX_JSON_BYTES = MAX_ARCHIVE_BYTES * 4 // 3 + 2**20  # base64, and room for the rest of a request

JobId = Annotated[Bytes32, Path()]
RegistrationId = Annotated[Bytes32, Path()]
NodeId = Annotated[int, Path(gt=0, lt=2**64)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
router = APIRouter()


def _limit_of(path: str) -> int:
    return max(MAX_BYTES.values()) if "/artifacts/" in path else MAX_JSON_BYTES


def create_app(service: HubService, keys: KeyRing) -> FastAPI:
    """The hub's API; it closes the service when it shuts down."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="Rapha hub", version="1", lifespan=lifespan)
    app.state.service = service
    app.state.keys = keys
    app.add_middleware(BodyLimit, limit_of=_limit_of)
    app.add_middleware(problems.InternalErrors)
    problems.install(app)
    app.include_router(router)
    return app


def _service(request: Request) -> HubService:
    service: HubService = request.app.state.service
    return service


def _principal(request: Request, credentials: Bearer) -> Principal:
    keys: KeyRing = request.app.state.keys
    if credentials is None:
        raise Unauthorized
    return keys.identify(credentials.credentials)


Service = Annotated[HubService, Depends(_service)]
Anyone = Annotated[Principal, Depends(_principal)]


def _developer(principal: Anyone) -> Principal:
    if principal.role is not Role.DEVELOPER:
        raise WrongRole(Role.DEVELOPER)
    return principal


def _node(principal: Anyone) -> Principal:
    if principal.role is not Role.NODE:
        raise WrongRole(Role.NODE)
    return principal


Developer = Annotated[Principal, Depends(_developer)]
Node = Annotated[Principal, Depends(_node)]


def _own_node(principal: Node, node_id: NodeId) -> int:
    if principal.subject != str(node_id):
        raise NotYourNode(node_id)
    return node_id


OwnNode = Annotated[int, Depends(_own_node)]


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(service: Service) -> JSONResponse:
    """Whether the database and the oracle answer, so that jobs can be taken."""
    checks = service.readiness()
    ready = all(checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)


@router.get("/v1/registrations")
def registration_terms(service: Service) -> RegistrationTerms:
    """What an identity proof has to be for a registration here."""
    return service.registration_terms()


@router.post("/v1/registrations", status_code=201)
def register(service: Service, request: RegistrationRequest) -> Registration:
    """Register a developer by an identity proof; its API key comes after review."""
    return service.register(request)


@router.get("/v1/registrations/{registration_id}")
def registration(service: Service, registration_id: RegistrationId) -> Registration:
    """Where a registration stands, for whoever knows its id."""
    return service.registration(registration_id)


@router.get("/v1/catalogue")
def catalogue(service: Service, _principal: Anyone) -> tuple[CatalogueEntry, ...]:
    """Every dataset profile, and whether its node is attested now."""
    return service.catalogue()


@router.put("/v1/nodes/{node_id}/profile")
def put_profile(service: Service, node_id: OwnNode, profile: DatasetProfile) -> DatasetProfile:
    """Publish, or replace, the profile of a node's dataset."""
    if profile.node_id != node_id:
        raise NotYourNode(profile.node_id)
    return service.put_profile(profile)


@router.post("/v1/nodes/{node_id}/lease", response_model=JobAssignment, responses={204: {}})
def lease(service: Service, node_id: OwnNode) -> JobAssignment | Response:
    """The node's unfinished job, or its next funded one; 204 when there is none."""
    return service.lease(node_id) or Response(status_code=204)


@router.post("/v1/jobs", status_code=201)
def create_job(service: Service, developer: Developer, request: JobRequest) -> JobCreated:
    """Quote a job; it runs once its terms are in escrow."""
    return service.create_job(developer.subject, request)


@router.get("/v1/jobs/{job_id}")
def job(service: Service, principal: Anyone, job_id: JobId) -> JobView:
    """Where a job stands."""
    return service.view(principal, job_id)


@router.post("/v1/jobs/{job_id}/progress")
def progress(service: Service, node: Node, job_id: JobId, told: Progress) -> JobView:
    """How far a running job is."""
    return service.record_progress(node, job_id, told)


@router.post("/v1/jobs/{job_id}/failure")
def failure(service: Service, node: Node, job_id: JobId, told: Failure) -> JobView:
    """A running job ends without a result."""
    return service.fail(node, job_id, told)


@router.put("/v1/jobs/{job_id}/artifacts/{name}")
async def put_artifact(
    service: Service, node: Node, job_id: JobId, name: ArtifactName, request: Request
) -> JobView:
    """Upload an artifact as raw bytes; write-once."""
    upload = await run_in_threadpool(service.begin_upload, node, job_id, name)
    with upload:
        async for chunk in request.stream():
            await run_in_threadpool(upload.write, chunk)
        return await run_in_threadpool(service.finish_upload, job_id, name, upload)


@router.get("/v1/jobs/{job_id}/artifacts/{name}", response_class=FileResponse)
def artifact(
    service: Service, developer: Developer, job_id: JobId, name: ArtifactName
) -> FileResponse:
    """Download an artifact."""
    path = service.artifact(developer, job_id, name)
    return FileResponse(path, media_type="application/octet-stream")

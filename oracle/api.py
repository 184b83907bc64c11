"""The HTTP API: reads the request, asks the service, writes the answer. Nothing is decided here."""

import hmac
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from oracle import problems
from oracle.errors import PeerTokenRefused
from oracle.limits import BodyLimit
from oracle.messages import (
    Activation,
    ActivationAnswers,
    ActivationSet,
    AttestationStatus,
    ChallengeRequest,
    ChallengeSet,
    EnrolmentRequest,
    EscrowRequest,
    EscrowStatus,
    Evidence,
    JobStatus,
    NodeStatus,
    PeerChallenge,
    Problem,
    Readiness,
    ReceiptStatus,
    SignatureAnswer,
    SignatureRequest,
    TpmRenewal,
    TpmStatus,
)
from oracle.service import Service
from settlement.models import SignedReceipt
from settlement.types import Bytes32

_bearer = HTTPBearer(auto_error=False)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def create_app(service: Service) -> FastAPI:
    """The ASGI application of one oracle. Starting and stopping the service is the caller's."""
    app = FastAPI(
        title="Rapha oracle",
        version=version("rapha-settlement"),
        responses={"default": {"model": Problem, "description": "problem+json"}},
    )
    app.add_middleware(BodyLimit, refuse=problems.refuse_body)
    problems.install(app)
    app.include_router(_health(service))
    app.include_router(_attestations(service))
    app.include_router(_jobs(service))
    app.include_router(_committee(service))
    return app


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"model": Readiness}})
    def ready(response: Response) -> Readiness:
        readiness = service.readiness()
        if not readiness.ready:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return readiness

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _attestations(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["attestations"])

    @router.post("/attestations/challenges", status_code=HTTPStatus.CREATED)
    def create_challenges(request: ChallengeRequest) -> ChallengeSet:
        return service.quorum.challenges(request)

    @router.post("/attestations", status_code=HTTPStatus.ACCEPTED)
    def submit_attestation(evidence: Evidence) -> AttestationStatus:
        status = service.quorum.submit(evidence)
        service.wake("quorum")
        return status

    @router.post("/attestations/tpm/enrolments", status_code=HTTPStatus.CREATED)
    def begin_tpm_enrolment(request: EnrolmentRequest) -> ActivationSet:
        return service.quorum.enrol(request)

    @router.post("/attestations/tpm/activations")
    def end_tpm_enrolment(answers: ActivationAnswers) -> TpmStatus:
        return service.quorum.activate(answers)

    @router.post("/attestations/tpm")
    def renew_tpm(renewal: TpmRenewal) -> TpmStatus:
        return service.quorum.renew_tpm(renewal)

    @router.get("/attestations/{digest}")
    def attestation(digest: Bytes32) -> AttestationStatus:
        return service.quorum.status(digest)

    @router.get("/nodes")
    def nodes() -> list[NodeStatus]:
        return service.intake.nodes()

    @router.get("/nodes/{node_id}")
    def node(node_id: int) -> NodeStatus:
        return service.intake.node(node_id)

    return router


def _jobs(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["jobs"])

    @router.post("/escrows", status_code=HTTPStatus.ACCEPTED)
    def submit_escrow(request: EscrowRequest) -> EscrowStatus:
        status = service.relayed_intake.submit_escrow(request)
        service.wake("relayer")
        return status

    @router.get("/escrows/{job_id}")
    def escrow(job_id: Bytes32) -> EscrowStatus:
        return service.intake.escrow(job_id)

    @router.get("/jobs/{job_id}")
    def job(job_id: Bytes32) -> JobStatus:
        return service.intake.job(job_id)

    @router.post("/receipts", status_code=HTTPStatus.ACCEPTED)
    def submit_receipt(signed: SignedReceipt) -> ReceiptStatus:
        # The relayer is not woken: receipts that gather until its next round share one transaction.
        return service.relayed_intake.submit_receipt(signed)

    @router.get("/receipts/{digest}")
    def receipt(digest: Bytes32) -> ReceiptStatus:
        return service.intake.receipt(digest)

    return router


def _committee(service: Service) -> APIRouter:
    def check_token(credentials: Credentials) -> None:
        given = credentials.credentials if credentials else ""
        if not hmac.compare_digest(given.encode(), service.peer_token.encode()):
            raise PeerTokenRefused

    router = APIRouter(
        prefix="/v1/committee", tags=["committee"], dependencies=[Depends(check_token)]
    )

    @router.post("/challenges", status_code=HTTPStatus.CREATED)
    def challenge(request: ChallengeRequest) -> PeerChallenge:
        return service.operator.challenge(request)

    @router.post("/signatures")
    def signature(request: SignatureRequest) -> SignatureAnswer:
        return service.operator.sign(request)

    @router.post("/tpm/enrolments", status_code=HTTPStatus.CREATED)
    def begin_tpm_enrolment(request: EnrolmentRequest) -> Activation:
        return service.operator.enrol(request)

    @router.post("/tpm/activations")
    def end_tpm_enrolment(answers: ActivationAnswers) -> TpmStatus:
        return service.operator.activate(answers)

    @router.post("/tpm")
    def renew_tpm(renewal: TpmRenewal) -> TpmStatus:
        return service.operator.renew_tpm(renewal)

    return router

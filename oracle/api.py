"""The HTTP API: reads the request, asks the service, writes the answer. Nothing is decided here."""

import asyncio
import hmac
from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from oracle import problems
from oracle.errors import ApiKeyRefused, PeerTokenRefused
from oracle.intake import Verified
from oracle.keys import ApiKey, Scope
from oracle.limits import AccessControl, BodyLimit
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
    PlatformStatus,
    Problem,
    QuoteRequest,
    QuoteStatus,
    Readiness,
    ReceiptAnswer,
    ReceiptAnswers,
    ReceiptBatch,
    ReceiptStatus,
    SignatureAnswer,
    SignatureRequest,
    TpmRenewal,
    TpmStatus,
)
from oracle.service import Service
from settlement.errors import RaphaError
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
    app.add_middleware(BodyLimit, refuse=problems.refuse)
    app.add_middleware(
        AccessControl, keys=service.keys, rates=service.rates, refuse=problems.refuse
    )
    problems.install(app)
    app.include_router(_health(service))
    app.include_router(_attestations(service))
    app.include_router(_jobs(service))
    app.include_router(_receipts(service))
    app.include_router(_committee(service))
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Have the OpenAPI document say that what is no success is a problem document."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            default = operation["responses"]["default"]["content"]
            default["application/problem+json"] = default.pop("application/json")


def _needs(service: Service, scope: Scope) -> Any:
    """A route's dependency: an API key for this, where one is needed or given."""

    async def check(request: Request, _documented: Credentials) -> None:
        key: ApiKey | None = request.state.api_key
        if key is not None:
            key.check(scope)
        elif service.access.key_required:
            raise ApiKeyRefused

    return Depends(check)


def _by_method(service: Service) -> Any:
    """The same for a router: asking needs READ, handing in SUBMIT."""

    async def check(request: Request, documented: Credentials) -> None:
        scope = Scope.READ if request.method == "GET" else Scope.SUBMIT
        await _needs(service, scope).dependency(request, documented)

    return Depends(check)


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

    @router.get("/metrics", dependencies=[_needs(service, Scope.OPERATE)], response_class=Response)
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _taking_in(service: Service) -> Any:
    """A router's dependency: nothing new is taken in while an operator has paused the intake."""

    def check(request: Request) -> None:
        if request.method == "POST":
            service.gate.check()

    return Depends(check)


def _attestations(service: Service) -> APIRouter:
    router = APIRouter(
        prefix="/v1",
        tags=["attestations"],
        dependencies=[_by_method(service), _taking_in(service)],
    )

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

    @router.get("/platforms/{platform}")
    def platform(platform: Bytes32) -> PlatformStatus:
        return service.quotes.platform(platform)

    @router.post("/quotes", status_code=HTTPStatus.ACCEPTED)
    def submit_quote(request: QuoteRequest) -> QuoteStatus:
        status = service.quotes.submit(request)
        service.wake("relayer")
        return status

    @router.get("/quotes/{digest}")
    def quote(digest: Bytes32) -> QuoteStatus:
        return service.quotes.status(digest)

    @router.get("/nodes")
    def nodes() -> list[NodeStatus]:
        return service.intake.nodes()

    @router.get("/nodes/{node_id}")
    def node(node_id: int) -> NodeStatus:
        return service.intake.node(node_id)

    return router


def _jobs(service: Service) -> APIRouter:
    router = APIRouter(
        prefix="/v1", tags=["jobs"], dependencies=[_by_method(service), _taking_in(service)]
    )

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

    return router


def _receipts(service: Service) -> APIRouter:
    # Whether the intake is paused is looked at in the transaction that keeps receipts.
    router = APIRouter(prefix="/v1", tags=["receipts"], dependencies=[_by_method(service)])

    # The relayer is not woken: receipts that gather until its next round share one transaction.

    @router.post("/receipts", status_code=HTTPStatus.ACCEPTED)
    async def submit_receipt(signed: SignedReceipt) -> ReceiptStatus:
        verified = service.relayed_intake.verify(signed)
        return (await asyncio.wrap_future(service.commits.put([verified])))[0]

    @router.post("/receipts/batch", status_code=HTTPStatus.ACCEPTED)
    def submit_receipts(request: Request, batch: ReceiptBatch) -> ReceiptAnswers:
        charge: Callable[[int], None] = request.state.charge
        charge(len(batch.receipts) - 1)
        verify = service.relayed_intake.verify
        checked = [_checked(verify, item) for item in batch.receipts]
        good = [found for found in checked if isinstance(found, Verified)]
        statuses = iter(service.commits.put(good).result() if good else [])
        return ReceiptAnswers(
            answers=tuple(
                ReceiptAnswer(receipt=next(statuses))
                if isinstance(found, Verified)
                else ReceiptAnswer(problem=found)
                for found in checked
            )
        )

    @router.get("/receipts/{digest}")
    def receipt(digest: Bytes32) -> ReceiptStatus:
        return service.intake.receipt(digest)

    @router.get(
        "/events",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def events(
        job: Annotated[Bytes32 | None, Query()] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        after = await run_in_threadpool(service.feed.start_from, last_event_id)
        return service.feed.follow(after, job)

    return router


def _checked(verify: Callable[[SignedReceipt], Verified], item: Any) -> Verified | Problem:
    """One receipt of a batch, or what is wrong with it: the others do not suffer from that."""
    try:
        return verify(SignedReceipt.model_validate(item))
    except ValidationError as error:
        return problems.malformed(error.errors())
    except RaphaError as error:
        return problems.problem_of(error)


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

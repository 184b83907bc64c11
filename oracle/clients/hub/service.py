"""What the hub does, free of HTTP. It believes the oracle about money, and nobody else."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from oracle.client import JobState as EscrowState
from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.clients.bundle import unpack_bundle
from oracle.clients.hub.errors import (
    JobUnknown,
    NodeNotAttested,
    PayerNotBound,
    RegistrationClosed,
)
from oracle.clients.hub.files import ArtifactFiles, Upload
from oracle.clients.hub.identity import Identities
from oracle.clients.hub.jobs import FINISHED, Escrow, Job, Task, follow
from oracle.clients.hub.keys import Principal, Role
from oracle.clients.hub.messages import (
    ArtifactName,
    CatalogueEntry,
    DatasetProfile,
    Failure,
    JobAssignment,
    JobCreated,
    JobRequest,
    JobState,
    JobView,
    Progress,
)
from oracle.clients.hub.registration import (
    Registration,
    RegistrationRequest,
    RegistrationState,
    RegistrationTerms,
)
from oracle.clients.hub.routing import UNKNOWN, Standing, check_deadline, route
from oracle.clients.hub.store import Store
from oracle.clients.hub.terms import build_terms, check_result_key
from settlement import digests, eip712
from settlement.deployment import Deployment
from settlement.types import to_hex

ASKED_PER_LEASE = 16
"""How many jobs one lease asks the oracle about: unpaid quotes must not slow a node down."""

_ESCROWS = {
    EscrowState.UNASSIGNED: Escrow.UNKNOWN,
    EscrowState.OPEN: Escrow.OPEN,
    EscrowState.CANCELLING: Escrow.CANCELLING,
}

log = structlog.get_logger("rapha.hub")


def now() -> int:
    """Unix seconds."""
    return int(time.time())


class HubService:
    """Catalogue, jobs and artifacts.

    Every method may raise the hub's errors, and `OracleUnavailable` where it says that it asks the
    oracle; it then has changed nothing, and the same call may succeed later.
    """

    def __init__(
        self,
        store: Store,
        files: ArtifactFiles,
        oracle: OracleClient,
        deployment: Deployment,
        *,
        identities: Identities | None = None,
        shortest_deadline: int = 60,
        clock: Callable[[], int] = now,
        salts: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        self._store = store
        self._files = files
        self._oracle = oracle
        self._deployment = deployment
        self._identities = identities
        self._shortest_deadline = shortest_deadline
        self._clock = clock
        self._salts = salts

    def close(self) -> None:
        """Release database and oracle connections."""
        self._store.close()
        self._oracle.close()

    def readiness(self) -> dict[str, bool]:
        """Whether the database and the oracle answer now."""
        return {"database": self._database_answers(), "oracle": self._oracle_answers()}

    def _database_answers(self) -> bool:
        try:
            self._store.ping()
        except SQLAlchemyError:
            return False
        return True

    def _oracle_answers(self) -> bool:
        try:
            return self._oracle.health().ready
        except (OracleUnavailable, OracleRefused):
            return False

    def registration_terms(self) -> RegistrationTerms:
        """What a proof has to be. RegistrationClosed where none is taken."""
        return self._registering().terms

    def register(self, request: RegistrationRequest) -> Registration:
        """Keep a developer's registration for review; the same one again gets the same answer.

        Raises:
            RegistrationClosed: when this hub takes none.
            IdentityRefused: by name, when the proof does not count; nothing is kept then.
        """
        now = self._clock()
        identity = self._registering().verify(
            request.provider, request.proof, wallet=request.wallet, now=now
        )
        registration = self._store.add_registration(
            Registration(
                registration_id=secrets.token_bytes(32),
                name=request.name,
                company=request.company,
                wallet=identity.wallet,
                provider=identity.provider,
                site=identity.site,
                template=identity.template,
                state=RegistrationState.PENDING,
                proven_at=identity.issued_at,
                requested_at=now,
                decided_at=None,
            ),
            identity,
        )
        log.info("registration", name=registration.name, state=registration.state)
        return registration

    def registration(self, registration_id: bytes) -> Registration:
        """A registration, to whoever knows its id."""
        return self._store.registration(registration_id)

    def put_profile(self, profile: DatasetProfile) -> DatasetProfile:
        """Publish, or replace, a node's profile."""
        self._store.put_profile(profile, self._clock())
        log.info("profile published", node_id=profile.node_id, records=profile.record_count)
        return profile

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        """Every profile with its node's validity now; asks the oracle."""
        standings = self._standings()
        entries = []
        for profile in self._store.profiles():
            standing = standings.get(profile.node_id, UNKNOWN)
            entries.append(
                CatalogueEntry(
                    profile=profile,
                    valid=standing.routable,
                    expiry=standing.until,
                    reasons=standing.reasons,
                )
            )
        return tuple(entries)

    def create_job(self, tenant: str, request: JobRequest) -> JobCreated:
        """Check, route and quote a job; asks the oracle which nodes may get work."""
        files = unpack_bundle(request.bundle)
        check_result_key(request.result_key)
        wallet = self._store.bound_wallet(tenant)
        if wallet is not None and request.payer != wallet:
            raise PayerNotBound(request.payer, wallet)
        check_deadline(request.deadline, now=self._clock(), shortest=self._shortest_deadline)
        profile, chosen = route(
            request, self._store.profiles(), self._standings(), self._store.load()
        )
        model_digest = digests.bundle_digest(files)
        terms = build_terms(request, profile, model_digest, self._salts())
        job = Job(
            job_id=eip712.job_id(terms, self._deployment.vault_domain),
            tenant=tenant,
            terms=terms,
            task=Task(policy=request.policy, epochs=request.epochs, result_key=request.result_key),
            bundle_digest=model_digest,
            created_at=self._clock(),
        )
        self._store.add_job(job, request.bundle)
        log.info("job quoted", job_id=to_hex(job.job_id), tenant=tenant, node_id=terms.node_id)
        return JobCreated(job_id=job.job_id, terms=terms, route=chosen)

    def view(self, principal: Principal, job_id: bytes) -> JobView:
        """A job of the asker's; asks the oracle unless it has ended."""
        return self._refresh(self._owned(principal, job_id))[0].view

    def lease(self, node_id: int) -> JobAssignment | None:
        """The node's running job again, or its next funded one, now running; asks the oracle."""
        running = self._store.running(node_id)
        if running:
            job, escrow = self._refresh(running)
            if job.state is JobState.RUNNING:
                # Until the oracle knows the escrow again (a reorganisation), there is no work.
                return None if escrow is Escrow.UNKNOWN else self._assignment(job)
        for waiting in self._store.waiting(node_id, ASKED_PER_LEASE):
            job, _ = self._refresh(waiting)
            if job.state is not JobState.FUNDED:
                continue
            standing = self._standings().get(node_id, UNKNOWN)
            if not standing.routable:
                raise NodeNotAttested(node_id, standing.reasons)
            if self._store.start(job):
                log.info("job started", job_id=to_hex(job.job_id), node_id=node_id)
                return self._assignment(job)
        return None

    def record_progress(self, principal: Principal, job_id: bytes, progress: Progress) -> JobView:
        """Keep a running job's progress; counters that go backwards are ignored."""
        self._owned(principal, job_id)
        return self._store.record_progress(job_id, progress).view

    def fail(self, principal: Principal, job_id: bytes, failure: Failure) -> JobView:
        """End a running job without a result; the first failure stays."""
        self._owned(principal, job_id)
        job = self._store.fail(job_id, failure)
        log.warning("job failed", job_id=to_hex(job_id), failure=failure.code)
        return job.view

    def begin_upload(self, principal: Principal, job_id: bytes, name: ArtifactName) -> Upload:
        """A place for an artifact's bytes, for `finish_upload`; refused early where it can be."""
        self._owned(principal, job_id)
        self._store.check_upload(job_id, name)
        return self._files.upload(name)

    def finish_upload(self, job_id: bytes, name: ArtifactName, upload: Upload) -> JobView:
        """Write the artifact, once; the last of the four delivers the job."""
        upload.keep()  # the file first: a row must never speak of bytes that are not there
        job = self._store.add_artifact(job_id, name, upload.sha256, upload.size)
        log.info("artifact", job_id=to_hex(job_id), name=name, size=upload.size, state=job.state)
        return job.view

    def artifact(self, principal: Principal, job_id: bytes, name: ArtifactName) -> Path:
        """The file of an artifact."""
        self._owned(principal, job_id)
        return self._files.path(self._store.artifact(job_id, name))

    def _registering(self) -> Identities:
        if self._identities is None:
            raise RegistrationClosed
        return self._identities

    def _owned(self, principal: Principal, job_id: bytes) -> Job:
        job = self._store.job(job_id)
        owner = job.tenant if principal.role is Role.DEVELOPER else str(job.terms.node_id)
        if principal.subject != owner:
            raise JobUnknown(job_id)
        return job

    def _assignment(self, job: Job) -> JobAssignment:
        return job.assignment(self._store.bundle(job))

    def _refresh(self, job: Job) -> tuple[Job, Escrow]:
        """The job in the state that its escrow puts it in."""
        if job.state in FINISHED:
            return job, Escrow.UNKNOWN
        escrow = self._escrow(job.job_id)
        state, failure = follow(job.state, escrow, deadline=job.terms.deadline, now=self._clock())
        if state is not job.state:
            log.info("job moved", job_id=to_hex(job.job_id), state=state)
        return self._store.move(job, state, failure, self._clock()), escrow

    def _escrow(self, job_id: bytes) -> Escrow:
        try:
            known = self._oracle.job(job_id)
        except OracleRefused as error:
            if error.code == "JobUnknown":
                return Escrow.UNKNOWN
            raise
        if known.state in _ESCROWS:
            return _ESCROWS[known.state]
        # Only a completing receipt brings an output; whoever relayed it, the work was accepted.
        return Escrow.COMPLETED if any(known.output_digest or b"") else Escrow.CLOSED

    def _standings(self) -> dict[int, Standing]:
        """Each node that the oracle knows: until when the longest of its enclaves may work."""
        standings: dict[int, Standing] = {}
        for node in self._oracle.nodes():
            until = node.routable_until if node.routable else None
            if until is not None and until <= self._clock():
                until = None  # the oracle's clock is behind this one's
            known = standings.get(node.node_id)
            if known is None or (until or 0) > (known.until or 0):
                reasons = () if until is not None else node.reasons or ("enclave_expired",)
                standings[node.node_id] = Standing(until, reasons)
        return standings

"""What the hub does, free of HTTP. It believes the oracle about money, and nobody else."""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from oracle.client import (
    EscrowRequest,
    EscrowStatus,
    JobStatus,
    OracleClient,
    OracleRefused,
    OracleUnavailable,
    Readiness,
)
from oracle.client import JobState as EscrowState
from oracle.clients.edge.policy.digest import policy_digest
from oracle.clients.hub.chain import ChainView
from oracle.clients.hub.errors import (
    ArtifactExpired,
    JobNotRepeatable,
    JobStillHeld,
    JobUnknown,
    NodeAbsent,
    NodeNotAttested,
    NodeUnknown,
    PayerNotBound,
    ProfileOutdated,
    ReceiptsUnreadable,
)
from oracle.clients.hub.files import ArtifactFiles, Upload
from oracle.clients.hub.jobs import FINISHED, Escrow, Job, Task, follow
from oracle.clients.hub.keys import Principal
from oracle.clients.hub.quotes import pace_of, quote
from oracle.clients.hub.result_key import check_result_key
from oracle.clients.hub.routing import (
    IDLE,
    UNKNOWN,
    Standing,
    Wish,
    Work,
    check_deadline,
    route,
)
from oracle.clients.hub.store import Store
from oracle.clients.hub.uploads import Uploads
from settlement import digests, eip712
from settlement.bundle import read_manifest, unpack_bundle
from settlement.calls import calls_about
from settlement.contracts import authorization_document
from settlement.deployment import Deployment
from settlement.errors import InvalidSignature
from settlement.hub.account import Role
from settlement.hub.market import (
    Artifact,
    CataloguePage,
    EscrowOffer,
    EscrowOrder,
    EscrowStage,
    JobCalls,
    JobDetail,
    JobPage,
    NodeView,
    NodeViews,
    QuoteRequest,
    Quotes,
    Reroute,
    Shares,
)
from settlement.hub.messages import (
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
from settlement.hub.terms import build_terms
from settlement.models import SignedReceipt
from settlement.types import to_hex
from settlement.verify import ReceiptBundle

ASKED_PER_LEASE = 16
"""How many jobs one lease asks the oracle about: unpaid quotes must not slow a node down."""

NOTED = 5
"""Seconds after which it is written down anew that a job was asked about, for who looks at it."""

SWEPT = 50
"""How many jobs one sweep asks the oracle about."""

_ESCROWS = {
    EscrowState.UNASSIGNED: Escrow.UNKNOWN,
    EscrowState.OPEN: Escrow.OPEN,
    EscrowState.CANCELLING: Escrow.CANCELLING,
}

_RECEIPTS = TypeAdapter(tuple[SignedReceipt, ...])

log = structlog.get_logger("rapha.hub")


def now() -> int:
    """Unix seconds."""
    return int(time.time())


@dataclass(frozen=True)
class HubPolicy:
    """The hub's own numbers, in seconds unless they say otherwise.

    `patience`: after which a node that was not heard of gets no new job. `lease`: how long a node
    is counted on without a sign of life. `queue`: unfinished jobs of one node. `retention`: how
    long a delivery is kept. `authorization`: how long a payer's signature is good. `freshness`: how
    long an answer of the oracle's about nodes, and about quotes that are not paid, is good enough.
    """

    shortest_deadline: int = 60
    patience: int = 300
    lease: int = 120
    queue: int = 100
    retention: int = 30 * 86_400
    authorization: int = 3_600
    freshness: float = 0.0


@dataclass(frozen=True)
class PaidNode:
    """A node, as what a wallet is paid by it, and its newest jobs."""

    profile: DatasetProfile
    parts: tuple[str, ...]
    jobs: tuple[JobView, ...]


@dataclass(frozen=True)
class CatalogueQuery:
    """What somebody looks for in the catalogue; None asks for nothing."""

    modality: str | None = None
    text: str | None = None
    columns: frozenset[str] = frozenset()
    min_records: int = 0
    max_price_per_record: int | None = None
    attested: bool = False

    def matches(self, entry: CatalogueEntry) -> bool:
        """Whether an entry is what is looked for."""
        profile = entry.profile
        words = f"{profile.description} {profile.modality} {' '.join(profile.schema_)}".lower()
        return (
            self.modality in (None, profile.modality)
            and profile.record_count >= self.min_records
            and self.columns <= profile.columns
            and (
                self.max_price_per_record is None
                or profile.price_per_record <= self.max_price_per_record
            )
            and (entry.valid or not self.attested)
            and all(word in words for word in (self.text or "").lower().split())
        )


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
        uploads: Uploads,
        chain: ChainView | None = None,
        policy: HubPolicy = HubPolicy(),
        clock: Callable[[], int] = now,
        elapsed: Callable[[], float] = time.monotonic,
        salts: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        """Without `chain` quotes name neither shares nor gas price. `elapsed` is monotonic."""
        self._store = store
        self._files = files
        self._oracle = oracle
        self._deployment = deployment
        self._uploads = uploads
        self._chain = chain
        self._policy = policy
        self._clock = clock
        self._elapsed = elapsed
        self._salts = salts
        self._known_standings: tuple[float, dict[int, Standing]] | None = None
        self._asking = threading.Lock()
        self._filings = tuple(threading.Lock() for _ in range(32))

    def close(self) -> None:
        """Release database and oracle connections."""
        self._store.close()
        self._oracle.close()

    def readiness(self) -> dict[str, bool]:
        """Whether the database and the oracle answer now."""
        health = self.oracle_health()
        return {"database": self._database_answers(), "oracle": health is not None and health.ready}

    def _database_answers(self) -> bool:
        try:
            self._store.ping()
        except SQLAlchemyError:
            return False
        return True

    def oracle_health(self) -> Readiness | None:
        """What the oracle says of itself; None when it does not answer."""
        try:
            return self._oracle.health()
        except (OracleUnavailable, OracleRefused):
            return None

    # Catalogue

    def nodes_paying(self, wallet: str, limit: int) -> tuple[PaidNode, ...]:
        """The nodes that the chain has this wallet a payee of, each with its newest jobs; none
        where no chain is asked. Raises ChainUnavailable."""
        if self._chain is None:
            return ()
        found = []
        for profile in sorted(self._store.profiles(), key=lambda profile: profile.node_id):
            try:
                payees = self._chain.payees(profile.node_id)
            except NodeUnknown:  # a profile for a node that is not registered on chain
                continue
            parts = tuple(part for part, payee in payees.items() if payee == wallet)
            if parts:
                node = Principal(Role.NODE, str(profile.node_id))
                jobs = self.jobs(node, None, None, limit).jobs
                found.append(PaidNode(profile, parts, jobs))
        return tuple(found)

    def shares(self, node_id: int) -> Shares | None:
        """How a node's earnings are split now; None where no chain is asked, or knows no such
        node. Raises ChainUnavailable."""
        return self._shares((node_id,)).get(node_id)

    def put_profile(self, principal: Principal, profile: DatasetProfile) -> DatasetProfile:
        """Publish, or replace, a node's profile."""
        self._store.put_profile(profile, principal, self._clock())
        log.info("profile published", node_id=profile.node_id, records=profile.record_count)
        return profile

    def catalogue(self, query: CatalogueQuery, after: int, limit: int) -> CataloguePage:
        """What fits a query, by node id behind `after`; asks the oracle which nodes count now."""
        found = [entry for entry in self._entries(after) if query.matches(entry)]
        page = tuple(found[:limit])
        more = len(found) > limit
        return CataloguePage(entries=page, next=str(page[-1].profile.node_id) if more else None)

    def entry(self, node_id: int) -> CatalogueEntry:
        """A node's entry; asks the oracle. Raises NodeUnknown, ProfileOutdated."""
        self._store.profile(node_id)
        return next(entry for entry in self._entries(node_id - 1))

    def _entries(self, after: int) -> list[CatalogueEntry]:
        standings, seen = self._standings(), self._store.seen()
        entries = []
        for profile, updated_at in self._store.published():
            if profile.node_id <= after:
                continue
            standing = standings.get(profile.node_id, UNKNOWN)
            entries.append(
                CatalogueEntry(
                    profile=profile,
                    valid=standing.routable,
                    expiry=standing.until,
                    reasons=standing.reasons,
                    updated_at=updated_at,
                    seen_at=seen.get(profile.node_id),
                )
            )
        return sorted(entries, key=lambda entry: entry.profile.node_id)

    def quotes(self, request: QuoteRequest) -> Quotes:
        """What a job would cost on each node, and which could take it; keeps nothing, asks the
        oracle, and the chain where there is an endpoint."""
        profiles = self._store.profiles()
        return quote(
            Wish.of(request),
            profiles,
            self._standings(),
            self._work(),
            shares=self._shares(profile.node_id for profile in profiles),
            pace=pace_of(self._store.durations()),
            gas_price=self._chain.gas_price() if self._chain is not None else None,
        )

    def _shares(self, node_ids: Iterable[int]) -> dict[int, Shares]:
        if self._chain is None:
            return {}
        found: dict[int, Shares] = {}
        for node_id in node_ids:
            try:
                found[node_id] = self._chain.shares(node_id)
            except NodeUnknown:  # a profile for a node that is not registered on chain
                continue
        return found

    def nodes(self) -> NodeViews:
        """Every node as the operator sees it; asks the oracle."""
        entries = {entry.profile.node_id: entry for entry in self._entries(0)}
        work, seen, outdated = self._work(), self._store.seen(), self._store.outdated()
        views = []
        for node_id in sorted(seen):
            running = self._store.running(node_id)
            views.append(
                NodeView(
                    node_id=node_id,
                    seen_at=seen[node_id],
                    unfinished_jobs=work.get(node_id, IDLE).unfinished,
                    running_job=running.job_id if running is not None else None,
                    entry=entries.get(node_id),
                    needs=str(ProfileOutdated(node_id)) if node_id in outdated else None,
                )
            )
        return NodeViews(nodes=tuple(views))

    # Jobs

    def create_job(
        self, principal: Principal, request: JobRequest, key: str | None = None
    ) -> JobCreated:
        """Check, route and quote a job; asks the oracle which nodes may get work.

        Under an Idempotency-Key the same request again gets the same job.

        Raises:
            IdempotencyConflict: when the key came with another request.
        """
        tenant = principal.subject
        asked = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        if key is not None and (known := self._store.asked(tenant, key, asked)) is not None:
            return _created(known)
        bundle = request.bundle
        if bundle is None:
            assert request.upload_id is not None  # the request has one of them
            bundle = self._uploads.bundle_of(principal, request.upload_id)
        check_result_key(request.result_key)
        self._check_payer(tenant, request.payer)
        job = self._quoted(tenant, request, bundle)
        kept = self._store.add_job(job, bundle, principal, key=key, request_digest=asked)
        log.info("job quoted", job_id=to_hex(kept.job_id), tenant=tenant, node_id=kept.node_id)
        return _created(kept)

    def reroute(self, principal: Principal, job_id: bytes, changes: Reroute) -> JobCreated:
        """Ask for a job again at another node: terms of their own, to be signed and funded anew.

        The vault pays no other node for a job than the one that its signed terms name, so a job is
        never moved: another takes its place, once the first can cost nothing new. The same again
        gets the same job. Asks the oracle.

        Raises:
            JobStillHeld: while the first job is in escrow and its payer has not ended it.
            JobNotRepeatable: when it was delivered, or its request was not kept.
        """
        job, escrow = self._refresh(self._owned(principal, job_id))
        if (known := self._store.replacement(job_id)) is not None:
            return _created(known)
        if job.state is JobState.DELIVERED:
            raise JobNotRepeatable(job_id, "it was delivered")
        if job.wish is None:
            raise JobNotRepeatable(job_id, "what was asked for is not on record")
        if job.state in (JobState.FUNDED, JobState.RUNNING) and escrow is not Escrow.CANCELLING:
            raise JobStillHeld(job_id, job.node_id)
        bundle = self._store.bundle(job)
        wanted = {"node_id": None, **changes.model_dump(mode="json", exclude_none=True)}
        request = JobRequest.model_validate({**json.loads(job.wish), **wanted, "bundle": bundle})
        self._check_payer(principal.subject, request.payer)
        again = self._quoted(principal.subject, request, bundle, instead_of=job)
        kept = self._store.add_job(again, None, principal)
        log.info("job rerouted", job_id=to_hex(job_id), replaced_by=to_hex(kept.job_id))
        return _created(kept)

    def _quoted(
        self, tenant: str, request: JobRequest, bundle: bytes, *, instead_of: Job | None = None
    ) -> Job:
        """A new job, routed and with terms; `instead_of` is the one whose place it takes."""
        files = unpack_bundle(bundle)
        check_deadline(request.deadline, now=self._clock(), shortest=self._policy.shortest_deadline)
        wish = Wish.of(request)
        if instead_of is not None:
            wish = replace(wish, avoid=instead_of.node_id)
        profile, chosen = route(wish, self._store.profiles(), self._standings(), self._work())
        if instead_of is not None:
            why = f"reassigned because {self._why_moved(instead_of)}"
            chosen = chosen.model_copy(update={"why": (why, *chosen.why)})
        model_digest = digests.bundle_digest(files)
        terms = build_terms(
            request,
            profile,
            bundle_digest=model_digest,
            policy_digest=policy_digest(request.policy),
            salt=self._salts(),
        )
        return Job(
            job_id=eip712.job_id(terms, self._deployment.vault_domain),
            tenant=tenant,
            terms=terms,
            task=Task(
                policy=request.policy,
                epochs=request.epochs,
                result_key=request.result_key,
                framework=read_manifest(files).framework,
            ),
            bundle_digest=model_digest,
            node_id=terms.node_id,
            route_json=chosen.model_dump_json(),
            wish=request.model_dump_json(exclude={"bundle", "upload_id"}),
            replaces=instead_of.job_id if instead_of is not None else None,
            created_at=self._clock(),
        )

    def _why_moved(self, job: Job) -> str:
        if job.failure is not None:
            return f"job {to_hex(job.job_id)} ended on node {job.node_id}: {job.failure.detail}"
        silent = self._clock() - self._store.seen().get(job.node_id, 0)
        if silent > self._policy.lease:
            return f"node {job.node_id} was not heard of for {silent} seconds"
        return "the payer asked for another node"

    def _check_payer(self, tenant: str, payer: str) -> None:
        registered = self._store.registration_named(tenant)
        if registered is not None and payer != registered.wallet:
            raise PayerNotBound(payer, registered.wallet)

    def jobs(
        self, principal: Principal, state: JobState | None, before: str | None, limit: int
    ) -> JobPage:
        """The asker's jobs as they were last known, the newest first; an operator's are all."""
        position = None
        if before is not None:
            at, _, key = before.partition(".")
            position = (int(at), key)
        found = self._store.jobs_of(
            tenant=principal.tenant,
            node_id=int(principal.subject) if principal.role is Role.NODE else None,
            state=state,
            before=position,
            limit=limit + 1,
        )
        page = found[:limit]
        last = f"{page[-1].created_at}.{to_hex(page[-1].job_id)}" if len(found) > limit else None
        return JobPage(jobs=tuple(job.view for job in page), next=last)

    def detail(self, principal: Principal, job_id: bytes) -> JobDetail:
        """All about a job of the asker's; asks the oracle unless it has ended."""
        job = self._refresh(self._owned(principal, job_id))[0]
        seen = self._store.seen().get(job.node_id)
        replacement = self._store.replacement(job_id)
        return JobDetail(
            **dict(job.view),
            created_at=job.created_at,
            started_at=job.started_at,
            ended_at=job.ended_at,
            node_seen_at=seen,
            stalled=self._stalled(job, seen),
            framework=job.task.framework,
            epochs=job.task.epochs,
            policy=job.task.policy,
            route=job.route,
            replaces=job.replaces,
            replaced_by=replacement.job_id if replacement is not None else None,
            artifacts=tuple(
                Artifact(
                    name=kept.name,
                    size=kept.size,
                    sha256=bytes.fromhex(kept.sha256),
                    expires_at=self._kept_until(job),
                )
                for kept in self._store.artifacts(job_id)
            ),
        )

    def _stalled(self, job: Job, seen: int | None) -> str | None:
        """What an unfinished job waits for, in words; None when it goes on by itself."""
        now = self._clock()
        silent = now - (seen or 0)
        if job.state is JobState.QUOTED:
            if silent > self._policy.patience:
                return (
                    f"node {job.node_id} was not heard of for {silent} seconds, and nothing is in "
                    "escrow yet: do not pay for it, ask for the job at another node (reroute)"
                )
            return "the budget is not in escrow yet"
        lost = job.state is JobState.RUNNING and (self._store.lease_until(job.job_id) or 0) <= now
        if lost or (job.state is JobState.FUNDED and silent > self._policy.patience):
            return (
                f"node {job.node_id} was not heard of for {silent} seconds; the terms name this "
                "node and the vault pays no other, so the job waits for it. The payer can cancel: "
                "what is not earned goes back; then ask for the job at another node (reroute)"
            )
        return None

    def _kept_until(self, job: Job) -> int:
        return (job.ended_at or self._clock()) + self._policy.retention

    # Escrow

    def escrow(self, principal: Principal, job_id: bytes) -> EscrowOffer:
        """What the payer has to sign, and how far the escrow is; asks the oracle."""
        job = self._owned(principal, job_id)
        valid_before = self._chain_now() + self._policy.authorization
        return self._offer(job, self._escrow_status(job_id), valid_before)

    def relay_escrow(self, principal: Principal, job_id: bytes, order: EscrowOrder) -> EscrowOffer:
        """Have the oracle bring a payer's signature; the same again gets the same answer.

        Raises:
            NodeAbsent: when the job's node was not heard of for too long; nothing is paid then.
        """
        job = self._owned(principal, job_id)
        silent = self._clock() - self._store.seen().get(job.node_id, 0)
        if (
            job.state is JobState.QUOTED
            and silent > self._policy.patience
            and self._escrow_status(job_id) is None
        ):
            raise NodeAbsent(job_id, job.node_id, silent)
        status = self._oracle.submit_escrow(
            EscrowRequest(terms=job.terms, authorization=order.authorization)
        )
        self._store.note(
            principal, self._clock(), "escrow.relay", to_hex(job_id), status=status.status
        )
        return self._offer(job, status, order.authorization.valid_before)

    def _escrow_status(self, job_id: bytes) -> EscrowStatus | None:
        try:
            return self._oracle.escrow(job_id)
        except OracleRefused as error:
            if error.status == 404:
                return None
            raise

    def _offer(self, job: Job, status: EscrowStatus | None, valid_before: int) -> EscrowOffer:
        document = authorization_document(
            self._deployment, job.terms, valid_after=0, valid_before=valid_before
        )
        return EscrowOffer(
            job_id=job.job_id,
            typed_data=document,
            valid_after=0,
            valid_before=valid_before,
            stage=EscrowStage(status.status) if status is not None else EscrowStage.UNSIGNED,
            reason=status.reason if status is not None else None,
            detail=status.detail if status is not None else None,
            transaction=status.transaction if status is not None else None,
        )

    def _chain_now(self) -> int:
        """The time by which an authorisation holds: the chain's, which may be behind ours."""
        return self._chain.now() if self._chain is not None else self._clock()

    def settlement(self, principal: Principal, job_id: bytes) -> JobStatus:
        """What the finalized chain says of a job's money; asks the oracle. Raises JobUnknown."""
        self._owned(principal, job_id)
        try:
            return self._oracle.job(job_id)
        except OracleRefused as error:
            if error.code == "JobUnknown":
                raise JobUnknown(job_id) from error
            raise

    def receipts(self, principal: Principal, job_id: bytes) -> ReceiptBundle:
        """The receipts as the node delivered them, with what the chain says of their payment.

        What the output is made of is not in it: the hub has seen the weights only encrypted. Asks
        the oracle.

        Raises:
            ArtifactUnknown, ArtifactExpired: as `artifact`.
            ReceiptsUnreadable: when the node delivered something else.
        """
        path, _ = self.artifact(principal, job_id, ArtifactName.RECEIPTS)
        job = self._store.job(job_id)
        try:
            signed = _RECEIPTS.validate_json(path.read_bytes())
            if not signed:
                raise ReceiptsUnreadable(job_id, "there is none")
            last = signed[-1]
            digest = eip712.receipt_digest(last.receipt, self._deployment.vault_domain)
            enclave_key = eip712.recover_signer(digest, last.signature)
        except (ValidationError, InvalidSignature) as error:
            raise ReceiptsUnreadable(job_id, type(error).__name__) from error
        return ReceiptBundle(
            deployment=self._deployment,
            terms=job.terms,
            enclave_key=enclave_key,
            receipts=signed,
            transactions=tuple(
                dict.fromkeys(
                    told.transaction for told in self.settlement(principal, job_id).transactions
                )
            ),
        )

    def calls(self, principal: Principal, job_id: bytes) -> JobCalls:
        """The transactions that a wallet may send about a job."""
        job = self._owned(principal, job_id)
        return JobCalls(calls=calls_about(self._deployment, job.terms))

    def view(self, principal: Principal, job_id: bytes) -> JobView:
        """A job of the asker's; asks the oracle unless it has ended."""
        job = self._owned(principal, job_id)
        unchanged: list[bytes] = []
        seen = self._refresh(job, unchanged)[0].view
        # Who looks every second need not have that written down every second.
        if self._clock() - job.checked_at >= NOTED:
            self._store.checked(unchanged, self._clock())
        return seen

    def heartbeat(self, node_id: int) -> None:
        """A node lives: its lease goes on."""
        now = self._clock()
        self._store.see(node_id, now, now + self._policy.lease)

    def lease(self, principal: Principal, node_id: int) -> JobAssignment | None:
        """The node's running job again, or its next funded one, now running; asks the oracle.

        Raises:
            ProfileOutdated: when there is work, and the node has to publish its profile anew first.
            NodeNotAttested: when there is work, and the node may not get it now.
        """
        self.heartbeat(node_id)
        running = self._store.running(node_id)
        if running:
            job, escrow = self._refresh(running)
            if job.state is JobState.RUNNING:
                # Until the oracle knows the escrow again (a reorganisation), there is no work.
                return None if escrow is Escrow.UNKNOWN else self._assignment(job)
        unchanged: list[bytes] = []
        try:
            return self._next(principal, node_id, unchanged)
        finally:
            self._store.checked(unchanged, self._clock())

    def _next(
        self, principal: Principal, node_id: int, unchanged: list[bytes]
    ) -> JobAssignment | None:
        for waiting in self._store.waiting(node_id, ASKED_PER_LEASE):
            if self._is_fresh(waiting):
                continue
            job, _ = self._refresh(waiting, unchanged)
            if job.state is not JobState.FUNDED:
                continue
            if node_id in self._store.outdated():
                raise ProfileOutdated(node_id)
            standing = self._standings().get(node_id, UNKNOWN)
            if not standing.routable:
                raise NodeNotAttested(node_id, standing.reasons)
            now = self._clock()
            if self._store.start(job, principal, now, now + self._policy.lease):
                log.info("job started", job_id=to_hex(job.job_id), node_id=node_id)
                return self._assignment(job)
        return None

    def record_progress(self, principal: Principal, job_id: bytes, progress: Progress) -> JobView:
        """Keep a running job's progress; counters that go backwards are ignored."""
        job = self._owned(principal, job_id)
        self.heartbeat(job.node_id)
        return self._store.record_progress(job_id, progress).view

    def fail(self, principal: Principal, job_id: bytes, failure: Failure) -> JobView:
        """End a running job without a result; the first failure stays."""
        self._owned(principal, job_id)
        job = self._store.fail(job_id, failure, principal, self._clock())
        log.warning("job failed", job_id=to_hex(job_id), failure=failure.code)
        return job.view

    def begin_upload(self, principal: Principal, job_id: bytes, name: ArtifactName) -> Upload:
        """A place for an artifact's bytes, for `finish_upload`; refused early where it can be."""
        self._owned(principal, job_id)
        self._store.check_upload(job_id, name)
        return self._files.upload(name)

    def finish_upload(
        self, principal: Principal, job_id: bytes, name: ArtifactName, upload: Upload
    ) -> JobView:
        """Write the artifact, once; the last of the four delivers the job."""
        upload.flush()  # the slow part; whoever else files meanwhile need not wait for it
        with self._filing(upload.sha256):
            upload.keep()  # the file first: a row must never speak of bytes that are not there
            job = self._store.add_artifact(
                job_id, name, upload.sha256, upload.size, principal, self._clock()
            )
        log.info("artifact", job_id=to_hex(job_id), name=name, size=upload.size, state=job.state)
        return job.view

    def artifact(self, principal: Principal, job_id: bytes, name: ArtifactName) -> tuple[Path, str]:
        """The file of an artifact, and its SHA-256 (hex).

        Raises:
            ArtifactUnknown: when it is not there yet.
            ArtifactExpired: when it was kept as long as deliveries are.
        """
        job = self._owned(principal, job_id)
        if job.state in FINISHED and self._kept_until(job) <= self._clock():
            raise ArtifactExpired(job_id, name, self._kept_until(job))
        sha256 = self._store.artifact(job_id, name)
        return self._files.path(sha256), sha256

    # What happens by itself

    def followed(self, job_id: bytes) -> int | None:
        """The oracle told of a change: the node of the job, if it is one of ours; asks it more."""
        try:
            job = self._store.job(job_id)
        except JobUnknown:
            return None
        return self._refresh(job)[0].node_id

    def sweep(self, age: int) -> tuple[int, ...]:
        """Ask the oracle about the jobs that nobody asked about for `age` seconds, some at a time;
        the nodes that now have something to do. Forgets what has expired, too."""
        now = self._clock()
        woken, unchanged = [], list[bytes]()
        try:
            for job in self._store.unchecked(now - age, SWEPT):
                moved, _ = self._refresh(job, unchanged)
                if moved.state is JobState.FUNDED and job.state is not JobState.FUNDED:
                    woken.append(moved.node_id)
        finally:
            self._store.checked(unchanged, now)
        self._store.drop_expired_uploads(now)
        for sha256 in self._store.drop_artifacts(now - self._policy.retention):
            with self._filing(sha256):  # the same bytes may have come in again
                if not self._store.is_kept(sha256):
                    self._files.path(sha256).unlink(missing_ok=True)
        return tuple(woken)

    def _filing(self, sha256: str) -> threading.Lock:
        """What is held while a file and what the database says of it change together."""
        return self._filings[int(sha256[:2], 16) % len(self._filings)]

    def _is_fresh(self, job: Job) -> bool:
        """Whether an unpaid quote was asked about a moment ago: then a lease passes it over."""
        return (
            job.state is JobState.QUOTED and self._clock() - job.checked_at < self._policy.freshness
        )

    def _work(self) -> Mapping[int, Work]:
        return self._store.work(
            self._clock(), patience=self._policy.patience, queue=self._policy.queue
        )

    def _owned(self, principal: Principal, job_id: bytes) -> Job:
        job = self._store.job(job_id)
        owners = {Role.DEVELOPER: job.tenant, Role.NODE: str(job.node_id)}
        if owners.get(principal.role) != principal.subject:
            raise JobUnknown(job_id)
        return job

    def _assignment(self, job: Job) -> JobAssignment:
        return job.assignment(self._store.bundle(job))

    def _refresh(self, job: Job, unchanged: list[bytes] | None = None) -> tuple[Job, Escrow]:
        """The job in the state that its escrow puts it in.

        With `unchanged` a job that stays as it is goes in there: the caller then has it written
        down, for many jobs at once, that they were asked about (`Store.checked`).
        """
        if job.state in FINISHED:
            return job, Escrow.UNKNOWN
        escrow = self._escrow(job.job_id)
        state, failure = follow(job.state, escrow, deadline=job.terms.deadline, now=self._clock())
        if state is not job.state:
            log.info("job moved", job_id=to_hex(job.job_id), state=state)
        elif unchanged is not None:
            unchanged.append(job.job_id)
            return job, escrow
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
        with self._asking:  # one question answers all who wait for it
            known = self._known_standings
            if known is None or self._elapsed() - known[0] >= self._policy.freshness:
                standings = self._ask_standings()
                # Of the moment when it came: else an oracle that takes longer than its answer lasts
                # would be asked again by each who waits, one after the other.
                known = self._known_standings = self._elapsed(), standings
        return known[1]

    def _ask_standings(self) -> dict[int, Standing]:
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


def _created(job: Job) -> JobCreated:
    route = job.route
    assert route is not None  # whatever was quoted was routed
    return JobCreated(job_id=job.job_id, terms=job.terms, route=route)

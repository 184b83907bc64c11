"""The hospital's node: attests, offers its dataset, trains leased jobs, settles and delivers.

Whatever it does next follows from what is on disk, so it can be killed at any time: a leased job
goes on from its journal, a trained one from its weights, a settled one from its sealed delivery.
"""

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
from pydantic import ValidationError

from oracle.client import JobState, JobStatus, OracleRefused, ReceiptStatus, Status
from oracle.clients.edge import paid
from oracle.clients.edge.assignment import check_terms, open_bundle
from oracle.clients.edge.attestor import AttestationApi, Attestor
from oracle.clients.edge.audit import AuditLog
from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.checkpoint import Checkpoint
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.courier import Courier, Daemon, ProgressApi, ReceiptApi, Reporter
from oracle.clients.edge.dataset import CommittedDataset, cohort_bands
from oracle.clients.edge.durable import naming_full_disk, sync_directory, write_atomically
from oracle.clients.edge.errors import (
    JournalInvalid,
    NodeStopping,
    ReceiptRejected,
    SettlementTimedOut,
    StateInUse,
    TermsRefused,
    TrainingFailed,
)
from oracle.clients.edge.estimate import estimate
from oracle.clients.edge.loader import Counters, Meter, RaphaDataLoader, loader_settings
from oracle.clients.edge.machine import Machine, TpmApi
from oracle.clients.edge.outbox import POSTED, Entry, Outbox
from oracle.clients.edge.pacer import Pacer
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.poisson import PoissonLoader
from oracle.clients.edge.policy.accountant import DpSgdAccountant
from oracle.clients.edge.policy.decision import Decision
from oracle.clients.edge.policy.guard import ACCURACY, Guard, JobGates
from oracle.clients.edge.policy.input import Gate
from oracle.clients.edge.policy.privacy import PrivacyLedger
from oracle.clients.edge.sandbox.errors import DevelopmentSandboxRefused
from oracle.clients.edge.sandbox.gpu import Gpus
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.wan import WanGuard
from oracle.clients.edge.signer import (
    EnclaveSigner,
    QuotePlatform,
    configuration_digest,
    measurement,
)
from oracle.clients.edge.tpm import Tpm
from oracle.clients.edge.trainer import TrainingResult, train
from settlement.audit import ANCHOR, Event, Fact
from settlement.delivery import seal
from settlement.deployment import REAL_CHAINS, Deployment
from settlement.digests import canonical_json, output_digest
from settlement.eip712 import receipt_digest
from settlement.errors import RaphaError
from settlement.hub.client import HubRefused
from settlement.hub.messages import (
    ArtifactName,
    CohortBand,
    DatasetProfile,
    Failure,
    JobAssignment,
    JobView,
    OutputPolicy,
    Progress,
)
from settlement.models import Receipt
from settlement.types import ZERO_BYTES32, to_hex

AUDIT = "audit"
"""The audit log's directory, in the node's state."""
_BESIDE_SECONDS = 0.2
_MAX_DETAIL = 2000

log = structlog.get_logger(__name__)


class OracleApi(AttestationApi, ReceiptApi, TpmApi, Protocol):
    """What the node needs of `oracle.client.OracleClient`."""

    def job(self, job_id: bytes) -> JobStatus: ...


class HubApi(ProgressApi, Protocol):
    """What the node needs of `settlement.hub.client.HubClient`."""

    def put_profile(self, profile: DatasetProfile) -> DatasetProfile: ...
    def lease(self, node_id: int, *, wait: float = 0) -> JobAssignment | None: ...
    def put_artifact(self, job_id: bytes, name: ArtifactName, data: bytes) -> JobView: ...
    def report_failure(self, job_id: bytes, failure: Failure) -> JobView: ...


class JobFiles:
    """What is on disk about one job. `weights` is written last: it stands for the whole result."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.job_id = bytes.fromhex(directory.name)
        self.journal = directory / paid.JOURNAL
        self.receipts = directory / paid.RECEIPTS
        self.metrics = directory / "metrics.json"
        self.evidence = directory / "evidence.json"
        self.weights = directory / "weights.safetensors"
        self.sealed = directory / "weights.sealed"
        self.checkpoint = directory / "checkpoint"
        self.estimate = directory / "estimate.json"
        self.delivered = directory / "delivered"
        self.failure = directory / paid.FAILURE
        self.stderr = directory / "stderr.txt"


def build_profile(settings: EdgeSettings, committed: CommittedDataset) -> DatasetProfile:
    """The offer that the node publishes."""
    commitment = committed.commitment
    return DatasetProfile(
        node_id=settings.node_id,
        dataset_digest=commitment.digest,
        records_root=commitment.records_root,
        modality=commitment.modality,
        schema_=commitment.columns,
        record_count=commitment.record_count,
        deduplicate=commitment.deduplicate,
        bands=tuple(
            CohortBand(name=name, at_least=at_least, at_most=at_most)
            for name, at_least, at_most in cohort_bands(
                committed.dataset.groups, settings.policy.min_cohort
            )
        ),
        price_per_record=settings.price_per_record,
        price_per_epoch=settings.price_per_epoch,
        description=settings.description,
    )


def build_isolation(settings: EdgeSettings, chain_id: int) -> Isolation:
    """How the node keeps its jobs from everything else.

    Raises:
        DevelopmentSandboxRefused: when it might not, on a chain with real money.
    """
    if settings.sandbox != "required" and chain_id in REAL_CHAINS:
        raise DevelopmentSandboxRefused(chain_id)
    reachable = [settings.hub_url]
    if settings.wan_allows == "hub_and_oracle":
        reachable.append(settings.oracle_url)
    return Isolation(settings.sandbox, WanGuard(settings.wan_guard, reachable))


class Node:
    """One hospital's node. `run` returns after `stop` is set; everything it holds is released."""

    def __init__(
        self,
        settings: EdgeSettings,
        deployment: Deployment,
        *,
        committed: CommittedDataset,
        signer: EnclaveSigner,
        platform: QuotePlatform,
        oracle: OracleApi,
        hub: HubApi,
        clock: Callable[[], int],
        stop: threading.Event,
        tpm: Tpm | None = None,
    ) -> None:
        """Without `tpm` the node runs on its enclave's evidence alone."""
        self._settings = settings
        self._deployment = deployment
        self._committed = committed
        self._signer = signer
        self._oracle = oracle
        self._hub = hub
        self._clock = clock
        self._stop = stop
        self._patience = Patience(stop)
        self._profile = build_profile(settings, committed)
        self._scratch = settings.state_dir / "scratch"
        self._jobs = settings.state_dir / "jobs"
        self._paid = paid.PaidRecords(self._jobs, committed)
        self._isolation = build_isolation(settings, deployment.chain_id)
        self._attestor = Attestor(
            oracle=oracle,
            signer=signer,
            platform=platform,
            deployment=deployment,
            node_id=settings.node_id,
            configuration=configuration_digest(settings.limits),
            margin=settings.reattest_margin_seconds,
            timeout=settings.attestation_seconds,
            poll_seconds=settings.poll_seconds,
            clock=clock,
            stop=stop,
            patience=self._patience,
            machine=self._machine(tpm),
        )
        self._guard = Guard(
            settings.policy,
            committed,
            image=measurement(),
            limits=settings.limits,
            output_limit=settings.output_limit_bytes,
            ledger=PrivacyLedger(settings.state_dir / "privacy"),
            accountant=DpSgdAccountant(settings.policy.private_bundles)
            if settings.policy.privacy
            else None,
        )
        self._courier = Courier(oracle, self._patience)
        self._reporter = Reporter(hub)
        self._post = Daemon("courier", self._courier.step, _BESIDE_SECONDS, stop)
        self._beside = (
            self._post,
            Daemon("reporter", self._reporter.step, _BESIDE_SECONDS, stop),
            Daemon("attestor", self._attestor.ensure, 1.0, stop),
        )

    def run(self) -> None:
        """Work until stopped.

        Raises:
            StateInUse: when another node works with the same state directory.
            AttestationRefused: when the oracle refuses the node's evidence for good.
            HubRefused: when the hub refuses the node's key or its profile.
            SandboxUnavailable, WanGuardUnavailable: when one is required and cannot be had here.
            StateUnwritable: when the disk takes no more; the job resumes at the next start.
            AuditDamaged: when the audit log is not as this node left it.
        """
        with (
            naming_full_disk(self._settings.state_dir),
            self._exclusive_state(),
            self._guard,
            AuditLog(self._settings.state_dir / AUDIT, self._clock) as self._audit,
        ):
            self._audit.append(
                Event.STARTED,
                measurement=to_hex(measurement()),
                configuration=to_hex(configuration_digest(self._settings.limits)),
                enclave_key=self._signer.enclave_key,
            )
            self._isolation.clear(self._scratch)
            self._clear_scratch()
            self._isolation.check()
            for directory in sorted(self._jobs.glob("*")):
                self._purge(JobFiles(directory))
            # Receipts that an earlier run signed are owed to the oracle, whatever came of the job.
            for directory in sorted(self._jobs.glob("*/receipts")):
                self._courier.serve(Outbox(directory))
            try:
                self._patience.call(self._attestor.ensure)
                for daemon in self._beside:
                    daemon.start()
                self._patience.call(self._hub.put_profile, self._profile)
                log.info("ready", node_id=self._settings.node_id)
                self._take_jobs()
            except NodeStopping:
                log.info("stopping")
            finally:
                self._stop.set()
                for daemon in self._beside:
                    daemon.wake()
                    if daemon.is_alive():
                        daemon.join(timeout=0.5)
                self._clear_scratch()
            for daemon in self._beside:
                if daemon.failure is not None:
                    raise daemon.failure

    def _machine(self, tpm: Tpm | None) -> Machine | None:
        if tpm is None:
            return None
        return Machine(
            tpm=tpm,
            oracle=self._oracle,
            deployment=self._deployment,
            node_id=self._settings.node_id,
            enclave_key=self._signer.enclave_key,
            margin=self._settings.tpm_margin_seconds,
            clock=self._clock,
        )

    def _take_jobs(self) -> None:
        node_id, wait = self._settings.node_id, self._settings.lease_wait_seconds
        while not self._stop.is_set():
            assignment = self._patience.call(self._hub.lease, node_id, wait=wait)
            if assignment is not None:
                try:
                    self._serve(assignment)
                finally:
                    self._reporter.end()
            self._stop.wait(self._settings.poll_seconds)

    def _serve(self, assignment: JobAssignment) -> None:
        """Bring one job to its end; an error of the job's is reported to the hub, by name."""
        files = JobFiles(self._jobs / assignment.job_id.hex())
        if files.failure.exists():
            self._report_failure(assignment.job_id, _read_failure(files.failure))
            return
        begun = Progress(records=0, epochs=0, epochs_total=assignment.epochs)
        self._reporter.update(assignment.job_id, begun)
        with structlog.contextvars.bound_contextvars(job_id=to_hex(assignment.job_id)):
            try:
                self._finish(assignment, files)
            except NodeStopping:
                raise
            except RaphaError as error:
                if isinstance(error, TrainingFailed):
                    # For the hospital's own operator; it may hold records.
                    write_atomically(files.stderr, error.stderr)
                failure = Failure(code=error.code, detail=str(error)[:_MAX_DETAIL])
                self._audit.append(Event.FAILED, assignment.job_id, code=failure.code)
                write_atomically(files.failure, failure.model_dump_json().encode())
                self._purge(files)
                log.error("job_failed", code=failure.code, detail=failure.detail)
                self._report_failure(assignment.job_id, failure)

    def _finish(self, assignment: JobAssignment, files: JobFiles) -> None:
        if files.sealed.exists():  # settled; it was given to the hub in part, or is lost there
            self._deliver(assignment, files, Outbox(files.receipts))
            return
        trained = files.weights.exists()
        self._audit.append(Event.OFFERED, assignment.job_id, **_offer(assignment))
        # Trained work is paid through the grace period, so its deadline no longer matters here.
        check_terms(
            assignment,
            self._profile,
            self._deployment.vault_domain,
            now=0 if trained else self._clock(),
        )
        outbox = Outbox(files.receipts)
        self._courier.serve(outbox)
        if not trained:
            bundle = open_bundle(assignment)
            self._require_escrow(assignment)
            gates = self._guard.job(
                assignment, bundle, files.directory, partial(self._tell_decision, assignment.job_id)
            )
            gpus = self._isolation.grant(bundle.manifest.gpus.at_most, self._settings.limits.gpus)
            gates.training(wall_seconds=self._wall_seconds(assignment), gpus=gpus.number)
            try:
                self._estimate(assignment, bundle, files, gpus)
            except RaphaError:
                gates.abandon()
                raise
            log.info(
                "job_started",
                framework=bundle.manifest.framework,
                epochs=assignment.epochs,
                gpus=gpus.number,
                no_more_gpus=gpus.why or None,
            )
            self._train(assignment, bundle, gates, files, outbox, gpus)
        entry = self._sign_completion(assignment, files, outbox)
        self._await_settlement(assignment, outbox, entry)
        self._deliver(assignment, files, outbox)

    def _require_escrow(self, assignment: JobAssignment) -> None:
        """The hub's word is not enough to work for: the oracle must know the job as open."""
        try:
            job = self._patience.call(self._oracle.job, assignment.job_id)
        except OracleRefused as error:
            raise TermsRefused("escrow", "open on chain", error.code) from error
        if job.state is not JobState.OPEN or job.funded < assignment.terms.budget:
            raise TermsRefused(
                "escrow",
                f"OPEN with {assignment.terms.budget}",
                f"{job.state} with {job.funded}",
            )

    def _wall_seconds(self, assignment: JobAssignment) -> int:
        left = max(0, assignment.terms.deadline - self._clock())
        return min(self._settings.limits.wall_seconds, left)

    def _estimate(
        self, assignment: JobAssignment, bundle: Bundle, files: JobFiles, gpus: Gpus
    ) -> None:
        """Pass a job that fits into its time, memory, GPUs and budget, once; see `estimate`."""
        if files.estimate.exists() and gpus.number >= bundle.manifest.gpus.at_least:
            return
        settings = self._settings
        found = estimate(
            bundle,
            self._profile,
            self._committed.dataset,
            epochs=assignment.epochs,
            budget=assignment.terms.budget,
            limits=settings.limits,
            wall_seconds=self._wall_seconds(assignment),
            scratch_root=self._scratch,
            isolation=self._isolation,
            stop=self._stop,
            gpus=gpus,
        )
        self._audit.append(
            Event.ESTIMATED,
            assignment.job_id,
            basis=found.basis,
            cost=found.cost,
            wall_seconds=found.wall_seconds,
            memory_bytes=found.memory_bytes,
            fits=not found.excesses,
        )
        found.require()
        write_atomically(files.estimate, found.model_dump_json().encode())

    def _train(
        self,
        assignment: JobAssignment,
        bundle: Bundle,
        gates: JobGates,
        files: JobFiles,
        outbox: Outbox,
        gpus: Gpus,
    ) -> None:
        settings, job_id = self._settings, assignment.job_id
        batch_size, seed = loader_settings(bundle.manifest.hyperparameters)
        kind = PoissonLoader if gates.private else RaphaDataLoader
        free = self._paid_before(assignment)
        with Meter(files.journal, self._committed, job_id, paid=free) as meter:
            resume = self._resume(files, meter.counters, assignment.epochs)
            loader = kind(
                self._committed,
                meter,
                batch_size=batch_size,
                seed=seed,
                completed=resume.epochs if resume else 0,
            )
            pacer = Pacer(
                _last_counters(outbox),
                every_records=settings.receipt_every_records,
                every_seconds=settings.receipt_every_seconds,
                interval=settings.receipt_interval_seconds,
            )

            def progress(counters: Counters, metrics: dict[str, float]) -> None:
                if pacer.due(counters):
                    self._sign(job_id, counters, outbox)
                    shown = gates.progress(metrics, counters._replace(records=loader.delivered))
                    self._reporter.update(job_id, _progress(assignment, counters, shown))

            result = train(
                bundle,
                loader,
                epochs=assignment.epochs,
                max_output_bytes=assignment.policy.max_output_bytes,
                limits=settings.limits,
                wall_seconds=self._wall_seconds(assignment),
                scratch_root=self._scratch,
                isolation=self._isolation,
                stop=self._stop,
                progress=progress,
                admitted=partial(self._tell_isolation, job_id),
                keep=partial(Checkpoint.write, path=files.checkpoint),
                resume=resume,
                gpus=gpus,
            )
            counters, delivered = loader.counters, loader.delivered
        metrics = _metrics(result, assignment.policy)
        released = counters._replace(records=delivered)
        gates.release(result.weights, metrics, released, steps=loader.steps)
        write_atomically(files.metrics, canonical_json(metrics))
        self._audit.append(
            Event.TRAINED,
            job_id,
            records=counters.records,
            epochs=counters.epochs,
            records_root=to_hex(counters.records_root),
        )
        # The completing receipt commits to the evidence, and so to the log until here.
        evidence = {**result.evidence, ANCHOR: to_hex(self._audit.link)}
        write_atomically(files.evidence, canonical_json(evidence))
        write_atomically(files.weights, result.weights)
        self._purge(files)
        self._reporter.update(job_id, _progress(assignment, counters, {}))
        log.info(
            "job_trained",
            records=counters.records,
            epochs=counters.epochs,
            accuracy=result.accuracy,
        )

    def _resume(self, files: JobFiles, counters: Counters, epochs: int) -> Checkpoint | None:
        """Where an earlier run left off, as far as what it saw is counted."""
        try:
            found = Checkpoint.read(files.checkpoint)
        except JournalInvalid as error:
            log.warning("checkpoint_dropped", detail=str(error))
            return None
        if found is None or found.epochs > min(counters.epochs, epochs):
            return None
        log.info("job_resumed", epochs=found.epochs)
        return found

    def _tell_decision(self, job_id: bytes, gate: Gate, document: bytes, made: Decision) -> None:
        self._audit.append(
            Event.DECIDED,
            job_id,
            gate=gate,
            allowed=made.allowed,
            denied_by=tuple(sorted(made.rules)),
            input=to_hex(hashlib.sha256(document).digest()),
        )

    def _tell_isolation(self, job_id: bytes, evidence: dict[str, Any]) -> None:
        self._audit.append(
            Event.ISOLATED,
            job_id,
            isolation=evidence["isolation"],
            evidence=to_hex(hashlib.sha256(canonical_json(evidence)).digest()),
        )

    def _paid_before(self, assignment: JobAssignment) -> frozenset[int]:
        if not self._committed.commitment.deduplicate:
            return frozenset()
        return self._paid.open_account(assignment.job_id, assignment.terms.payer)

    def _sign(
        self, job_id: bytes, counters: Counters, outbox: Outbox, output: bytes | None = None
    ) -> Entry:
        """Sign what the counters say, with `output` for the last time. Told, then kept, then sent.

        Where the last receipt has its output, those before carry the audit log's newest link.
        """
        receipt = Receipt(
            job_id=job_id,
            records=counters.records,
            epochs=counters.epochs,
            records_root=counters.records_root,
            output_digest=self._audit.link if output is None else output,
            complete=output is not None,
        )
        signed = self._signer.sign_receipt(receipt, self._deployment.vault_domain)
        if signed not in outbox.receipts:
            self._audit.append(
                Event.SIGNED,
                job_id,
                digest=to_hex(receipt_digest(receipt, self._deployment.vault_domain)),
                records=receipt.records,
                epochs=receipt.epochs,
                complete=receipt.complete,
            )
        entry = outbox.add(signed)
        self._post.wake()
        log.info(
            "receipt_signed",
            records=receipt.records,
            epochs=receipt.epochs,
            complete=receipt.complete,
        )
        return entry

    def _sign_completion(self, assignment: JobAssignment, files: JobFiles, outbox: Outbox) -> Entry:
        with Meter(files.journal, self._committed, assignment.job_id) as meter:
            counters = meter.counters
        digest = output_digest(
            files.weights.read_bytes(), files.metrics.read_bytes(), files.evidence.read_bytes()
        )
        return self._sign(assignment.job_id, counters, outbox, digest)

    def _await_settlement(self, assignment: JobAssignment, outbox: Outbox, entry: Entry) -> None:
        """Return when the oracle reports the completing receipt as final on chain."""
        digest = receipt_digest(entry.signed.receipt, self._deployment.vault_domain)
        until = assignment.terms.deadline + self._deployment.grace_period
        rejected_since: int | None = None
        while self._clock() <= until:
            fate = outbox.fate(entry)
            if fate is not None and fate != POSTED:
                raise ReceiptRejected(digest, fate)
            status = self._receipt_status(digest, outbox, entry) if fate == POSTED else None
            if status is not None and status.status is Status.SETTLED:
                self._audit.append(Event.SETTLED, assignment.job_id, digest=to_hex(digest))
                log.info("job_settled", amount=status.amount)
                return
            if status is None or status.status is not Status.REJECTED:
                rejected_since = None
            elif rejected_since is None:
                rejected_since = self._clock()
            # The oracle judges anew when a fact changes, as a renewed attestation does.
            elif self._clock() - rejected_since >= self._settings.rejection_patience_seconds:
                raise ReceiptRejected(digest, status.reason or "Rejected")
            if self._stop.wait(self._settings.poll_seconds):
                raise NodeStopping
        raise SettlementTimedOut(assignment.job_id, until)

    def _receipt_status(self, digest: bytes, outbox: Outbox, entry: Entry) -> ReceiptStatus | None:
        try:
            return self._patience.call(self._oracle.receipt, digest)
        except OracleRefused as error:
            # The oracle had it and lost it, by a restored backup for one: it gets it again.
            log.warning("receipt_lost", code=error.code, detail=error.detail)
            outbox.reopen(entry)
            self._post.wake()
            return None

    def _deliver(self, assignment: JobAssignment, files: JobFiles, outbox: Outbox) -> None:
        if not files.sealed.exists():
            # Kept, since sealing again gives other bytes, and the hub takes each artifact once.
            sealed = seal(
                files.weights.read_bytes(),
                assignment.result_key,
                chain_id=self._deployment.chain_id,
                vault=self._deployment.vault,
                job_id=assignment.job_id,
            )
            write_atomically(files.sealed, sealed)
        self._purge(files)
        self._reporter.step()  # the last progress, before the job is no longer running
        receipts = [signed.model_dump(mode="json") for signed in outbox.receipts]
        artifacts = {
            ArtifactName.RECEIPTS: canonical_json(receipts),
            ArtifactName.METRICS: files.metrics.read_bytes(),
            ArtifactName.EVIDENCE: files.evidence.read_bytes(),
            ArtifactName.WEIGHTS: files.sealed.read_bytes(),
        }
        digests = {name: to_hex(hashlib.sha256(data).digest()) for name, data in artifacts.items()}
        self._audit.append(Event.RELEASED, assignment.job_id, **digests)
        for name, data in artifacts.items():
            self._patience.call(self._hub.put_artifact, assignment.job_id, name, data)
        log.info("job_delivered")

    def _purge(self, files: JobFiles) -> None:
        """Remove what a job leaves behind once nobody needs it: weights in the clear, checkpoints.

        What is sealed stays, for a hub that loses it.
        """
        if files.sealed.exists():
            gone = [files.weights, files.checkpoint]
        elif files.weights.exists() or files.failure.exists():
            gone = [files.checkpoint]
        else:
            return
        gone = [file for file in gone if file.exists()]
        for file in gone:
            file.unlink()
        if gone:
            sync_directory(files.directory)
            self._audit.append(Event.PURGED, files.job_id, files=tuple(file.stem for file in gone))

    def _report_failure(self, job_id: bytes, failure: Failure) -> None:
        try:
            self._patience.call(self._hub.report_failure, job_id, failure)
        except HubRefused as error:
            log.error("failure_not_reported", code=error.code, detail=error.detail)

    def _clear_scratch(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _exclusive_state(self) -> Iterator[None]:
        self._settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._settings.state_dir / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StateInUse(self._settings.state_dir) from None
        finally:
            os.close(descriptor)


def _offer(assignment: JobAssignment) -> dict[str, Fact]:
    terms, work = assignment.terms, assignment.terms.work
    return {
        "payer": terms.payer,
        "budget": terms.budget,
        "deadline": terms.deadline,
        "epochs": assignment.epochs,
        "model": to_hex(work.model_digest),
        "dataset": to_hex(work.dataset_digest),
        "policy": to_hex(work.policy_digest),
    }


def _last_counters(outbox: Outbox) -> Counters:
    receipts = outbox.receipts
    if not receipts:
        return Counters(0, 0, ZERO_BYTES32)
    last = receipts[-1].receipt
    return Counters(last.records, last.epochs, last.records_root)


def _progress(assignment: JobAssignment, counters: Counters, metrics: dict[str, float]) -> Progress:
    return Progress(
        records=counters.records,
        epochs=counters.epochs,
        epochs_total=assignment.epochs,
        metrics=metrics,
    )


def _metrics(result: TrainingResult, allowed: OutputPolicy) -> dict[str, float | list[float]]:
    metrics: dict[str, float | list[float]] = dict(result.reports)
    if ACCURACY in allowed.allowed_metrics:
        metrics[ACCURACY] = result.accuracy
    return metrics


def _read_failure(path: Path) -> Failure:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise JournalInvalid(path, "it is no failure report") from error

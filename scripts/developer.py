"""What an ML developer does: ask for a job, check the quote, sign once, open what comes back."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from oracle.client import EscrowRequest, JobStatus, OracleRefused, Status
from oracle.client import JobState as ChainState
from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.policy.digest import policy_digest
from scripts.localnet import Localnet
from settlement.delivery import open_sealed
from settlement.digests import output_digest
from settlement.errors import RaphaError
from settlement.hub.messages import (
    ArtifactName,
    CatalogueEntry,
    JobCreated,
    JobRequest,
    JobState,
    OutputPolicy,
)
from settlement.hub.terms import check_quote
from settlement.models import SignedReceipt
from settlement.verify import Output

JOB_SECONDS = 24 * 60 * 60
POLICY = OutputPolicy(
    min_records=100,
    max_output_bytes=4 * 2**20,
    max_tensors=32,
    allowed_dtypes=("F32",),
    allowed_metrics=("loss", "holdout_accuracy"),
)


class JobFailed(RaphaError, RuntimeError):
    """The job ended without a result; `reason` is the named error of who gave up on it."""

    def __init__(self, who: str, reason: str, detail: str) -> None:
        self.who, self.reason, self.detail = who, reason, detail
        super().__init__(f"{who}: {reason}: {detail}")


@dataclass(frozen=True)
class Delivery:
    """What the developer holds at the end; `digest` is over what was delivered, and `output` its
    parts."""

    weights: bytes
    metrics: dict[str, Any]
    receipts: tuple[SignedReceipt, ...]
    digest: bytes
    output: Output


class Job:
    """One job from the developer's side."""

    def __init__(
        self, net: Localnet, entry: CatalogueEntry, bundle: Bundle, *, budget: int, epochs: int = 0
    ) -> None:
        """Have the hub quote the job, and check that it proposes what was asked.

        Raises:
            HubRefused: with the hub's reason.
            QuoteMismatch: when its terms differ from the request.
        """
        self._net = net
        self._result_key = X25519PrivateKey.generate()
        self.epochs = epochs or int(bundle.manifest.hyperparameters["epochs"])
        request = JobRequest(
            bundle=bundle.to_zip(),
            modality=entry.profile.modality,
            min_records=POLICY.min_records,
            policy=POLICY,
            epochs=self.epochs,
            budget=budget,
            result_key=self._result_key.public_key().public_bytes_raw(),
            payer=net.actors.payer.address,
            deadline=net.payer().now() + JOB_SECONDS,
        )
        with net.hub() as hub:
            self.created: JobCreated = hub.create_job(request)
        domain = net.deployment.vault_domain
        check_quote(
            self.created,
            request,
            entry.profile,
            bundle_digest=bundle.digest,
            policy_digest=policy_digest(POLICY),
            vault=domain,
        )
        self.id, self.terms = self.created.job_id, self.created.terms

    def escrow(self) -> None:
        """Sign once, hand it to the oracle, and wait until the job is open and final.

        Raises:
            JobFailed: when the vault or USDC refuses.
        """
        authorization = self._net.payer().authorize(self.terms)
        with self._net.oracle() as oracle:
            oracle.submit_escrow(EscrowRequest(terms=self.terms, authorization=authorization))

            def settled() -> bool | None:
                answer = oracle.escrow(self.id)
                if answer.status is Status.REJECTED:
                    raise JobFailed("escrow", str(answer.reason), str(answer.detail))
                return answer.status is Status.SETTLED or None

            self._net.wait("the escrow", settled, 240)

    def progress(self) -> tuple[int, int]:
        """Records and epochs that the node reports so far.

        Raises:
            JobFailed: when the node gave up.
        """
        with self._net.hub() as hub:
            job = hub.job(self.id)
        if job.failure is not None:
            raise JobFailed("node", job.failure.code, job.failure.detail)
        return (job.progress.records, job.progress.epochs) if job.progress else (0, 0)

    def closed(self) -> JobStatus | None:
        """The job as the finalized chain has it, once it is closed there."""
        try:
            with self._net.oracle() as oracle:
                status = oracle.job(self.id)
        except OracleRefused:
            return None
        return status if status.state is ChainState.CLOSED else None

    def collect(self, seconds: float = 120) -> Delivery:
        """Wait for the delivery, fetch and decrypt it."""
        with self._net.hub() as hub:
            delivered = JobState.DELIVERED
            self._net.wait(
                "the delivery", lambda: hub.job(self.id).state is delivered or None, seconds
            )
            sealed = hub.artifact(self.id, ArtifactName.WEIGHTS)
            metrics = hub.artifact(self.id, ArtifactName.METRICS)
            evidence = hub.artifact(self.id, ArtifactName.EVIDENCE)
            receipts = json.loads(hub.artifact(self.id, ArtifactName.RECEIPTS))
        weights = open_sealed(
            sealed,
            self._result_key.private_bytes_raw(),
            chain_id=self._net.deployment.chain_id,
            vault=self._net.deployment.vault,
            job_id=self.id,
        )
        return Delivery(
            weights=weights,
            metrics=json.loads(metrics),
            receipts=tuple(SignedReceipt.model_validate(item) for item in receipts),
            digest=output_digest(weights, metrics, evidence),
            output=Output(
                weights=hashlib.sha256(weights).digest(),
                metrics=hashlib.sha256(metrics).digest(),
                evidence=evidence.decode(),
            ),
        )

"""What becomes of a receipt, decided on facts alone: no clock, no chain, no database in here.

The same facts give the same verdict, in whatever order they came. The vault decides by the same
rules (`contracts/RaphaClearingVault.vy`), and it has the last word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from oracle.messages import Status
from settlement.contracts import Outcome
from settlement.models import JobTerms, Receipt
from settlement.types import ZERO_BYTES32


class Reason(StrEnum):
    """Why a receipt waits, was rejected, or is settled without a transaction of its own."""

    JOB_UNSEEN = "JobUnseen"
    JOB_UNASSIGNED = "JobUnassigned"
    JOB_VOIDED = "JobVoided"
    MALFORMED = "Malformed"
    OUTPUT_MISSING = "OutputMissing"
    ENCLAVE_UNKNOWN = "EnclaveUnknown"
    ENCLAVE_OF_OTHER_NODE = "EnclaveOfOtherNode"
    ENCLAVE_REVOKED = "EnclaveRevoked"
    ENCLAVE_EXPIRED = "EnclaveExpired"
    ENCLAVE_REFUSED = "EnclaveRefused"
    MEASUREMENT_NOT_ALLOWED = "MeasurementNotAllowed"
    TOO_LATE = "TooLate"
    JOB_CLOSED = "JobClosed"
    COVERED = "Covered"


@dataclass(frozen=True)
class JobFact:
    """A job as the finalized chain has it.

    `node_id` is 0 as long as no node is assigned; `funded` and `paid` are USDC base units;
    `payable_until` is the last payable second.
    """

    terms: JobTerms
    node_id: int
    funded: int
    closed: bool
    paid: int
    output_digest: bytes | None
    payable_until: int

    def earned(self, receipt: Receipt) -> int:
        """USDC base units that a receipt's counters earn: price times count, at most `funded`."""
        return self.terms.earned(receipt.records, receipt.epochs, funded=self.funded)


@dataclass(frozen=True)
class EnclaveFact:
    """The signer's registration as the finalized chain has it; `expiry` is Unix seconds."""

    node_id: int
    expiry: int
    revoked: bool
    measurement_allowed: bool


@dataclass(frozen=True)
class SettledFact:
    """That the vault has paid this very receipt: `amount` base units, last in `transaction`.

    What a top-up lets the same receipt earn more is paid by a further settlement.
    """

    transaction: bytes
    block: int
    amount: int


@dataclass(frozen=True)
class Verdict:
    """A receipt's status with its reason; `settled` when it has a payment of its own."""

    status: Status
    reason: Reason | None = None
    settled: SettledFact | None = None


def judge(
    receipt: Receipt,
    *,
    job: JobFact | None,
    enclave: EnclaveFact | None,
    settled: SettledFact | None,
    voided: bool = False,
    now: int,
) -> Verdict:
    """The verdict at `now` (Unix seconds) on a receipt signed by the key `enclave` speaks of.

    `voided`: there is no job, and there can never be one.
    """
    if receipt.complete and receipt.output_digest == ZERO_BYTES32:
        return Verdict(Status.REJECTED, Reason.OUTPUT_MISSING)
    if voided:
        return Verdict(Status.REJECTED, Reason.JOB_VOIDED)
    if job is None:
        return Verdict(Status.WAITING, Reason.JOB_UNSEEN)
    if job.node_id == 0:
        over = _job_refusal(job, now)
        if over:
            return Verdict(Status.REJECTED, over)
        return Verdict(Status.WAITING, Reason.JOB_UNASSIGNED)
    if enclave is None:
        return Verdict(Status.REJECTED, Reason.ENCLAVE_UNKNOWN)
    if enclave.node_id != job.node_id:
        return Verdict(Status.REJECTED, Reason.ENCLAVE_OF_OTHER_NODE)
    covered = is_covered(receipt, job)
    refused = _job_refusal(job, now) or _enclave_refusal(enclave, now)
    if settled is not None and (covered or refused):
        return Verdict(Status.SETTLED, settled=settled)
    if covered:
        return Verdict(Status.SETTLED, Reason.COVERED)
    return Verdict(Status.REJECTED, refused) if refused else Verdict(Status.ACCEPTED)


def is_covered(receipt: Receipt, job: JobFact) -> bool:
    """Whether all that the receipt claims has been settled already."""
    if job.earned(receipt) > job.paid:
        return False
    return not receipt.complete or (job.closed and receipt.output_digest == job.output_digest)


def _job_refusal(job: JobFact, now: int) -> Reason | None:
    if job.closed:
        return Reason.JOB_CLOSED
    return Reason.TOO_LATE if now > job.payable_until else None


def _enclave_refusal(enclave: EnclaveFact, now: int) -> Reason | None:
    if enclave.revoked:
        return Reason.ENCLAVE_REVOKED
    if now >= enclave.expiry:
        return Reason.ENCLAVE_EXPIRED
    return None if enclave.measurement_allowed else Reason.MEASUREMENT_NOT_ALLOWED


def due(receipts: Sequence[Receipt], job: JobFact) -> list[Receipt]:
    """Of one job's payable receipts those to settle, in this order; all others they cover.

    That is the newest; where a completing one claims less, what the job earned goes before it,
    because nothing can be claimed once the job is closed.
    """

    def worth(receipt: Receipt) -> tuple[int, int, int, bytes]:
        earned = job.earned(receipt)
        return earned, receipt.records, receipt.epochs, receipt.records_root

    partial = max((r for r in receipts if not r.complete), key=worth, default=None)
    final = max((r for r in receipts if r.complete), key=worth, default=None)
    if partial is None or final is None:
        return [receipt for receipt in (partial, final) if receipt]
    return [partial, final] if worth(partial)[0] > worth(final)[0] else [final]


REFUSALS = {
    Outcome.TOO_LATE: Reason.TOO_LATE,
    Outcome.ENCLAVE_REFUSED: Reason.ENCLAVE_REFUSED,
    Outcome.OUTPUT_MISSING: Reason.OUTPUT_MISSING,
    Outcome.MALFORMED: Reason.MALFORMED,
}
"""Outcomes that reject a receipt. NOTHING_NEW, UNKNOWN_JOB and NOT_ASSIGNED do not: there the
newest block and the finalized facts differ, and waiting for these tells what is so."""

FINAL = frozenset({Reason.MALFORMED})
"""Reasons by which the vault refuses a receipt whatever the facts become."""

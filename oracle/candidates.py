"""Which receipts are due, on the stored facts alone, and in which order they may be sent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from oracle.batching import Waiting
from oracle.decide import JobFact, due
from oracle.messages import Status
from oracle.store.tables import ReceiptRow, SuspectRow
from oracle.verdicts import enclave_fact, job_fact, receipt_of
from settlement.contracts import Claim
from settlement.deployment import Deployment
from settlement.eip712 import receipt_digest
from settlement.models import SignedReceipt


@dataclass(frozen=True)
class Candidate:
    """A receipt that is due, with its row's key and its node.

    `after` is the digest of the receipt that must be settled first or with it, if there is one.
    """

    claim: Claim
    digest: bytes
    signer: str
    node_id: int
    after: bytes | None


def candidates(session: Session, deployment: Deployment) -> list[tuple[Waiting, Candidate]]:
    """The receipts that are due, those of one node side by side: that costs the least gas."""
    payable = (Status.ACCEPTED, Status.SUBMITTED)
    query = select(ReceiptRow).where(ReceiptRow.status.in_(payable))
    by_job: dict[bytes, list[ReceiptRow]] = {}
    for row in session.scalars(query.order_by(ReceiptRow.received_at, ReceiptRow.digest)):
        by_job.setdefault(row.job_id, []).append(row)
    found: list[tuple[Waiting, Candidate]] = []
    for key, rows in by_job.items():
        # a job that the chain took back is not there before it is seen again
        if job := job_fact(session, key, deployment.grace_period):
            found += _due(session, rows, job, deployment)
    return sorted(found, key=lambda pair: pair[1].node_id)


def _due(
    session: Session, rows: Sequence[ReceiptRow], job: JobFact, deployment: Deployment
) -> list[tuple[Waiting, Candidate]]:
    """Of one job's rows those to send now: not what something already sent covers."""
    by_digest = {row.digest: row for row in rows}
    chosen = []
    paid, before = job.paid, None
    for receipt in due([receipt_of(row) for row in by_digest.values()], job):
        row = by_digest[receipt_digest(receipt, deployment.vault_domain)]
        earned = job.earned(receipt)
        if row.status == Status.ACCEPTED:
            signed = SignedReceipt(receipt=receipt, signature=row.signature)
            claim = Claim(job.terms, signed)
            candidate = Candidate(claim, row.digest, row.signer, job.node_id, before)
            waiting = _waiting(session, row, job, max(earned - paid, 0))
            chosen.append((waiting, candidate))
        paid, before = max(paid, earned), row.digest
    return chosen


def in_order(batch: Sequence[Candidate]) -> list[Candidate]:
    """A batch without what must come after a receipt that is not in it, before it.

    Nothing can be claimed once a job is closed, and two transactions by two keys have no order.
    """
    there: set[bytes] = set()
    kept = []
    for candidate in batch:
        if candidate.after is None or candidate.after in there:
            kept.append(candidate)
            there.add(candidate.digest)
    return kept


def _waiting(session: Session, row: ReceiptRow, job: JobFact, value: int) -> Waiting:
    """A receipt as batching goes by it; the enclave's expiry ends its being payable, too."""
    enclave = enclave_fact(session, row.signer)
    until = min(job.payable_until, enclave.expiry - 1) if enclave else job.payable_until
    waiting = Waiting(value=value, since=row.received_at, until=until, complete=row.complete)
    suspect = session.get(SuspectRow, (row.digest, row.signer))
    if suspect is None:
        return waiting
    return replace(waiting, reverts=suspect.reverts, reverted_in=suspect.block)

"""Which receipts are due, on the stored facts alone, and in which order they may be sent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from oracle.batching import Waiting
from oracle.decide import EnclaveFact, JobFact, due
from oracle.messages import Status
from oracle.store.tables import ReceiptRow, SuspectRow
from oracle.verdicts import PAGE, enclave_facts, job_facts, receipt_of
from settlement.contracts import Claim
from settlement.deployment import Deployment
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
    """The receipts that are due, those of one node side by side: that costs the least gas.

    However many are on their way already, only jobs with something new are looked at.
    """
    new = select(ReceiptRow.job_id).where(ReceiptRow.status == Status.ACCEPTED)
    payable = (Status.ACCEPTED, Status.SUBMITTED)
    query = select(ReceiptRow).where(ReceiptRow.job_id.in_(new), ReceiptRow.status.in_(payable))
    rows = session.scalars(query.order_by(ReceiptRow.received_at, ReceiptRow.digest)).all()
    by_job: dict[bytes, list[ReceiptRow]] = {}
    for row in rows:
        by_job.setdefault(row.job_id, []).append(row)
    suspects = {(row.digest, row.signer): row for row in session.scalars(select(SuspectRow))}
    found: list[tuple[Waiting, Candidate]] = []
    left = iter(by_job)
    while page := list(islice(left, PAGE)):
        # a job that the chain took back is not there before it is seen again
        jobs = job_facts(session, page, deployment.grace_period)
        enclaves = enclave_facts(session, {row.signer for job in jobs for row in by_job[job]})
        for key, job in jobs.items():
            for row, claim, after, value in _due(by_job[key], job):
                suspect = suspects.get((row.digest, row.signer))
                waiting = _waiting(row, job, enclaves.get(row.signer), suspect, value)
                candidate = Candidate(claim, row.digest, row.signer, job.node_id, after)
                found.append((waiting, candidate))
    return sorted(found, key=lambda pair: pair[1].node_id)


def _due(
    rows: Sequence[ReceiptRow], job: JobFact
) -> Iterator[tuple[ReceiptRow, Claim, bytes | None, int]]:
    """Of one job's rows those to send now: not what something already sent covers.

    Each with its claim, the digest of what must go before it, and what it newly earns.
    """
    by_receipt = {receipt_of(row): row for row in rows}
    paid, before = job.paid, None
    for receipt in due(list(by_receipt), job):
        row = by_receipt[receipt]
        earned = job.earned(receipt)
        if row.status == Status.ACCEPTED:
            claim = Claim(job.terms, SignedReceipt(receipt=receipt, signature=row.signature))
            yield row, claim, before, max(earned - paid, 0)
        paid, before = max(paid, earned), row.digest


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


def _waiting(
    row: ReceiptRow,
    job: JobFact,
    enclave: EnclaveFact | None,
    suspect: SuspectRow | None,
    value: int,
) -> Waiting:
    """A receipt as batching goes by it; the enclave's expiry ends its being payable, too."""
    return Waiting(
        value=value,
        since=row.received_at,
        until=min(job.payable_until, enclave.expiry - 1) if enclave else job.payable_until,
        complete=row.complete,
        reverts=suspect.reverts if suspect else 0,
        reverted_in=suspect.block if suspect else 0,
    )

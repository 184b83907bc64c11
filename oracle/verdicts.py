"""Judging stored receipts: loads the facts, lets `oracle.decide` judge, writes the verdict."""

from collections.abc import Collection, Iterable

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from oracle.decide import FINAL, EnclaveFact, JobFact, SettledFact, judge
from oracle.messages import JobState, ReceiptStatus, Status
from oracle.store.tables import (
    CursorRow,
    EnclaveRow,
    JobEventRow,
    JobRow,
    MeasurementRow,
    ReceiptRow,
)
from settlement.models import JobTerms, Receipt

_BEST_FIRST = (Status.SETTLED, Status.SUBMITTED, Status.ACCEPTED, Status.WAITING, Status.REJECTED)


def rejudge(session: Session, rows: Iterable[ReceiptRow], *, grace: int, now: int) -> None:
    """Give each receipt the status that the facts in the session call for.

    One that the vault refused for good stays rejected. One that is in a transaction stays
    SUBMITTED until it is settled or the transaction is resolved: the chain may be ahead of the
    facts.
    """
    for row in rows:
        if row.status == Status.REJECTED and row.reason in FINAL:
            continue
        verdict = judge(
            receipt_of(row),
            job=job_fact(session, row.job_id, grace),
            enclave=enclave_fact(session, row.signer),
            settled=_settled_fact(session, row.digest),
            voided=is_voided(session, row.job_id),
            now=now,
        )
        if row.slot is not None and verdict.status is not Status.SETTLED:
            continue
        row.status, row.reason = verdict.status, verdict.reason
        row.block, row.amount = None, 0
        row.transaction = None
        if verdict.settled:
            row.transaction = verdict.settled.transaction
            row.block, row.amount = verdict.settled.block, verdict.settled.amount


def touched(
    session: Session, jobs: Collection[bytes], enclaves: Collection[str]
) -> list[ReceiptRow]:
    """The receipts of these jobs or by these signers."""
    about = or_(ReceiptRow.job_id.in_(jobs), ReceiptRow.signer.in_(enclaves))
    return list(session.scalars(select(ReceiptRow).where(about)))


def receipt_of(row: ReceiptRow) -> Receipt:
    """The receipt as it was signed."""
    return Receipt(
        job_id=row.job_id,
        records=row.records,
        epochs=row.epochs,
        records_root=row.records_root,
        output_digest=row.output_digest,
        complete=row.complete,
    )


def status_of(row: ReceiptRow) -> ReceiptStatus:
    """The receipt's status as clients see it."""
    return ReceiptStatus(
        digest=row.digest,
        job_id=row.job_id,
        records=row.records,
        epochs=row.epochs,
        complete=row.complete,
        status=Status(row.status),
        reason=row.reason,
        transaction=row.transaction,
        block=row.block,
        amount=row.amount,
    )


def best(rows: Iterable[ReceiptRow]) -> ReceiptRow | None:
    """Of rows with the same digest and different signers the one that has come furthest."""
    return min(rows, key=lambda row: _BEST_FIRST.index(Status(row.status)), default=None)


def job_fact(session: Session, job_id: bytes, grace: int) -> JobFact | None:
    """What the finalized chain says about a job; `grace` is the vault's, in seconds."""
    row = session.get(JobRow, job_id)
    if row is None:
        return None
    terms = JobTerms.model_validate_json(row.terms)
    return JobFact(
        terms=terms,
        node_id=row.node_id,
        funded=row.funded,
        closed=row.state == JobState.CLOSED,
        paid=row.paid,
        output_digest=row.output_digest,
        payable_until=payable_until(row, terms, grace),
    )


def payable_until(row: JobRow, terms: JobTerms, grace: int) -> int:
    """The last second in which a job's receipts count: the cancelling's, else by the deadline."""
    return terms.deadline + grace if row.cancelled_until is None else row.cancelled_until


def is_voided(session: Session, job_id: bytes) -> bool:
    """Whether the finalized chain says that a job was never opened and can never be."""
    query = select(JobEventRow.block).where(
        JobEventRow.job_id == job_id, JobEventRow.event == "voided"
    )
    return session.scalars(query).first() is not None


def enclave_fact(session: Session, enclave_key: str) -> EnclaveFact | None:
    """What the finalized chain says about an enclave key."""
    row = session.get(EnclaveRow, enclave_key)
    if row is None or row.node_id == 0:
        return None
    measurement = session.get(MeasurementRow, row.measurement)
    return EnclaveFact(
        node_id=row.node_id,
        expiry=row.expiry,
        revoked=row.revoked,
        measurement_allowed=measurement is not None and measurement.allowed,
    )


def chain_time(session: Session) -> int:
    """The time of the block that the facts reach to, 0 before the first."""
    return session.scalar(select(CursorRow.block_time)) or 0


def _settled_fact(session: Session, digest: bytes) -> SettledFact | None:
    query = select(JobEventRow).where(
        JobEventRow.receipt_digest == digest, JobEventRow.event == "settled"
    )
    rows = session.scalars(query.order_by(JobEventRow.block, JobEventRow.position)).all()
    if not rows:
        return None
    return SettledFact(rows[-1].transaction, rows[-1].block, sum(row.amount for row in rows))

"""Judging stored receipts: loads the facts, lets `oracle.decide` judge, writes the verdict."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from sqlalchemy import literal, or_, select, tuple_
from sqlalchemy.orm import Session

from oracle.decide import FINAL, EnclaveFact, JobFact, SettledFact, Verdict, judge
from oracle.messages import JobState, ReceiptStatus, Status
from oracle.store.tables import (
    CursorRow,
    EnclaveRow,
    JobEventRow,
    JobRow,
    MeasurementRow,
    PlatformRow,
    ReceiptRow,
)
from settlement.models import JobTerms, Receipt

_BEST_FIRST = (Status.SETTLED, Status.SUBMITTED, Status.ACCEPTED, Status.WAITING, Status.REJECTED)


PAGE = 500
"""Receipts that are judged at a time: however many there are, no more are in memory."""


@dataclass(frozen=True)
class Facts:
    """What the finalized chain says about some receipts: by job, signer and digest."""

    jobs: Mapping[bytes, JobFact]
    enclaves: Mapping[str, EnclaveFact]
    settled: Mapping[bytes, SettledFact]
    voided: Set[bytes]

    def judge(self, receipt: Receipt, *, signer: str, digest: bytes, now: int) -> Verdict:
        """The verdict at `now` (Unix seconds) on one of these receipts."""
        return judge(
            receipt,
            job=self.jobs.get(receipt.job_id),
            enclave=self.enclaves.get(signer),
            settled=self.settled.get(digest),
            voided=receipt.job_id in self.voided,
            now=now,
        )


def rejudge(session: Session, rows: Iterable[ReceiptRow], *, grace: int, now: int) -> None:
    """Give each receipt the status that the facts in the session call for.

    One that the vault refused for good stays rejected. One that is in a transaction stays
    SUBMITTED until it is settled or the transaction is resolved: the chain may be ahead of the
    facts.
    """
    left = iter(rows)
    while page := list(islice(left, PAGE)):
        about = [(row.job_id, row.signer, row.digest) for row in page]
        facts = facts_about(session, about, grace)
        for row in page:
            _rejudge(row, facts, now)
        session.flush()


def _rejudge(row: ReceiptRow, facts: Facts, now: int) -> None:
    if row.status == Status.REJECTED and row.reason in FINAL:
        return
    verdict = facts.judge(receipt_of(row), signer=row.signer, digest=row.digest, now=now)
    if row.slot is not None and verdict.status is not Status.SETTLED:
        return
    for column, value in outcome_of(verdict).items():
        setattr(row, column, value)


def outcome_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the columns of a receipt's row have it."""
    settled = verdict.settled
    return {
        "status": verdict.status,
        "reason": verdict.reason,
        "transaction": settled.transaction if settled else None,
        "block": settled.block if settled else None,
        "amount": settled.amount if settled else 0,
    }


def facts_about(
    session: Session, receipts: Collection[tuple[bytes, str, bytes]], grace: int
) -> Facts:
    """The facts that receipts rest on, in four queries; each is given by job, signer and digest.

    `grace` is the vault's, in seconds.
    """
    jobs = {job for job, _, _ in receipts}
    return Facts(
        jobs=job_facts(session, jobs, grace),
        enclaves=enclave_facts(session, {signer for _, signer, _ in receipts}),
        settled=_settled_facts(session, {digest for _, _, digest in receipts}),
        voided=frozenset(
            session.scalars(
                select(JobEventRow.job_id).where(
                    JobEventRow.job_id.in_(jobs), JobEventRow.event == "voided"
                )
            )
        ),
    )


def touched(
    session: Session, jobs: Collection[bytes], enclaves: Collection[str]
) -> Iterator[ReceiptRow]:
    """The receipts of these jobs or by these signers, read page by page as they are asked for."""
    about = or_(ReceiptRow.job_id.in_(jobs), ReceiptRow.signer.in_(enclaves))
    key = tuple_(ReceiptRow.digest, ReceiptRow.signer)
    query = select(ReceiptRow).where(about).order_by(ReceiptRow.digest, ReceiptRow.signer)
    page = session.scalars(query.limit(PAGE)).all()
    while page:
        yield from page
        last = tuple_(literal(page[-1].digest), literal(page[-1].signer))
        page = session.scalars(query.where(key > last).limit(PAGE)).all()


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


def job_facts(session: Session, jobs: Collection[bytes], grace: int) -> dict[bytes, JobFact]:
    """What the finalized chain says about jobs; `grace` is the vault's, in seconds."""
    query = select(JobRow).where(JobRow.job_id.in_(jobs))
    return {row.job_id: _job_fact(row, grace) for row in session.scalars(query)}


@lru_cache(maxsize=4096)
def stored_terms(text: str) -> JobTerms:
    """Terms as a row has them. Kept, as each of a job's receipts asks for them several times."""
    return JobTerms.model_validate_json(text)


def _job_fact(row: JobRow, grace: int) -> JobFact:
    terms = stored_terms(row.terms)
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


def enclave_facts(session: Session, keys: Collection[str]) -> dict[str, EnclaveFact]:
    """What the finalized chain says of enclave keys; one by quote is revoked with its platform."""
    query = (
        select(EnclaveRow, MeasurementRow.allowed, PlatformRow.revoked)
        .outerjoin(MeasurementRow, MeasurementRow.measurement == EnclaveRow.measurement)
        .outerjoin(PlatformRow, PlatformRow.platform == EnclaveRow.platform)
        .where(EnclaveRow.enclave_key.in_(keys), EnclaveRow.node_id != 0)
    )
    return {
        row.enclave_key: EnclaveFact(
            node_id=row.node_id,
            expiry=row.expiry,
            revoked=row.revoked or bool(platform_revoked),
            measurement_allowed=bool(allowed),
        )
        for row, allowed, platform_revoked in session.execute(query)
    }


def chain_time(session: Session) -> int:
    """The time of the block that the facts reach to, 0 before the first."""
    return session.scalar(select(CursorRow.block_time)) or 0


def _settled_facts(session: Session, digests: Collection[bytes]) -> dict[bytes, SettledFact]:
    query = select(JobEventRow).where(
        JobEventRow.receipt_digest.in_(digests), JobEventRow.event == "settled"
    )
    found: dict[bytes, SettledFact] = {}
    for row in session.scalars(query.order_by(JobEventRow.block, JobEventRow.position)):
        if row.receipt_digest is not None:
            before = found.get(row.receipt_digest)
            amount = row.amount + (before.amount if before else 0)
            found[row.receipt_digest] = SettledFact(row.transaction, row.block, amount)
    return found

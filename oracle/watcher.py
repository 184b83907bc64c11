"""Follows the finalized chain and turns its events into facts.

Facts and the position that they reach to move in one database transaction, so that after any crash
they agree. When the chain no longer holds the block that they rest on, they are built anew.
"""

from collections.abc import Sequence
from typing import assert_never

import structlog
from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from oracle.decide import Reason
from oracle.errors import DatabaseOfOtherDeployment, LogRangeRefused
from oracle.facts import (
    Block,
    Chain,
    EnclaveEvent,
    EnclaveRegistered,
    EnclaveRevoked,
    Event,
    JobAssigned,
    JobCancelled,
    JobClosed,
    JobEvent,
    JobOpened,
    JobToppedUp,
    JobVoided,
    MeasurementChanged,
    Settled,
)
from oracle.messages import JobState, Status
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    CursorRow,
    EnclaveRow,
    EscrowRow,
    JobEventRow,
    JobRow,
    MeasurementRow,
    ReceiptRow,
    TransactionRow,
)
from oracle.transactions import TransactionState
from oracle.verdicts import rejudge, touched
from settlement.deployment import Deployment
from settlement.types import ZERO_BYTES32

MAX_RANGE = 10_000
"""Blocks per request for logs, where the endpoint allows it."""

_log = structlog.get_logger(__name__)


class Watcher:
    """Moves the facts of one deployment up to the finalized block.

    `behind` is how many final blocks were not in the facts after the last tick, None before it.
    """

    def __init__(self, store: Store, chain: Chain, deployment: Deployment) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._range = MAX_RANGE
        self.behind: int | None = None

    def check_database(self) -> None:
        """Make sure that the database is this deployment's.

        Raises:
            DatabaseOfOtherDeployment: when it was filled from another chain or vault.
        """
        with self._store.read() as session:
            cursor = session.get(CursorRow, 1)
        deployment = self._deployment
        if cursor and (cursor.chain_id, cursor.vault) != (deployment.chain_id, deployment.vault):
            raise DatabaseOfOtherDeployment(cursor.chain_id, cursor.vault)

    def tick(self) -> bool:
        """Advance by one range of blocks. Returns whether there are more to read.

        Raises:
            ChainUnavailable: when the endpoint gives no answer; nothing has moved then.
        """
        with self._store.read() as session:
            cursor = session.get(CursorRow, 1)
        finalized = self._chain.finalized()
        if cursor and finalized.number >= cursor.block and self._is_gone(cursor):
            self._forget(cursor)
            cursor = None
        first = cursor.block + 1 if cursor else self._deployment.block
        self.behind = finalized.number + 1 - first
        last = min(finalized.number, first + self._range - 1)
        if last < first:
            return False
        end = finalized if last == finalized.number else self._chain.block(last)
        if end is None:  # the endpoint went back in between; look again at the next tick
            return False
        try:
            events = self._chain.events(first, last)
        except LogRangeRefused:
            if first == last:
                raise
            self._range = max(1, (last - first + 1) // 2)
            return True
        with self._store.write() as session:
            self._apply(session, events, end)
        self._range = min(MAX_RANGE, self._range * 2)
        self.behind = finalized.number - last
        return last < finalized.number

    def _is_gone(self, cursor: CursorRow) -> bool:
        block = self._chain.block(cursor.block)
        return block is not None and block.hash != cursor.block_hash

    def _forget(self, cursor: CursorRow) -> None:
        """Drop all facts, and judge what was handed in as if nothing had been seen yet."""
        _log.warning("finalized block is gone, facts are built anew", block=cursor.block)
        with self._store.write() as session:
            for table in (JobRow, JobEventRow, EnclaveRow, MeasurementRow, CursorRow):
                session.execute(delete(table))
            for handed_in in (AttestationRow, EscrowRow):
                session.execute(
                    update(handed_in)
                    .where(
                        or_(
                            handed_in.status == Status.SETTLED,
                            handed_in.reason == Reason.JOB_VOIDED,
                        )
                    )
                    .values(status=Status.ACCEPTED, reason=None, slot=None, transaction=None)
                )
            session.execute(
                update(ReceiptRow).where(ReceiptRow.status == Status.SETTLED).values(slot=None)
            )
            rejudge(session, session.scalars(select(ReceiptRow)), grace=0, now=0)
            # What was final may have to be sent again; the relayer looks where each stands now.
            session.execute(
                update(TransactionRow)
                .where(
                    TransactionRow.state.in_((TransactionState.FINAL, TransactionState.REVERTED))
                )
                .values(state=TransactionState.PENDING, block=None, sent=False)
            )

    def _apply(self, session: Session, events: Sequence[Event], end: Block) -> None:
        jobs: set[bytes] = set()
        enclaves: set[str] = set()
        for event in events:
            if isinstance(event, EnclaveRegistered | EnclaveRevoked):
                apply_enclave(session, event)
                enclaves.add(event.enclave_key)
            elif isinstance(event, MeasurementChanged):
                session.merge(MeasurementRow(measurement=event.measurement, allowed=event.allowed))
                same = EnclaveRow.measurement == event.measurement
                enclaves.update(session.scalars(select(EnclaveRow.enclave_key).where(same)))
            else:
                apply_job(session, event)
                jobs.add(event.job_id)
            session.flush()
        session.merge(
            CursorRow(
                id=1,
                chain_id=self._deployment.chain_id,
                vault=self._deployment.vault,
                block=end.number,
                block_hash=end.hash,
                block_time=end.time,
            )
        )
        grace = self._deployment.grace_period
        rejudge(session, touched(session, jobs, enclaves), grace=grace, now=end.time)
        if events:
            _log.info("facts advanced", block=end.number, events=len(events))


def apply_job(session: Session, event: JobEvent) -> None:
    """Write an event of a job into the facts, and its escrow's status."""
    if isinstance(event, JobOpened):
        _open(session, event)
        return
    if isinstance(event, JobVoided):
        _void(session, event)
        return
    job = session.get_one(JobRow, event.job_id)
    if isinstance(event, JobAssigned):
        job.state, job.node_id = JobState.OPEN, event.node_id
        _record(session, event, "assigned", 0)
    elif isinstance(event, JobToppedUp):
        job.funded = event.funded
        _record(session, event, "topped_up", event.amount)
    elif isinstance(event, JobCancelled):
        job.state, job.cancelled_until = JobState.CANCELLING, event.payable_until
        _record(session, event, "cancelled", 0)
    elif isinstance(event, Settled):
        job.paid += event.amount
        job.records = max(job.records, event.records)
        job.epochs = max(job.epochs, event.epochs)
        _record(session, event, "settled", event.amount, event.receipt_digest)
    elif isinstance(event, JobClosed):
        job.state, job.paid, job.refunded = JobState.CLOSED, event.paid, event.refunded
        job.output_digest = None if event.output_digest == ZERO_BYTES32 else event.output_digest
        _record(session, event, "closed", event.refunded)
    else:
        assert_never(event)


def _open(session: Session, event: JobOpened) -> None:
    terms = event.terms
    session.add(
        JobRow(
            job_id=event.job_id,
            node_id=terms.node_id,
            terms=terms.model_dump_json(),
            state=JobState.OPEN if terms.node_id else JobState.UNASSIGNED,
            funded=terms.budget,
            paid=0,
            refunded=0,
            records=0,
            epochs=0,
            output_digest=None,
        )
    )
    _record(session, event, "opened", terms.budget)
    escrow = session.get(EscrowRow, event.job_id)
    if escrow:
        escrow.status, escrow.reason, escrow.detail = Status.SETTLED, None, None
        escrow.transaction = event.place.transaction


def _void(session: Session, event: JobVoided) -> None:
    _record(session, event, "voided", 0)
    escrow = session.get(EscrowRow, event.job_id)
    if escrow:
        escrow.status, escrow.reason, escrow.detail = Status.REJECTED, Reason.JOB_VOIDED, None


def _record(
    session: Session,
    event: JobEvent,
    name: str,
    amount: int,
    receipt_digest: bytes | None = None,
) -> None:
    session.add(
        JobEventRow(
            block=event.place.block,
            position=event.place.index,
            job_id=event.job_id,
            event=name,
            transaction=event.place.transaction,
            amount=amount,
            receipt_digest=receipt_digest,
        )
    )


def apply_enclave(session: Session, event: EnclaveEvent) -> None:
    """Write an event of an enclave key into the facts, and its attestation's status."""
    row = session.get(EnclaveRow, event.enclave_key)
    if row is None:
        row = EnclaveRow(
            enclave_key=event.enclave_key,
            node_id=0,
            measurement=ZERO_BYTES32,
            attestation_digest=ZERO_BYTES32,
            encryption_key_digest=ZERO_BYTES32,
            expiry=0,
            revoked=False,
            block=event.place.block,
        )
        session.add(row)
    row.block = event.place.block
    if isinstance(event, EnclaveRevoked):
        row.revoked = True
        return
    row.node_id, row.expiry = event.node_id, event.expiry
    row.measurement = event.measurement
    row.attestation_digest = event.attestation_digest
    row.encryption_key_digest = event.encryption_key_digest
    attestation = session.get(AttestationRow, event.attestation_digest)
    if attestation:
        attestation.status, attestation.reason, attestation.detail = Status.SETTLED, None, None
        attestation.transaction = event.place.transaction

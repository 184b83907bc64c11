"""Facts as a function of events: the log of what the chain said, and the tables derived from it.

`extend` takes the next events, `roll_back` drops those after a block and derives anew what they
spoke of. Both leave the tables as if only the events in the log had ever been taken, which
`oracle.rebuild` checks. An event that cannot follow from those before it is refused.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, TypeVar, assert_never, get_type_hints

from sqlalchemy import ColumnElement, Select, delete, or_, select, true, update
from sqlalchemy.orm import Session

from oracle import facts
from oracle.decide import Reason
from oracle.errors import HistoryIncomplete
from oracle.facts import (
    EnclaveEvent,
    EnclaveQuoted,
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
    Place,
    PlatformEvent,
    PlatformRevoked,
    Settled,
)
from oracle.messages import JobState, Status
from oracle.statements import parse_statement
from oracle.store.tables import (
    AttestationRow,
    ChainEventRow,
    EnclaveRow,
    EscrowRow,
    JobEventRow,
    JobRow,
    MeasurementRow,
    PlatformRow,
    QuoteRow,
    ReceiptRow,
    Table,
    TransactionRow,
)
from oracle.transactions import TransactionState
from oracle.verdicts import PAGE, stored_terms, touched
from settlement.models import JobTerms, PlatformVerdict
from settlement.types import ZERO_BYTES32, to_hex

HandedIn = TypeVar("HandedIn", AttestationRow, QuoteRow, EscrowRow)

FACTS: tuple[type[Table], ...] = (
    ChainEventRow,
    JobRow,
    JobEventRow,
    EnclaveRow,
    PlatformRow,
    MeasurementRow,
)
"""The tables that are a function of the chain alone."""


@dataclass(frozen=True)
class Subjects:
    """What events speak of."""

    jobs: frozenset[bytes]
    enclaves: frozenset[str]

    def receipts(self, session: Session) -> Iterator[ReceiptRow]:
        """The receipts that these facts decide on."""
        return touched(session, self.jobs, self.enclaves)


def extend(session: Session, events: Iterable[Event]) -> Subjects:
    """Take the next events into the log and into the facts; tells what they spoke of.

    Raises:
        HistoryIncomplete: when one cannot follow from what the log has: something is missing.
    """
    events = list(events)
    session.add_all(_row(event) for event in events)
    _apply_all(session, events)
    return _subjects(session, events)


def roll_back(session: Session, block: int) -> Subjects:
    """Forget what was after `block`, as if it had never been seen; tells what that spoke of.

    What was handed in and had been settled there is due again, and so are the transactions.
    """
    later = ChainEventRow.block > block
    dropped = [_event(row) for row in session.scalars(_in_order().where(later))]
    names = select(ChainEventRow.subject).where(later)
    kept = [
        _event(row)
        for row in session.scalars(
            _in_order().where(ChainEventRow.subject.in_(names), ChainEventRow.block <= block)
        )
    ]
    subjects = _subjects(session, dropped)  # before the enclaves' measurements are forgotten
    for event in dropped:
        _forget(session, event)
    session.execute(delete(ChainEventRow).where(later))
    session.flush()
    _apply_all(session, kept)
    resolved = TransactionRow.state.in_((TransactionState.FINAL, TransactionState.REVERTED))
    # What was final may have to be sent again; the relayer looks where each stands now.
    session.execute(
        update(TransactionRow)
        .where(resolved, TransactionRow.block > block)
        .values(state=TransactionState.PENDING, block=None, sent=False)
    )
    for receipt in subjects.receipts(session):
        if receipt.status == Status.SETTLED:
            receipt.slot = None
    return subjects


def start_over(session: Session, events: Iterable[Event]) -> None:
    """Put the facts that these events make in the place of all there are, and judge by them.

    What was handed in and these events do not show as settled is due again. Transactions stay as
    they are: the vault pays nothing twice, whatever is sent again.
    """
    for table in FACTS:
        session.execute(delete(table))
    _make_due(session, AttestationRow, true())
    _make_due(session, QuoteRow, true())
    _make_due(session, EscrowRow, true())
    session.execute(update(ReceiptRow).where(ReceiptRow.status == Status.SETTLED).values(slot=None))
    extend(session, events)


def logged(session: Session) -> list[Event]:
    """All events that the facts are derived from, in order."""
    return [_event(row) for row in session.scalars(_in_order())]


def _in_order() -> Select[ChainEventRow]:
    return select(ChainEventRow).order_by(ChainEventRow.block, ChainEventRow.position)


def _subjects(session: Session, events: Collection[Event]) -> Subjects:
    jobs: set[bytes] = set()
    enclaves: set[str] = set()
    for event in events:
        if isinstance(event, EnclaveEvent):
            enclaves.add(event.enclave_key)
        elif isinstance(event, PlatformEvent):
            quoted = EnclaveRow.platform == event.platform
            enclaves.update(session.scalars(select(EnclaveRow.enclave_key).where(quoted)))
        elif isinstance(event, MeasurementChanged):
            same = EnclaveRow.measurement == event.measurement
            enclaves.update(session.scalars(select(EnclaveRow.enclave_key).where(same)))
        else:
            jobs.add(event.job_id)
    return Subjects(frozenset(jobs), frozenset(enclaves))


# The log


def _row(event: Event) -> ChainEventRow:
    values = {
        field.name: _plain(getattr(event, field.name))
        for field in fields(event)
        if field.name != "place"
    }
    return ChainEventRow(
        block=event.place.block,
        position=event.place.index,
        kind=type(event).__name__,
        subject=_subject(event),
        transaction=event.place.transaction,
        fields=json.dumps(values),
    )


def _subject(event: Event) -> str:
    if isinstance(event, EnclaveEvent):
        return event.enclave_key
    if isinstance(event, PlatformEvent):
        return to_hex(event.platform)
    if isinstance(event, MeasurementChanged):
        return to_hex(event.measurement)
    return to_hex(event.job_id)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.model_dump(mode="json") if isinstance(value, JobTerms) else value


def _event(row: ChainEventRow) -> Event:
    kind: type[Event] = getattr(facts, row.kind)
    hints = get_type_hints(kind)
    values = {name: _typed(hints[name], value) for name, value in json.loads(row.fields).items()}
    return kind(place=Place(row.block, row.position, row.transaction), **values)


def _typed(kind: type[Any], value: Any) -> Any:
    if kind is bytes:
        return bytes.fromhex(value)
    return JobTerms.model_validate(value) if kind is JobTerms else value


# The facts


@dataclass(frozen=True)
class _Known:
    """What there is of the jobs that some events speak of, by job id."""

    jobs: dict[bytes, JobRow]
    escrows: dict[bytes, EscrowRow]


def _apply_all(session: Session, events: Iterable[Event]) -> None:
    """Write events into the facts, in order; what they rest on is read for a page at a time."""
    left = iter(events)
    while page := list(islice(left, PAGE)):
        ids = {event.job_id for event in page if isinstance(event, JobEvent)}
        jobs = session.scalars(select(JobRow).where(JobRow.job_id.in_(ids)))
        escrows = session.scalars(select(EscrowRow).where(EscrowRow.job_id.in_(ids)))
        known = _Known({row.job_id: row for row in jobs}, {row.job_id: row for row in escrows})
        for event in page:
            _apply(session, event, known)
        session.flush()


def _apply(session: Session, event: Event, known: _Known) -> None:
    if isinstance(event, EnclaveEvent):
        _apply_enclave(session, event)
    elif isinstance(event, PlatformEvent):
        _apply_platform(session, event)
    elif isinstance(event, MeasurementChanged):
        session.merge(MeasurementRow(measurement=event.measurement, allowed=event.allowed))
    else:
        _apply_job(session, event, known)


def _forget(session: Session, event: Event) -> None:
    """Drop all facts about what an event speaks of, and what it made of what was handed in."""
    if isinstance(event, EnclaveEvent):
        session.execute(delete(EnclaveRow).where(EnclaveRow.enclave_key == event.enclave_key))
        if isinstance(event, EnclaveRegistered):
            digest = event.attestation_digest
            _make_due(session, AttestationRow, AttestationRow.digest == digest)
            _make_due(session, QuoteRow, QuoteRow.digest == digest)
    elif isinstance(event, PlatformEvent):
        session.execute(delete(PlatformRow).where(PlatformRow.platform == event.platform))
        _make_due(session, AttestationRow, AttestationRow.platform == event.platform)
    elif isinstance(event, MeasurementChanged):
        session.execute(
            delete(MeasurementRow).where(MeasurementRow.measurement == event.measurement)
        )
    else:
        session.execute(delete(JobRow).where(JobRow.job_id == event.job_id))
        session.execute(delete(JobEventRow).where(JobEventRow.job_id == event.job_id))
        if isinstance(event, JobOpened | JobVoided):
            _make_due(session, EscrowRow, EscrowRow.job_id == event.job_id)


def _make_due(session: Session, table: type[HandedIn], which: ColumnElement[bool]) -> None:
    ended = or_(table.status == Status.SETTLED, table.reason == Reason.JOB_VOIDED)
    for row in session.scalars(select(table).where(which, ended)):
        # one that somebody else had brought has no quorum of ours yet
        waits = isinstance(row, AttestationRow) and row.statement is None
        row.status = Status.WAITING if waits else Status.ACCEPTED
        row.reason = row.slot = row.transaction = None


def _apply_job(session: Session, event: JobEvent, known: _Known) -> None:
    """Write an event of a job into the facts, and its escrow's status."""
    job = known.jobs.get(event.job_id)
    if isinstance(event, JobOpened | JobVoided):
        if job is not None:
            raise _hole(event, "is opened or voided, and was open before")
        if isinstance(event, JobOpened):
            _open(session, event, known)
        else:
            _void(session, event, known)
        return
    if job is None:
        raise _hole(event, "was never opened")
    if job.state == JobState.CLOSED:
        raise _hole(event, "is closed")
    if isinstance(event, JobAssigned):
        if job.node_id:
            raise _hole(event, f"is node {job.node_id}'s")
        job.state, job.node_id = JobState.OPEN, event.node_id
        _record(session, event, "assigned", 0)
    elif isinstance(event, JobToppedUp):
        if event.funded != job.funded + event.amount:
            raise _hole(event, f"was funded with {job.funded}")
        job.funded = event.funded
        _record(session, event, "topped_up", event.amount)
    elif isinstance(event, JobCancelled):
        job.state, job.cancelled_until = JobState.CANCELLING, event.payable_until
        _record(session, event, "cancelled", 0)
    elif isinstance(event, Settled):
        terms = stored_terms(job.terms)
        earned = terms.earned(event.records, event.epochs, funded=job.funded)
        if job.paid + event.amount != max(job.paid, earned):
            raise _hole(event, f"had {job.paid} paid of {earned} earned, {event.amount} is new")
        job.paid += event.amount
        job.records = max(job.records, event.records)
        job.epochs = max(job.epochs, event.epochs)
        _record(session, event, "settled", event.amount, event.receipt_digest)
    elif isinstance(event, JobClosed):
        if (event.paid, event.refunded) != (job.paid, job.funded - job.paid):
            raise _hole(event, f"had {job.paid} paid of {job.funded}")
        job.state, job.refunded = JobState.CLOSED, event.refunded
        job.output_digest = None if event.output_digest == ZERO_BYTES32 else event.output_digest
        _record(session, event, "closed", event.refunded)
    else:
        assert_never(event)


def _hole(event: JobEvent, what: str) -> HistoryIncomplete:
    kind, job = type(event).__name__, to_hex(event.job_id)
    return HistoryIncomplete(event.place.block, f"{kind} of job {job}, which {what}")


def _open(session: Session, event: JobOpened, known: _Known) -> None:
    terms = event.terms
    job = known.jobs[event.job_id] = JobRow(
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
    session.add(job)
    _record(session, event, "opened", terms.budget)
    escrow = known.escrows.get(event.job_id)
    if escrow:
        escrow.status, escrow.reason, escrow.detail = Status.SETTLED, None, None
        escrow.transaction = event.place.transaction


def _void(session: Session, event: JobVoided, known: _Known) -> None:
    _record(session, event, "voided", 0)
    escrow = known.escrows.get(event.job_id)
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


def _apply_enclave(session: Session, event: EnclaveEvent) -> None:
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
            platform=None,
        )
        session.add(row)
    row.block = event.place.block
    if isinstance(event, EnclaveRevoked):
        row.revoked = True
        return
    if isinstance(event, EnclaveQuoted):
        row.platform = event.platform
        return
    row.node_id, row.expiry = event.node_id, event.expiry
    row.measurement = event.measurement
    row.attestation_digest = event.attestation_digest
    row.encryption_key_digest = event.encryption_key_digest
    for handed_in in (
        session.get(AttestationRow, event.attestation_digest),
        session.get(QuoteRow, event.attestation_digest),
    ):
        if handed_in:
            handed_in.status, handed_in.reason, handed_in.detail = Status.SETTLED, None, None
            handed_in.transaction = event.place.transaction


def _apply_platform(session: Session, event: PlatformEvent) -> None:
    """Write an event of a platform into the facts, and what became of verdicts on it."""
    row = session.get(PlatformRow, event.platform)
    if row is None:
        row = PlatformRow(
            platform=event.platform, node_id=0, module_svn=bytes(16), expiry=0, revoked=False
        )
        session.add(row)
    if isinstance(event, PlatformRevoked):
        row.revoked = True
        return
    row.node_id, row.expiry = event.node_id, event.expiry
    row.module_svn = event.module_svn.to_bytes(16, "big")
    about = AttestationRow.platform == event.platform
    for attestation in session.scalars(select(AttestationRow).where(about)):
        settle_if_judged(row, attestation, event.place.transaction)


def settle_if_judged(
    known: PlatformRow, attestation: AttestationRow, transaction: bytes | None = None
) -> bool:
    """Settle an attestation whose verdict the chain has, or has one as good. Returns whether."""
    verdict = parse_statement(attestation.statement) if attestation.statement else None
    if not isinstance(verdict, PlatformVerdict) or verdict.expiry > known.expiry:
        return False
    if (verdict.node_id, verdict.module_svn.to_bytes(16, "big")) != (
        known.node_id,
        known.module_svn,
    ):
        return False
    exact = verdict.expiry == known.expiry
    attestation.status, attestation.detail = Status.SETTLED, None
    attestation.reason = None if exact else Reason.COVERED
    attestation.transaction = transaction
    return True

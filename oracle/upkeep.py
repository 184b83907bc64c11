"""What an operator does by hand: try again what was rejected, see what is still on its way."""

import structlog
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from oracle.errors import ItemUnknown, NotRejected
from oracle.messages import Status
from oracle.outbox import Item
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    EscrowRow,
    JobEventRow,
    QuoteRow,
    ReceiptRow,
    Table,
    TransactionRow,
)
from oracle.transactions import TransactionState
from oracle.verdicts import chain_time, is_voided, rejudge
from settlement.deployment import Deployment
from settlement.types import Bytes32, Frozen, to_hex

_log = structlog.get_logger(__name__)


class Retried(Frozen):
    """What trying again made of an item. `signer` is a receipt's."""

    kind: str
    digest: Bytes32
    signer: str | None = None
    status: Status
    reason: str | None


class Unfinished(Frozen):
    """How many items and transactions are not final yet.

    `waiting` are those that rest on something that may never come (a job, a node, a quorum): they
    hold up nothing.
    """

    receipts: int
    escrows: int
    attestations: int
    quotes: int
    transactions: int
    waiting: int

    @property
    def total(self) -> int:
        """All that will become final by itself."""
        items = self.receipts + self.escrows + self.attestations + self.quotes
        return items + self.transactions


def retry(store: Store, deployment: Deployment, digest: bytes) -> tuple[Retried, ...]:
    """Judge anew what was rejected: a receipt (by each signer), an escrow, an attestation, a quote.

    A receipt is judged by the facts, also one that the vault had refused for good. An escrow or a
    quote is due again. An attestation collects its quorum again.

    Raises:
        ItemUnknown: when nothing of this digest was handed in.
        NotRejected: when it was not rejected.
    """
    with store.write() as session:
        receipts = session.scalars(select(ReceiptRow).where(ReceiptRow.digest == digest)).all()
        escrow = session.get(EscrowRow, digest)
        attestation = session.get(AttestationRow, digest)
        quote = session.get(QuoteRow, digest)
        found = [item for item in (*receipts, escrow, attestation, quote) if item is not None]
        if not found:
            raise ItemUnknown(digest)
        rejected = [item for item in found if item.status == Status.REJECTED]
        if not rejected:
            raise NotRejected(digest, found[0].status)
        now = chain_time(session)
        for item in rejected:
            item.status, item.reason, item.slot = Status.WAITING, None, None
            if isinstance(item, ReceiptRow):
                rejudge(session, [item], grace=deployment.grace_period, now=now)
                continue
            item.detail = None
            if isinstance(item, AttestationRow):
                item.statement = item.signatures = item.platform = None
            elif isinstance(item, QuoteRow):
                item.status = Status.ACCEPTED
            else:
                item.status = Status.REJECTED if is_voided(session, digest) else Status.ACCEPTED
                item.reason = "JobVoided" if item.status == Status.REJECTED else None
                opened = select(JobEventRow).where(
                    JobEventRow.job_id == digest, JobEventRow.event == "opened"
                )
                if event := session.scalars(opened).first():
                    item.status, item.transaction = Status.SETTLED, event.transaction
    for item in rejected:
        _log.info("tried again", item=to_hex(digest), status=item.status, reason=item.reason)
    return tuple(_retried(item, digest) for item in rejected)


def _retried(item: Item, digest: bytes) -> Retried:
    kinds = {
        ReceiptRow: "receipt",
        EscrowRow: "escrow",
        AttestationRow: "attestation",
        QuoteRow: "quote",
    }
    return Retried(
        kind=kinds[type(item)],
        digest=digest,
        signer=item.signer if isinstance(item, ReceiptRow) else None,
        status=Status(item.status),
        reason=item.reason,
    )


def unfinished(store: Store) -> Unfinished:
    """What of all that was taken in is not final yet."""
    due = (Status.ACCEPTED, Status.SUBMITTED)
    tables: tuple[type[Item], ...] = (ReceiptRow, EscrowRow, AttestationRow, QuoteRow)
    with store.read() as session:
        counts = [_count(session, table, table.status.in_(due)) for table in tables]
        waiting = [_count(session, table, table.status == Status.WAITING) for table in tables]
        pending = TransactionRow.state == TransactionState.PENDING
        transactions = _count(session, TransactionRow, pending)
    return Unfinished(
        receipts=counts[0],
        escrows=counts[1],
        attestations=counts[2],
        quotes=counts[3],
        transactions=transactions,
        waiting=sum(waiting),
    )


def _count(session: Session, table: type[Table], which: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(table).where(which)) or 0

"""The outbox: which stored items are due for a transaction, and which transaction carries them.

An item (receipt, escrow, attestation) points to its transaction by the nonce, its `slot`, because
several attempts may share one. Here lives the only place that hands out nonces.
"""

from collections.abc import Callable, Sequence

from eth_account.signers.local import LocalAccount
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from oracle.facts import Call, CallKind
from oracle.messages import Status
from oracle.store.database import Store
from oracle.store.tables import AttestationRow, EscrowRow, ReceiptRow, TransactionRow
from oracle.transactions import Bid, TransactionState, signed_row
from oracle.verdicts import chain_time, rejudge
from settlement.deployment import Deployment

Item = AttestationRow | EscrowRow | ReceiptRow
_ITEMS: tuple[type[Item], ...] = (AttestationRow, EscrowRow, ReceiptRow)


class Outbox:
    """The persisted transactions of one relaying account."""

    def __init__(self, store: Store, deployment: Deployment, account: LocalAccount) -> None:
        self._store = store
        self._deployment = deployment
        self._account = account

    def pending(self) -> list[TransactionRow]:
        """The newest attempt of each nonce that is not final yet, by nonce."""
        query = select(TransactionRow).where(TransactionRow.state == TransactionState.PENDING)
        with self._store.read() as session:
            return list(session.scalars(query.order_by(TransactionRow.nonce)))

    def attempts(self, nonce: int) -> list[TransactionRow]:
        """All attempts at a nonce, the first one first."""
        query = select(TransactionRow).where(TransactionRow.nonce == nonce)
        with self._store.read() as session:
            return list(session.scalars(query.order_by(TransactionRow.attempt)))

    def enter(
        self,
        call: Call,
        *,
        gas: int,
        bid: Bid,
        least_nonce: int,
        since: int,
        items: Callable[[Session], Sequence[Item]],
    ) -> TransactionRow:
        """Allocate a nonce, sign, and store the transaction together with what it carries.

        One database transaction: after it, the nonce is this call's for ever. `least_nonce` is what
        the chain would take next; `items` finds, in the transaction, what the call carries.
        """
        with self._store.write() as session:
            highest = session.scalar(select(func.max(TransactionRow.nonce)))
            nonce = least_nonce if highest is None else max(least_nonce, highest + 1)
            row = signed_row(
                call,
                account=self._account,
                chain_id=self._deployment.chain_id,
                nonce=nonce,
                attempt=1,
                gas=gas,
                bid=bid,
                since=since,
            )
            session.add(row)
            for item in items(session):
                if item.status == Status.ACCEPTED:
                    item.status, item.reason = Status.SUBMITTED, None
                    item.slot, item.transaction = nonce, row.hash
        return row

    def replace(self, old: TransactionRow, bid: Bid, since: int) -> TransactionRow:
        """Store a further attempt at the same nonce, with a higher bid."""
        call = Call(kind=CallKind(old.kind), to=old.recipient, data=old.data)
        row = signed_row(
            call,
            account=self._account,
            chain_id=self._deployment.chain_id,
            nonce=old.nonce,
            attempt=old.attempt + 1,
            gas=old.gas,
            bid=bid,
            since=since,
        )
        with self._store.write() as session:
            session.get_one(TransactionRow, old.hash).state = TransactionState.REPLACED
            session.add(row)
            for table in _ITEMS:
                carried = (table.slot == old.nonce, table.status == Status.SUBMITTED)
                session.execute(update(table).where(*carried).values(transaction=row.hash))
        return row

    def mark_sent(self, transaction: bytes, since: int | None = None) -> None:
        """Note that the endpoint has the transaction, and from which height on to wait for it."""
        with self._store.write() as session:
            row = session.get_one(TransactionRow, transaction)
            row.sent = True
            if since is not None:
                row.since = since

    def resolve(
        self, nonce: int, outcome: TransactionState, mined: bytes | None, block: int | None
    ) -> None:
        """Close a nonce: by `mined`, one of its attempts, in a final block; or LOST, by none.

        What it carried and the facts do not show as settled is judged again, and may be sent again.
        """
        with self._store.write() as session:
            query = select(TransactionRow).where(TransactionRow.nonce == nonce)
            for row in session.scalars(query):
                if row.hash == mined:
                    row.state, row.block = outcome, block
                else:
                    row.state = TransactionState.REPLACED if mined else outcome
            for table in (AttestationRow, EscrowRow):
                stuck = (table.slot == nonce, table.status == Status.SUBMITTED)
                again = {"status": Status.ACCEPTED, "slot": None, "transaction": None}
                session.execute(update(table).where(*stuck).values(again))
            carried = session.scalars(select(ReceiptRow).where(ReceiptRow.slot == nonce)).all()
            for receipt in carried:
                receipt.slot = None
            now = chain_time(session)
            rejudge(session, carried, grace=self._deployment.grace_period, now=now)

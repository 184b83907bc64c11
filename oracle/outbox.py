"""The outbox: which stored items are due for a transaction, and which transaction carries them.

An item (receipt, escrow, attestation, quote) points to its transaction by its `slot`, which stands
for one nonce of one key, because several attempts may share it. Here lives the only place that
hands out nonces. Signing may be slow, so it happens before the database transaction, which then
makes sure that nothing has moved: until that commits, nothing that was signed leaves the process.
"""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from oracle.errors import WorkTaken
from oracle.facts import Call, CallKind
from oracle.lease import KeyLease
from oracle.messages import Status
from oracle.signers.transaction import TransactionSigner
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    EscrowRow,
    QuoteRow,
    ReceiptRow,
    SlotRow,
    SuspectRow,
    TransactionRow,
)
from oracle.transactions import CANCEL_GAS, Bid, TransactionState, cancellation, signed_row
from oracle.verdicts import chain_time, rejudge
from settlement.deployment import Deployment

Item = AttestationRow | QuoteRow | EscrowRow | ReceiptRow
_ITEMS: tuple[type[Item], ...] = (AttestationRow, QuoteRow, EscrowRow, ReceiptRow)

CARRYING: Mapping[tuple[Status, Status | None], str] = {
    (Status.ACCEPTED, Status.SUBMITTED): "in a persisted transaction",
    (Status.SUBMITTED, Status.SETTLED): "what it was sent for is final",
    (Status.SUBMITTED, None): "the transaction was lost, reverted or cancelled",
}
"""How an item gets into a transaction and out of it; None is judged anew by the facts."""


class Outbox:
    """The persisted transactions of one relaying key, by nonce.

    Every method that writes raises `KeyInUse` when another process has taken the key.
    """

    def __init__(
        self, store: Store, deployment: Deployment, signer: TransactionSigner, lease: KeyLease
    ) -> None:
        self._store = store
        self._deployment = deployment
        self._signer = signer
        self._lease = lease

    def pending(self) -> list[TransactionRow]:
        """The newest attempt of each nonce that is not final yet, by nonce."""
        query = select(TransactionRow).where(
            TransactionRow.sender == self._signer.address,
            TransactionRow.state == TransactionState.PENDING,
        )
        with self._store.read() as session:
            return list(session.scalars(query.order_by(TransactionRow.nonce)))

    def attempts(self, nonce: int) -> list[TransactionRow]:
        """All attempts at a nonce, the first one first."""
        with self._store.read() as session:
            return self._attempts(session, nonce)

    def is_wanted(self, row: TransactionRow) -> bool:
        """Whether anything that a transaction carries still waits for it."""
        with self._store.read() as session:
            for table in _ITEMS:
                waits = (table.slot == row.slot, table.status == Status.SUBMITTED)
                if session.scalar(select(table.slot).where(*waits).limit(1)) is not None:
                    return True
        return False

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
        the chain would take next; `items` finds, in the transaction, what the call carries, and
        locks it.

        Raises:
            WorkTaken: something of it is another transaction's by now.
            SignerUnavailable, SignerRefused, SignedOtherwise: see `TransactionSigner`.
        """
        with self._store.read() as session:
            highest = self._highest(session)
        nonce = least_nonce if highest is None else max(least_nonce, highest + 1)
        row = self._signed(call, nonce, attempt=1, gas=gas, bid=bid, since=since)
        with self._store.write() as session:
            self._lease.check(session)
            if self._highest(session) != highest:
                raise WorkTaken(f"nonce {nonce} of {self._signer.address}")
            row.slot = self._new_slot(session, nonce)
            session.add(row)
            for item in items(session):
                if (Status(item.status), Status.SUBMITTED) not in CARRYING:
                    raise WorkTaken("what the transaction was to carry")
                item.status, item.reason = Status.SUBMITTED, None
                item.slot, item.transaction = row.slot, row.hash
        return row

    def fill(self, nonce: int, *, bid: Bid, since: int) -> TransactionRow:
        """Store a transaction of nothing at a nonce that none of ours uses: others wait for it."""
        done = self.attempts(nonce)
        row = self._signed(
            cancellation(self._signer.address),
            nonce,
            attempt=done[-1].attempt + 1 if done else 1,
            gas=CANCEL_GAS,
            bid=bid,
            since=since,
        )
        with self._store.write() as session:
            self._lease.check(session)
            row.slot = done[-1].slot if done else self._new_slot(session, nonce)
            session.add(row)
        return row

    def replace(self, old: TransactionRow, bid: Bid, since: int) -> TransactionRow:
        """Store a further attempt at the same nonce, with a higher bid."""
        call = Call(kind=CallKind(old.kind), to=old.recipient, data=old.data)
        row = self._next_attempt(old, call, gas=old.gas, bid=bid, since=since)
        with self._store.write() as session:
            self._supersede(session, old, row)
            for table in _ITEMS:
                carried = (table.slot == old.slot, table.status == Status.SUBMITTED)
                session.execute(update(table).where(*carried).values(transaction=row.hash))
        return row

    def cancel(self, old: TransactionRow, bid: Bid, since: int) -> TransactionRow:
        """Store a transaction of nothing in the place of one that is not wanted any more.

        What that carried is judged again, and may go into another transaction. Should the first one
        be mined all the same, nothing is paid twice: receipts are cumulative, jobs open once.
        """
        call = cancellation(self._signer.address)
        row = self._next_attempt(old, call, gas=CANCEL_GAS, bid=bid, since=since)
        with self._store.write() as session:
            self._supersede(session, old, row)
            self._free(session, old.slot)
        return row

    def mark_sent(self, transaction: bytes, sent: bool = True, since: int | None = None) -> None:
        """Note whether the endpoint has the transaction, and from which height on to wait for it.

        `since` is left as it is unless told otherwise.
        """
        with self._store.write() as session:
            row = session.get_one(TransactionRow, transaction)
            row.sent = sent
            if since is not None:
                row.since = since

    def resolve(
        self, nonce: int, outcome: TransactionState, mined: bytes | None, block: int | None
    ) -> None:
        """Close a nonce: by `mined`, one of its attempts, in a final block; or LOST, by none.

        What it carried and the facts do not show as settled is judged again, and may be sent again;
        receipts of a reverted transaction in smaller batches.
        """
        with self._store.write() as session:
            self._lease.check(session)
            rows = self._attempts(session, nonce)
            for row in rows:
                if row.hash == mined:
                    row.state, row.block = outcome, block
                else:
                    row.state = TransactionState.REPLACED if mined else outcome
            carried = self._free(session, rows[0].slot)
            for receipt in carried:
                _note_outcome(session, receipt, outcome, block)

    def _free(self, session: Session, slot: int) -> Sequence[ReceiptRow]:
        """Take what a slot carries out of it, and judge it again. Returns the receipts."""
        for table in (AttestationRow, QuoteRow, EscrowRow):
            stuck = (table.slot == slot, table.status == Status.SUBMITTED)
            again = {"status": Status.ACCEPTED, "slot": None, "transaction": None}
            session.execute(update(table).where(*stuck).values(again))
        query = select(ReceiptRow).where(ReceiptRow.slot == slot).with_for_update()
        carried = session.scalars(query).all()
        for receipt in carried:
            receipt.slot = None
        now = chain_time(session)
        rejudge(session, carried, grace=self._deployment.grace_period, now=now)
        return carried

    def _supersede(self, session: Session, old: TransactionRow, new: TransactionRow) -> None:
        self._lease.check(session)
        session.get_one(TransactionRow, old.hash).state = TransactionState.REPLACED
        session.add(new)

    def _next_attempt(
        self, old: TransactionRow, call: Call, *, gas: int, bid: Bid, since: int
    ) -> TransactionRow:
        row = self._signed(call, old.nonce, attempt=old.attempt + 1, gas=gas, bid=bid, since=since)
        row.slot = old.slot
        return row

    def _signed(
        self, call: Call, nonce: int, *, attempt: int, gas: int, bid: Bid, since: int
    ) -> TransactionRow:
        return signed_row(
            call,
            signer=self._signer,
            chain_id=self._deployment.chain_id,
            nonce=nonce,
            attempt=attempt,
            gas=gas,
            bid=bid,
            since=since,
        )

    def _new_slot(self, session: Session, nonce: int) -> int:
        slot = SlotRow(sender=self._signer.address, nonce=nonce)
        session.add(slot)
        session.flush()
        return slot.slot

    def _highest(self, session: Session) -> int | None:
        ours = SlotRow.sender == self._signer.address
        return session.scalar(select(func.max(SlotRow.nonce)).where(ours))

    def _attempts(self, session: Session, nonce: int) -> list[TransactionRow]:
        query = select(TransactionRow).where(
            TransactionRow.sender == self._signer.address, TransactionRow.nonce == nonce
        )
        return list(session.scalars(query.order_by(TransactionRow.attempt)))


def _note_outcome(
    session: Session, receipt: ReceiptRow, outcome: TransactionState, block: int | None
) -> None:
    suspect = session.get(SuspectRow, (receipt.digest, receipt.signer))
    if outcome is TransactionState.REVERTED:
        if suspect is None:
            suspect = SuspectRow(digest=receipt.digest, signer=receipt.signer, reverts=0, block=0)
            session.add(suspect)
        suspect.reverts, suspect.block = suspect.reverts + 1, block or 0
    elif outcome is TransactionState.FINAL and suspect is not None:
        session.delete(suspect)

"""One relaying key's transactions: sent, followed, replaced, cancelled, until each is final."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from oracle.errors import (
    FeeTooLow,
    FundsTooLow,
    SignedOtherwise,
    SignerRefused,
    SignerUnavailable,
    TransactionRefused,
)
from oracle.facts import Call, CallKind, Chain, Fees
from oracle.lease import KeyLease
from oracle.outbox import Item, Outbox
from oracle.store.tables import TransactionRow
from oracle.transactions import Bid, FeePolicy, TransactionState
from settlement.errors import RaphaError
from settlement.reverts import ContractReverted
from settlement.types import to_hex

SENDING_TROUBLE = (TransactionRefused, SignerUnavailable, SignerRefused, SignedOtherwise)
"""What keeps one key from sending, and no other."""

MAX_FILL = 16
"""How many missing nonces are filled in one round."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Moment:
    """The chain as one round goes by it.

    `height` is the newest block, `seen` the block that the facts reach to, −1 before the first.
    """

    height: int
    seen: int
    fees: Fees


class Sender:
    """One key. Only one process may run it: `acquire` makes sure.

    Sending and signing raise `TransactionRefused` and its kinds, `SignerUnavailable`,
    `SignerRefused`, `SignedOtherwise` and `KeyInUse`: then this key has to wait, and others need
    not. `ChainUnavailable` and `EndpointsDisagree` stop everything.
    """

    def __init__(
        self,
        chain: Chain,
        address: str,
        outbox: Outbox,
        lease: KeyLease,
        fees: FeePolicy,
        patience: int,
    ) -> None:
        self.address = address
        self.outbox = outbox
        self.balance: int | None = None
        self._chain = chain
        self._lease = lease
        self._fees = fees
        self._patience = patience
        self._recovered = False
        self._followed: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Make sure that the key is this process's. Raises KeyInUse."""
        self._lease.acquire()

    def release(self) -> None:
        """Leave the key to another process."""
        self._lease.release()

    def catch_up(self, moment: Moment) -> None:
        """Send what is persisted but unsent, and look after what is pending."""
        if self._followed is None or self._followed[0] != moment.height:
            self.balance = self._chain.balance(self.address)
        trouble: RaphaError | None = None
        try:
            self._deliver_all(moment)
        except SENDING_TROUBLE as error:  # an earlier attempt may be mined all the same
            trouble = error
        # as long as neither the chain nor the facts move, nothing can have happened
        if self._followed != (moment.height, moment.seen):
            self._follow(moment)
            self._followed = (moment.height, moment.seen)
        if trouble is not None:
            raise trouble

    def is_blocked(self) -> bool:
        """Whether a nonce is not sent yet: what comes after it would wait for it."""
        return any(not row.sent for row in self.outbox.pending())

    def can_pay(self, gas: int, bid: Bid) -> bool:
        """Whether the balance covers one more transaction beside those that are pending."""
        needed = gas * bid.max_fee
        needed += sum(row.gas * row.max_fee for row in self.outbox.pending())
        if self.balance is None or self.balance < needed:
            self.balance = self._chain.balance(self.address)  # it may have been refilled
        return self.balance >= needed

    def enter(
        self,
        call: Call,
        *,
        gas: int,
        bid: Bid,
        moment: Moment,
        items: Callable[[Session], Sequence[Item]],
    ) -> TransactionRow:
        """Persist a call under the key's next nonce. Raises WorkTaken, see `Outbox.enter`."""
        return self.outbox.enter(
            call,
            gas=gas,
            bid=bid,
            least_nonce=self._chain.next_nonce(self.address, final=False),
            since=moment.height,
            items=items,
        )

    def send(self, row: TransactionRow, since: int | None = None) -> None:
        """Hand a persisted transaction over, and note that it was."""
        try:
            delivery = self._chain.send(row.raw)
        except (FundsTooLow, FeeTooLow):
            if row.sent:
                self.outbox.mark_sent(row.hash, False)
            raise
        self.outbox.mark_sent(row.hash, since=since)
        _log.info(
            "transaction sent",
            transaction=to_hex(row.hash),
            sender=self.address,
            nonce=row.nonce,
            attempt=row.attempt,
            kind=row.kind,
            delivery=delivery,
        )

    def free_unsent(self, moment: Moment) -> None:
        """Leave what this key cannot send to other keys; its nonces will carry nothing."""
        for row in self.outbox.pending():
            if not row.sent and row.kind != CallKind.CANCEL:
                bid = self._higher(row, moment) or self._fees.first(moment.fees)
                self.outbox.cancel(row, bid, moment.height)
                _log.warning("left to other keys", sender=self.address, nonce=row.nonce)

    # What is pending

    def _deliver_all(self, moment: Moment) -> None:
        for row in self.outbox.pending():
            if not (row.sent and self._recovered):
                self._deliver(row, moment)
        self._recovered = True

    def _deliver(self, row: TransactionRow, moment: Moment) -> None:
        try:
            self.send(row)
        except FeeTooLow:
            self._replace(row, moment)

    def _follow(self, moment: Moment) -> None:
        pending = self.outbox.pending()
        if not pending:
            return
        used = self._chain.next_nonce(self.address, final=True)
        unmined = [row for row in pending if not self._resolve(row, moment.seen, used)]
        for row in unmined:
            self._attend(row, moment)
        self._fill_gaps(used, moment)

    def _resolve(self, row: TransactionRow, seen: int, used: int) -> bool:
        """Close a nonce that is mined where the facts reach. Returns whether it is used."""
        for attempt in self.outbox.attempts(row.nonce):
            mined = self._chain.mined(attempt.hash)
            if mined is None:
                continue
            # Not before the watcher has passed the block: then what it settled shows in the facts.
            if mined.block <= seen:
                state = TransactionState.FINAL if mined.success else TransactionState.REVERTED
                self.outbox.resolve(row.nonce, state, attempt.hash, mined.block)
                _log.info("transaction resolved", transaction=to_hex(attempt.hash), state=state)
            return True
        if used > row.nonce:
            self.outbox.resolve(row.nonce, TransactionState.LOST, None, None)
            _log.error("nonce was used by a foreign transaction", nonce=row.nonce)
            return True
        return False

    def _attend(self, row: TransactionRow, moment: Moment) -> None:
        """Have an unmined transaction mined, or cancelled."""
        if row.kind != CallKind.CANCEL and not self.outbox.is_wanted(row):
            self._cancel(row, moment, "all that it carries is settled")
        elif not row.sent:
            return  # it is tried in every round
        elif moment.height >= row.since + self._patience:
            refusal = self._refusal(row)
            if refusal is None:
                self._replace(row, moment)
            else:
                self._cancel(row, moment, refusal)
        elif not self._chain.is_known(row.hash):
            _log.warning("transaction was dropped, sent again", nonce=row.nonce)
            self._deliver(row, moment)

    def _refusal(self, row: TransactionRow) -> str | None:
        """Why a transaction would revert if it were mined now, None when it would not."""
        if row.kind == CallKind.CANCEL:
            return None
        try:
            call = Call(CallKind(row.kind), row.recipient, row.data)
            self._chain.estimate_gas(call, self.address)
        except ContractReverted as refusal:
            return refusal.code
        return None

    def _replace(self, row: TransactionRow, moment: Moment) -> None:
        bid = self._higher(row, moment)
        if bid is None:
            _log.warning("fee cap reached, sent again as it is", nonce=row.nonce)
            self.send(row, since=moment.height)
        else:
            self.send(self.outbox.replace(row, bid, moment.height))

    def _cancel(self, row: TransactionRow, moment: Moment, reason: str) -> None:
        bid = self._higher(row, moment)
        if bid is None:
            _log.warning("fee cap reached, not cancelled", nonce=row.nonce, reason=reason)
            self.send(row, since=moment.height)
            return
        _log.warning("transaction cancelled", nonce=row.nonce, reason=reason)
        self.send(self.outbox.cancel(row, bid, moment.height))

    def _higher(self, row: TransactionRow, moment: Moment) -> Bid | None:
        return self._fees.higher(Bid(row.max_fee, row.tip), moment.fees)

    def _fill_gaps(self, used: int, moment: Moment) -> None:
        """Send something at nonces that nothing of ours uses while later ones wait for them."""
        pending = self.outbox.pending()
        if not pending:
            return
        least = max(used, self._chain.next_nonce(self.address, final=False))
        done = (TransactionState.FINAL, TransactionState.REVERTED)
        for nonce in range(least, min(pending[0].nonce, least + MAX_FILL)):
            if any(row.state in done for row in self.outbox.attempts(nonce)):
                continue  # the endpoint is behind
            bid = self._fees.first(moment.fees)
            _log.warning("missing nonce filled", sender=self.address, nonce=nonce)
            self.send(self.outbox.fill(nonce, bid=bid, since=moment.height))

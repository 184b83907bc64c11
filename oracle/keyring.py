"""The relaying keys of one process: which works, which is in trouble, and which sends next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from oracle.batching import BatchPolicy
from oracle.errors import FeeTooLow, FundsTooLow, KeyInUse, SignerRefused, WorkTaken
from oracle.facts import Call, Chain
from oracle.gas import GasPolicy, KeyState, affordable_batches, is_low
from oracle.lease import KeyLease
from oracle.outbox import Item, Outbox
from oracle.sender import SENDING_TROUBLE, Moment, Sender
from oracle.signers.transaction import TransactionSigner, UnsignedTransaction
from oracle.store.database import Store
from oracle.store.tables import TransactionRow
from oracle.transactions import FeePolicy, TransactionState
from settlement.deployment import Deployment
from settlement.errors import RaphaError

KEY_TROUBLE = (*SENDING_TROUBLE, KeyInUse)
"""What stops one key and no other."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RelayPolicy:
    """How the relayer works: `patience` in blocks until an unmined transaction is replaced.

    `max_in_flight` is how many transactions each key has on the way at most.
    """

    fees: FeePolicy
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    gas: GasPolicy = field(default_factory=GasPolicy)
    max_in_flight: int = 16
    patience: int = 20


class Keyring:
    """All relaying keys of this process over one store.

    A key in trouble stops no other: its trouble is noted, told by `states`, and looked at anew in
    the next round.
    """

    def __init__(
        self,
        store: Store,
        chain: Chain,
        deployment: Deployment,
        signers: Sequence[TransactionSigner],
        policy: RelayPolicy,
    ) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._policy = policy
        self._price: int | None = None
        self._troubles: dict[str, RaphaError] = {}
        self._told: dict[str, RaphaError] = {}
        self._low: dict[str, bool] = {}
        self.senders = [self._sender(signer) for signer in signers]

    def _sender(self, signer: TransactionSigner) -> Sender:
        lease = KeyLease(self._store, signer.address)
        outbox = Outbox(self._store, self._deployment, signer, lease)
        policy = self._policy
        return Sender(self._chain, signer.address, outbox, lease, policy.fees, policy.patience)

    def prepare(self) -> None:
        """Take the keys, and take back what keys that are not configured any more left unfinished.

        Raises:
            KeyInUse: in SQLite, which is for one relaying process; in PostgreSQL this process
                stands by until the other one ends.
        """
        for sender in self.senders:
            try:
                sender.acquire()
            except KeyInUse as error:
                if self._store.engine.dialect.name == "sqlite":
                    raise
                self._note(sender, error)
        self._retire()

    def close(self) -> None:
        """Leave the keys to another process."""
        for sender in self.senders:
            sender.release()

    def states(self) -> list[KeyState]:
        """Each key as the last round found it."""
        states = []
        for sender in self.senders:
            balance, price = sender.balance, self._price
            known = balance is not None and price is not None
            trouble = self._troubles.get(sender.address)
            states.append(
                KeyState(
                    address=sender.address,
                    balance=balance,
                    batches=affordable_batches(balance or 0, price or 0, self._policy.gas)
                    if known
                    else None,
                    pending=len(sender.outbox.pending()),
                    trouble=f"{trouble.code}: {trouble}" if trouble else None,
                    low=self._low.get(sender.address, False),
                )
            )
        return states

    def catch_up(self, moment: Moment) -> None:
        """Have each key send what is persisted, and look after what is pending."""
        self._price = self._policy.fees.price(moment.fees)
        self._told, self._troubles = self._troubles, {}
        for sender in self.senders:
            try:
                sender.acquire()
                sender.catch_up(moment)
            except KEY_TROUBLE as error:
                self._note(sender, error)
            self._watch_balance(sender, self._price)
        if self._able():
            self._take_over(moment)

    def raise_if_stuck(self) -> None:
        """Raise the first key's trouble when no key can work; waiting for lower fees is none."""
        if not self._able():
            for trouble in self._troubles.values():
                if not isinstance(trouble, FeeTooLow):
                    raise trouble

    def has_room(self) -> bool:
        """Whether a key can take on a transaction now."""
        return self._choose() is not None

    def submit(
        self, call: Call, moment: Moment, items: Callable[[Session], Sequence[Item]]
    ) -> bool:
        """Estimate, persist, send, by the first key that can. Returns whether one did.

        Raises:
            ContractReverted: the call would revert now.
        """
        bid = self._policy.fees.first(moment.fees)
        while (sender := self._choose()) is not None:
            gas = self._chain.estimate_gas(call, sender.address)
            gas += gas // 4  # other transactions before it may warm or cool a slot
            try:
                if not sender.can_pay(gas, bid):
                    raise FundsTooLow(f"the balance is {sender.balance} wei")
                row = sender.enter(call, gas=gas, bid=bid, moment=moment, items=items)
            except WorkTaken as error:
                _log.info("work was taken", reason=str(error))
                return False
            except KEY_TROUBLE as error:
                self._note(sender, error)
                continue
            try:
                sender.send(row)
            except KEY_TROUBLE as error:  # it is persisted, and tried again
                self._note(sender, error)
            return True
        return False

    def _able(self) -> list[Sender]:
        return [sender for sender in self.senders if sender.address not in self._troubles]

    def _note(self, sender: Sender, error: RaphaError) -> None:
        self._troubles[sender.address] = error
        told = self._told.get(sender.address)
        if told is None or told.code != error.code:
            _log.warning("key has to wait", sender=sender.address, reason=f"{error.code}: {error}")

    def _watch_balance(self, sender: Sender, price: int) -> None:
        if sender.balance is None:
            return
        low = is_low(sender.balance, price, self._policy.gas)
        if low and not self._low.get(sender.address):
            _log.warning("key is low on gas money", sender=sender.address, wei=sender.balance)
        self._low[sender.address] = low

    def _take_over(self, moment: Moment) -> None:
        """Let the other keys have what a key without gas money could not send."""
        for sender in self.senders:
            if isinstance(self._troubles.get(sender.address), FundsTooLow):
                sender.free_unsent(moment)

    def _retire(self) -> None:
        """Give up what a key left that this process no longer has, unless another one has it.

        Should one of its transactions be mined all the same, nothing is paid twice.
        """
        query = select(TransactionRow.sender).where(
            TransactionRow.state == TransactionState.PENDING
        )
        with self._store.read() as session:
            senders = set(session.scalars(query.distinct()))
        for address in senders - {sender.address for sender in self.senders}:
            gone = self._sender(_Retired(address))
            try:
                gone.acquire()
            except KeyInUse:
                continue
            for row in gone.outbox.pending():
                gone.outbox.resolve(row.nonce, TransactionState.LOST, None, None)
                _log.warning("nonce of a retired key given up", sender=address, nonce=row.nonce)
            gone.release()

    def _choose(self) -> Sender | None:
        """The key with the least on its way, None while all are busy or in trouble."""
        free = [sender for sender in self._able() if not sender.is_blocked()]
        loads = [(len(sender.outbox.pending()), sender) for sender in free]
        load, sender = min(loads, key=lambda pair: pair[0], default=(0, None))
        return sender if load < self._policy.max_in_flight else None


class _Retired:
    """A key that this process does not have: what it left can be given up, and not replaced."""

    def __init__(self, address: str) -> None:
        self.address = address

    def sign_transaction(self, transaction: UnsignedTransaction) -> bytes:
        raise SignerRefused(f"{self.address} is not configured")

"""Transactions: their fees, their replacements, and their rows."""

from dataclasses import dataclass
from enum import StrEnum

from eth_utils import keccak

from oracle.facts import Call, CallKind, Fees
from oracle.signers.transaction import TransactionSigner, UnsignedTransaction
from oracle.store.tables import TransactionRow

CANCEL_GAS = 21_000
"""What a transfer of nothing uses."""


class TransactionState(StrEnum):
    """How far an attempt has come.

    PENDING: the newest at its nonce, not known to be final. REPLACED: another attempt took its
    place. FINAL and REVERTED: mined in a final block. LOST: a foreign transaction used the nonce.
    """

    PENDING = "PENDING"
    REPLACED = "REPLACED"
    FINAL = "FINAL"
    REVERTED = "REVERTED"
    LOST = "LOST"


@dataclass(frozen=True)
class Bid:
    """What a transaction offers per gas, in wei (EIP-1559)."""

    max_fee: int
    tip: int


@dataclass(frozen=True)
class FeePolicy:
    """Bounds on bids, wei per gas: at least `min_tip` as tip, never more than `max_fee` in all."""

    min_tip: int
    max_fee: int

    def first(self, fees: Fees) -> Bid:
        """The bid of a first attempt: room for the base fee to double, within the cap."""
        tip = self.tip(fees)
        return Bid(max_fee=min(2 * fees.base_fee + tip, self.max_fee), tip=tip)

    def tip(self, fees: Fees) -> int:
        """What to offer beyond the base fee: what is customary, within the bounds."""
        return min(max(fees.tip, self.min_tip), self.max_fee)

    def price(self, fees: Fees) -> int:
        """What a unit of gas is likely to cost now, in wei."""
        return fees.base_fee + self.tip(fees)

    def higher(self, bid: Bid, fees: Fees) -> Bid | None:
        """The bid that replaces `bid`, both parts at least 12.5 % up; None beyond the cap."""
        fresh = self.first(fees)
        tip = max(fresh.tip, _raised(bid.tip))
        max_fee = max(fresh.max_fee, _raised(bid.max_fee), tip)
        return Bid(max_fee=max_fee, tip=tip) if max_fee <= self.max_fee else None


def _raised(wei: int) -> int:
    """At least one eighth more, rounded up: endpoints ask for 10 %, some for 12.5 %."""
    return wei + max(1, -(-wei // 8))


def cancellation(address: str) -> Call:
    """What takes the place of a transaction that is no longer wanted: nothing, sent to oneself."""
    return Call(CallKind.CANCEL, address, b"")


def signed_row(
    call: Call,
    *,
    signer: TransactionSigner,
    chain_id: int,
    nonce: int,
    attempt: int,
    gas: int,
    bid: Bid,
    since: int,
    slot: int = 0,
) -> TransactionRow:
    """A signed EIP-1559 transaction as the row that is persisted before it is sent.

    `since` is the height at which it was made.

    Raises:
        SignerUnavailable, SignerRefused, SignedOtherwise: see `TransactionSigner`.
    """
    unsigned = UnsignedTransaction(
        chain_id=chain_id,
        nonce=nonce,
        to=call.to,
        data=call.data,
        gas=gas,
        max_fee=bid.max_fee,
        tip=bid.tip,
    )
    raw = signer.sign_transaction(unsigned)
    return TransactionRow(
        hash=keccak(raw),
        slot=slot,
        sender=signer.address,
        nonce=nonce,
        attempt=attempt,
        kind=call.kind,
        recipient=call.to,
        data=call.data,
        gas=gas,
        max_fee=bid.max_fee,
        tip=bid.tip,
        raw=raw,
        since=since,
        sent=False,
        state=TransactionState.PENDING,
        block=None,
    )

"""Signed transactions: their fees, their replacements, and their rows."""

from dataclasses import dataclass
from enum import StrEnum

from eth_account import Account
from eth_account.signers.local import LocalAccount

from oracle.facts import Call, Fees
from oracle.store.tables import TransactionRow


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
        tip = min(max(fees.tip, self.min_tip), self.max_fee)
        return Bid(max_fee=min(2 * fees.base_fee + tip, self.max_fee), tip=tip)

    def higher(self, bid: Bid, fees: Fees) -> Bid | None:
        """The bid that replaces `bid`, both parts at least 12.5 % up; None beyond the cap."""
        fresh = self.first(fees)
        tip = max(fresh.tip, _raised(bid.tip))
        max_fee = max(fresh.max_fee, _raised(bid.max_fee), tip)
        return Bid(max_fee=max_fee, tip=tip) if max_fee <= self.max_fee else None


def _raised(wei: int) -> int:
    """At least one eighth more, rounded up: endpoints ask for 10 %, some for 12.5 %."""
    return wei + max(1, -(-wei // 8))


def signed_row(
    call: Call,
    *,
    account: LocalAccount,
    chain_id: int,
    nonce: int,
    attempt: int,
    gas: int,
    bid: Bid,
    since: int,
) -> TransactionRow:
    """A signed EIP-1559 transaction as the row that is persisted before it is sent.

    Signing is deterministic (RFC 6979): the same content has the same hash. `since` is the height
    at which it was made.
    """
    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "to": call.to,
            "value": 0,
            "data": call.data,
            "gas": gas,
            "maxFeePerGas": bid.max_fee,
            "maxPriorityFeePerGas": bid.tip,
        },
        account.key,
    )
    return TransactionRow(
        hash=bytes(signed.hash),
        nonce=nonce,
        attempt=attempt,
        kind=call.kind,
        recipient=call.to,
        data=call.data,
        gas=gas,
        max_fee=bid.max_fee,
        tip=bid.tip,
        raw=bytes(signed.raw_transaction),
        since=since,
        sent=False,
        state=TransactionState.PENDING,
        block=None,
    )

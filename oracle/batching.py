"""When a batch of receipts is worth its transaction, and which receipts share one. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from settlement.contracts import MAX_BATCH

BASE_GAS = 60_000
RECEIPT_GAS = 71_000
"""What a settling transaction needs at most: this once, and this for each receipt (docs/gas.md)."""

WEI_PER_COIN = 10**18


@dataclass(frozen=True)
class BatchPolicy:
    """When to send. The defaults send whatever is due at once.

    A batch goes as soon as it is full (`max_batch`), newly earns `min_value` (USDC base units), has
    a receipt that waited `max_age` seconds (`completing_age` for one that completes its job), or a
    unit of gas costs at most `cheap_gas` wei. Where the native coin's price is known (`coin_price`,
    USDC base units per coin), a batch whose gas would cost more than `max_gas_share` per cent of
    what it earns waits until one of its receipts is old enough. What would soon not be paid any
    more, within `urgency` seconds, goes at once.
    """

    max_batch: int = MAX_BATCH
    min_value: int = 0
    max_age: int = 0
    completing_age: int = 0
    cheap_gas: int = 0
    max_gas_share: int = 20
    coin_price: int | None = None
    urgency: int = 900


@dataclass(frozen=True)
class Waiting:
    """A receipt that is due, as far as batching goes by it.

    `value` is what it newly earns (USDC base units), `since` when it was handed in and `until` the
    last second in which it is paid (Unix). `reverts` is how many transactions that carried it were
    mined and reverted, the last one in `reverted_in`.
    """

    value: int
    since: int
    until: int
    complete: bool
    reverts: int = 0
    reverted_in: int = 0


class Go(StrEnum):
    """Why a batch goes, or why it waits."""

    URGENT = "soon not payable"
    OLD = "old enough"
    FULL = "full"
    VALUABLE = "valuable enough"
    CHEAP = "gas is cheap"
    EMPTY = "empty"
    COSTLY = "gas costs too much of it"
    YOUNG = "more may come"

    @property
    def sends(self) -> bool:
        """Whether the batch goes."""
        return self not in (Go.EMPTY, Go.COSTLY, Go.YOUNG)


def decide(batch: Sequence[Waiting], gas_price: int, now: int, policy: BatchPolicy) -> Go:
    """Whether a batch goes at `now` (Unix seconds) with gas at `gas_price` (wei)."""
    if not batch:
        return Go.EMPTY
    if any(now + policy.urgency >= item.until for item in batch):
        return Go.URGENT
    if any(now - item.since >= _patience(item, policy) for item in batch):
        return Go.OLD
    if policy.coin_price is not None and _is_costly(batch, gas_price, policy.coin_price, policy):
        return Go.COSTLY
    if len(batch) >= policy.max_batch:
        return Go.FULL
    if sum(item.value for item in batch) >= policy.min_value:
        return Go.VALUABLE
    return Go.CHEAP if gas_price <= policy.cheap_gas else Go.YOUNG


def _patience(item: Waiting, policy: BatchPolicy) -> int:
    return min(policy.completing_age, policy.max_age) if item.complete else policy.max_age


def _is_costly(
    batch: Sequence[Waiting], gas_price: int, coin_price: int, policy: BatchPolicy
) -> bool:
    gas = BASE_GAS + RECEIPT_GAS * len(batch)
    cost = gas * gas_price * coin_price
    value = sum(item.value for item in batch)
    return cost * 100 > value * policy.max_gas_share * WEI_PER_COIN


T = TypeVar("T")


def divide(
    items: Sequence[tuple[Waiting, T]], height: int, max_batch: int, patience: int
) -> list[list[tuple[Waiting, T]]]:
    """Receipts in batches, in their order: those that reverted apart, in ever smaller ones.

    Each mined revert halves the batches that a receipt may be in, so that a batch of n with one bad
    receipt is told apart in log2(n) rounds. One that reverted alone waits at `height`: `patience`
    blocks, and twice as many after each further time.
    """
    by_reverts: dict[int, list[tuple[Waiting, T]]] = {}
    for waiting, item in items:
        by_reverts.setdefault(waiting.reverts, []).append((waiting, item))
    batches = []
    for reverts in sorted(by_reverts):
        size = max(1, max_batch >> reverts)
        alone = reverts - max_batch.bit_length()
        group = by_reverts[reverts]
        if alone >= 0:
            pause = patience << min(alone, 16)
            group = [pair for pair in group if height >= pair[0].reverted_in + pause]
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches

"""What a job would cost, where, and how long it would take. Pure: all facts are handed in."""

import statistics
from collections.abc import Iterable, Mapping

from oracle.clients.hub.jobs import Job
from oracle.clients.hub.routing import IDLE, UNKNOWN, Standing, Wish, Work, price, unfitness
from settlement.hub.market import Gas, Quote, Quotes, Shares
from settlement.hub.messages import DatasetProfile

ESCROW_GAS = 121_550
"""Opening a job by EIP-3009, relayed; as `make bench` measures it (docs/gas.md)."""
SETTLE_GAS = 54_759
"""Settling one receipt by itself; in a batch it is less."""
RECEIPTS_PER_EPOCH = 1
"""A node signs more often where it is told to; each epoch has one receipt at least."""


def quote(
    wish: Wish,
    profiles: Iterable[DatasetProfile],
    standings: Mapping[int, Standing],
    work: Mapping[int, Work],
    *,
    shares: Mapping[int, Shares],
    pace: Mapping[int, float],
    gas_price: int | None,
) -> Quotes:
    """A price for each node: those that could take the job first, the cheaper before the dearer.

    `pace` is what `pace_of` found, `shares` how each node's earnings are split, where it is known.
    """
    quotes = [
        _quote(wish, profile, standings, work, shares, pace)
        for profile in sorted(profiles, key=lambda profile: profile.node_id)
    ]
    quotes.sort(key=lambda found: (bool(found.why_not), found.worst_case))
    return Quotes(quotes=tuple(quotes), gas=gas_of(wish.epochs, gas_price))


def _quote(
    wish: Wish,
    profile: DatasetProfile,
    standings: Mapping[int, Standing],
    work: Mapping[int, Work],
    shares: Mapping[int, Shares],
    pace: Mapping[int, float],
) -> Quote:
    node_id = profile.node_id
    why = unfitness(wish, profile, standings.get(node_id, UNKNOWN), work.get(node_id, IDLE))
    seconds = pace.get(node_id)
    return Quote(
        node_id=node_id,
        records=profile.record_count,
        for_records=profile.record_count * profile.price_per_record,
        for_epochs=wish.epochs * profile.price_per_epoch,
        worst_case=profile.worst_case(wish.epochs),
        shares=shares.get(node_id),
        expected_seconds=None
        if seconds is None
        else max(1, round(seconds * profile.record_count * wish.epochs)),
        why_not=(*why, *price(wish, profile)),
    )


def gas_of(epochs: int, gas_price: int | None) -> Gas:
    """The gas of a job of so many epochs: its escrow, a receipt for each epoch, and the last."""
    receipts = epochs * RECEIPTS_PER_EPOCH + 1
    total = ESCROW_GAS + receipts * SETTLE_GAS
    return Gas(
        escrow=ESCROW_GAS,
        settlement=SETTLE_GAS,
        receipts=receipts,
        total=total,
        price=gas_price,
        cost_wei=None if gas_price is None else gas_price * total,
    )


def pace_of(delivered: Iterable[Job]) -> dict[int, float]:
    """Seconds for each record and epoch on each node: the median of its delivered jobs."""
    found: dict[int, list[float]] = {}
    for job in delivered:
        progress = job.progress
        if job.started_at is None or job.ended_at is None or progress is None:
            continue
        steps = progress.records * max(1, job.task.epochs)
        if steps:
            found.setdefault(job.node_id, []).append((job.ended_at - job.started_at) / steps)
    return {node_id: statistics.median(paces) for node_id, paces in found.items()}

"""A settlement as bars: what was escrowed, what each receipt earned, what came back. Pure."""

from dataclasses import dataclass
from itertools import accumulate

from oracle.client import JobState, JobStatus
from settlement.hub.market import Shares
from settlement.ledger import split_earnings

MAX_STEPS = 8
"""Payments with a bar of their own; earlier ones share one."""
WIDTH = 1000
"""A bar's full width, in the drawing's units."""
_ROLES = {
    "hospital": "Hospital",
    "node_owner": "Node's owner",
    "onboarder": "Onboarder",
    "protocol": "Protocol",
}


@dataclass(frozen=True)
class Bar:
    """One row: `start` and `length` in units of `WIDTH`, `amount` in USDC base units."""

    label: str
    kind: str
    start: int
    length: int
    amount: int
    transaction: bytes | None = None


def bars(status: JobStatus, shares: Shares | None) -> tuple[Bar, ...]:
    """The rows of a job's settlement, the escrow first; empty without an escrow."""
    if not status.funded:
        return ()

    def bar(
        label: str, kind: str, before: int, amount: int, transaction: bytes | None = None
    ) -> Bar:
        start = before * WIDTH // status.funded
        end = (before + amount) * WIDTH // status.funded
        # what is there at all can be seen
        return Bar(label, kind, start, max(end - start, 2 if amount else 0), amount, transaction)

    rows = [bar("Escrowed", "escrow", 0, status.funded)]
    steps = [it for it in status.transactions if it.event == "settled" and it.amount]
    before = [0, *accumulate(step.amount for step in steps)]
    early = max(0, len(steps) - MAX_STEPS)
    if early:
        rows.append(bar(f"Payments 1 to {early}", "paid", 0, before[early]))
    for number, step in enumerate(steps[early:], early + 1):
        earned = before[number - 1]
        rows.append(bar(f"Payment {number}", "paid", earned, step.amount, step.transaction))
    rest = status.funded - status.paid
    if status.state is JobState.CLOSED:
        rows.append(bar("Back to the payer", "back", status.paid, status.refunded))
    else:
        rows.append(bar("Still in escrow", "open", status.paid, rest))
    if shares is not None and status.paid:
        parts = split_earnings(status.paid, **shares.model_dump(exclude={"hospital"}))
        before_part = 0
        for role, amount in parts.items():
            rows.append(bar(_ROLES[role], "share", before_part, amount))
            before_part += amount
    return tuple(rows)

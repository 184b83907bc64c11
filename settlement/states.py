"""A job's states and what moves it: the table by which the ledger judges the vault's events.

A test calls every function of the vault on a job in every state, and finds these moves and no
others.
"""

from settlement.contracts import JobState
from settlement.types import Frozen


class Move(Frozen):
    """`event` finds a job in state `before` and leaves it in `after`."""

    event: str
    before: JobState
    after: JobState
    what: str
    """Who or what moves it, for people."""


_UNKNOWN, _OPEN, _ASSIGNED, _CANCELLING, _CLOSED = JobState

JOB_MOVES = (
    Move(event="JobOpened", before=_UNKNOWN, after=_OPEN, what="opened, the node left open"),
    Move(event="JobOpened", before=_UNKNOWN, after=_ASSIGNED, what="opened for a node"),
    Move(event="JobVoided", before=_UNKNOWN, after=_CLOSED, what="voided by its payer"),
    Move(event="JobSponsored", before=_OPEN, after=_OPEN, what="a sponsor pays, as it opens"),
    Move(event="JobSponsored", before=_ASSIGNED, after=_ASSIGNED, what="a sponsor pays"),
    Move(event="JobToppedUp", before=_OPEN, after=_OPEN, what="topped up"),
    Move(event="JobToppedUp", before=_ASSIGNED, after=_ASSIGNED, what="topped up"),
    Move(event="JobAssigned", before=_OPEN, after=_ASSIGNED, what="the committee names a node"),
    Move(event="Settled", before=_ASSIGNED, after=_ASSIGNED, what="a receipt is paid"),
    Move(event="Settled", before=_CANCELLING, after=_CANCELLING, what="a receipt is paid"),
    Move(event="JobCancelled", before=_ASSIGNED, after=_CANCELLING, what="cancelled by its payer"),
    Move(
        event="JobClosed", before=_OPEN, after=_CLOSED, what="cancelled, or refunded after its time"
    ),
    Move(
        event="JobClosed",
        before=_ASSIGNED,
        after=_CLOSED,
        what="completed, or refunded after its time",
    ),
    Move(
        event="JobClosed",
        before=_CANCELLING,
        after=_CLOSED,
        what="completed, or refunded after the grace period",
    ),
)
"""All moves there are. CLOSED is the end."""


def states_before(event: str) -> frozenset[JobState]:
    """The states in which a job may be when the vault logs this event of it."""
    return frozenset(move.before for move in JOB_MOVES if move.event == event)

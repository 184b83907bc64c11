"""What became of a job's budget and of a node's earnings, from the chain's events alone.

Amounts are USDC base units, times Unix seconds of the block. `settlement.picture` draws them.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from settlement.deployment import Deployment
from settlement.errors import RaphaError
from settlement.events import Event
from settlement.ledger import Ledger
from settlement.types import Bytes32, Frozen, UInt64, Usdc, to_hex

Dated = Sequence[tuple[Event, int]]
"""Events in the chain's order, each with its block's time, as `settlement.history` reads them."""


class NothingKnown(RaphaError, LookupError):
    """The chain has no event of this job or node."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"the chain's events know no {what}: is it another deployment's?")


class Payment(Frozen):
    """One settlement on chain, with the counters that it paid for."""

    time: UInt64
    job_id: Bytes32
    records: UInt64
    epochs: UInt64
    amount: Usdc
    transaction: Bytes32


class JobAccount(Frozen):
    """Where a job's budget is. `funded` is the sum of `shares` and of all that follows it.

    `shares` are what its node has earned for good or will if nobody disputes, by payee. They are
    split as the node's present payees share: a change of shares while it ran is not in them.
    """

    job_id: Bytes32
    state: str
    node_id: UInt64
    funded: Usdc
    payments: tuple[Payment, ...]
    shares: Mapping[str, Usdc]
    disputed: Usdc = 0
    returned: Usdc = 0
    """By an arbiter, to who funded it."""
    refunded: Usdc = 0
    escrowed: Usdc = 0

    @property
    def paid(self) -> int:
        """What its receipts have earned, whatever became of it."""
        return sum(payment.amount for payment in self.payments)


class Split(Frozen):
    """One distribution of a node's earnings among its payees."""

    time: UInt64
    hospital: Usdc
    node_owner: Usdc
    onboarder: Usdc
    protocol: Usdc
    transaction: Bytes32

    @property
    def total(self) -> int:
        """What was split."""
        return self.hospital + self.node_owner + self.onboarder + self.protocol


class NodeAccount(Frozen):
    """What a node has earned over time, and what was split among its payees or returned."""

    node_id: UInt64
    payments: tuple[Payment, ...]
    splits: tuple[Split, ...]
    returned: tuple[tuple[int, int], ...] = ()
    """Time and amount of what arbiters gave back to those who fund jobs."""

    @property
    def earned(self) -> int:
        """All that its receipts were paid."""
        return sum(payment.amount for payment in self.payments)

    @property
    def split(self) -> int:
        """All that was shared out."""
        return sum(split.total for split in self.splits)

    @property
    def waiting(self) -> int:
        """What is neither shared out nor returned: matured, fresh or in dispute."""
        return self.earned - self.split - sum(amount for _, amount in self.returned)


def job_account(deployment: Deployment, events: Dated, job_id: bytes) -> JobAccount:
    """A job's account after these events of the whole deployment.

    Raises:
        NothingKnown: when none of them is of this job, or it was only voided.
        LedgerContradiction: when the events cannot follow from each other.
    """
    ledger = _ledger(deployment, events)
    job = ledger.jobs.get(job_id)
    if job is None or job.terms is None:
        raise NothingKnown(f"job {to_hex(job_id)}")
    disputed = sum(d.amount for d in ledger.disputes.values() if d.job_id == job_id)
    kept = job.paid - job.returned - disputed
    split = ledger.payees(job.node_id).split(kept) if job.node_id else {}
    return JobAccount(
        job_id=job_id,
        state=job.state.name,
        node_id=job.node_id,
        funded=job.funded,
        payments=tuple(p for p in _payments(events) if p.job_id == job_id),
        shares={role.replace("_", " "): amount for role, amount in split.items()},
        disputed=disputed,
        returned=job.returned,
        refunded=job.refunded,
        escrowed=job.escrow,
    )


def node_account(deployment: Deployment, events: Dated, node_id: int) -> NodeAccount:
    """A node's account after these events of the whole deployment.

    Raises:
        NothingKnown: when the node is not registered.
        LedgerContradiction: when the events cannot follow from each other.
    """
    ledger = _ledger(deployment, events)
    if node_id not in ledger.nodes:
        raise NothingKnown(f"node {node_id}")
    jobs = {key for key, job in ledger.jobs.items() if job.node_id == node_id}
    splits, returned = [], []
    disputes: set[int] = set()
    for event, time in events:
        args = event.args
        if event.name == "Distributed" and args["node_id"] == node_id:
            roles = ("hospital", "node_owner", "onboarder", "protocol")
            amounts = {role: args[f"{role}_amount"] for role in roles}
            splits.append(Split(time=time, transaction=event.transaction, **amounts))
        elif event.name == "Disputed" and args["job_id"] in jobs:
            disputes.add(args["dispute_id"])
        elif event.name == "DisputeEnded" and args["dispute_id"] in disputes and args["returned"]:
            returned.append((time, int(args["returned"])))
    return NodeAccount(
        node_id=node_id,
        payments=tuple(p for p in _payments(events) if p.job_id in jobs),
        splits=tuple(splits),
        returned=tuple(returned),
    )


def running(steps: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Times, and the sum of all amounts up to each."""
    return [time for time, _ in steps], list(accumulate(amount for _, amount in steps))


def _ledger(deployment: Deployment, events: Dated) -> Ledger:
    ledger = Ledger(deployment)
    for event, time in events:
        ledger.apply(event, time)
    return ledger


def _payments(events: Dated) -> list[Payment]:
    return [
        Payment(
            time=time,
            job_id=event.args["job_id"],
            records=event.args["records"],
            epochs=event.args["epochs"],
            amount=event.args["amount"],
            transaction=event.transaction,
        )
        for event, time in events
        if event.contract == "vault" and event.name == "Settled"
    ]

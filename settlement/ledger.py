"""The whole ledger rebuilt from events alone.

`Ledger.apply` takes the decoded events of the vault and of the node registry, each with its block's
time, in the order of the chain. What the contracts then answer to a view, the ledger answers too,
for any time from the last event on. An event that cannot follow from what went before is refused,
so replaying a chain's logs is a check of the vault's arithmetic.

Amounts are USDC base units, times Unix seconds. Not derivable from events: `withdrawal_nonces`,
since an order that the account signed and one that it sent leave the same `Withdrawn`.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from settlement.contracts import Earnings, JobState, JobStatus, Outcome
from settlement.deployment import Deployment
from settlement.eip712 import job_id
from settlement.errors import RaphaError
from settlement.events import Event, terms_from_event
from settlement.models import MAX_BUDGET, JobTerms
from settlement.states import states_before
from settlement.types import ZERO_ADDRESS, ZERO_BYTES32, to_hex

_BPS = 10_000
_PAYEES = ("hospital", "node_owner", "onboarder", "protocol")


class LedgerContradiction(RaphaError, ValueError):
    """An event that cannot follow from those before it; the ledger is as it was without it."""

    def __init__(self, what: str, event: Event) -> None:
        self.what, self.event = what, event
        super().__init__(
            f"{event.contract} {event.name} in block {event.block}, log {event.log_index}: {what}; "
            "check that no log is missing and that none is of another deployment"
        )


class NodeStatus(IntEnum):
    """The status in a node's word."""

    ACTIVE = 1
    SUSPENDED = 2
    RETIRED = 3


@dataclass(frozen=True)
class Fresh:
    """What has not matured: earned in `period`, and in the one before it (`earlier`)."""

    period: int = 0
    fresh: int = 0
    earlier: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.fresh + self.earlier

    def at(self, period: int) -> "Fresh":
        """What of it has still not matured in a later period."""
        passed = period - self.period
        if passed == 0:
            return self
        return Fresh(period, 0, self.fresh if passed == 1 else 0)


@dataclass
class Job:
    """A job. A voided one is closed, has no terms and never had any money.

    `paid` is what its receipts have earned, `refunded` what closing it credited to `funder`, and
    `returned` what an arbiter took out of `paid` for the funder. `records` and `epochs` are the
    greatest counters that were paid for. `fresh` belongs to the node's payee set `version`;
    `carried` holds what was fresh, by payee set, when the payees changed under the job.
    """

    payer: str
    state: JobState
    funder: str
    terms: JobTerms | None = None
    sponsored: bool = False
    node_id: int = 0
    funded: int = 0
    paid: int = 0
    refunded: int = 0
    returned: int = 0
    records: int = 0
    epochs: int = 0
    payable_until: int = 0
    version: int = 0
    fresh: Fresh = Fresh()
    carried: dict[int, Fresh] = field(default_factory=dict)
    output_digest: bytes = ZERO_BYTES32

    @property
    def is_open(self) -> bool:
        """Whether it holds escrow."""
        return self.state != JobState.CLOSED

    @property
    def escrow(self) -> int:
        """What it holds."""
        return self.funded - self.paid if self.is_open else 0

    def unmatured(self, version: int) -> Fresh:
        """What a payee set has earned from it, as of that amount's own period."""
        return self.fresh if version == self.version else self.carried.get(version, Fresh())


@dataclass(frozen=True)
class Payees:
    """Who shares a node's earnings; shares in basis points, the hospital's is the rest.

    `protocol` is None until a distribution has named it: the registry's constructor logs nothing.
    """

    hospital: str
    node_owner: str
    onboarder: str
    protocol: str | None
    node_owner_bps: int
    onboarder_bps: int
    protocol_bps: int

    def split(self, amount: int) -> dict[str, int]:
        """An amount by role; see `split_earnings`."""
        return split_earnings(
            amount,
            node_owner=self.node_owner_bps,
            onboarder=self.onboarder_bps,
            protocol=self.protocol_bps,
        )


def split_earnings(amount: int, **bps: int) -> dict[str, int]:
    """An amount by role, exact to the unit, as the vault splits it.

    `bps` are the shares of all but the hospital, in basis points: each rounds down, and the
    hospital has what is left.
    """
    shares = {role: amount * share // _BPS for role, share in bps.items()}
    return {"hospital": amount - sum(shares.values()), **shares}


@dataclass
class PayeeSet:
    """What one payee set of a node has earned and not split.

    `payees` are kept once they are no longer the node's present ones.
    """

    matured: int = 0
    fresh: Fresh = Fresh()
    disputes: int = 0
    payees: Payees | None = None

    def roll(self, period: int) -> None:
        """Move to a later period: nothing is lost, some of it matures."""
        later = self.fresh.at(period)
        self.matured += self.fresh.total - later.total
        self.fresh = later

    @property
    def total(self) -> int:
        """All of it, without what is disputed."""
        return self.matured + self.fresh.total


@dataclass
class Node:
    """A node with its payees; `payee_sets` are by version, the last one is the present."""

    status: NodeStatus
    hospital: str
    node_owner: str
    onboarder: str
    hardware_hash: bytes
    node_owner_bps: int = 2_000
    onboarder_bps: int = 500
    protocol_bps: int = 500
    proposed_treasury: str | None = None
    payee_sets: list[PayeeSet] = field(default_factory=lambda: [PayeeSet()])

    @property
    def version(self) -> int:
        """The present payee set's."""
        return len(self.payee_sets) - 1


@dataclass(frozen=True)
class Dispute:
    """An open dispute; `version` is the payee set that gets what is not returned."""

    job_id: bytes
    funder: str
    node_id: int
    version: int
    amount: int
    answer_until: int


class Ledger:
    """A deployment's ledger, from its first event on.

    All fields are for reading. `balances` has every account that ever was credited, `recovered`
    what the owner took out of tokens sent by mistake, by token: that was never in the ledger.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.nodes: dict[int, Node] = {}
        self.disputes: dict[int, Dispute] = {}
        self.dispute_count = 0
        self.balances: dict[str, int] = defaultdict(int)
        self.recovered: dict[str, int] = defaultdict(int)
        self.refused: dict[bytes, list[Outcome]] = defaultdict(list)
        self.paused_until = 0
        self.owner: str | None = None
        self.guardian: str | None = None
        self.arbiter: str | None = None
        self.registrar: str | None = None
        self.protocol: str | None = None
        self.time = 0
        self._deployment = deployment
        self._window = deployment.challenge_window
        self._position = (-1, -1)
        self._minted: dict[int, str] = {}

    def apply(self, event: Event, time: int) -> None:
        """Take the next event, with its block's time. The enclave registry's change nothing.

        Raises:
            LedgerContradiction: when it cannot follow from the events before it.
        """
        handlers = {"vault": _VAULT, "node_registry": _NODE_REGISTRY}.get(event.contract, {})
        position = (event.block, event.log_index)
        if position <= self._position:
            raise LedgerContradiction("it is not after the event before it", event)
        if time < self.time:
            raise LedgerContradiction("its block is older than the event before it", event)
        if handler := handlers.get(event.name):
            handler(self, event, event.args, time)
        self._position, self.time = position, time

    # what the contracts' views answer

    def job_status(self, job_id: bytes) -> JobStatus:
        """`vault.job`: `earlier` and `fresh` are as of `period`."""
        job = self.jobs.get(job_id)
        if job is None:
            job = Job(payer=ZERO_ADDRESS, state=JobState.UNKNOWN, funder=ZERO_ADDRESS)
        return JobStatus(
            state=job.state,
            sponsored=job.sponsored,
            node_id=job.node_id,
            version=job.version,
            period=job.fresh.period,
            earlier=job.fresh.earlier,
            fresh=job.fresh.fresh,
            paid=job.paid,
            funded=job.funded,
        )

    def earnings(self, node_id: int, now: int, version: int | None = None) -> Earnings:
        """`vault.earnings_of`, or `vault.past_earnings_of` for the payee set of a version before.

        A version that never was is all zero, as is an unknown node.
        """
        node = self.nodes.get(node_id)
        present = node.version if node else 0
        asked = present if version is None else version
        is_kept = node is not None and (version is None or 0 <= version < present)
        found = replace(node.payee_sets[asked]) if node and is_kept else PayeeSet()
        found.roll(self._period(now))
        return Earnings(
            matured=found.matured,
            fresh=found.fresh.fresh,
            earlier=found.fresh.earlier,
            # the vault's word of a payee set that is not a past one is empty
            version=asked if is_kept else 0,
            period=found.fresh.period,
            disputes=found.disputes,
        )

    def disputable(self, job_id: bytes, now: int, version: int | None = None) -> int:
        """What a dispute at `now` would freeze: of the job's own payee set, or of a version's."""
        job = self.jobs[job_id]
        asked = job.version if version is None else version
        return job.unmatured(asked).at(self._period(now)).total

    def payees(self, node_id: int) -> Payees:
        """`nodes.payees`."""
        return self._payees(self.nodes[node_id])

    @property
    def escrowed(self) -> int:
        """What open jobs hold."""
        return sum(job.escrow for job in self.jobs.values())

    @property
    def earned(self) -> int:
        """What nodes have earned and not split, of all payee sets, without what is disputed."""
        return sum(kept.total for node in self.nodes.values() for kept in node.payee_sets)

    @property
    def disputed(self) -> int:
        """What open disputes have frozen."""
        return sum(dispute.amount for dispute in self.disputes.values())

    @property
    def owed(self) -> int:
        """`vault.owed`; meant for the end of a transaction, not for between two of its events."""
        return self.escrowed + self.earned + self.disputed + sum(self.balances.values())

    def _period(self, now: int) -> int:
        return now // self._window if self._window else 0

    def _payees(self, node: Node) -> Payees:
        return Payees(
            hospital=node.hospital,
            node_owner=node.node_owner,
            onboarder=node.onboarder,
            protocol=self.protocol,
            node_owner_bps=node.node_owner_bps,
            onboarder_bps=node.onboarder_bps,
            protocol_bps=node.protocol_bps,
        )

    # how a job begins

    def _job_opened(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        terms = terms_from_event(args)
        if args["job_id"] in self.jobs:
            raise LedgerContradiction("the job exists", event)
        if job_id(terms, self._deployment.vault_domain) != args["job_id"]:
            raise LedgerContradiction("the job id is not the digest of the terms", event)
        if terms.deadline <= time:
            raise LedgerContradiction("the deadline has passed", event)
        if terms.node_id:
            self._active_node(event, terms.node_id)
        self.jobs[args["job_id"]] = Job(
            payer=terms.payer,
            state=JobState.ASSIGNED if terms.node_id else JobState.OPEN,
            funder=terms.payer,
            terms=terms,
            node_id=terms.node_id,
            funded=terms.budget,
            payable_until=terms.deadline + self._deployment.grace_period,
        )

    def _job_sponsored(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self._open_job(event)
        if job.sponsored or job.paid or args["sponsor"] == job.payer:
            raise LedgerContradiction("a job gets a sponsor only as it opens", event)
        job.sponsored, job.funder = True, args["sponsor"]

    def _job_topped_up(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self._open_job(event)
        funded = job.funded + args["amount"]
        if funded != args["funded"] or not job.funded < funded <= MAX_BUDGET:
            raise LedgerContradiction(f"the job is then funded with {funded}", event)
        if args["funder"] != job.funder:
            raise LedgerContradiction(f"{job.funder} funds the job", event)
        if job.terms is not None and time > job.terms.deadline:
            raise LedgerContradiction("the deadline has passed", event)
        job.funded = funded

    def _job_voided(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        if args["job_id"] in self.jobs:
            raise LedgerContradiction("the job exists", event)
        payer = args["payer"]
        self.jobs[args["job_id"]] = Job(payer=payer, state=JobState.CLOSED, funder=payer)

    def _job_assigned(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self._open_job(event)
        self._active_node(event, args["node_id"])
        job.state, job.node_id = JobState.ASSIGNED, args["node_id"]

    # how it earns and ends

    def _settled(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self._open_job(event)
        node, amount = self._node(event, args["node_id"]), args["amount"]
        if args["node_id"] != job.node_id:
            raise LedgerContradiction(f"the job is node {job.node_id}'s", event)
        if time > job.payable_until:
            raise LedgerContradiction("the job is no longer payable", event)
        assert job.terms is not None  # only a voided job has none
        records, epochs = args["records"], args["epochs"]
        earned = records * job.terms.price_per_record + epochs * job.terms.price_per_epoch
        if job.paid + amount != max(job.paid, min(earned, job.funded)):
            raise LedgerContradiction(f"{earned} is earned and {job.paid} paid", event)
        period = self._period(time)
        earner = node.payee_sets[-1]
        earner.roll(period)
        job.paid += amount
        job.records, job.epochs = max(job.records, records), max(job.epochs, epochs)
        if not self._window:
            earner.matured += amount
            return
        earner.fresh = replace(earner.fresh, fresh=earner.fresh.fresh + amount)
        kept = job.fresh.at(period)
        if job.version != node.version:
            if kept.total:
                job.carried[job.version] = kept
            job.version, kept = node.version, Fresh(period)
        job.fresh = replace(kept, fresh=kept.fresh + amount)

    def _receipt_refused(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        if args["outcome"] not in list(Outcome)[Outcome.UNKNOWN_JOB :]:
            raise LedgerContradiction(f"outcome {args['outcome']} is no refusal", event)
        self.refused[args["job_id"]].append(Outcome(args["outcome"]))

    def _job_cancelled(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self._open_job(event)
        assert job.terms is not None  # only a voided job has none
        until = min(time, job.terms.deadline) + self._deployment.grace_period
        if args["payable_until"] != until:
            raise LedgerContradiction(f"it stays payable until {until}", event)
        if args["canceller"] not in (job.payer, job.funder):
            raise LedgerContradiction("neither payer nor funder cancelled", event)
        job.state, job.payable_until = JobState.CANCELLING, until

    def _job_closed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self._open_job(event)
        if (args["paid"], args["refunded"]) != (job.paid, job.escrow):
            raise LedgerContradiction(f"{job.paid} is paid and {job.escrow} left", event)
        if args["funder"] != job.funder:
            raise LedgerContradiction(f"{job.funder} funds the job", event)
        completed = args["output_digest"] != ZERO_BYTES32
        # a job without a node has no output, and ends whenever its payer says so
        if completed != (job.state != JobState.OPEN and time <= job.payable_until):
            raise LedgerContradiction("it ends by its output, or once it isn't payable", event)
        job.state, job.refunded = JobState.CLOSED, args["refunded"]
        job.output_digest = args["output_digest"]
        self.balances[job.funder] += job.refunded

    # what becomes of earnings

    def _payees_changed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        node = self._node(event, args["node_id"])
        present = node.payee_sets[-1]
        rolled = replace(present)
        rolled.roll(self._period(time))
        if args["version"] != node.version + 1:
            raise LedgerContradiction(f"the present payee set is {node.version}", event)
        if rolled.matured or not (rolled.fresh.total or rolled.disputes):
            raise LedgerContradiction("nothing keeps the payee set before", event)
        rolled.payees = self._payees(node)
        node.payee_sets[-1] = rolled
        node.payee_sets.append(PayeeSet(fresh=Fresh(rolled.fresh.period)))

    def _distributed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        node = self._node(event, args["node_id"])
        if args["version"] > node.version:
            raise LedgerContradiction(f"the present payee set is {node.version}", event)
        source = node.payee_sets[args["version"]]
        rolled = replace(source)
        rolled.roll(self._period(time))
        payees = source.payees or self._payees(node)
        # in this order for whoever is two of them
        expected = [payees.hospital, payees.node_owner, payees.onboarder]
        protocol = payees.protocol or self.protocol or args["protocol"]
        if [args[role] for role in _PAYEES] != [*expected, protocol]:
            raise LedgerContradiction("these are not the payees of that version", event)
        amounts = payees.split(rolled.matured)
        if not rolled.matured or any(args[f"{role}_amount"] != amounts[role] for role in _PAYEES):
            raise LedgerContradiction(f"{rolled.matured} has matured", event)
        rolled.matured = 0
        node.payee_sets[args["version"]] = rolled
        self.protocol = protocol
        for role in _PAYEES:
            self.balances[args[role]] += amounts[role]

    def _disputed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        job = self.jobs.get(args["job_id"])
        if job is None or not job.node_id:
            raise LedgerContradiction("the job has earned nothing", event)
        if args["dispute_id"] != self.dispute_count + 1:
            raise LedgerContradiction(f"there were {self.dispute_count} disputes", event)
        period, version = self._period(time), args["version"]
        frozen = job.unmatured(version).at(period)
        if not frozen.total or frozen.total != args["amount"]:
            raise LedgerContradiction(f"{frozen.total} is fresh", event)
        if args["answer_until"] <= time:
            raise LedgerContradiction("the arbiter has no time to answer", event)
        earner = self.nodes[job.node_id].payee_sets[version]
        earner.roll(period)
        earner.fresh = Fresh(
            period,
            earner.fresh.fresh - frozen.fresh,
            earner.fresh.earlier - frozen.earlier,
        )
        earner.disputes += 1
        if version == job.version:
            job.fresh = Fresh(period)
        else:
            del job.carried[version]
        self.dispute_count += 1
        self.disputes[self.dispute_count] = Dispute(
            job_id=args["job_id"],
            funder=job.funder,
            node_id=job.node_id,
            version=version,
            amount=frozen.total,
            answer_until=args["answer_until"],
        )

    def _dispute_ended(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        dispute = self.disputes.get(args["dispute_id"])
        if dispute is None:
            raise LedgerContradiction("there is no such dispute open", event)
        if args["returned"] + args["released"] != dispute.amount:
            raise LedgerContradiction(f"{dispute.amount} is disputed", event)
        if args["funder"] != dispute.funder:
            raise LedgerContradiction(f"{dispute.funder} funds the job", event)
        if args["returned"] and time > dispute.answer_until:
            raise LedgerContradiction("it is too late to return anything", event)
        earner = self.nodes[dispute.node_id].payee_sets[dispute.version]
        earner.roll(self._period(time))
        earner.matured += args["released"]
        earner.disputes -= 1
        self.jobs[dispute.job_id].returned += args["returned"]
        self.balances[dispute.funder] += args["returned"]
        del self.disputes[args["dispute_id"]]

    # balances

    def _deposited(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self.balances[args["account"]] += args["amount"]

    def _debited(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        balance = self.balances.get(args["account"], 0)
        if args["amount"] > balance:
            raise LedgerContradiction(f"the account has {balance}", event)
        self.balances[args["account"]] = balance - args["amount"]

    def _withdrawal_refused(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        balance = self.balances.get(args["account"], 0)
        if args["amount"] != balance:
            raise LedgerContradiction(f"the account has {balance}", event)

    def _recovered(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self.recovered[args["token"]] += args["amount"]

    # who governs

    def _paused(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        grace = self._deployment.grace_period
        if self.paused_until and time < self.paused_until + grace:
            raise LedgerContradiction(f"the last pause is until {self.paused_until}", event)
        if args["until"] != time + grace // 2:
            raise LedgerContradiction("a pause lasts half a grace period", event)
        self.paused_until = args["until"]

    def _unpaused(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        if time >= self.paused_until:
            raise LedgerContradiction("it was not paused", event)
        self.paused_until = time

    def _ownership_transferred(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self.owner = args["new_owner"]

    def _guardian_changed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self.guardian = args["new_guardian"]

    def _arbiter_changed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self.arbiter = args["new_arbiter"]

    def _registrar_changed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self.registrar = args["new_registrar"]

    # nodes

    def _token_moved(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        node_id, to = args["token_id"], args["receiver"]
        if args["sender"] == ZERO_ADDRESS:
            if node_id in self._minted or node_id in self.nodes:
                raise LedgerContradiction("the node's token exists", event)
            # its `NodeRegistered` follows
            self._minted[node_id] = to
            return
        node = self._node(event, node_id)
        if args["sender"] != node.node_owner:
            raise LedgerContradiction(f"{node.node_owner} owns the node's token", event)
        node.node_owner = to

    def _node_registered(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        if self._minted.get(args["node_id"]) != args["node_owner"]:
            raise LedgerContradiction("the node's token was not made for its owner", event)
        del self._minted[args["node_id"]]
        self.nodes[args["node_id"]] = Node(
            status=NodeStatus.ACTIVE,
            hospital=args["hospital"],
            node_owner=args["node_owner"],
            onboarder=args["onboarder"],
            hardware_hash=args["hardware_hash"],
        )

    def _node_suspended(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self._unretired_node(event).status = NodeStatus.SUSPENDED

    def _node_resumed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self._unretired_node(event).status = NodeStatus.ACTIVE

    def _node_retired(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        self._unretired_node(event).status = NodeStatus.RETIRED

    def _treasury_proposed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        treasury = args["treasury"]
        node = self._node(event, args["node_id"])
        node.proposed_treasury = None if treasury == ZERO_ADDRESS else treasury

    def _treasury_changed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        node = self._node(event, args["node_id"])
        if (args["previous_treasury"], args["new_treasury"]) != (
            node.hospital,
            node.proposed_treasury,
        ):
            raise LedgerContradiction("the hospital proposed no such treasury", event)
        node.hospital, node.proposed_treasury = args["new_treasury"], None

    def _shares_changed(self, event: Event, args: Mapping[str, Any], time: int) -> None:
        node = self._node(event, args["node_id"])
        node.node_owner_bps = args["node_owner_bps"]
        node.onboarder_bps = args["onboarder_bps"]
        node.protocol_bps = args["protocol_bps"]

    # what an event speaks of

    def _open_job(self, event: Event) -> Job:
        job = self.jobs.get(event.args["job_id"])
        if job is None:
            raise LedgerContradiction(f"no job {to_hex(event.args['job_id'])} was opened", event)
        if job.state not in states_before(event.name):
            raise LedgerContradiction(f"the job is {job.state.name}", event)
        return job

    def _node(self, event: Event, node_id: int) -> Node:
        if node_id not in self.nodes:
            raise LedgerContradiction(f"node {node_id} is not registered", event)
        return self.nodes[node_id]

    def _active_node(self, event: Event, node_id: int) -> Node:
        node = self._node(event, node_id)
        if node.status != NodeStatus.ACTIVE:
            raise LedgerContradiction(f"node {node_id} is {node.status.name}", event)
        return node

    def _unretired_node(self, event: Event) -> Node:
        node = self._node(event, event.args["node_id"])
        if node.status == NodeStatus.RETIRED:
            raise LedgerContradiction("the node is retired", event)
        return node


_Handler = Callable[[Ledger, Event, Mapping[str, Any], int], None]

_VAULT: dict[str, _Handler] = {
    "JobOpened": Ledger._job_opened,
    "JobSponsored": Ledger._job_sponsored,
    "JobToppedUp": Ledger._job_topped_up,
    "JobVoided": Ledger._job_voided,
    "JobAssigned": Ledger._job_assigned,
    "Settled": Ledger._settled,
    "ReceiptRefused": Ledger._receipt_refused,
    "JobCancelled": Ledger._job_cancelled,
    "JobClosed": Ledger._job_closed,
    "PayeesChanged": Ledger._payees_changed,
    "Distributed": Ledger._distributed,
    "Disputed": Ledger._disputed,
    "DisputeEnded": Ledger._dispute_ended,
    "Deposited": Ledger._deposited,
    "BalanceSpent": Ledger._debited,
    "Withdrawn": Ledger._debited,
    "WithdrawalRefused": Ledger._withdrawal_refused,
    "Recovered": Ledger._recovered,
    "Paused": Ledger._paused,
    "Unpaused": Ledger._unpaused,
    "OwnershipTransferred": Ledger._ownership_transferred,
    "GuardianChanged": Ledger._guardian_changed,
    "ArbiterChanged": Ledger._arbiter_changed,
}
_NODE_REGISTRY: dict[str, _Handler] = {
    "Transfer": Ledger._token_moved,
    "NodeRegistered": Ledger._node_registered,
    "NodeSuspended": Ledger._node_suspended,
    "NodeResumed": Ledger._node_resumed,
    "NodeRetired": Ledger._node_retired,
    "TreasuryProposed": Ledger._treasury_proposed,
    "TreasuryChanged": Ledger._treasury_changed,
    "SharesChanged": Ledger._shares_changed,
    "RegistrarChanged": Ledger._registrar_changed,
}

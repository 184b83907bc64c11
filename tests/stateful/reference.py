"""What the contracts should do, in plain Python: people by name, money in parcels.

Nothing here is packed, rolled or carried. A receipt that pays makes a parcel: so much, by this
job, for this payee set of its node, in this period. What can be disputed or split at a time is
read off the parcels. Each operation first looks for a reason to refuse, in the contracts' order,
and only then changes anything.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from stateful.evm import words

from settlement.contracts import JobState, Outcome
from settlement.reverts import Revert

GRACE = 24 * 60 * 60
ARBITRATION = 7 * 24 * 60 * 60
MAX_DURATION = 365 * 24 * 60 * 60
MAX_BUDGET = 2**46 - 1
MAX_OWED = 2**56 - 1
VAULT = "vault"


class Refusal(Exception):
    """The contracts refuse, for this reason."""

    def __init__(self, revert: Revert) -> None:
        self.revert = revert
        super().__init__(revert)


def require(condition: bool, revert: Revert) -> None:
    if not condition:
        raise Refusal(revert)


@dataclass(frozen=True)
class Terms:
    """Terms as a payer would sign them, true or not; `job_id` is their digest."""

    payer: str
    node: int
    price_per_record: int
    price_per_epoch: int
    budget: int
    deadline: int
    salt: int
    job_id: bytes
    # the contract's `Order` and `TermsRef`
    order: bytes
    reference: bytes
    struct_hash: bytes


@dataclass
class Parcel:
    """What one receipt has newly earned and is neither split nor frozen."""

    job: bytes
    version: int
    period: int
    amount: int


@dataclass
class Job:
    terms: Terms
    payer: str
    funder: str
    state: JobState
    node: int
    funded: int
    payable_until: int
    paid: int = 0
    refunded: int = 0
    returned: int = 0
    # payee set, period, and what was fresh and earlier, when its word was last written
    version: int = 0
    period: int = 0
    earlier: int = 0
    fresh: int = 0
    encoded: tuple[tuple[int, ...], bytes] = ((), b"")

    @property
    def is_open(self) -> bool:
        return self.state not in (JobState.UNKNOWN, JobState.CLOSED)

    def view(self) -> bytes:
        """What `vault.job` answers."""
        fields = (
            int(self.state),
            int(self.funder != self.payer),
            self.node,
            self.version,
            self.period,
            self.earlier,
            self.fresh,
            self.paid,
            self.funded,
        )
        if self.encoded[0] != fields:
            self.encoded = (fields, words(*fields))
        return self.encoded[1]


@dataclass
class PayeeSet:
    """Parcels of one payee set of a node; `payees` once it is no longer the present one."""

    matured: int = 0
    parcels: list[Parcel] = field(default_factory=list)
    disputes: int = 0
    payees: tuple[str, str, int, int, int] | None = None


@dataclass
class Node:
    hospital: str
    owner: str
    shares: tuple[int, int, int] = (2_000, 500, 500)
    status: str = "active"
    proposed: str | None = None
    sets: list[PayeeSet] = field(default_factory=lambda: [PayeeSet()])

    @property
    def version(self) -> int:
        return len(self.sets) - 1


@dataclass
class Dispute:
    job: Job
    funder: str
    node: int
    version: int
    amount: int
    answer_until: int


@dataclass
class Enclave:
    node: int
    expiry: int
    measurement: int
    revoked: bool = False


@dataclass
class Committee:
    members: tuple[str, ...]
    threshold: int
    epoch: int = 1


@dataclass(frozen=True)
class Signature:
    """Who really made a signature, None for nobody, and whether it is over what is asked."""

    signer: str | None
    good: bool = True


@dataclass(frozen=True)
class Receipt:
    """A claim as the contract sees it; `signer` is None when the signature is not over it."""

    job_id: bytes
    records: int
    epochs: int
    complete: int
    has_output: bool
    signer: str | None


class Reference:
    """The whole state. Amounts are USDC base units, times Unix seconds."""

    def __init__(self, window: int, now: int, committee: Committee, rich: Iterable[str]) -> None:
        self.window = window
        self.now = now
        self.committee = committee
        self.jobs: dict[bytes, Job] = {}
        self.nodes: dict[int, Node] = {}
        self.disputes: dict[int, Dispute] = {}
        self.dispute_count = 0
        self.balances: dict[str, int] = defaultdict(int)
        self.wallets: dict[str, int] = defaultdict(int)
        self.allowances: dict[str, int] = defaultdict(int)
        self.permits: dict[str, int] = defaultdict(int)
        self.withdrawals: dict[str, int] = defaultdict(int)
        self.authorizations: set[tuple[str, bytes]] = set()
        self.enclaves: dict[str, Enclave] = {}
        self.measurements: set[int] = {1, 2}
        self.blacklisted: set[str] = set()
        self.usdc_paused = False
        self.paused_until = 0
        self.arbiter = "arbiter"
        self.in_vault = 0
        self.donated = 0
        self.minted = 0
        for name in rich:
            self.mint(name, 10**12)

    def mint(self, name: str, amount: int) -> None:
        self.wallets[name] += amount
        self.minted += amount

    # sums

    @property
    def period(self) -> int:
        return self.now // self.window if self.window else 0

    def is_fresh(self, parcel: Parcel) -> bool:
        """Whether it can still be disputed: a whole period has not passed after its own."""
        return self.window != 0 and self.period <= parcel.period + 1

    def ripen(self, payee_set: PayeeSet) -> None:
        """Turn parcels whose time has come into what can be split."""
        if payee_set.parcels:
            fresh = [parcel for parcel in payee_set.parcels if self.is_fresh(parcel)]
            if len(fresh) != len(payee_set.parcels):
                total = sum(parcel.amount for parcel in payee_set.parcels)
                payee_set.matured += total - sum(parcel.amount for parcel in fresh)
                payee_set.parcels = fresh

    @property
    def owed(self) -> int:
        escrow = sum([job.funded - job.paid for job in self.jobs.values() if job.is_open])
        earned = sum(
            payee_set.matured + sum([parcel.amount for parcel in payee_set.parcels])
            for node in self.nodes.values()
            for payee_set in node.sets
        )
        disputed = sum([dispute.amount for dispute in self.disputes.values()])
        return escrow + earned + disputed + sum(self.balances.values())

    def parcels_of(self, job: Job, version: int) -> list[Parcel]:
        """What a dispute would freeze."""
        if not job.node or not 0 <= version <= self.nodes[job.node].version:
            return []
        payee_set = self.nodes[job.node].sets[version]
        self.ripen(payee_set)
        return [parcel for parcel in payee_set.parcels if parcel.job == job.terms.job_id]

    def write(self, job: Job, version: int) -> None:
        """Predict what the job's word keeps of its fresh earnings."""
        job.version, job.period = version, self.period
        parcels = self.parcels_of(job, version)
        job.fresh = sum(p.amount for p in parcels if p.period == self.period)
        job.earlier = sum(p.amount for p in parcels if p.period != self.period)

    def earnings_view(self, node_id: int, version: int) -> bytes:
        """What `earnings_of` or `past_earnings_of` answers."""
        payee_set = self.nodes[node_id].sets[version]
        self.ripen(payee_set)
        fresh = sum([p.amount for p in payee_set.parcels if p.period == self.period])
        earlier = sum([p.amount for p in payee_set.parcels]) - fresh
        return words(payee_set.matured, fresh, earlier, version, self.period, payee_set.disputes)

    # USDC

    def check_movable(self, *names: str) -> None:
        require(not self.usdc_paused, Revert.USDC_PAUSED)
        require(not self.blacklisted & {*names, VAULT}, Revert.USDC_BLACKLISTED)

    def check_not_paused(self) -> None:
        require(self.now >= self.paused_until, Revert.VAULT_PAUSED)

    def check_take(self, amount: int) -> None:
        self.check_not_paused()
        require(amount != 0, Revert.VAULT_AMOUNT_IS_ZERO)
        require(amount <= MAX_OWED - self.owed, Revert.VAULT_AMOUNT_TOO_LARGE)

    def pull(self, name: str, amount: int) -> None:
        self.check_movable(name)
        require(amount <= self.allowances[name], Revert.USDC_ALLOWANCE_TOO_LOW)
        require(amount <= self.wallets[name], Revert.USDC_BALANCE_TOO_LOW)
        self.allowances[name] -= amount
        self.wallets[name] -= amount
        self.in_vault += amount

    def pull_authorized(
        self, name: str, amount: int, after: int, before: int, nonce: bytes, signature: Signature
    ) -> None:
        self.check_movable(name)
        require(self.now > after, Revert.USDC_AUTHORIZATION_NOT_YET_VALID)
        require(self.now < before, Revert.USDC_AUTHORIZATION_EXPIRED)
        require((name, nonce) not in self.authorizations, Revert.USDC_AUTHORIZATION_USED)
        require(self.signed_by(signature, name), Revert.USDC_INVALID_SIGNATURE)
        require(amount <= self.wallets[name], Revert.USDC_BALANCE_TOO_LOW)
        self.authorizations.add((name, nonce))
        self.wallets[name] -= amount
        self.in_vault += amount

    def permit(self, name: str, amount: int, deadline: int, nonce: int, signer: str) -> bool:
        """Whether a permit is taken."""
        good = (
            not self.usdc_paused
            and deadline >= self.now
            and nonce == self.permits[name]
            and signer == name
        )
        if good:
            self.permits[name] += 1
            self.allowances[name] = amount
        return good

    @staticmethod
    def signed_by(signature: Signature, name: str) -> bool:
        return signature.good and signature.signer == name

    # escrow

    def check_active(self, node_id: int) -> None:
        known = node_id == 0 or (node_id in self.nodes and self.nodes[node_id].status == "active")
        require(known, Revert.VAULT_NODE_IS_NOT_ACTIVE)

    def check_order(self, terms: Terms, opened: Iterable[bytes] = ()) -> None:
        require(1 <= terms.budget <= MAX_BUDGET, Revert.VAULT_BUDGET_OUT_OF_RANGE)
        require(
            self.now < terms.deadline <= self.now + MAX_DURATION, Revert.VAULT_DEADLINE_OUT_OF_RANGE
        )
        prices = terms.price_per_record, terms.price_per_epoch
        require(max(prices) < 2**64, Revert.VAULT_PRICE_OUT_OF_RANGE)
        exists = terms.job_id in self.jobs or terms.job_id in opened
        require(not exists, Revert.VAULT_JOB_EXISTS)

    def enter(self, terms: Terms, funder: str) -> None:
        self.jobs[terms.job_id] = Job(
            terms=terms,
            payer=terms.payer,
            funder=funder,
            state=JobState.ASSIGNED if terms.node else JobState.OPEN,
            node=terms.node,
            funded=terms.budget,
            payable_until=terms.deadline + GRACE,
        )

    def open_job(self, terms: Terms) -> None:
        self.check_active(terms.node)
        self.check_order(terms)
        self.check_take(terms.budget)
        self.pull(terms.payer, terms.budget)
        self.enter(terms, terms.payer)

    def open_job_with_permit(self, terms: Terms, deadline: int, nonce: int, signer: str) -> None:
        self.check_active(terms.node)
        self.check_order(terms)
        self.check_take(terms.budget)
        before = self.permits[terms.payer], self.allowances[terms.payer]
        self.permit(terms.payer, terms.budget, deadline, nonce, signer)
        try:
            self.pull(terms.payer, terms.budget)
        except Refusal:
            # the permit is undone with the rest
            self.permits[terms.payer], self.allowances[terms.payer] = before
            raise
        self.enter(terms, terms.payer)

    def open_job_with_authorization(
        self, terms: Terms, after: int, before: int, signature: Signature
    ) -> None:
        self.check_active(terms.node)
        self.check_order(terms)
        self.check_take(terms.budget)
        self.pull_authorized(terms.payer, terms.budget, after, before, terms.job_id, signature)
        self.enter(terms, terms.payer)

    def open_jobs(self, payer: str, batch: list[Terms], signature: Signature | None) -> None:
        """No signature where the payer itself sends."""
        self.check_not_paused()
        opened: list[bytes] = []
        for terms in batch:
            self.check_active(terms.node)
            self.check_order(terms, opened)
            opened.append(terms.job_id)
        if signature is not None:
            require(self.signed_by(signature, payer), Revert.VAULT_INVALID_SIGNATURE)
        self.spend(payer, sum(terms.budget for terms in batch))
        for terms in batch:
            self.enter(terms, payer)

    def spend(self, name: str, amount: int) -> None:
        require(amount <= self.balances[name], Revert.VAULT_BALANCE_TOO_LOW)
        self.balances[name] -= amount

    def sponsor_job(self, sponsor: str, terms: Terms, signature: Signature) -> None:
        require(sponsor != terms.payer, Revert.VAULT_SPONSOR_IS_THE_PAYER)
        require(self.signed_by(signature, terms.payer), Revert.VAULT_INVALID_SIGNATURE)
        self.check_active(terms.node)
        self.check_order(terms)
        self.check_take(terms.budget)
        self.pull(sponsor, terms.budget)
        self.enter(terms, sponsor)

    def top_up(self, caller: str, terms: Terms, amount: int, from_balance: bool) -> None:
        job = self.jobs.get(terms.job_id)
        if job is None or job.state not in (JobState.OPEN, JobState.ASSIGNED):
            raise Refusal(Revert.VAULT_JOB_IS_NOT_OPEN)
        require(self.now <= terms.deadline, Revert.VAULT_DEADLINE_HAS_PASSED)
        require(caller == job.funder, Revert.VAULT_CALLER_IS_NOT_THE_FUNDER)
        require(1 <= amount <= MAX_BUDGET - job.funded, Revert.VAULT_BUDGET_OUT_OF_RANGE)
        if from_balance:
            self.check_not_paused()
            self.spend(caller, amount)
        else:
            self.check_take(amount)
            self.pull(caller, amount)
        job.funded += amount

    def void_job(self, terms: Terms) -> None:
        require(terms.job_id not in self.jobs, Revert.VAULT_JOB_EXISTS)
        self.enter(terms, terms.payer)
        job = self.jobs[terms.job_id]
        job.state, job.funded, job.node = JobState.CLOSED, 0, 0

    def assign(self, terms: Terms, node_id: int, refusal: Revert | None) -> None:
        """`refusal` is what the committee's signatures deserve."""
        self.check_not_paused()
        job = self.jobs.get(terms.job_id)
        if job is None or job.state != JobState.OPEN:
            raise Refusal(Revert.VAULT_JOB_IS_NOT_UNASSIGNED)
        require(self.now <= terms.deadline, Revert.VAULT_DEADLINE_HAS_PASSED)
        require(node_id != 0, Revert.VAULT_NODE_IS_NOT_ACTIVE)
        self.check_active(node_id)
        if refusal is not None:
            raise Refusal(refusal)
        job.state, job.node = JobState.ASSIGNED, node_id

    def cancel(self, caller: str, terms: Terms) -> None:
        job = self.jobs.get(terms.job_id)
        funder = job.funder if job else terms.payer
        require(caller in (terms.payer, funder), Revert.VAULT_CALLER_IS_NOT_THE_PAYER)
        if job is not None and job.state == JobState.OPEN:
            self.close(job)
            return
        if job is None or job.state != JobState.ASSIGNED:
            raise Refusal(Revert.VAULT_JOB_IS_NOT_OPEN)
        job.state = JobState.CANCELLING
        job.payable_until = min(self.now, terms.deadline) + GRACE

    def refund(self, terms: Terms) -> int:
        job = self.jobs.get(terms.job_id)
        if job is None or not job.is_open:
            raise Refusal(Revert.VAULT_JOB_IS_NOT_OPEN)
        require(self.now > job.payable_until, Revert.VAULT_JOB_IS_STILL_PAYABLE)
        return self.close(job)

    def close(self, job: Job) -> int:
        job.state = JobState.CLOSED
        job.refunded = job.funded - job.paid
        self.balances[job.funder] += job.refunded
        return job.refunded

    # receipts

    def settle_many(self, receipts: list[Receipt]) -> list[Outcome]:
        self.check_not_paused()
        return [self.settle(receipt) for receipt in receipts]

    def settle_one(self, receipt: Receipt) -> Outcome:
        self.check_not_paused()
        return self.settle(receipt)

    def is_valid(self, key: str | None, node_id: int) -> bool:
        enclave = self.enclaves.get(key) if key else None
        return (
            enclave is not None
            and not enclave.revoked
            and enclave.node == node_id
            and self.now < enclave.expiry
            and enclave.measurement in self.measurements
        )

    def settle(self, receipt: Receipt) -> Outcome:
        job = self.jobs.get(receipt.job_id)
        if job is None:
            return Outcome.UNKNOWN_JOB
        if max(receipt.records, receipt.epochs) >= 2**64 or receipt.complete > 1:
            return Outcome.MALFORMED
        if job.state == JobState.CLOSED:
            return Outcome.NOTHING_NEW
        if job.state == JobState.OPEN:
            return Outcome.NOT_ASSIGNED
        if self.now > job.payable_until:
            return Outcome.TOO_LATE
        if receipt.complete and not receipt.has_output:
            return Outcome.OUTPUT_MISSING
        terms = job.terms
        earned = receipt.records * terms.price_per_record + receipt.epochs * terms.price_per_epoch
        amount = max(0, min(earned, job.funded) - job.paid)
        if not amount and not receipt.complete:
            return Outcome.NOTHING_NEW
        if not self.is_valid(receipt.signer, job.node):
            return Outcome.ENCLAVE_REFUSED
        job.paid += amount
        node = self.nodes[job.node]
        if self.window:
            if amount:
                parcel = Parcel(terms.job_id, node.version, self.period, amount)
                node.sets[-1].parcels.append(parcel)
            self.write(job, node.version)
        else:
            node.sets[-1].matured += amount
        if receipt.complete:
            self.close(job)
        return Outcome.PAID

    # disputes

    def dispute(self, caller: str, terms: Terms, version: int) -> int:
        job = self.jobs.get(terms.job_id)
        funder = job.funder if job else terms.payer
        allowed = caller in (terms.payer, funder, "guardian")
        require(allowed, Revert.VAULT_CALLER_CANNOT_DISPUTE)
        parcels = self.parcels_of(job, version) if job else []
        if job is None or not parcels:
            raise Refusal(Revert.VAULT_NOTHING_TO_DISPUTE)
        payee_set = self.nodes[job.node].sets[version]
        payee_set.parcels = [p for p in payee_set.parcels if p.job != terms.job_id]
        payee_set.disputes += 1
        if version == job.version:
            self.write(job, version)
        self.dispute_count += 1
        self.disputes[self.dispute_count] = Dispute(
            job=job,
            funder=job.funder,
            node=job.node,
            version=version,
            amount=sum(parcel.amount for parcel in parcels),
            answer_until=self.now + ARBITRATION,
        )
        return self.dispute_count

    def resolve(self, caller: str, dispute_id: int, returned: int) -> None:
        require(caller == self.arbiter, Revert.VAULT_CALLER_IS_NOT_THE_ARBITER)
        require(dispute_id in self.disputes, Revert.VAULT_NO_SUCH_DISPUTE)
        dispute = self.disputes[dispute_id]
        require(self.now <= dispute.answer_until, Revert.VAULT_TOO_LATE_TO_ANSWER)
        require(returned <= dispute.amount, Revert.VAULT_RETURNED_EXCEEDS_DISPUTED)
        self.end(dispute_id, returned)

    def release(self, dispute_id: int) -> None:
        require(dispute_id in self.disputes, Revert.VAULT_NO_SUCH_DISPUTE)
        late = self.now > self.disputes[dispute_id].answer_until
        require(late, Revert.VAULT_ARBITER_MAY_STILL_ANSWER)
        self.end(dispute_id, 0)

    def end(self, dispute_id: int, returned: int) -> None:
        dispute = self.disputes.pop(dispute_id)
        payee_set = self.nodes[dispute.node].sets[dispute.version]
        payee_set.disputes -= 1
        payee_set.matured += dispute.amount - returned
        dispute.job.returned += returned
        self.balances[dispute.funder] += returned

    # nodes and who shares their earnings

    def distribute(self, node_id: int, version: int | None = None) -> int:
        """Of the present payees, or of those of an earlier version."""
        node = self.nodes.get(node_id)
        present = node.version if node else 0
        if node is None or (version is not None and not 0 <= version < present):
            return 0
        payee_set = node.sets[present if version is None else version]
        self.ripen(payee_set)
        amount, payee_set.matured = payee_set.matured, 0
        payees = payee_set.payees or (node.hospital, node.owner, *node.shares)
        hospital, owner = payees[:2]
        of_owner, of_onboarder, of_protocol = (amount * bps // 10_000 for bps in payees[2:])
        self.balances[hospital] += amount - of_owner - of_onboarder - of_protocol
        self.balances[owner] += of_owner
        self.balances["onboarder"] += of_onboarder
        self.balances["protocol"] += of_protocol
        return amount

    def checkpoint(self, node_id: int) -> None:
        """What every change of payees begins with."""
        self.distribute(node_id)
        node = self.nodes[node_id]
        present = node.sets[-1]
        if present.parcels or present.disputes:
            present.payees = (node.hospital, node.owner, *node.shares)
            node.sets.append(PayeeSet())

    def transfer_node(self, caller: str, to: str, node_id: int) -> None:
        require(node_id in self.nodes, Revert.ERC721_UNKNOWN_NODE)
        node = self.nodes[node_id]
        require(caller == node.owner, Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED)
        require(to != VAULT, Revert.NODES_RECEIVER_IS_NOT_ALLOWED)
        self.checkpoint(node_id)
        node.owner = to

    def propose_treasury(self, caller: str, node_id: int, treasury: str | None) -> None:
        node = self.nodes.get(node_id)
        if node is None or caller != node.hospital:
            raise Refusal(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL)
        node.proposed = treasury

    def accept_treasury(self, caller: str, node_id: int) -> None:
        require(node_id in self.nodes, Revert.NODES_NODE_IS_NOT_REGISTERED)
        node = self.nodes[node_id]
        require(caller == node.proposed, Revert.NODES_CALLER_IS_NOT_PROPOSED)
        self.checkpoint(node_id)
        node.hospital, node.proposed = caller, None

    def set_shares(self, caller: str, node_id: int, shares: tuple[int, int, int]) -> None:
        require(caller == "timelock", Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER)
        require(node_id in self.nodes, Revert.NODES_NODE_IS_NOT_REGISTERED)
        require(shares[2] <= 1_000, Revert.NODES_PROTOCOL_SHARE_TOO_HIGH)
        require(sum(shares) <= 5_000, Revert.NODES_HOSPITAL_SHARE_TOO_LOW)
        self.checkpoint(node_id)
        self.nodes[node_id].shares = shares

    def set_status(self, caller: str, node_id: int, status: str) -> None:
        if status == "suspended":
            allowed = caller in ("guardian", "timelock")
            require(allowed, Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN)
        elif status == "active":
            require(caller == "timelock", Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER)
        require(node_id in self.nodes, Revert.NODES_NODE_IS_NOT_REGISTERED)
        node = self.nodes[node_id]
        if status == "retired":
            allowed = caller in (node.hospital, "timelock")
            require(allowed, Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL)
        require(node.status != "retired", Revert.NODES_NODE_IS_RETIRED)
        node.status = status

    # balances

    def deposit(self, depositor: str, account: str | None, amount: int) -> None:
        if account is None or account == VAULT:
            raise Refusal(Revert.VAULT_ACCOUNT_IS_NOT_ALLOWED)
        self.check_take(amount)
        self.pull(depositor, amount)
        self.balances[account] += amount

    def deposit_with_authorization(
        self, name: str, amount: int, after: int, before: int, nonce: bytes, signature: Signature
    ) -> None:
        self.check_take(amount)
        self.pull_authorized(name, amount, after, before, nonce, signature)
        self.balances[name] += amount

    def withdraw(self, name: str, to: str | None, amount: int) -> int:
        """`to` is None for the zero address."""
        require(amount != 0, Revert.VAULT_NOTHING_TO_WITHDRAW)
        require(amount <= self.balances[name], Revert.VAULT_BALANCE_TOO_LOW)
        if to is None or to == VAULT:
            raise Refusal(Revert.VAULT_RECEIVER_IS_NOT_ALLOWED)
        self.check_movable(to)
        self.balances[name] -= amount
        self.push(to, amount)
        return amount

    def withdraw_to(self, name: str, to: str | None, amount: int) -> None:
        self.withdraw(name, to, amount)

    def push(self, to: str, amount: int) -> None:
        self.in_vault -= amount
        self.wallets[to] += amount

    def withdraw_for_many(self, names: list[str]) -> int:
        total = 0
        for name in names:
            movable = not self.usdc_paused and not self.blacklisted & {name, VAULT}
            if movable:
                amount, self.balances[name] = self.balances[name], 0
                self.push(name, amount)
                total += amount
        return total

    def withdraw_by_signature(
        self, name: str, to: str, amount: int, deadline: int, nonce: int, signature: Signature
    ) -> None:
        require(self.now <= deadline, Revert.VAULT_SIGNATURE_HAS_EXPIRED)
        good = self.signed_by(signature, name) and nonce == self.withdrawals[name]
        require(good, Revert.VAULT_INVALID_SIGNATURE)
        self.withdraw(name, to, amount)
        self.withdrawals[name] += 1

    def donate(self, name: str, amount: int) -> None:
        self.check_movable(name)
        require(amount <= self.wallets[name], Revert.USDC_BALANCE_TOO_LOW)
        self.wallets[name] -= amount
        self.in_vault += amount
        self.donated += amount

    def recover(self, caller: str, to: str) -> int:
        require(caller == "timelock", Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER)
        require(self.donated != 0, Revert.VAULT_NOTHING_TO_RECOVER)
        require(to != VAULT, Revert.VAULT_RECEIVER_IS_NOT_ALLOWED)
        self.check_movable(to)
        amount, self.donated = self.donated, 0
        self.push(to, amount)
        return amount

    # who governs

    def pause(self, caller: str) -> None:
        allowed = caller in ("guardian", "timelock")
        require(allowed, Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN)
        recent = self.paused_until != 0 and self.now < self.paused_until + GRACE
        require(not recent, Revert.VAULT_PAUSED_TOO_RECENTLY)
        self.paused_until = self.now + GRACE // 2

    def unpause(self, caller: str) -> None:
        require(caller == "timelock", Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER)
        require(self.now < self.paused_until, Revert.VAULT_NOT_PAUSED)
        self.paused_until = self.now

    def register_enclave(
        self, key: str, enclave: Enclave, epoch: int, refusal: Revert | None
    ) -> None:
        """`refusal` is what the committee's signatures deserve."""
        current = epoch == self.committee.epoch
        require(current, Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE)
        require(enclave.node != 0, Revert.ENCLAVES_NODE_IS_ZERO)
        require(enclave.expiry > self.now, Revert.ENCLAVES_REGISTRATION_HAS_EXPIRED)
        far = enclave.expiry > self.now + 31 * 24 * 60 * 60
        require(not far, Revert.ENCLAVES_EXPIRY_TOO_FAR_AHEAD)
        allowed = enclave.measurement in self.measurements
        require(allowed, Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED)
        if known := self.enclaves.get(key):
            require(not known.revoked, Revert.ENCLAVES_KEY_IS_REVOKED)
            same = known.node == enclave.node
            require(same, Revert.ENCLAVES_KEY_BELONGS_TO_ANOTHER_NODE)
            newer = enclave.expiry > known.expiry
            require(newer, Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER)
        if refusal is not None:
            raise Refusal(refusal)
        self.enclaves[key] = enclave

    # what must always hold

    def check(self) -> None:
        """Invariants 1 and 2 of the design, on the reference's own numbers."""
        assert self.in_vault - self.donated == self.owed
        assert self.in_vault + sum(self.wallets.values()) == self.minted
        for job in self.jobs.values():
            assert 0 <= job.returned <= job.paid <= job.funded
            assert job.refunded == (0 if job.is_open else job.funded - job.paid)
        assert self.balances["thief"] == self.wallets["thief"] == 0

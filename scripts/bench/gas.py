"""The gas of every operation, where the slots involved already hold a value."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from eth_utils import keccak
from web3.types import TxReceipt

from oracle.clients.edge.devplatform import DevPlatform
from scripts.bench.world import (
    BUDGET,
    DAY,
    GENESIS,
    KEY,
    MEASUREMENT,
    MRTD,
    RTMRS,
    WINDOW,
    World,
    account,
    address,
    roles,
)
from scripts.chain import quiet_chain
from settlement.contracts import order
from settlement.dcap import split_quote
from settlement.eip712 import (
    intent_digest,
    receive_authorization_digest,
    sign_digest,
    typed_data,
)
from settlement.models import Deposit, JobTerms, OpenJobs, Sponsorship, Withdrawal
from settlement.signer import LocalSigner

SIZES = (10, 50, 100)
NODES = 100
TRACING = "--steps-tracing"

TOKEN = "USDC alone"
PAYING_IN = "Paying in"
SETTLING = "Settling, challenge window 7,200 s"
SETTLING_AT_ONCE = "Settling, no challenge window"
TOGETHER = "Open and settle one job"
ENDING = "Ending a job without finished work"
DISPUTING = "Disputes"
PAYING_OUT = "Paying out"
NODES_AND_ENCLAVES = "Nodes and enclaves"
GROUPS = (
    PAYING_IN,
    SETTLING,
    SETTLING_AT_ONCE,
    TOGETHER,
    ENDING,
    DISPUTING,
    PAYING_OUT,
    NODES_AND_ENCLAVES,
    TOKEN,
)
HEADLINES = (
    (PAYING_IN, "open by allowance"),
    (PAYING_IN, "open 50 from a balance, by signature"),
    (SETTLING, "settle one"),
    (SETTLING, "settle one, first and completing, with a refund"),
    (SETTLING, "settle 100 of one node"),
    (SETTLING, "settle 100 of 100 nodes"),
)
"""The operations that an account is kept of."""


@dataclass(frozen=True)
class Figure:
    """One transaction's gas, or that of some together.

    `items` is how many jobs, receipts or payees it is about, `cold_reads` and `cold_writes` how
    many storage slots it touches first by reading or by writing, `repriced` what it uses by the
    prices of PIP-88.
    """

    gas: int
    items: int
    calldata: int
    cold_reads: int
    cold_writes: int
    repriced: int

    def __add__(self, other: "Figure") -> "Figure":
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        sums = {name: mine + theirs for (name, mine), theirs in pairs}
        return Figure(**{**sums, "items": self.items})


Operations = dict[str, dict[str, Figure]]
Accounts = dict[str, dict[str, dict[str, int]]]
Progress = Callable[[str], None]


@dataclass
class Bench:
    """A world, and the figures measured in it by group and operation."""

    world: World
    progress: Progress
    operations: Operations = field(default_factory=dict)
    accounts: Accounts = field(default_factory=dict)

    def keep(self, group: str, name: str, receipt: TxReceipt, items: int = 1) -> None:
        """Keep a mined transaction's figure under a name, and its account if it is a headline."""
        trace = self.world.trace(receipt)
        self.operations.setdefault(group, {})[name] = Figure(
            gas=trace.gas,
            items=items,
            calldata=trace.calldata,
            cold_reads=trace.cold_reads,
            cold_writes=trace.cold_writes,
            repriced=trace.repriced,
        )
        if (group, name) in HEADLINES:
            self.accounts.setdefault(group, {})[name] = trace.account(self.world.calls)
        self.progress(f"{group}: {name}")


def measure_gas(progress: Progress = lambda _: None) -> dict[str, Any]:
    """Gas of every operation and the headlines' accounts, as `gas.json` holds them."""
    with quiet_chain(GENESIS, TRACING) as w3:
        platform = DevPlatform.create(GENESIS, chain_id=w3.eth.chain_id, secret=b"bench")
        bench = Bench(World(w3, window=WINDOW, nodes=0, trust=platform.trust), progress)
        _token(bench)
        _registrations(bench)
        _quotes(bench, platform)
        _paying_in(bench)
        settled = _settling(bench, SETTLING)
        _in_a_new_window(bench, settled)
        _disputing(bench)
        _paying_out(bench)
        _new_payees(bench)
        _ending(bench)
    with quiet_chain(GENESIS, TRACING) as w3:
        at_once = Bench(World(w3, window=0, nodes=NODES), progress)
        _settling(at_once, SETTLING_AT_ONCE)
    operations = {**bench.operations, **at_once.operations}
    operations[TOGETHER] = dict(_together(operations))
    return {
        "operations": {
            group: {name: asdict(figure) for name, figure in operations[group].items()}
            for group in GROUPS
        },
        "accounts": bench.accounts,
    }


def _token(bench: Bench) -> None:
    world, usdc = bench.world, bench.world.relayer.usdc.functions
    relayer, payer = world.relayer, world.client("payer")
    for name in ("relayer", "node owner 0"):
        world.mint(name, BUDGET)
    transfer = usdc.transfer(address("node owner 0"), 1)
    bench.keep(TOKEN, "transfer", relayer.transact(transfer))
    payer.transact(usdc.approve(address("relayer"), BUDGET))
    pull = usdc.transferFrom(address("payer"), address("relayer"), 1)
    bench.keep(TOKEN, "transferFrom", relayer.transact(pull))
    for salt in (keccak(text="first"), keccak(text="second")):
        digest = receive_authorization_digest(
            world.deployment.usdc_domain,
            payer=address("payer"),
            to=address("relayer"),
            value=1,
            valid_after=0,
            valid_before=GENESIS + DAY,
            nonce=salt,
        )
        signature = sign_digest(digest, account("payer").key)
        receive = usdc.receiveWithAuthorization(
            address("payer"), address("relayer"), 1, 0, GENESIS + DAY, salt, signature
        )
        receipt = relayer.transact(receive)
    bench.keep(TOKEN, "receiveWithAuthorization", receipt)
    for nonce in range(2):
        message = {
            "owner": address("payer"),
            "spender": address("relayer"),
            "value": BUDGET + nonce,
            "nonce": nonce,
            "deadline": GENESIS + DAY,
        }
        document = typed_data(world.deployment.usdc_domain, "Permit", message)
        signature = LocalSigner(account("payer")).sign_typed_data(document)
        permit = usdc.permit(*list(message.values())[:3], GENESIS + DAY, signature)
        payer.transact(usdc.approve(address("relayer"), 0))
        receipt = relayer.transact(permit)
    bench.keep(TOKEN, "permit, no allowance before", receipt)


def _registrations(bench: Bench) -> None:
    world, relayer = bench.world, bench.world.relayer
    world.add_nodes(1)
    second_node = relayer.transact(world.register_node_call(2))
    bench.keep(NODES_AND_ENCLAVES, "register a node", second_node)
    first = relayer.transact(world.register_enclave_call(2))
    bench.keep(NODES_AND_ENCLAVES, "register an enclave, 2 of 3", first)
    again = relayer.transact(world.register_enclave_call(2, GENESIS + 15 * DAY))
    bench.keep(NODES_AND_ENCLAVES, "renew an enclave, 2 of 3", again)
    world.add_nodes(NODES - 2)


def _quotes(bench: Bench, platform: DevPlatform) -> None:
    """A platform's way to its enclaves' keys; another key, TDX and a renewal each by a quote."""
    world, relayer = bench.world, bench.world.relayer
    parts = split_quote(platform.quote(MEASUREMENT, bytes(64)))
    receipt = relayer.transact(relayer.register_platform_call(parts))
    bench.keep(NODES_AND_ENCLAVES, "register a platform", receipt)
    for again, what in enumerate(("SGX quote", "TDX quote", "SGX quote, renewed")):
        is_tdx = what == "TDX quote"
        judged = split_quote(platform.td_quote(bytes(48), bytes(64))) if is_tdx else parts
        verdict = relayer.transact(world.judge_call(judged, GENESIS + (14 + again) * DAY))
        if not again:
            bench.keep(NODES_AND_ENCLAVES, "judge a platform, 2 of 3", verdict)
        name = f"quoted enclave, {what[:3]}"
        data = world.report_data(parts, name)
        quote = (
            platform.td_quote(MRTD, data, rtmrs=RTMRS)
            if is_tdx
            else platform.quote(MEASUREMENT, data)
        )
        call = relayer.register_quote_call(split_quote(quote), address(name), keccak(KEY))
        bench.keep(NODES_AND_ENCLAVES, f"register an enclave by {what}", relayer.transact(call))


def _paying_in(bench: Bench) -> None:
    world, relayer, payer = bench.world, bench.world.relayer, bench.world.client("payer")
    vault = relayer.vault.functions
    world.open()
    opened = payer.open_job(world.terms())
    bench.keep(PAYING_IN, "open by allowance", opened)
    unassigned = world.terms(node_id=0)
    left_open = payer.open_job(unassigned)
    bench.keep(PAYING_IN, "open by allowance, node left open", left_open)
    permit_payer = world.client("permit payer")
    for _ in range(2):
        receipt = permit_payer.open_job_with_permit(world.terms(payer="permit payer"))
    bench.keep(PAYING_IN, "open by permit", receipt)
    terms = world.terms()
    relayed = relayer.open_job_with_authorization(terms, payer.authorize(terms))
    bench.keep(PAYING_IN, "open by EIP-3009, relayed", relayed)
    bench.keep(PAYING_IN, "deposit by allowance", payer.deposit(BUDGET))
    deposit = Deposit(account=address("payer"), amount=BUDGET, salt=keccak(text="deposit"))
    signed = relayer.deposit_with_authorization(deposit, payer.authorize_deposit(deposit))
    bench.keep(PAYING_IN, "deposit by EIP-3009, relayed", signed)
    for size in (1, 10, 50):
        jobs = OpenJobs(jobs=tuple(world.terms() for _ in range(size)))
        digest = intent_digest(jobs, world.deployment.vault_domain)
        opened = relayer.open_jobs(jobs, sign_digest(digest, account("payer").key))
        bench.keep(PAYING_IN, f"open {size} from a balance, by signature", opened, size)
    jobs = OpenJobs(jobs=tuple(world.terms() for _ in range(50)))
    bench.keep(PAYING_IN, "open 50 from a balance, by the payer", payer.open_jobs(jobs), 50)
    sponsor = world.client("sponsor")
    terms = world.terms()
    consent = payer.sign(Sponsorship(terms=terms, sponsor=address("sponsor")))
    bench.keep(PAYING_IN, "sponsor a job by allowance", sponsor.sponsor_job(terms, consent))
    terms = world.open()
    bench.keep(PAYING_IN, "top up by allowance", payer.top_up(terms, BUDGET))
    topped_up = payer.top_up(terms, BUDGET, from_balance=True)
    bench.keep(PAYING_IN, "top up from a balance", topped_up)
    assigned = relayer.transact(world.assign_call(unassigned, 1))
    bench.keep(PAYING_IN, "assign a node, 2 of 3", assigned)
    voided = payer.transact(vault.void_job(order(world.terms())))
    bench.keep(PAYING_IN, "void terms before they are opened", voided)


def _settling(bench: Bench, group: str) -> list[JobTerms]:
    """Settle in every way. Returns 100 jobs of node 1 with two receipts each."""
    world = bench.world

    def settle(name: str, terms: JobTerms, records: int, *, complete: bool = False) -> None:
        bench.keep(group, name, world.settle(world.claim(terms, records, complete=complete)))

    nodes = world.open_many(range(1, NODES + 1))
    settle("settle one, the node's very first", nodes[0], 100)
    terms = world.open()
    settle("settle one, the job's first", terms, 100)
    settle("settle one", terms, 200)
    settle("settle one, completing, with a refund", terms, 300, complete=True)
    terms = world.open()
    settle("settle one, first and completing, with a refund", terms, 300, complete=True)
    terms = world.open()
    all_earned = BUDGET // 50_000
    settle("settle one, first and completing, nothing left", terms, all_earned, complete=True)
    terms = world.open()
    world.settle(world.claim(terms, 100))
    settle("settle one, completing, nothing left", terms, all_earned, complete=True)

    jobs = world.open_many([1] * NODES)
    world.settle_all(jobs, 100)
    world.settle_all(nodes, 100)
    for records, size in zip((200, 300, 400), SIZES, strict=True):
        receipt = world.settle(*(world.claim(job, records) for job in jobs[:size]))
        bench.keep(group, f"settle {size} of one node", receipt, size)
    for records, size in zip((200, 300, 400), SIZES, strict=True):
        receipt = world.settle(*(world.claim(job, records) for job in nodes[:size]))
        bench.keep(group, f"settle {size} of {size} nodes", receipt, size)
    return jobs


def _in_a_new_window(bench: Bench, jobs: list[JobTerms]) -> None:
    world = bench.world
    world.pass_time(WINDOW)
    one = world.settle(world.claim(jobs[0], 500))
    bench.keep(SETTLING, "settle one, first in a new window", one)
    world.pass_time(WINDOW)
    many = world.settle(*(world.claim(job, 600) for job in jobs))
    bench.keep(SETTLING, "settle 100 of one node, first in a new window", many, len(jobs))


def _disputing(bench: Bench) -> None:
    world, payer, arbiter = bench.world, bench.world.client("payer"), bench.world.client("arbiter")
    for number in range(1, 4):
        terms = world.open()
        world.settle(world.claim(terms, 100))
        disputed = payer.dispute(terms)
        if number < 3:
            resolved = arbiter.resolve(number, BUDGET // 100)
    bench.keep(DISPUTING, "dispute", disputed)
    bench.keep(DISPUTING, "resolve, a part returned", resolved)


def _paying_out(bench: Bench) -> None:
    world, relayer = bench.world, bench.world.relayer
    world.pass_time(2 * WINDOW)
    for first in (1, 51):
        relayer.distribute(*range(first, first + 50))
    nodes = world.open_many(range(1, NODES + 1))
    world.settle_all(nodes, 100)
    world.pass_time(2 * WINDOW)
    bench.keep(PAYING_OUT, "distribute one node", relayer.distribute(1))
    for size in (10, 50):
        receipt = relayer.distribute(*range(2, 2 + size))
        bench.keep(PAYING_OUT, f"distribute {size} nodes", receipt, size)
        world.settle_all(nodes[1 : 1 + size], 200)
        world.pass_time(2 * WINDOW)

    payees = [roles(node_id) for node_id in range(1, 14)]
    for payee in payees:
        world.mint(payee.hospital)
    hospital, owner = world.client(payees[0].hospital), world.client(payees[0].node_owner)
    bench.keep(PAYING_OUT, "withdraw", hospital.withdraw())
    pushed = relayer.withdraw_for(address(payees[1].hospital))
    bench.keep(PAYING_OUT, "withdraw for another", pushed)
    pushed = relayer.withdraw_for(*(address(payee.hospital) for payee in payees[3:]))
    bench.keep(PAYING_OUT, "withdraw for 10 others", pushed, 10)
    to = address(payees[0].hospital)
    bench.keep(PAYING_OUT, "withdraw a part to any address", owner.withdraw_to(to, 1_000))
    for nonce in range(2):
        order_ = Withdrawal(
            account=address(payees[0].node_owner),
            to=to,
            amount=1_000,
            nonce=nonce,
            deadline=GENESIS + 30 * DAY,
        )
        receipt = relayer.withdraw_by_signature(order_, owner.sign(order_))
    bench.keep(PAYING_OUT, "withdraw a part by signature, relayed", receipt)


def _new_payees(bench: Bench) -> None:
    # 20, 21: nothing waits; 22, 23: some has matured; 24, 25: some is fresh
    world, relayer = bench.world, bench.world.relayer
    group = NODES_AND_ENCLAVES
    relayer.distribute(*range(20, 26))
    jobs = world.open_many(range(20, 26))
    world.settle_all(jobs[2:4], 100)
    world.pass_time(2 * WINDOW)
    world.settle_all(jobs[4:], 100)
    for first, state in (
        (20, "nothing waits"),
        (22, "earnings matured"),
        (24, "earnings fresh"),
    ):
        moved = _transfer(world, first)
        bench.keep(group, f"transfer a node, {state}", moved)
        treasury = address("new treasury")
        world.client("new treasury")
        hospital = world.client(roles(first + 1).hospital)
        proposed = hospital.transact(hospital.nodes.functions.propose_treasury(first + 1, treasury))
        accepted = world.client("new treasury").transact(
            relayer.nodes.functions.accept_treasury(first + 1)
        )
        bench.keep(group, f"accept a new treasury, {state}", accepted)
    bench.keep(group, "propose a new treasury", proposed)
    world.pass_time(2 * WINDOW)
    past = relayer.distribute_past(24, 0)
    bench.keep(PAYING_OUT, "distribute what earlier payees have earned", past)


def _transfer(world: World, node_id: int) -> TxReceipt:
    owner = roles(node_id).node_owner
    functions = world.client(owner).nodes.functions
    # to one who holds a node already, of one who keeps none
    return world.client(owner).transact(
        functions.transferFrom(address(owner), address("node owner 1"), node_id)
    )


def _ending(bench: Bench) -> None:
    world, relayer, payer = bench.world, bench.world.relayer, bench.world.client("payer")
    unassigned, running = world.open(node_id=0), world.open()
    late = world.open()
    bench.keep(ENDING, "cancel before a node is assigned", payer.cancel(unassigned))
    bench.keep(ENDING, "cancel with a node", payer.cancel(running))
    world.pass_time(9 * DAY)
    bench.keep(ENDING, "refund after a cancellation", relayer.refund(running))
    bench.keep(ENDING, "refund after deadline and grace", relayer.refund(late))
    bench.keep(DISPUTING, "release after the arbiter's time", relayer.release(3))


def _together(operations: Operations) -> Iterator[tuple[str, Figure]]:
    opened = operations[PAYING_IN]["open by allowance"]
    for group, suffix in ((SETTLING, ""), (SETTLING_AT_ONCE, ", no challenge window")):
        for name, settled in (
            ("open, settle a receipt", "settle one, the job's first"),
            (
                "open, settle to the end, nothing left",
                "settle one, first and completing, nothing left",
            ),
            (
                "open, settle to the end, with a refund",
                "settle one, first and completing, with a refund",
            ),
        ):
            yield name + suffix, opened + operations[group][settled]

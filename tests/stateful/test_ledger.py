"""The vault against a ledger in plain Python, through any history of calls.

After every step the invariants 1 to 5 of the design are checked by reading alone; at the end time
runs out, everybody leaves, and only donations and what USDC blacklists stay in the vault.
"""

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils import to_checksum_address
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import DAY, GRACE, MEASUREMENT, RICH, World, actor, logs_of, reverts

from settlement.contracts import Claim, JobState, Outcome, abi_value
from settlement.models import JobTerms
from settlement.reverts import Revert

PAYERS = ("payer", "payer 2", "payer 3")
NODES = (1, 2, 3)
HOSPITALS = {1: "hospital", 2: "hospital 2", 3: "hospital 3"}
OWNERS = ("node owner", "node owner 2", "hospital 3")  # the third hospital owns its node itself
ACCOUNTS = (*PAYERS, *HOSPITALS.values(), "node owner", "node owner 2", "onboarder", "protocol")
PRICES = ((100_000, 1_000_000), (1, 0), (0, 7), (0, 0), (999_983, 1))
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@dataclass
class Job:
    """What the reference knows of a job."""

    terms: JobTerms
    payer: str
    payable_until: int
    paid: int = 0
    refunded: int = 0
    is_open: bool = True


@dataclass
class Ledger:
    """The reference: amounts in USDC base units, by actor name, node id and job."""

    jobs: list[Job] = field(default_factory=list)
    earnings: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    balances: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wallets: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    owners: dict[int, str] = field(default_factory=dict)
    # enclave actor -> (node, expiry), only keys that are not revoked
    enclaves: dict[str, tuple[int, int]] = field(default_factory=dict)
    suspended: set[int] = field(default_factory=set)
    blacklisted: set[str] = field(default_factory=set)
    usdc_paused: bool = False
    measurement_allowed: bool = True
    paused_until: int = 0
    in_vault: int = 0
    donated: int = 0

    @property
    def owed(self) -> int:
        escrow = sum(job.terms.budget - job.paid for job in self.jobs if job.is_open)
        return escrow + sum(self.earnings.values()) + sum(self.balances.values())

    def settle(
        self,
        job: Job | None,
        records: int,
        epochs: int,
        complete: bool,
        output: bool,
        signer: str,
        now: int,
    ) -> Outcome:
        """One receipt; `signer` is an actor's name."""
        if job is None:
            return Outcome.UNKNOWN_JOB
        if not job.is_open:
            return Outcome.NOTHING_NEW
        if now > job.payable_until:
            return Outcome.TOO_LATE
        earned = job.terms.earned(records, epochs)
        if complete and not output:
            return Outcome.OUTPUT_MISSING
        if not complete and earned <= job.paid:
            return Outcome.NOTHING_NEW
        node, expiry = self.enclaves.get(signer, (0, 0))
        if node != job.terms.node_id or now >= expiry or not self.measurement_allowed:
            return Outcome.ENCLAVE_REFUSED
        paid = max(job.paid, earned)
        self.earnings[node] += paid - job.paid
        job.paid = paid
        if complete:
            self.close(job)
        return Outcome.PAID

    def close(self, job: Job) -> None:
        job.is_open = False
        job.refunded = job.terms.budget - job.paid
        self.balances[job.payer] += job.refunded

    def distribute(self, node: int) -> int:
        amount = self.earnings.pop(node, 0)
        owner, onboarder, protocol = amount * 20 // 100, amount * 5 // 100, amount * 5 // 100
        self.balances[HOSPITALS[node]] += amount - owner - onboarder - protocol
        self.balances[self.owners[node]] += owner
        self.balances["onboarder"] += onboarder
        self.balances["protocol"] += protocol
        return amount

    def withdraw(self, name: str) -> int:
        amount = self.balances.pop(name, 0)
        self.in_vault -= amount
        self.wallets[name] += amount
        return amount


MISHAPS = (
    "guardian pauses",
    "owner pauses",
    "owner ends the pause",
    "USDC blacklists or forgives",
    "USDC pauses or goes on",
    "key is revoked",
    "key is registered",
    "measurement is revoked or allowed",
    "node is suspended or resumed",
)

# what is wrong with a receipt: mostly nothing
FLAWS = (
    "",
    "",
    "",
    "",
    "forged",
    "another node's key",
    "revoked key",
    "expired key",
    "malleated",
    "tampered terms",
    "no output",
    "wrong v",
)

receipts = st.tuples(
    st.integers(0, 50),  # which job, counted round
    st.one_of(st.integers(0, 60), st.integers(0, 1_200), st.just(2**64 - 1)),
    st.integers(0, 4),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(FLAWS),
)


class LedgerMachine(RuleBasedStateMachine):
    """Each rule predicts the answer from the reference and asks the contracts."""

    @initialize()
    def deploy(self) -> None:
        self.stack = ExitStack()
        self.world = self.stack.enter_context(World.temporary())
        self.ledger = Ledger()
        self.salt = 0
        self.keys = 0
        self.bought: list[Any] = []
        self.revoked: dict[int, str] = {}
        world, ledger = self.world, self.ledger
        for node in NODES[1:]:
            assert world.register_node(hospital=HOSPITALS[node], owner=OWNERS[node - 1]) == node
        ledger.owners = dict(zip(NODES, OWNERS, strict=True))
        ledger.enclaves["enclave"] = (1, world.now + 7 * DAY)
        for node in NODES:
            self.register_key(node, 7 * DAY)
            self.revoke_newest_key(node)
            self.register_key(node, 60)  # the one that will have expired
            self.register_key(node, 7 * DAY)
        for name in PAYERS[1:]:
            world.fund(actor(name))
        ledger.wallets.update(dict.fromkeys(PAYERS, RICH))
        for node, payer in zip(NODES, PAYERS, strict=True):
            self.try_to_open(payer, node, PRICES[0], 30_000_000, 2 * DAY, signed=False)

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        with self.stack:
            self.everybody_leaves()

    # helpers

    def register_key(self, node: int, lifetime: int) -> None:
        self.keys += 1
        name = f"enclave {self.keys} of node {node}"
        expiry = self.world.now + lifetime
        if not self.ledger.measurement_allowed:
            with reverts(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED):
                self.world.register_enclave(
                    enclave_key=actor(name).address, node_id=node, expiry=expiry
                )
            return
        made = self.world.register_enclave(
            enclave_key=actor(name).address, node_id=node, expiry=expiry
        )
        self.ledger.enclaves[name] = (node, made.expiry)

    def revoke_newest_key(self, node: int) -> None:
        if (key := self.key_of(node)) != "thief":
            self.world.enclaves.revoke(actor(key).address, sender=actor("guardian").address)
            del self.ledger.enclaves[key]
            self.revoked[node] = key

    def key_of(self, node: int) -> str:
        """The node's newest key that is not revoked, or the thief's."""
        return next(
            (key for key, (n, _) in reversed(self.ledger.enclaves.items()) if n == node), "thief"
        )

    def pick(self, index: int) -> Job:
        return self.ledger.jobs[index % len(self.ledger.jobs)]

    def circle(self, function: str, *arguments: Any) -> None:
        getattr(self.world.usdc, function)(*arguments, sender=actor("deployer").address)

    def refusal_to_move(self, *names: str) -> Revert | None:
        """Why USDC would refuse a transfer between these."""
        if self.ledger.usdc_paused:
            return Revert.USDC_PAUSED
        return Revert.USDC_BLACKLISTED if self.ledger.blacklisted & set(names) else None

    def has_jobs(self) -> bool:
        return bool(self.ledger.jobs)

    # money in

    @rule(
        payer=st.sampled_from(PAYERS),
        node=st.sampled_from(NODES),
        prices=st.sampled_from(PRICES),
        budget=st.one_of(st.integers(1, 200), st.integers(1_000_000, 50_000_000)),
        lifetime=st.sampled_from([1, 3_600, DAY, 4 * DAY, 10 * DAY]),
        signed=st.booleans(),
    )
    def open_job(
        self,
        payer: str,
        node: int,
        prices: tuple[int, int],
        budget: int,
        lifetime: int,
        signed: bool,
    ) -> None:
        self.try_to_open(payer, node, prices, budget, lifetime, signed=signed)

    def try_to_open(
        self,
        payer: str,
        node: int,
        prices: tuple[int, int],
        budget: int,
        lifetime: int,
        *,
        signed: bool,
    ) -> None:
        world, ledger = self.world, self.ledger
        self.salt += 1
        terms = world.terms(
            self.salt,
            payer=actor(payer).address,
            node_id=node,
            price_per_record=prices[0],
            price_per_epoch=prices[1],
            budget=budget,
            deadline=world.now + lifetime,
        )
        call = (
            partial(self.open_signed, terms, actor(payer)) if signed else partial(world.open, terms)
        )
        if world.now < ledger.paused_until:
            refusal: Revert | None = Revert.VAULT_PAUSED
        elif node in ledger.suspended:
            refusal = Revert.VAULT_NODE_IS_NOT_ACTIVE
        else:
            refusal = self.refusal_to_move(payer)
        if refusal:
            with reverts(refusal):
                call()
            return
        assert call() == world.job_id(terms)
        ledger.jobs.append(Job(terms, payer, terms.deadline + GRACE))
        ledger.wallets[payer] -= budget
        ledger.in_vault += budget

    def open_signed(self, terms: JobTerms, payer: LocalAccount) -> bytes:
        world = self.world
        before = world.now + DAY
        signature = world.authorization(terms, signer=payer, valid_before=before)
        return bytes(
            world.vault.open_job_with_authorization(
                abi_value(terms), 0, before, signature, sender=actor("relayer").address
            )
        )

    @precondition(has_jobs)
    @rule(index=st.integers(0, 50), signed=st.booleans())
    def open_the_same_again(self, index: int, signed: bool) -> None:
        job, world = self.pick(index), self.world
        if world.now < self.ledger.paused_until:
            refusal = Revert.VAULT_PAUSED
        elif job.terms.deadline <= world.now:
            refusal = Revert.VAULT_DEADLINE_HAS_PASSED
        elif job.terms.node_id in self.ledger.suspended:
            refusal = Revert.VAULT_NODE_IS_NOT_ACTIVE
        else:
            refusal = Revert.VAULT_JOB_EXISTS
        with reverts(refusal):
            self.open_signed(job.terms, actor(job.payer)) if signed else world.open(job.terms)

    @rule(amount=st.integers(1, 1_000), payer=st.sampled_from(PAYERS))
    def donate(self, amount: int, payer: str) -> None:
        call = partial(
            self.world.usdc.transfer, self.world.vault.address, amount, sender=actor(payer).address
        )
        if refusal := self.refusal_to_move(payer):
            with reverts(refusal):
                call()
            return
        call()
        self.ledger.wallets[payer] -= amount
        self.ledger.in_vault += amount
        self.ledger.donated += amount

    # work

    @precondition(has_jobs)
    @rule(batch=st.lists(receipts, min_size=1, max_size=6), twice=st.booleans())
    def settle(self, batch: list[tuple[int, int, int, bool, str]], twice: bool) -> None:
        """A batch of receipts, good and bad, perhaps each twice; all are kept for replay."""
        prepared = [self.prepare(*item) for item in batch]
        if twice:
            prepared += prepared
        self.hand_in(prepared)

    @precondition(has_jobs)
    @rule(index=st.integers(0, 50), before=st.integers(0, 60), records=st.integers(0, 60))
    def pay_and_complete(self, index: int, before: int, records: int) -> None:
        """A good receipt and then the completing one, whose counters may be lower."""
        self.hand_in([self.prepare(index, before, 0, False, "")])
        self.hand_in([self.prepare(index, records, 0, True, "")])

    @precondition(lambda self: bool(self.bought))
    @rule(picks=st.lists(st.integers(0, 1_000), min_size=1, max_size=5))
    def replay(self, picks: list[int]) -> None:
        """Receipts of before in any order."""
        self.hand_in([self.bought[pick % len(self.bought)] for pick in picks])

    def prepare(self, index: int, records: int, epochs: int, complete: bool, flaw: str) -> Any:
        job, world = self.pick(index), self.world
        node = job.terms.node_id
        signer, terms, known = self.key_of(node), job.terms, job
        changes: dict[str, Any] = {"complete": complete}
        if flaw == "forged":
            signer = "thief"
        elif flaw == "another node's key":
            signer = self.key_of(node % 3 + 1)
        elif flaw == "revoked key":
            signer = self.revoked.get(node, "thief")
        elif flaw == "expired key":
            enclaves = self.ledger.enclaves.items()
            expired = (key for key, (n, e) in enclaves if n == node and e <= world.now)
            signer = next(expired, "thief")
        elif flaw == "tampered terms":
            terms, known = terms.model_copy(update={"price_per_record": 10**9}), None
        elif flaw == "no output":
            complete = True
            changes = {"complete": True, "output_digest": bytes(32)}
        claim = world.claim(terms, records, epochs, signer=actor(signer), **changes)
        signature = claim.signed.signature
        if flaw == "malleated":
            high = ORDER - int.from_bytes(signature[32:64], "big")
            signature = signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])
        elif flaw == "wrong v":
            signature, signer = signature[:64] + b"\x00", "nobody"
        claim = Claim(terms, claim.signed.model_copy(update={"signature": signature}))
        item = (claim, known, records, epochs, complete, flaw != "no output", signer)
        self.bought.append(item)
        return item

    def hand_in(self, items: list[Any]) -> None:
        world, ledger = self.world, self.ledger
        claims = [item[0] for item in items]
        if world.now < ledger.paused_until:
            with reverts(Revert.VAULT_PAUSED):
                world.settle(*claims)
            return
        expected = [ledger.settle(*item[1:], world.now) for item in items]
        for outcome in expected:
            event(f"settled: {outcome.name}")
        assert world.settle(*claims) == expected
        assert self.usdc_transfers(world.vault) == []

    # money out

    @precondition(has_jobs)
    @rule(index=st.integers(0, 50))
    def refund(self, index: int) -> None:
        job, world = self.pick(index), self.world
        if not job.is_open:
            refusal = Revert.VAULT_JOB_IS_NOT_OPEN
        elif world.now <= job.payable_until:
            refusal = Revert.VAULT_JOB_IS_STILL_PAYABLE
        else:
            event("refunded")
            self.ledger.close(job)
            assert world.refund(job.terms) == job.refunded
            assert self.usdc_transfers(world.vault) == []
            return
        with reverts(refusal):
            world.refund(job.terms)

    @rule(node=st.sampled_from(NODES))
    def distribute(self, node: int) -> None:
        expected = self.ledger.distribute(node)
        assert self.world.vault.distribute(node, sender=actor("anyone").address) == expected
        assert self.usdc_transfers(self.world.vault) == []

    @rule(name=st.sampled_from(ACCOUNTS), owed=st.integers(0, 3), pushed=st.booleans())
    def withdraw(self, name: str, owed: int, pushed: bool) -> None:
        """Mostly by somebody to whom something is owed."""
        creditors = [account for account in ACCOUNTS if self.ledger.balances[account]]
        if owed and creditors:
            name = creditors[owed % len(creditors)]
        vault, account = self.world.vault, actor(name).address
        if pushed:
            call = partial(vault.withdraw_for, account, sender=actor("anyone").address)
        else:
            call = partial(vault.withdraw, sender=account)
        if not self.ledger.balances[name]:
            refusal: Revert | None = Revert.VAULT_NOTHING_TO_WITHDRAW
        else:
            refusal = self.refusal_to_move(name)
        if refusal:
            with reverts(refusal):
                call()
            return
        expected = self.ledger.withdraw(name)
        event("withdrawn")
        assert call() == expected
        assert self.usdc_transfers(vault) == [(account, expected)]

    def usdc_transfers(self, contract: Any) -> list[tuple[str, int]]:
        """(receiver, amount) of the USDC transfers out of the vault in the last call."""
        vault, usdc = self.world.deployment.vault, self.world.deployment.usdc
        return [
            (to_checksum_address(log["topics"][2][12:]), int.from_bytes(log["data"], "big"))
            for log in logs_of(contract)
            if log["address"] == usdc and log["topics"][1][12:] == bytes.fromhex(vault[2:])
        ]

    # what happens around it

    @rule(node=st.sampled_from(NODES), to=st.sampled_from(["node owner", "node owner 2"]))
    def transfer_node(self, node: int, to: str) -> None:
        owner = self.ledger.owners[node]
        self.ledger.distribute(node)
        people = actor(owner).address, actor(to).address
        self.world.nodes.transferFrom(*people, node, sender=people[0])
        self.ledger.owners[node] = to

    @rule(seconds=st.sampled_from([1, 60, 3_600, GRACE // 2, GRACE, 3 * DAY]))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @precondition(has_jobs)
    @rule(index=st.integers(0, 50), records=st.integers(1, 60), beyond=st.integers(0, 1))
    def settle_at_the_end_of_a_grace(self, index: int, records: int, beyond: int) -> None:
        """In the last second in which it counts, or in the one after."""
        until = self.pick(index).payable_until + beyond
        if until > self.world.now:
            self.world.travel_to(until)
        self.hand_in([self.prepare(index, records, 1, False, "")])

    @rule(
        mishap=st.sampled_from(MISHAPS), node=st.sampled_from(NODES), name=st.sampled_from(ACCOUNTS)
    )
    def something_happens(self, mishap: str, node: int, name: str) -> None:
        """One rule for all of them, so that most steps are about money."""
        world, ledger = self.world, self.ledger
        guardian, owner = actor("guardian").address, world.deployment.timelock
        match mishap:
            case "guardian pauses":
                self.pause(guardian)
            case "owner pauses":
                self.pause(owner)
            case "owner ends the pause":
                self.unpause()
            case "USDC blacklists or forgives":
                forgive = name in ledger.blacklisted
                self.circle("unBlacklist" if forgive else "blacklist", actor(name).address)
                ledger.blacklisted ^= {name}
            case "USDC pauses or goes on":
                self.circle("unpause" if ledger.usdc_paused else "pause")
                ledger.usdc_paused = not ledger.usdc_paused
            case "key is revoked":
                self.revoke_newest_key(node)
            case "key is registered":
                self.register_key(node, 7 * DAY)
            case "measurement is revoked or allowed":
                function = (
                    "revoke_measurement" if ledger.measurement_allowed else "allow_measurement"
                )
                world.govern(world.enclaves, function, MEASUREMENT)
                ledger.measurement_allowed = not ledger.measurement_allowed
            case "node is suspended or resumed":
                function = "resume" if node in ledger.suspended else "suspend"
                world.govern(world.nodes, function, node)
                ledger.suspended ^= {node}

    def pause(self, sender: str) -> None:
        world, ledger = self.world, self.ledger
        if ledger.paused_until and world.now < ledger.paused_until + GRACE:
            with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
                world.vault.pause(sender=sender)
        else:
            world.vault.pause(sender=sender)
            ledger.paused_until = world.now + GRACE // 2

    def unpause(self) -> None:
        if self.world.now < self.ledger.paused_until:
            self.world.govern(self.world.vault, "unpause")
            self.ledger.paused_until = self.world.now
        else:
            with reverts(Revert.VAULT_NOT_PAUSED):
                self.world.govern(self.world.vault, "unpause")

    # what must always hold

    @invariant()
    def vault_holds_what_it_owes(self) -> None:
        if hasattr(self, "ledger"):
            world, ledger = self.world, self.ledger
            held = world.usdc.balanceOf(world.vault.address)
            assert held == ledger.in_vault
            assert held - ledger.donated == world.vault.owed() == ledger.owed

    @invariant()
    def every_job_pays_and_returns_at_most_what_it_was_given(self) -> None:
        if hasattr(self, "ledger"):
            for job in self.ledger.jobs:
                budget = job.terms.budget
                state = JobState.OPEN if job.is_open else JobState.CLOSED
                expected = (state, budget, job.paid, job.terms.node_id, job.payable_until)
                assert self.world.job(job.terms) == expected
                assert job.paid + job.refunded <= budget
                assert job.is_open or job.paid + job.refunded == budget

    @invariant()
    def everyone_has_what_the_reference_says(self) -> None:
        if hasattr(self, "ledger"):
            world, ledger = self.world, self.ledger
            assert {node: world.vault.earnings(node) for node in NODES} == {
                node: ledger.earnings[node] for node in NODES
            }
            assert {name: world.balance(name) for name in ACCOUNTS} == {
                name: ledger.balances[name] for name in ACCOUNTS
            }
            assert {name: world.wallet(name) for name in ACCOUNTS} == {
                name: ledger.wallets[name] for name in ACCOUNTS
            }
            assert world.wallet("thief") == world.balance("thief") == 0

    def everybody_leaves(self) -> None:
        """Nobody is stuck: by time alone, by a stranger's hand, even in the middle of a pause."""
        if not hasattr(self, "ledger") or not hasattr(self, "world"):
            return
        world, ledger, anyone = self.world, self.ledger, actor("anyone").address
        end = max([job.payable_until for job in ledger.jobs], default=world.now) + 1
        world.travel_to(max(world.now, end, ledger.paused_until + GRACE))
        world.vault.pause(sender=actor("guardian").address)
        if ledger.usdc_paused:
            self.circle("unpause")
        for job in ledger.jobs:
            if job.is_open:
                ledger.close(job)
                assert world.refund(job.terms) == job.refunded
        for node in NODES:
            assert world.vault.distribute(node, sender=anyone) == ledger.distribute(node)
        for name in ACCOUNTS:
            if ledger.balances[name] and name not in ledger.blacklisted:
                assert world.vault.withdraw_for(
                    actor(name).address, sender=anyone
                ) == ledger.withdraw(name)
        stuck = sum(ledger.balances[name] for name in ledger.blacklisted)
        assert world.vault.owed() == stuck
        assert world.usdc.balanceOf(world.vault.address) == ledger.donated + stuck
        paid_in = sum(job.terms.budget for job in ledger.jobs)
        assert (
            sum(world.wallet(name) for name in ACCOUNTS)
            == len(PAYERS) * RICH - ledger.donated - stuck
        )
        assert sum(job.paid + job.refunded for job in ledger.jobs) == paid_in


TestLedger = pytest.mark.timeout(7_200)(LedgerMachine.TestCase)
# 60 by default; HYPOTHESIS_PROFILE=long multiplies by twenty
TestLedger.settings = settings(
    max_examples=settings().max_examples * 6 // 10, stateful_step_count=40, deadline=None
)

"""Whoever follows the events alone knows the whole ledger."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from world import GRACE, World, actor, logs_of

from settlement.contracts import artifact
from settlement.events import decode_events, terms_from_event
from settlement.models import JobTerms


@dataclass
class Follower:
    """A ledger that is fed with decoded events and nothing else."""

    terms: dict[bytes, JobTerms] = field(default_factory=dict)
    paid: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    closed: set[bytes] = field(default_factory=set)
    earnings: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    balances: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def feed(self, name: str, args: dict[str, Any]) -> None:
        match name:
            case "JobOpened":
                self.terms[args["job_id"]] = terms_from_event(args)
            case "Settled":
                self.paid[args["job_id"]] += args["amount"]
                assert self.paid[args["job_id"]] == args["paid"]
                self.earnings[args["node_id"]] += args["amount"]
            case "JobClosed":
                assert self.paid[args["job_id"]] == args["paid"]
                budget = self.terms[args["job_id"]].budget
                assert args["paid"] + args["refunded"] == budget
                self.balances[args["payer"]] += args["refunded"]
                self.closed.add(args["job_id"])
            case "Distributed":
                for payee in ("hospital", "node_owner", "onboarder", "protocol"):
                    self.balances[args[payee]] += args[f"{payee}_amount"]
                    self.earnings[args["node_id"]] -= args[f"{payee}_amount"]
            case "Withdrawn":
                self.balances[args["account"]] -= args["amount"]

    @property
    def owed(self) -> int:
        escrow = sum(
            terms.budget - self.paid[job]
            for job, terms in self.terms.items()
            if job not in self.closed
        )
        return escrow + sum(self.earnings.values()) + sum(self.balances.values())


def test_ledger_can_be_followed_from_events_alone(world: World) -> None:
    follower = Follower()
    anyone = actor("anyone").address

    def follow(contract: Any) -> None:
        for name, args in world.events(contract):
            follower.feed(name, args)

    def check() -> None:
        assert follower.owed == world.vault.owed()
        for node in (1, second):
            assert follower.earnings[node] == world.vault.earnings(node)
        for name in (
            "payer",
            "hospital",
            "hospital 2",
            "node owner",
            "buyer",
            "onboarder",
            "protocol",
        ):
            assert follower.balances[actor(name).address] == world.balance(name)
        for job, terms in follower.terms.items():
            assert world.job(terms)[1:3] == (terms.budget, follower.paid[job])

    second = world.register_node(hospital="hospital 2")
    world.register_enclave(enclave_key=actor("enclave 2").address, node_id=second)
    first = world.terms(1)
    other = world.terms(2, node_id=second)
    late = world.terms(3, deadline=world.now + 60)
    for terms in (first, other, late):
        world.open(terms)
        follow(world.vault)
        assert follower.terms[world.job_id(terms)] == terms
    check()
    world.settle(
        world.claim(first, 10),
        world.claim(other, 7, 1, signer=actor("enclave 2")),
        world.claim(first, 900, signer=actor("thief")),
        world.claim(first, 30, complete=True),
    )
    follow(world.vault)
    check()
    owner = actor("node owner").address
    world.nodes.transferFrom(owner, actor("buyer").address, 1, sender=owner)
    follow(world.nodes)
    check()
    world.vault.distribute(second, sender=anyone)
    follow(world.vault)
    world.vault.withdraw(sender=actor("hospital").address)
    follow(world.vault)
    world.travel_to(late.deadline + GRACE + 1)
    world.refund(late)
    follow(world.vault)
    check()


def test_terms_from_the_opening_event_give_the_same_job_id(world: World) -> None:
    terms = world.terms(2**256 - 1)
    job = world.open(terms)
    ((_, args),) = world.events(world.vault)
    assert terms_from_event(args) == terms
    assert world.job_id(terms_from_event(args)) == job == args["job_id"]


def test_foreign_logs_are_left_out(world: World) -> None:
    """USDC's own transfer is among the logs; so is another vault's opening of the same terms."""
    terms = world.terms()
    world.open(terms)
    logs = logs_of(world.vault)
    assert len(logs) == 2
    assert [event.name for event in decode_events(world.deployment, logs)] == ["JobOpened"]
    assert decode_events(World.create().deployment, logs) == []


def test_decoded_event_says_where_it_was(world: World) -> None:
    world.open(world.terms())
    logs = logs_of(world.vault)
    (event,) = decode_events(world.deployment, logs)
    (log,) = [log for log in logs if log["address"] == world.deployment.vault]
    assert (event.contract, event.block, event.log_index) == (
        "vault",
        log["blockNumber"],
        log["logIndex"],
    )


def test_nothing_but_digests_and_amounts_is_in_an_event() -> None:
    """Invariant 7: no field of an event is free text or free bytes."""
    for contract in ("RaphaClearingVault", "RaphaNodeRegistry", "EnclaveRegistry"):
        for entry in artifact(contract).abi:
            if entry["type"] == "event":
                assert not {i["type"] for i in entry["inputs"]} & {"string", "bytes"}

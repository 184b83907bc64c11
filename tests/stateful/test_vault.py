"""The vault against a reference in plain Python, through any history of calls.

Hypothesis looks for short histories and shrinks what it finds; seeded walks are longer and many.
Both choose among the same actions, and after each all that the contracts say is compared.
`HYPOTHESIS_PROFILE=long` walks a million steps.
"""

import os
from typing import Any

import pytest
from eth_abi import encode
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from stateful.bench import WINDOWS, WORK
from stateful.choices import actions_of
from stateful.evm import actor, kind_of
from stateful.machine import Machine, walk

from settlement.contracts import Claim, JobState, Outcome, artifact, order, terms_ref
from settlement.eip712 import job_id, receipt_digest, recover_signer
from settlement.models import JobTerms, Receipt, SignedReceipt, Work

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
STEPS = 200
WALKS = 5_000 if IS_LONG else 50
# so that the cores share the walks
PARTS = 10


class VaultMachine(RuleBasedStateMachine):
    """The actions as rules."""

    machine: Machine | None = None

    @initialize(window=st.sampled_from(WINDOWS))
    def deploy(self, window: int) -> None:
        self.machine = Machine(window)

    def teardown(self) -> None:
        if self.machine is not None:
            self.machine.compare_ledger(by_sdk=False)
            self.machine.everybody_leaves()
            self.machine.compare_ledger(by_sdk=False)


def _rule(name: str) -> Any:
    def act(self: VaultMachine, **values: Any) -> None:
        assert self.machine is not None
        getattr(self.machine, name)(**values)
        self.machine.check()

    act.__name__ = name
    return act


for _action in actions_of(Machine):
    _domains = {name: domain.strategy() for name, domain in _action.domains.items()}
    setattr(VaultMachine, _action.method, rule(**_domains)(_rule(_action.method)))

TestVault = pytest.mark.timeout(7_200)(VaultMachine.TestCase)
# 10,000 steps by default, 200,000 in the long profile
TestVault.settings = settings(stateful_step_count=100, deadline=None)


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("part", range(PARTS))
def test_seeded_walks_agree_with_the_reference(part: int) -> None:
    for seed in range(part, WALKS, PARTS):
        try:
            walk(seed, STEPS)
        except AssertionError as error:
            error.add_note(f"to see it again: walk({seed}, {STEPS})")
            raise


def test_walks_reach_every_outcome_and_every_event() -> None:
    """Else they would prove nothing about what they do not reach."""
    seen: set[str] = set()
    # of seeds that the other walks do not have
    for seed in range(1_000_000, 1_000_020):
        seen |= set(walk(seed, STEPS).outcomes)
    assert {f"outcome: {outcome.name}" for outcome in Outcome} <= seen
    expected = {
        entry["name"] for entry in artifact("RaphaClearingVault").abi if entry["type"] == "event"
    }
    # offering the ownership has tests of its own
    expected.remove("OwnershipTransferStarted")
    assert {f"event: {name}" for name in expected} <= seen


def test_calldata_made_by_hand_is_what_the_sdk_makes() -> None:
    machine = Machine(0)
    (job,) = machine.reference.jobs.values()
    made = job.terms
    digests = [WORK[i : i + 32] for i in range(0, 128, 32)]
    terms = JobTerms(
        payer=actor(made.payer).address,
        node_id=made.node,
        price_per_record=made.price_per_record,
        price_per_epoch=made.price_per_epoch,
        budget=made.budget,
        deadline=made.deadline,
        work=Work(**dict(zip(Work.model_fields, digests, strict=True))),
        salt=made.salt.to_bytes(32, "big"),
    )
    kinds = {
        entry["name"]: [kind_of(i) for i in entry["inputs"]]
        for entry in artifact("RaphaClearingVault").abi
        if entry["type"] == "function"
    }
    assert job.state == JobState.ASSIGNED
    assert made.job_id == job_id(terms, machine.deployment.vault_domain)
    assert made.order == encode(kinds["open_job"], [order(terms)])
    assert made.reference == encode(kinds["refund"], [terms_ref(terms)])
    data, receipt = machine.prepare(job, 7, 2, True, "")
    assert receipt.signer is not None
    signed = Receipt(
        job_id=made.job_id,
        records=7,
        epochs=2,
        records_root=data[320:352],
        output_digest=data[352:384],
        complete=True,
    )
    digest = receipt_digest(signed, machine.deployment.vault_domain)
    signature = actor(receipt.signer).sign(digest)
    assert recover_signer(digest, signature) == actor(receipt.signer).address
    claim = Claim(terms, SignedReceipt(receipt=signed, signature=signature))
    assert data == encode(kinds["settle"], [claim.abi_value()])


def test_events_decoded_from_words_are_what_the_sdk_decodes() -> None:
    machine = walk(1, STEPS)
    fast = [(e.contract, e.name, dict(e.args), time) for e, time in machine.events(by_sdk=False)]
    by_sdk = [
        (event.contract, event.name, {**event.args, **_plain_work(event.args)}, time)
        for event, time in machine.events(by_sdk=True)
        if event.contract != "enclave_registry"
    ]
    assert len(fast) > STEPS // 4
    assert fast == by_sdk


def _plain_work(args: Any) -> dict[str, Any]:
    return {"work": dict(args["work"])} if "work" in args else {}

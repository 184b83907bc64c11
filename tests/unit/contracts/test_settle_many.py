"""A batch does what its claims do one by one, whatever they are and in whatever order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, actor, reverts

from settlement.contracts import Claim, JobState, Outcome
from settlement.models import JobTerms

RECORD = 100_000
ENCLAVES = {1: "enclave", 2: "enclave 2", 3: "enclave 3"}


def create_jobs(world: World) -> list[JobTerms]:
    """Jobs 1 to 3 on three nodes, a second one on node 1, one that waits, one never opened."""
    for node in (2, 3):
        world.register_node(hospital=f"hospital {node}")
        world.register_enclave(enclave_key=actor(ENCLAVES[node]).address, node_id=node)
    nodes = [1, 2, 3, 1, 0, 1]
    jobs = [world.terms(n, node_id=node, budget=30 * RECORD) for n, node in enumerate(nodes)]
    for terms in jobs[:-1]:
        world.open(terms)
    return jobs


def ledger(world: World, jobs: list[JobTerms]) -> list[Any]:
    return [
        [world.earnings(node) for node in ENCLAVES],
        [world.job(terms) for terms in jobs],
        [world.balance(name) for name in ("payer", "hospital", "hospital 2", "hospital 3")],
        world.vault.owed(),
    ]


# job, records, whose signature, complete
Step = tuple[int, int, str, bool]
steps = st.tuples(
    st.integers(0, 5),
    st.integers(0, 40),
    st.sampled_from(["own", "own", "own", "another node's", "thief's"]),
    st.sampled_from([False, False, True]),
)


def claim(world: World, jobs: list[JobTerms], step: Step) -> Claim:
    number, records, whose, complete = step
    terms = jobs[number]
    own = terms.node_id or 1
    signer = {"own": ENCLAVES[own], "another node's": ENCLAVES[own % 3 + 1], "thief's": "thief"}
    return world.claim(terms, records, complete=complete, signer=actor(signer[whose]))


@settings(max_examples=20)
@given(
    batches=st.lists(
        st.tuples(st.lists(steps, min_size=1, max_size=7), st.integers(0, 4_000)),
        min_size=1,
        max_size=3,
    ),
    window=st.sampled_from([0, 3_600]),
)
def test_batch_equals_its_claims_one_by_one(
    batches: list[tuple[list[Step], int]], window: int
) -> None:
    together: list[Any] = []
    apart: list[Any] = []
    with World.temporary(window=window) as world:
        jobs = create_jobs(world)
        for batch, seconds in batches:
            outcomes = world.settle(*(claim(world, jobs, step) for step in batch))
            together += [outcomes, world.events(world.vault), ledger(world, jobs)]
            world.pass_time(seconds)
    with World.temporary(window=window) as world:
        jobs = create_jobs(world)
        for batch, seconds in batches:
            outcomes, events = [], []
            for step in batch:
                outcomes.append(world.settle_one(claim(world, jobs, step)))
                events += world.events(world.vault)
            apart += [outcomes, events, ledger(world, jobs)]
            world.pass_time(seconds)
    assert together == apart


def test_every_outcome_in_one_batch_stops_no_other(world: World) -> None:
    jobs = create_jobs(world)
    stale = world.terms(9, deadline=world.now + 1)
    world.open(stale)
    world.pass_time(1 + world.deployment.grace_period + 1)
    over = world.claim(jobs[1], 5, signer=actor("enclave 2")).abi_value()
    values = [
        world.claim(jobs[0], 10).abi_value(),
        world.claim(jobs[0], 10).abi_value(),
        world.claim(jobs[5], 10).abi_value(),
        world.claim(stale, 10).abi_value(),
        world.claim(jobs[0], 20, signer=actor("thief")).abi_value(),
        world.claim(jobs[3], complete=True, output_digest=bytes(32)).abi_value(),
        world.claim(jobs[4], 10).abi_value(),
        (over[0], 2**64, *over[2:]),
        over,
    ]
    outcomes = world.vault.settle_many(values, sender=actor("anyone").address)
    assert [Outcome(outcome) for outcome in outcomes] == [*Outcome, Outcome.PAID]
    names = [name for name, _ in world.events(world.vault)]
    assert names == ["Settled", *["ReceiptRefused"] * 6, "Settled"]
    assert (world.earnings(1).total, world.earnings(2).total) == (10 * RECORD, 5 * RECORD)
    assert world.state_of(stale) == (JobState.ASSIGNED, stale.budget, 0)


def test_hundred_receipts_are_a_batch_and_one_more_is_no_valid_call(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    value = world.claim(terms, 10).abi_value()
    anyone = actor("anyone").address
    with reverts(None):
        world.vault.settle_many([value] * 101, sender=anyone)
    outcomes = world.vault.settle_many([value] * 100, sender=anyone)
    assert outcomes == [Outcome.PAID, *[Outcome.NOTHING_NEW] * 99]
    assert world.earnings(1).total == 10 * RECORD


def test_refused_claims_are_logged_with_their_outcome(world: World) -> None:
    jobs = create_jobs(world)
    world.settle(
        world.claim(jobs[5], 1),
        world.claim(jobs[0], 1, signer=actor("thief")),
        world.claim(jobs[4], 1),
    )
    assert world.events(world.vault) == [
        ("ReceiptRefused", {"job_id": world.job_id(terms), "outcome": outcome})
        for terms, outcome in (
            (jobs[5], Outcome.UNKNOWN_JOB),
            (jobs[0], Outcome.ENCLAVE_REFUSED),
            (jobs[4], Outcome.NOT_ASSIGNED),
        )
    ]


@pytest.mark.parametrize("window", [0, 3_600])
def test_nodes_that_alternate_lose_nothing_of_each_other(window: int) -> None:
    """A node's earnings are kept while its run lasts and written when another's begins."""
    with World.temporary(window=window) as world:
        jobs = create_jobs(world)
        steps: list[Step] = [(n, 3 * i + 1, "own", False) for i in range(4) for n in (0, 1, 2, 3)]
        outcomes = world.settle(*(claim(world, jobs, step) for step in steps))
        assert outcomes == [Outcome.PAID] * len(steps)
        totals = [world.earnings(node).total for node in ENCLAVES]
        assert totals == [20 * RECORD, 10 * RECORD, 10 * RECORD]
        assert [world.job(terms).paid for terms in jobs[:4]] == [10 * RECORD] * 4


def test_run_that_ends_in_a_refused_claim_of_another_node_is_kept(world: World) -> None:
    jobs = create_jobs(world)
    outcomes = world.settle(
        world.claim(jobs[0], 10),
        world.claim(jobs[1], 10, signer=actor("thief")),
    )
    assert outcomes == [Outcome.PAID, Outcome.ENCLAVE_REFUSED]
    assert (world.earnings(1).total, world.earnings(2).total) == (10 * RECORD, 0)

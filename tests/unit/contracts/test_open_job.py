"""Escrow from the payer's allowance."""

import pytest
from world import DAY, RICH, World, actor, reverts

from settlement.contracts import JobState, JobStatus, order
from settlement.models import MAX_BUDGET, JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_BYTES32

YEAR = 365 * DAY
NOTHING = dict.fromkeys(JobStatus.model_fields, 0) | {"sponsored": False}
UNKNOWN = JobStatus(**NOTHING)


def assert_nothing_moved(world: World, terms: JobTerms) -> None:
    assert world.job(terms) == UNKNOWN
    assert world.vault.owed() == 0
    assert world.usdc.balanceOf(world.vault.address) == 0
    assert world.wallet("payer") == RICH


def test_budget_moves_into_escrow_and_the_id_is_the_terms_digest(world: World) -> None:
    terms = world.terms()
    assert world.open(terms) == world.job_id(terms)
    assert world.vault.job_id(terms.payer, order(terms)) == world.job_id(terms)
    funded = {**NOTHING, "state": JobState.ASSIGNED, "node_id": 1, "funded": terms.budget}
    assert world.job(terms) == JobStatus(**funded)
    assert world.vault.owed() == terms.budget
    assert world.usdc.balanceOf(world.vault.address) == terms.budget
    assert world.wallet("payer") == RICH - terms.budget
    assert world.earnings().total == world.balance("payer") == 0


def test_job_without_a_node_waits_for_the_committee(world: World) -> None:
    terms = world.terms(node_id=0)
    world.open(terms)
    assert world.state_of(terms) == (JobState.OPEN, terms.budget, 0)
    assert world.job(terms).node_id == 0
    assert world.vault.owed() == terms.budget


def test_opening_event_carries_the_whole_terms(world: World) -> None:
    terms = world.terms()
    job_id = world.open(terms)
    ((name, args),) = world.events(world.vault)
    assert name == "JobOpened"
    expected = {"job_id": job_id, **terms.model_dump()}
    assert {**args, "work": dict(args["work"])} == expected


def test_same_terms_cannot_be_opened_twice(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.open(terms)
    assert world.vault.owed() == terms.budget


def test_completed_job_cannot_be_opened_again(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    world.settle(world.claim(terms, complete=True))
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.open(terms)


def test_cancelled_job_cannot_be_opened_again(world: World) -> None:
    terms = world.terms(node_id=0)
    world.open(terms)
    world.cancel(terms)
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.open(terms)


def test_salt_makes_equal_jobs_distinct(world: World) -> None:
    first, second = world.terms(1), world.terms(2)
    assert world.open(first) != world.open(second)
    assert world.vault.owed() == first.budget + second.budget


def test_order_of_somebody_else_opens_only_the_callers_own_job(world: World) -> None:
    """The payer is part of the id, and it is whoever calls and pays."""
    terms = world.terms()
    world.fund(actor("thief"))
    opened = bytes(world.vault.open_job(order(terms), sender=actor("thief").address))
    own = terms.model_copy(update={"payer": actor("thief").address})
    assert opened == world.job_id(own)
    assert (world.wallet("thief"), world.wallet("payer")) == (RICH - terms.budget, RICH)
    assert world.job(terms) == UNKNOWN
    assert world.open(terms) == world.job_id(terms)


@pytest.mark.parametrize("budget", [0, MAX_BUDGET + 1, 2**64, 2**256 - 1])
def test_budget_out_of_range_is_refused(world: World, budget: int) -> None:
    terms = world.terms().model_copy(update={"budget": budget})
    with reverts(Revert.VAULT_BUDGET_OUT_OF_RANGE):
        world.vault.open_job(order(terms), sender=terms.payer)


@pytest.mark.parametrize("budget", [1, MAX_BUDGET])
def test_least_and_greatest_budget_fit_their_field(world: World, budget: int) -> None:
    world.fund(actor("payer"), budget)
    terms = world.terms(budget=budget)
    world.open(terms)
    assert world.state_of(terms) == (JobState.ASSIGNED, budget, 0)
    assert world.job(terms).node_id == 1


@pytest.mark.parametrize("field", ["price_per_record", "price_per_epoch"])
def test_price_of_64_bits_is_taken_and_one_more_is_refused(world: World, field: str) -> None:
    world.open(world.terms(1, **{field: 2**64 - 1}))
    for price in (2**64, 2**256 - 1):
        terms = world.terms(2).model_copy(update={field: price})
        with reverts(Revert.VAULT_PRICE_OUT_OF_RANGE):
            world.vault.open_job(order(terms), sender=terms.payer)


@pytest.mark.parametrize("late", [0, 1, DAY])
def test_deadline_not_in_the_future_is_refused(world: World, late: int) -> None:
    with reverts(Revert.VAULT_DEADLINE_OUT_OF_RANGE):
        world.open(world.terms(deadline=world.now - late))


@pytest.mark.parametrize("deadline", [0, 1, 2**64, 2**256 - 1])
def test_deadline_far_from_now_is_refused(world: World, deadline: int) -> None:
    terms = world.terms().model_copy(update={"deadline": deadline})
    with reverts(Revert.VAULT_DEADLINE_OUT_OF_RANGE):
        world.vault.open_job(order(terms), sender=terms.payer)


def test_deadline_one_second_ahead_is_accepted(world: World) -> None:
    terms = world.terms(deadline=world.now + 1)
    world.open(terms)
    assert world.job(terms).state == JobState.ASSIGNED


def test_deadline_a_year_ahead_is_accepted_and_one_second_more_is_not(world: World) -> None:
    world.open(world.terms(1, deadline=world.now + YEAR))
    with reverts(Revert.VAULT_DEADLINE_OUT_OF_RANGE):
        world.open(world.terms(2, deadline=world.now + YEAR + 1))


@pytest.mark.parametrize("node_id", [2, 2**22, 2**64 - 1, 2**256 - 1])
def test_unregistered_node_is_refused(world: World, node_id: int) -> None:
    terms = world.terms().model_copy(update={"node_id": node_id})
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.vault.open_job(order(terms), sender=terms.payer)
    assert world.vault.owed() == 0


def test_suspended_node_is_refused_until_it_is_resumed(world: World) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    terms = world.terms()
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.open(terms)
    world.govern(world.nodes, "resume", 1)
    world.open(terms)


def test_retired_node_is_refused(world: World) -> None:
    world.nodes.retire(1, sender=actor("hospital").address)
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.open(world.terms())


def test_allowance_too_low_changes_nothing(world: World) -> None:
    terms = world.terms()
    world.usdc.approve(world.vault.address, terms.budget - 1, sender=terms.payer)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.open(terms)
    assert_nothing_moved(world, terms)


def test_balance_too_low_changes_nothing(world: World) -> None:
    terms = world.terms(budget=RICH + 1)
    with reverts(Revert.USDC_BALANCE_TOO_LOW):
        world.open(terms)
    assert_nothing_moved(world, terms)


def test_blacklisted_payer_is_refused(world: World) -> None:
    terms = world.terms()
    world.usdc.blacklist(terms.payer, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        world.open(terms)
    assert_nothing_moved(world, terms)


def test_paused_usdc_refuses(world: World) -> None:
    terms = world.terms()
    world.usdc.pause(sender=actor("deployer").address)
    with reverts(Revert.USDC_PAUSED):
        world.open(terms)
    assert_nothing_moved(world, terms)


def test_donated_usdc_does_not_fund_a_job(world: World) -> None:
    terms = world.terms()
    world.usdc.transfer(world.vault.address, terms.budget, sender=terms.payer)
    world.usdc.approve(world.vault.address, 0, sender=terms.payer)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.open(terms)
    assert world.vault.owed() == 0


@pytest.mark.parametrize(
    "field", ["model_digest", "dataset_digest", "policy_digest", "result_key_digest"]
)
def test_every_part_of_the_work_is_part_of_the_id(world: World, field: str) -> None:
    terms = world.terms()
    other = terms.model_copy(update={"work": terms.work.model_copy(update={field: ZERO_BYTES32})})
    ids = {bytes(world.vault.job_id(item.payer, order(item))) for item in (terms, other)}
    assert len(ids) == 2

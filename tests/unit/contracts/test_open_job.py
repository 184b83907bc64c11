"""Escrow from the payer's allowance."""

import pytest
from world import DAY, GRACE, RICH, World, actor, reverts

from settlement.contracts import JobState, abi_value
from settlement.models import JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_BYTES32

YEAR = 365 * DAY
UNKNOWN = (JobState.UNKNOWN, 0, 0, 0, 0)


def assert_nothing_moved(world: World, terms: JobTerms) -> None:
    assert world.job(terms) == UNKNOWN
    assert world.vault.owed() == 0
    assert world.usdc.balanceOf(world.vault.address) == 0
    assert world.wallet("payer") == RICH


def test_budget_moves_into_escrow_and_the_id_is_the_terms_digest(world: World) -> None:
    terms = world.terms()
    assert world.open(terms) == world.job_id(terms) == world.vault.job_id(abi_value(terms))
    until = terms.deadline + GRACE
    assert world.job(terms) == (JobState.OPEN, terms.budget, 0, 1, until)
    assert world.vault.owed() == terms.budget
    assert world.usdc.balanceOf(world.vault.address) == terms.budget
    assert world.wallet("payer") == RICH - terms.budget
    assert world.vault.earnings(1) == world.balance("payer") == 0


def test_opening_event_carries_the_whole_terms(world: World) -> None:
    terms = world.terms()
    job_id = world.open(terms)
    ((name, args),) = world.events(world.vault)
    assert name == "JobOpened"
    assert (args["job_id"], args["payer"], args["node_id"]) == (job_id, terms.payer, 1)
    assert dict(args["terms"])["budget"] == terms.budget


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


def test_salt_makes_equal_jobs_distinct(world: World) -> None:
    first, second = world.terms(1), world.terms(2)
    assert world.open(first) != world.open(second)
    assert world.vault.owed() == first.budget + second.budget


def test_sponsor_cannot_open_somebody_elses_terms(world: World) -> None:
    terms = world.terms()
    world.fund(actor("sponsor"))
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_PAYER):
        world.vault.open_job(abi_value(terms), sender=actor("sponsor").address)
    assert_nothing_moved(world, terms)
    assert world.wallet("sponsor") == RICH


def test_budget_of_zero_is_refused(world: World) -> None:
    terms = world.terms().model_copy(update={"budget": 0})
    with reverts(Revert.VAULT_BUDGET_IS_ZERO):
        world.open(terms)


def test_greatest_budget_fits_its_word(world: World) -> None:
    budget = 2**64 - 1
    world.fund(actor("payer"), budget)
    terms = world.terms(budget=budget)
    world.open(terms)
    assert world.job(terms)[:3] == (JobState.OPEN, budget, 0)


@pytest.mark.parametrize("late", [0, 1, DAY])
def test_deadline_not_in_the_future_is_refused(world: World, late: int) -> None:
    with reverts(Revert.VAULT_DEADLINE_HAS_PASSED):
        world.open(world.terms(deadline=world.now - late))


def test_deadline_one_second_ahead_is_accepted(world: World) -> None:
    terms = world.terms(deadline=world.now + 1)
    world.open(terms)
    assert world.job(terms)[4] == world.now + 1 + GRACE


def test_deadline_a_year_ahead_is_accepted_and_one_second_more_is_not(world: World) -> None:
    world.open(world.terms(1, deadline=world.now + YEAR))
    with reverts(Revert.VAULT_DEADLINE_TOO_FAR_AHEAD):
        world.open(world.terms(2, deadline=world.now + YEAR + 1))


@pytest.mark.parametrize("node_id", [2, 2**64 - 1])
def test_unregistered_node_is_refused(world: World, node_id: int) -> None:
    terms = world.terms(node_id=node_id)
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.open(terms)
    assert_nothing_moved(world, terms)


def test_node_zero_is_refused(world: World) -> None:
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.open(world.terms().model_copy(update={"node_id": 0}))


def test_suspended_node_is_refused_until_it_is_resumed(world: World) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    terms = world.terms()
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.open(terms)
    world.govern(world.nodes, "resume", 1)
    world.open(terms)


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


@pytest.mark.parametrize(
    "field", ["model_digest", "dataset_digest", "policy_digest", "result_key_digest"]
)
def test_every_part_of_the_work_is_part_of_the_id(world: World, field: str) -> None:
    terms = world.terms()
    other = terms.model_copy(update={"work": terms.work.model_copy(update={field: ZERO_BYTES32})})
    assert world.vault.job_id(abi_value(other)) != world.vault.job_id(abi_value(terms))

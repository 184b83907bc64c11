"""More escrow for a job, by whoever funded it, before its deadline."""

import pytest
from world import RICH, World, actor, reverts

from settlement.contracts import JobState, Outcome
from settlement.models import MAX_BUDGET, JobTerms
from settlement.reverts import Revert

RECORD = 100_000


@pytest.fixture
def terms(world: World) -> JobTerms:
    """An open job."""
    terms = world.terms()
    world.open(terms)
    return terms


def test_allowance_adds_to_the_escrow(world: World, terms: JobTerms) -> None:
    world.top_up(terms, 50 * RECORD)
    assert world.events(world.vault) == [
        (
            "JobToppedUp",
            {
                "job_id": world.job_id(terms),
                "funder": terms.payer,
                "amount": 50 * RECORD,
                "funded": terms.budget + 50 * RECORD,
            },
        )
    ]
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget + 50 * RECORD, 0)
    assert world.vault.owed() == terms.budget + 50 * RECORD
    assert world.usdc.balanceOf(world.vault.address) == terms.budget + 50 * RECORD
    assert world.wallet("payer") == RICH - terms.budget - 50 * RECORD


def test_balance_adds_to_the_escrow_and_nothing_more_is_owed(world: World, terms: JobTerms) -> None:
    world.deposit("payer", 60 * RECORD)
    world.top_up(terms, 50 * RECORD, from_balance=True)
    assert world.events(world.vault) == [
        (
            "JobToppedUp",
            {
                "job_id": world.job_id(terms),
                "funder": terms.payer,
                "amount": 50 * RECORD,
                "funded": terms.budget + 50 * RECORD,
            },
        ),
        ("BalanceSpent", {"account": terms.payer, "amount": 50 * RECORD}),
    ]
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget + 50 * RECORD, 0)
    assert world.balance("payer") == 10 * RECORD
    assert world.vault.owed() == terms.budget + 60 * RECORD
    assert world.usdc.balanceOf(world.vault.address) == terms.budget + 60 * RECORD


def test_topped_up_escrow_raises_what_is_earned(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 1_500)
    assert world.settle_one(claim) == Outcome.PAID
    assert world.earnings().total == terms.budget
    assert world.settle_one(claim) == Outcome.NOTHING_NEW
    world.top_up(terms, 300 * RECORD)
    assert world.settle_one(claim) == Outcome.PAID
    assert world.earnings().total == terms.budget + 300 * RECORD
    world.top_up(terms, 300 * RECORD)
    assert world.settle_one(claim) == Outcome.PAID
    assert world.earnings().total == terms.budget + 500 * RECORD
    assert world.settle_one(claim) == Outcome.NOTHING_NEW


def test_rest_of_a_top_up_goes_back(world: World, terms: JobTerms) -> None:
    world.top_up(terms, 50 * RECORD)
    world.settle(world.claim(terms, 10, complete=True))
    assert world.balance("payer") == terms.budget + 40 * RECORD
    assert world.vault.owed() == terms.budget + 50 * RECORD


def test_job_that_waits_for_a_node_can_be_topped_up(world: World) -> None:
    terms = world.terms(1, node_id=0)
    world.open(terms)
    world.top_up(terms, 3)
    assert world.state_of(terms) == (JobState.OPEN, terms.budget + 3, 0)


def test_top_up_is_taken_to_the_second_of_the_deadline(world: World, terms: JobTerms) -> None:
    world.travel_to(terms.deadline)
    world.top_up(terms, 1)
    world.pass_time(1)
    with reverts(Revert.VAULT_DEADLINE_HAS_PASSED):
        world.top_up(terms, 1)
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget + 1, 0)


@pytest.mark.parametrize("name", ["thief", "hospital", "guardian", "sponsor", "node owner"])
def test_nobody_but_the_funder_tops_up(world: World, terms: JobTerms, name: str) -> None:
    world.fund(actor(name))
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_FUNDER):
        world.top_up(terms, 1, by=name)
    world.deposit(name, 1)
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_FUNDER):
        world.top_up(terms, 1, by=name, from_balance=True)
    assert world.job(terms).funded == terms.budget


@pytest.mark.parametrize("from_balance", [False, True])
@pytest.mark.parametrize("amount", [0, MAX_BUDGET, 2**64, 2**256 - 1])
def test_amount_out_of_range_is_refused(
    world: World, terms: JobTerms, amount: int, from_balance: bool
) -> None:
    with reverts(Revert.VAULT_BUDGET_OUT_OF_RANGE):
        world.top_up(terms, amount, from_balance=from_balance)


def test_escrow_grows_to_what_its_field_holds_and_not_beyond(world: World, terms: JobTerms) -> None:
    rest = MAX_BUDGET - terms.budget
    world.fund(actor("payer"), rest)
    with reverts(Revert.VAULT_BUDGET_OUT_OF_RANGE):
        world.top_up(terms, rest + 1)
    world.top_up(terms, rest)
    assert world.state_of(terms) == (JobState.ASSIGNED, MAX_BUDGET, 0)
    assert world.settle_one(world.claim(terms, 2**64 - 1)) == Outcome.PAID
    assert world.state_of(terms) == (JobState.ASSIGNED, MAX_BUDGET, MAX_BUDGET)


def test_balance_and_allowance_are_not_mixed(world: World, terms: JobTerms) -> None:
    world.deposit("payer", 5)
    with reverts(Revert.VAULT_BALANCE_TOO_LOW):
        world.top_up(terms, 6, from_balance=True)
    world.usdc.approve(world.vault.address, 5, sender=terms.payer)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.top_up(terms, 6)
    assert world.job(terms).funded == terms.budget
    assert world.balance("payer") == 5


@pytest.mark.parametrize("end", ["complete", "cancelled", "refunded", "never opened"])
def test_job_that_is_not_open_takes_nothing(world: World, terms: JobTerms, end: str) -> None:
    if end == "complete":
        world.settle(world.claim(terms, complete=True))
    elif end == "cancelled":
        world.cancel(terms)
    elif end == "refunded":
        terms = world.terms(1, node_id=0)
        world.open(terms)
        world.cancel(terms)
    else:
        terms = world.terms(2)
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.top_up(terms, 1)


@pytest.mark.parametrize("field", ["payer", "budget", "deadline", "price_per_record"])
def test_tampered_terms_are_no_job(world: World, terms: JobTerms, field: str) -> None:
    value = actor("thief").address if field == "payer" else getattr(terms, field) + 1
    world.fund(actor("thief"))
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.top_up(terms.model_copy(update={field: value}), 1, by="thief")

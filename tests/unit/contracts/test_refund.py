"""A job whose time is over goes back to its payer, by anyone's hand."""

import pytest
from world import DAY, GRACE, RICH, World, actor, reverts

from settlement.contracts import JobState, order, terms_ref
from settlement.models import JobTerms
from settlement.reverts import Revert

RECORD = 100_000


@pytest.fixture
def terms(world: World) -> JobTerms:
    """An open job."""
    terms = world.terms()
    world.open(terms)
    return terms


def expire(world: World, terms: JobTerms) -> None:
    world.travel_to(terms.deadline + GRACE + 1)


def test_job_that_earned_nothing_goes_back_whole(world: World, terms: JobTerms) -> None:
    expire(world, terms)
    assert world.refund(terms) == terms.budget
    assert world.events(world.vault) == [
        (
            "JobClosed",
            {
                "job_id": world.job_id(terms),
                "funder": terms.payer,
                "paid": 0,
                "refunded": terms.budget,
                "output_digest": bytes(32),
            },
        )
    ]
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 0)
    assert world.balance("payer") == terms.budget == world.vault.owed()
    assert world.wallet("payer") == RICH - terms.budget


def test_what_was_paid_stays_with_the_node(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 250))
    expire(world, terms)
    assert world.refund(terms) == terms.budget - 250 * RECORD
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 250 * RECORD)
    assert world.earnings().total == 250 * RECORD
    assert world.balance("payer") == terms.budget - 250 * RECORD


def test_fully_paid_job_is_closed_with_nothing_to_return(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 1_000))
    expire(world, terms)
    assert world.refund(terms) == 0
    assert world.job(terms).state == JobState.CLOSED
    assert world.balance("payer") == 0


@pytest.mark.parametrize("early", [0, 1, GRACE, GRACE + 1])
def test_refund_is_refused_until_the_last_payable_second_is_over(
    world: World, terms: JobTerms, early: int
) -> None:
    world.travel_to(terms.deadline + GRACE - early)
    with reverts(Revert.VAULT_JOB_IS_STILL_PAYABLE):
        world.refund(terms)
    expire(world, terms)
    assert world.refund(terms) == terms.budget


def test_no_second_is_both_payable_and_refundable(world: World, terms: JobTerms) -> None:
    for second in range(terms.deadline + GRACE - 1, terms.deadline + GRACE + 3):
        world.travel_to(second)
        payable = second <= terms.deadline + GRACE
        (outcome,) = world.settle(world.claim(terms, second - terms.deadline - GRACE + 2))
        assert outcome.name == ("PAID" if payable else "TOO_LATE")
        if payable:
            with reverts(Revert.VAULT_JOB_IS_STILL_PAYABLE):
                world.refund(terms)
    world.refund(terms)


def test_second_refund_is_refused(world: World, terms: JobTerms) -> None:
    expire(world, terms)
    world.refund(terms)
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.refund(terms)
    assert world.balance("payer") == terms.budget


def test_completed_job_is_not_refunded(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 10, complete=True))
    expire(world, terms)
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.refund(terms)
    assert world.balance("payer") == terms.budget - 10 * RECORD


@pytest.mark.parametrize("field", ["payer", "budget", "deadline", "node_id", "price_per_record"])
def test_tampered_terms_refund_nothing(world: World, terms: JobTerms, field: str) -> None:
    expire(world, terms)
    value = getattr(terms, field)
    other = actor("thief").address if field == "payer" else value - 1 if value > 1 else value + 1
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.refund(terms.model_copy(update={field: other}))
    assert world.balance("thief") == 0


def test_job_that_was_never_opened_is_not_refunded(world: World) -> None:
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.refund(world.terms(9))


def test_caller_of_the_refund_gets_nothing(world: World, terms: JobTerms) -> None:
    expire(world, terms)
    world.vault.refund(terms_ref(terms), sender=actor("thief").address)
    assert (world.balance("thief"), world.balance("payer")) == (0, terms.budget)


def test_pause_does_not_stop_a_refund(world: World, terms: JobTerms) -> None:
    expire(world, terms)
    world.vault.pause(sender=actor("guardian").address)
    assert world.refund(terms) == terms.budget


def test_paused_usdc_and_a_blacklisted_payer_do_not_stop_a_refund(
    world: World, terms: JobTerms
) -> None:
    world.usdc.pause(sender=actor("deployer").address)
    world.usdc.blacklist(terms.payer, sender=actor("deployer").address)
    expire(world, terms)
    assert world.refund(terms) == terms.budget


def test_suspended_nodes_job_is_refunded_all_the_same(world: World, terms: JobTerms) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    expire(world, terms)
    assert world.refund(terms) == terms.budget


def test_only_the_named_job_is_refunded(world: World, terms: JobTerms) -> None:
    later = world.terms(1, deadline=terms.deadline + DAY)
    world.open(later)
    expire(world, terms)
    world.refund(terms)
    assert world.job(later).state == JobState.ASSIGNED
    with reverts(Revert.VAULT_JOB_IS_STILL_PAYABLE):
        world.refund(later)
    assert world.vault.owed() == terms.budget + later.budget


def test_job_that_no_node_was_found_for_is_refunded_after_the_grace(world: World) -> None:
    terms = world.terms(1, node_id=0)
    world.open(terms)
    world.travel_to(terms.deadline + GRACE)
    with reverts(Revert.VAULT_JOB_IS_STILL_PAYABLE):
        world.refund(terms)
    world.pass_time(1)
    assert world.refund(terms) == terms.budget
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 0)


def test_voided_job_has_nothing_to_refund(world: World) -> None:
    terms = world.terms(1, deadline=world.now + 1)
    world.vault.void_job(order(terms), sender=terms.payer)
    expire(world, terms)
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.refund(terms)
    assert world.balance("payer") == 0


def test_sponsored_job_goes_back_to_its_sponsor(world: World) -> None:
    terms = world.terms(1)
    world.fund(actor("sponsor"))
    world.sponsor(terms)
    world.settle(world.claim(terms, 250))
    expire(world, terms)
    assert world.refund(terms) == terms.budget - 250 * RECORD
    assert world.balance("sponsor") == terms.budget - 250 * RECORD
    assert world.balance("payer") == 0


def test_topped_up_job_goes_back_whole(world: World, terms: JobTerms) -> None:
    world.top_up(terms, 7)
    expire(world, terms)
    assert world.refund(terms) == terms.budget + 7
    assert world.vault.owed() == world.balance("payer") == terms.budget + 7


def test_view_tells_who_gets_the_refund_and_from_when(world: World, terms: JobTerms) -> None:
    assert world.vault.funder_and_end(terms_ref(terms)) == (terms.payer, terms.deadline + GRACE)
    world.cancel(terms)
    end = world.now + GRACE
    assert world.vault.funder_and_end(terms_ref(terms)) == (terms.payer, end)
    sponsored = world.terms(1)
    world.fund(actor("sponsor"))
    world.sponsor(sponsored)
    assert world.vault.funder_and_end(terms_ref(sponsored)) == (
        actor("sponsor").address,
        sponsored.deadline + GRACE,
    )

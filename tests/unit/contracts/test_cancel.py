"""A payer ends a job: at once where nobody works on it, after a grace where somebody may."""

import pytest
from world import DAY, GRACE, OUTPUT, World, actor, reverts

from settlement.contracts import JobState, Outcome, terms_ref
from settlement.models import JobTerms
from settlement.reverts import Revert

RECORD = 100_000
NOTHING = bytes(32)


@pytest.fixture
def terms(world: World) -> JobTerms:
    """A job with a node."""
    terms = world.terms()
    world.open(terms)
    return terms


def end_of(world: World, terms: JobTerms) -> int:
    return int(world.vault.funder_and_end(terms_ref(terms))[1])


# without a node


def test_job_without_a_node_ends_at_once(world: World) -> None:
    terms = world.terms(node_id=0)
    world.open(terms)
    world.cancel(terms)
    assert world.events(world.vault) == [
        (
            "JobClosed",
            {
                "job_id": world.job_id(terms),
                "funder": terms.payer,
                "paid": 0,
                "refunded": terms.budget,
                "output_digest": NOTHING,
            },
        )
    ]
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 0)
    assert world.balance("payer") == terms.budget == world.vault.owed()
    with reverts(Revert.VAULT_JOB_IS_NOT_UNASSIGNED):
        world.assign(terms)
    assert world.settle_one(world.claim(terms, 10)) == Outcome.NOTHING_NEW


def test_job_without_a_node_can_be_cancelled_after_its_deadline(world: World) -> None:
    terms = world.terms(node_id=0)
    world.open(terms)
    world.travel_to(terms.deadline + 1)
    world.cancel(terms)
    assert world.balance("payer") == terms.budget


# with a node


def test_job_with_a_node_ends_a_grace_period_later(world: World, terms: JobTerms) -> None:
    end = world.now + GRACE
    world.cancel(terms)
    assert world.events(world.vault) == [
        (
            "JobCancelled",
            {"job_id": world.job_id(terms), "canceller": terms.payer, "payable_until": end},
        )
    ]
    assert world.state_of(terms) == (JobState.CANCELLING, terms.budget, 0)
    assert (world.balance("payer"), world.vault.owed()) == (0, terms.budget)
    assert end_of(world, terms) == end
    world.travel_to(end)
    with reverts(Revert.VAULT_JOB_IS_STILL_PAYABLE):
        world.refund(terms)
    world.pass_time(1)
    assert world.refund(terms) == terms.budget
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 0)
    assert world.balance("payer") == terms.budget


def test_finished_work_is_paid_to_the_last_second_of_the_grace(
    world: World, terms: JobTerms
) -> None:
    world.settle(world.claim(terms, 10))
    world.cancel(terms)
    end = end_of(world, terms)
    assert world.settle_one(world.claim(terms, 20)) == Outcome.PAID
    assert world.job(terms).state == JobState.CANCELLING
    world.travel_to(end)
    assert world.settle_one(world.claim(terms, 30)) == Outcome.PAID
    world.pass_time(1)
    assert world.settle_one(world.claim(terms, 40)) == Outcome.TOO_LATE
    assert world.refund(terms) == terms.budget - 30 * RECORD
    assert world.earnings().total == 30 * RECORD


def test_completion_in_the_grace_closes_the_job(world: World, terms: JobTerms) -> None:
    world.cancel(terms)
    assert world.settle_one(world.claim(terms, 10, complete=True)) == Outcome.PAID
    closed = world.events(world.vault)[-1]
    assert (closed[0], closed[1]["output_digest"]) == ("JobClosed", OUTPUT)
    assert world.balance("payer") == terms.budget - 10 * RECORD
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.refund(terms)


def test_second_cancellation_does_not_lengthen_the_grace(world: World, terms: JobTerms) -> None:
    world.cancel(terms)
    end = end_of(world, terms)
    world.pass_time(60)
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.cancel(terms)
    assert end_of(world, terms) == end


def test_cancelling_after_the_deadline_ends_when_the_deadline_would_have(
    world: World, terms: JobTerms
) -> None:
    world.travel_to(terms.deadline + 60)
    world.cancel(terms)
    assert end_of(world, terms) == terms.deadline + GRACE
    world.travel_to(terms.deadline + GRACE)
    assert world.settle_one(world.claim(terms, 10)) == Outcome.PAID
    world.pass_time(1)
    assert world.refund(terms) == terms.budget - 10 * RECORD


def test_cancelling_at_the_deadline_gives_the_whole_grace(world: World, terms: JobTerms) -> None:
    world.travel_to(terms.deadline)
    world.cancel(terms)
    assert end_of(world, terms) == terms.deadline + GRACE


def test_cancelling_after_the_grace_brings_nothing_back_to_life(
    world: World, terms: JobTerms
) -> None:
    world.travel_to(terms.deadline + GRACE + DAY)
    world.cancel(terms)
    assert end_of(world, terms) == terms.deadline + GRACE
    assert world.settle_one(world.claim(terms, 10)) == Outcome.TOO_LATE
    assert world.refund(terms) == terms.budget


def test_assigned_job_is_cancelled_with_grace(world: World) -> None:
    terms = world.terms(1, node_id=0)
    world.open(terms)
    world.assign(terms)
    world.cancel(terms)
    assert world.job(terms).state == JobState.CANCELLING
    assert world.settle_one(world.claim(terms, 10)) == Outcome.PAID


# who may


@pytest.mark.parametrize("name", ["thief", "hospital", "guardian", "node owner", "sponsor"])
@pytest.mark.parametrize("node_id", [0, 1])
def test_stranger_cancels_nothing(world: World, name: str, node_id: int) -> None:
    terms = world.terms(1, node_id=node_id)
    world.open(terms)
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_PAYER):
        world.cancel(terms, name)
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_PAYER):
        world.vault.cancel(terms_ref(terms), sender=world.deployment.timelock)
    assert world.job(terms).state == (JobState.ASSIGNED if node_id else JobState.OPEN)


@pytest.mark.parametrize("by", ["payer", "sponsor"])
def test_payer_and_sponsor_both_cancel_a_sponsored_job(world: World, by: str) -> None:
    world.fund(actor("sponsor"))
    terms = world.terms(1)
    world.sponsor(terms)
    world.cancel(terms, by)
    ((name, args),) = world.events(world.vault)
    assert (name, args["canceller"]) == ("JobCancelled", actor(by).address)
    world.pass_time(GRACE + 1)
    world.refund(terms)
    assert (world.balance("sponsor"), world.balance("payer")) == (terms.budget, 0)


def test_job_that_is_over_or_never_was_is_not_cancelled(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, complete=True))
    for item in (terms, world.terms(1)):
        with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
            world.cancel(item)


@pytest.mark.parametrize("field", ["budget", "deadline", "price_per_record", "node_id"])
def test_tampered_terms_cancel_nothing(world: World, terms: JobTerms, field: str) -> None:
    other = terms.model_copy(update={field: getattr(terms, field) + 1})
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.cancel(other)
    assert world.job(terms).state == JobState.ASSIGNED


def test_thief_cannot_cancel_by_naming_itself_the_payer(world: World, terms: JobTerms) -> None:
    with reverts(Revert.VAULT_JOB_IS_NOT_OPEN):
        world.cancel(terms.model_copy(update={"payer": actor("thief").address}), "thief")
    assert world.job(terms).state == JobState.ASSIGNED

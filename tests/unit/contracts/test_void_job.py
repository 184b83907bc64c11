"""A payer makes sure that a job which it signed for is never opened."""

import pytest
from world import DAY, RICH, World, actor, reverts

from settlement.contracts import JobState, Outcome, order, terms_ref
from settlement.models import JobTerms, OpenJobs
from settlement.reverts import Revert


@pytest.fixture
def terms(world: World) -> JobTerms:
    """Terms that the payer has voided."""
    terms = world.terms()
    world.vault.void_job(order(terms), sender=terms.payer)
    return terms


def test_voided_job_is_closed_and_empty(world: World, terms: JobTerms) -> None:
    assert world.events(world.vault) == [
        ("JobVoided", {"job_id": world.job_id(terms), "payer": terms.payer})
    ]
    assert world.state_of(terms) == (JobState.CLOSED, 0, 0)
    assert world.vault.owed() == 0
    assert world.wallet("payer") == RICH


def test_no_way_in_opens_a_voided_job(world: World, terms: JobTerms) -> None:
    world.deposit("payer", terms.budget)
    world.fund(actor("sponsor"))
    anyone, before = actor("anyone").address, world.now + DAY
    authorization = world.authorization(terms)
    v, r, s = world.permit(actor("payer"), terms.budget, before)
    signed = world.sign_intent(OpenJobs(jobs=(terms,)), actor("payer"))
    for call in (
        lambda: world.open(terms),
        lambda: world.vault.open_job_with_permit(order(terms), before, v, r, s, sender=terms.payer),
        lambda: world.vault.open_job_with_authorization(
            terms.payer, order(terms), 0, before, authorization, sender=anyone
        ),
        lambda: world.open_many(terms),
        lambda: world.open_many(terms, signature=signed, sender=anyone),
        lambda: world.sponsor(terms),
    ):
        with reverts(Revert.VAULT_JOB_EXISTS):
            call()
    assert world.balance("payer") == terms.budget == world.vault.owed()
    assert not world.usdc.authorizationState(terms.payer, world.job_id(terms))


def test_voided_job_has_no_other_life(world: World, terms: JobTerms) -> None:
    assert world.settle_one(world.claim(terms, 10)) == Outcome.NOTHING_NEW
    ref, payer = terms_ref(terms), terms.payer
    for call, reason in (
        (lambda: world.assign(terms), Revert.VAULT_JOB_IS_NOT_UNASSIGNED),
        (lambda: world.top_up(terms, 1), Revert.VAULT_JOB_IS_NOT_OPEN),
        (lambda: world.cancel(terms), Revert.VAULT_JOB_IS_NOT_OPEN),
        (lambda: world.vault.dispute(ref, 0, sender=payer), Revert.VAULT_NOTHING_TO_DISPUTE),
        (lambda: world.vault.void_job(order(terms), sender=payer), Revert.VAULT_JOB_EXISTS),
    ):
        with reverts(reason):
            call()
    assert world.vault.owed() == 0


def test_only_the_payers_own_job_is_voided(world: World) -> None:
    """The caller is the payer: a stranger with the same order voids a job of its own."""
    terms = world.terms()
    world.vault.void_job(order(terms), sender=actor("thief").address)
    own = terms.model_copy(update={"payer": actor("thief").address})
    assert world.job(own).state == JobState.CLOSED
    assert world.job(terms).state == JobState.UNKNOWN
    world.open(terms)


def test_open_job_cannot_be_voided(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.vault.void_job(order(terms), sender=terms.payer)
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)


def test_terms_that_could_not_be_opened_now_can_be_voided(world: World) -> None:
    """An authorisation may become usable later, as when a node is resumed."""
    world.nodes.suspend(1, sender=actor("guardian").address)
    terms = world.terms()
    world.vault.void_job(order(terms), sender=terms.payer)
    world.govern(world.nodes, "resume", 1)
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.open(terms)

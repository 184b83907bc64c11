"""Somebody else's money for a payer's job, with the payer's consent."""

from typing import Any

import pytest
from world import GRACE, RICH, World, actor, reverts

from settlement.contracts import JobState, order, terms_ref
from settlement.models import JobTerms, OpenJobs
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

RECORD = 100_000


@pytest.fixture
def world(world: World) -> World:
    """The sponsor has USDC and has let the vault take it."""
    world.fund(actor("sponsor"))
    return world


@pytest.fixture
def terms(world: World) -> JobTerms:
    """A sponsored job."""
    terms = world.terms()
    world.sponsor(terms)
    return terms


def test_sponsors_money_funds_the_payers_job(world: World) -> None:
    terms = world.terms()
    assert world.sponsor(terms) == world.job_id(terms)
    opened, sponsored = world.events(world.vault)
    assert (opened[0], opened[1]["payer"]) == ("JobOpened", terms.payer)
    assert sponsored == (
        "JobSponsored",
        {"job_id": world.job_id(terms), "sponsor": actor("sponsor").address},
    )
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert world.job(terms).sponsored
    assert (world.wallet("payer"), world.wallet("sponsor")) == (RICH, RICH - terms.budget)
    assert world.vault.owed() == terms.budget == world.usdc.balanceOf(world.vault.address)


def test_sponsored_job_may_wait_for_the_committee(world: World) -> None:
    terms = world.terms(node_id=0)
    world.sponsor(terms)
    world.assign(terms)
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert world.job(terms).sponsored


def test_rest_of_a_completed_job_goes_to_the_sponsor(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 100, complete=True))
    closed = world.events(world.vault)[-1]
    assert (closed[0], closed[1]["funder"]) == ("JobClosed", actor("sponsor").address)
    assert world.balance("sponsor") == terms.budget - 100 * RECORD
    assert (world.balance("payer"), world.earnings().total) == (0, 100 * RECORD)


def test_refund_goes_to_the_sponsor(world: World, terms: JobTerms) -> None:
    world.travel_to(terms.deadline + GRACE + 1)
    assert world.refund(terms) == terms.budget
    assert (world.balance("sponsor"), world.balance("payer")) == (terms.budget, 0)


@pytest.mark.parametrize("by", ["payer", "sponsor"])
def test_what_a_cancelled_job_leaves_goes_to_the_sponsor(world: World, by: str) -> None:
    waiting = world.terms(1, node_id=0)
    world.sponsor(waiting)
    world.cancel(waiting, by)
    assert (world.balance("sponsor"), world.balance("payer")) == (waiting.budget, 0)


def test_what_an_arbiter_returns_goes_to_the_sponsor(windowed: World) -> None:
    windowed.fund(actor("sponsor"))
    terms = windowed.terms()
    windowed.sponsor(terms)
    windowed.settle(windowed.claim(terms, 100))
    windowed.resolve(windowed.dispute(terms), 40 * RECORD)
    assert (windowed.balance("sponsor"), windowed.balance("payer")) == (40 * RECORD, 0)


def test_sponsor_alone_tops_up(world: World, terms: JobTerms) -> None:
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_FUNDER):
        world.top_up(terms, 5)
    world.top_up(terms, 5, by="sponsor")
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget + 5, 0)


def test_funder_of_the_job_is_the_sponsor(world: World, terms: JobTerms) -> None:
    funder, end = world.vault.funder_and_end(terms_ref(terms))
    assert (funder, end) == (actor("sponsor").address, terms.deadline + GRACE)


def test_nobody_opens_a_job_in_a_payers_name_without_its_consent(world: World) -> None:
    terms = world.terms()
    signed_for_balance = world.sign_intent(OpenJobs(jobs=(terms,)), actor("payer"))
    for signature in (
        b"",
        bytes(65),
        world.consent(terms, signer=actor("sponsor")),
        world.authorization(terms),
        signed_for_balance,
    ):
        with reverts(Revert.VAULT_INVALID_SIGNATURE):
            world.sponsor(terms, signature=signature)
    assert world.job(terms).state == JobState.UNKNOWN
    assert world.wallet("sponsor") == RICH


def test_consent_is_for_one_sponsor(world: World) -> None:
    """Whoever copies it cannot make itself the one who cancels and is refunded."""
    terms = world.terms()
    world.fund(actor("thief"))
    consent = world.consent(terms)
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.sponsor(terms, "thief", consent)
    world.sponsor(terms, signature=consent)
    assert world.wallet("thief") == RICH


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("node_id", -1),
        ("price_per_record", 1),
        ("price_per_epoch", 1),
        ("budget", -1),
        ("deadline", 1),
    ],
)
def test_consent_is_for_these_terms(world: World, field: str, change: int) -> None:
    terms = world.terms()
    other = terms.model_copy(update={field: getattr(terms, field) + change})
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.sponsor(other, signature=world.consent(terms))
    assert world.job(other).state == JobState.UNKNOWN


def test_consent_to_another_vault_is_refused(world: World) -> None:
    terms, other = world.terms(), world.create_vault()
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.sponsor(terms, signature=other.consent(terms))


def test_payers_own_opening_cannot_be_run_over_by_a_sponsor(world: World) -> None:
    """Without the payer's consent nobody takes its job id first, and with it the id is one."""
    terms = world.terms()
    world.fund(actor("thief"))
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.sponsor(terms, "thief", world.consent(terms, "thief", actor("thief")))
    world.open(terms)
    assert not world.job(terms).sponsored
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.sponsor(terms)
    assert (world.wallet("sponsor"), world.wallet("thief")) == (RICH, RICH)


def test_consent_opens_once(world: World, terms: JobTerms) -> None:
    consent = world.consent(terms)
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.sponsor(terms, signature=consent)
    world.settle(world.claim(terms, complete=True))
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.sponsor(terms, signature=consent)


def test_payer_is_no_sponsor_of_its_own(world: World) -> None:
    terms = world.terms()
    with reverts(Revert.VAULT_SPONSOR_IS_THE_PAYER):
        world.sponsor(terms, "payer")
    assert world.job(terms).state == JobState.UNKNOWN


def test_zero_payer_has_consented_to_nothing(world: World) -> None:
    terms = world.terms()
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.vault.sponsor_job(
            ZERO_ADDRESS, order(terms), bytes(65), sender=actor("sponsor").address
        )


def test_smart_wallet_consents_by_its_owners_signature(world: World) -> None:
    owner = actor("wallet owner")
    wallet = world.wallet_of(owner)
    terms = world.terms(payer=str(wallet.address))
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.sponsor(terms, signature=world.consent(terms, signer=actor("thief")))
    world.sponsor(terms, signature=world.consent(terms, signer=owner))
    assert world.usdc.balanceOf(wallet.address) == RICH


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"budget": 0}, Revert.VAULT_BUDGET_OUT_OF_RANGE),
        ({"deadline": 1}, Revert.VAULT_DEADLINE_OUT_OF_RANGE),
        ({"price_per_epoch": 2**64 - 1, "node_id": 7}, Revert.VAULT_NODE_IS_NOT_ACTIVE),
    ],
)
def test_terms_are_checked_as_in_open_job(
    world: World, change: dict[str, Any], reason: Revert
) -> None:
    terms = world.terms().model_copy(update=change)
    with reverts(reason):
        world.sponsor(terms)


def test_sponsor_without_allowance_or_money_changes_nothing(world: World) -> None:
    terms = world.terms()
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.sponsor(terms, "poor")
    world.usdc.approve(world.vault.address, terms.budget, sender=actor("poor").address)
    with reverts(Revert.USDC_BALANCE_TOO_LOW):
        world.sponsor(terms, "poor")
    assert world.job(terms).state == JobState.UNKNOWN
    assert world.vault.owed() == 0

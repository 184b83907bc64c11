"""Escrow from an allowance that the same transaction gives (EIP-2612)."""

from typing import Any

import pytest
from world import DAY, RICH, World, actor, reverts

from settlement.contracts import JobState, order
from settlement.models import JobTerms
from settlement.reverts import Revert


@pytest.fixture
def frugal(world: World) -> World:
    """The payer has given the vault no allowance."""
    world.usdc.approve(world.vault.address, 0, sender=actor("payer").address)
    return world


def open_by_permit(world: World, terms: JobTerms, permit: Any, deadline: int) -> bytes:
    v, r, s = permit
    return bytes(
        world.vault.open_job_with_permit(order(terms), deadline, v, r, s, sender=terms.payer)
    )


def test_permit_and_escrow_are_one_transaction(frugal: World) -> None:
    terms, deadline = frugal.terms(), frugal.now + DAY
    permit = frugal.permit(actor("payer"), terms.budget, deadline)
    assert open_by_permit(frugal, terms, permit, deadline) == frugal.job_id(terms)
    assert [name for name, _ in frugal.events(frugal.vault)] == ["JobOpened"]
    assert frugal.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert frugal.vault.owed() == terms.budget == frugal.usdc.balanceOf(frugal.vault.address)
    assert frugal.wallet("payer") == RICH - terms.budget
    assert frugal.usdc.allowance(terms.payer, frugal.vault.address) == 0


def test_permit_that_a_stranger_brought_first_opens_all_the_same(frugal: World) -> None:
    terms, deadline = frugal.terms(), frugal.now + DAY
    v, r, s = frugal.permit(actor("payer"), terms.budget, deadline)
    frugal.usdc.permit(
        terms.payer,
        frugal.vault.address,
        terms.budget,
        deadline,
        r + s + bytes([v]),
        sender=actor("thief").address,
    )
    open_by_permit(frugal, terms, (v, r, s), deadline)
    assert frugal.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert frugal.wallet("payer") == RICH - terms.budget


def test_strangers_call_with_a_payers_permit_takes_nothing_from_the_payer(frugal: World) -> None:
    terms, deadline = frugal.terms(), frugal.now + DAY
    v, r, s = frugal.permit(actor("payer"), terms.budget, deadline)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        frugal.vault.open_job_with_permit(
            order(terms), deadline, v, r, s, sender=actor("thief").address
        )
    assert frugal.wallet("payer") == RICH


@pytest.mark.parametrize("fault", ["amount", "deadline", "nonce", "signer"])
def test_permit_for_something_else_gives_no_allowance(frugal: World, fault: str) -> None:
    terms, deadline = frugal.terms(), frugal.now + DAY
    payer = actor("payer")
    permits = {
        "amount": frugal.permit(payer, terms.budget - 1, deadline),
        "deadline": frugal.permit(payer, terms.budget, deadline + 1),
        "nonce": frugal.permit(payer, terms.budget, deadline, nonce=1),
        "signer": frugal.permit(actor("thief"), terms.budget, deadline),
    }
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        open_by_permit(frugal, terms, permits[fault], deadline)
    assert frugal.job(terms).state == JobState.UNKNOWN
    assert frugal.vault.owed() == 0


def test_permit_counts_to_the_second_of_its_deadline(frugal: World) -> None:
    first, second, deadline = frugal.terms(1), frugal.terms(2), frugal.now + 60
    frugal.travel_to(deadline)
    open_by_permit(frugal, first, frugal.permit(actor("payer"), first.budget, deadline), deadline)
    frugal.pass_time(1)
    late = frugal.permit(actor("payer"), second.budget, deadline, nonce=1)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        open_by_permit(frugal, second, late, deadline)


def test_terms_and_pause_are_checked_as_in_open_job(frugal: World) -> None:
    terms, deadline = frugal.terms(), frugal.now + DAY
    permit = frugal.permit(actor("payer"), terms.budget, deadline)
    for other, reason in (
        (terms.model_copy(update={"budget": 0}), Revert.VAULT_BUDGET_OUT_OF_RANGE),
        (terms.model_copy(update={"deadline": frugal.now}), Revert.VAULT_DEADLINE_OUT_OF_RANGE),
        (terms.model_copy(update={"node_id": 9}), Revert.VAULT_NODE_IS_NOT_ACTIVE),
        (terms.model_copy(update={"price_per_epoch": 2**64}), Revert.VAULT_PRICE_OUT_OF_RANGE),
    ):
        with reverts(reason):
            open_by_permit(frugal, other, permit, deadline)
    frugal.vault.pause(sender=actor("guardian").address)
    with reverts(Revert.VAULT_PAUSED):
        open_by_permit(frugal, terms, permit, deadline)


def test_same_job_cannot_be_opened_twice(frugal: World) -> None:
    terms, deadline = frugal.terms(), frugal.now + DAY
    open_by_permit(frugal, terms, frugal.permit(actor("payer"), terms.budget, deadline), deadline)
    again = frugal.permit(actor("payer"), terms.budget, deadline, nonce=1)
    with reverts(Revert.VAULT_JOB_EXISTS):
        open_by_permit(frugal, terms, again, deadline)
    assert frugal.vault.owed() == terms.budget

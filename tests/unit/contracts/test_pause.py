"""A pause stops opening and settling, for a while, and never an exit."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import ARBITRATION, DAY, GRACE, World, actor, reverts

from settlement.contracts import JobState, Outcome, order, terms_ref
from settlement.eip712 import intent_digest
from settlement.models import Deposit, Withdrawal
from settlement.reverts import Revert

RECORD = 100_000
HALF = GRACE // 2


def pause(world: World, name: str = "guardian") -> None:
    world.vault.pause(sender=actor(name).address)


def test_pause_lasts_half_a_grace_period(world: World) -> None:
    pause(world)
    assert world.events(world.vault) == [
        ("Paused", {"guardian": actor("guardian").address, "until": world.now + HALF})
    ]
    assert world.vault.paused_until() == world.now + HALF


def test_pause_stops_new_money_and_settling_in_every_form_and_nothing_else_does(
    world: World,
) -> None:
    running, waiting = world.terms(1), world.terms(2, node_id=0)
    world.open(running)
    world.open(waiting)
    by_hand, by_permit, by_word, by_balance, sponsored = (world.terms(n) for n in range(3, 8))
    world.deposit("payer", 2 * running.budget)
    world.fund(actor("sponsor"))
    payer, anyone, before = running.payer, actor("anyone").address, world.now + DAY
    permit = world.permit(actor("payer"), by_permit.budget, before)
    deposit = Deposit(account=payer, amount=running.budget, salt=bytes(32))
    nonce = intent_digest(deposit, world.deployment.vault_domain)
    by_deposit = world.authorization(running, nonce=nonce)
    authorization = world.authorization(by_word)
    calls: list[Callable[[], Any]] = [
        lambda: world.open(by_hand),
        lambda: world.vault.open_job_with_authorization(
            payer, order(by_word), 0, before, authorization, sender=anyone
        ),
        lambda: world.open_many(by_balance),
        lambda: world.sponsor(sponsored),
        lambda: world.top_up(running, 1),
        lambda: world.top_up(running, 1, from_balance=True),
        lambda: world.deposit("payer", 1),
        lambda: world.vault.deposit_with_authorization(
            payer, deposit.amount, 0, before, deposit.salt, by_deposit, sender=anyone
        ),
        lambda: world.assign(waiting),
        lambda: world.settle_one(world.claim(running, 1)),
        lambda: world.settle(world.claim(running, 2)),
        lambda: world.settle(),
        # last: a permit replaces the allowance that the others draw on
        lambda: world.vault.open_job_with_permit(order(by_permit), before, *permit, sender=payer),
    ]
    owed = world.vault.owed()
    pause(world)
    for call in calls:
        with reverts(Revert.VAULT_PAUSED):
            call()
    assert world.vault.owed() == owed == world.usdc.balanceOf(world.vault.address)
    world.pass_time(HALF)
    for call in calls:
        call()


def test_pause_expires_by_itself(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    pause(world)
    world.pass_time(HALF - 1)
    with reverts(Revert.VAULT_PAUSED):
        world.settle(world.claim(terms, 1))
    world.pass_time(1)
    assert world.settle(world.claim(terms, 1)) == [Outcome.PAID]
    world.open(world.terms(1))


def test_pause_stops_no_exit(world: World) -> None:
    done, stale = world.terms(1), world.terms(2, deadline=world.now + 60)
    unassigned, unwanted, unopened = world.terms(3, node_id=0), world.terms(4), world.terms(5)
    for terms in (done, stale, unassigned, unwanted):
        world.open(terms)
    world.settle(world.claim(done, 100, complete=True))
    world.travel_to(stale.deadline + GRACE + 1)
    pause(world)
    anyone = actor("anyone").address
    assert world.refund(stale) == stale.budget
    world.cancel(unassigned)
    world.cancel(unwanted)
    world.vault.void_job(order(unopened), sender=unopened.payer)
    assert world.job(unwanted).state == JobState.CANCELLING
    assert world.distribute() == 100 * RECORD
    assert world.vault.withdraw(sender=actor("hospital").address) == 70 * RECORD
    world.vault.withdraw_for(actor("node owner").address, sender=anyone)
    others = [actor(name).address for name in ("onboarder", "protocol")]
    assert world.vault.withdraw_for_many(others, sender=anyone) == 10 * RECORD
    payer, amount = actor("payer"), world.balance("payer")
    world.vault.withdraw_to(payer.address, 1, sender=payer.address)
    order_to_send = Withdrawal(
        account=payer.address, to=payer.address, amount=amount - 1, nonce=0, deadline=world.now
    )
    signature = world.sign_intent(order_to_send, payer)
    world.vault.withdraw_by_signature(
        payer.address, payer.address, amount - 1, world.now, signature, sender=anyone
    )
    assert world.vault.owed() == world.usdc.balanceOf(world.vault.address) == unwanted.budget
    world.travel_to(world.vault.funder_and_end(terms_ref(unwanted))[1] + 1)
    assert world.refund(unwanted) == unwanted.budget


def test_pause_stops_no_dispute_and_no_end_of_one(windowed: World) -> None:
    jobs = [windowed.terms(n, deadline=windowed.now + 30 * DAY) for n in range(3)]
    for terms in jobs:
        windowed.open(terms)
    windowed.settle(*(windowed.claim(terms, 10) for terms in jobs))
    first = windowed.dispute(jobs[0])
    windowed.pass_time(ARBITRATION - 60)
    windowed.register_enclave()
    windowed.settle(windowed.claim(jobs[1], 20))
    pause(windowed)
    second = windowed.dispute(jobs[1])
    windowed.pass_time(61)
    windowed.release(first)
    windowed.resolve(second, 4 * RECORD)
    assert windowed.balance("payer") == 4 * RECORD
    assert windowed.distribute() == 36 * RECORD


def test_second_pause_waits_a_whole_grace_period_after_the_first(world: World) -> None:
    pause(world)
    with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
        pause(world)
    world.pass_time(HALF + GRACE - 1)
    with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
        pause(world)
    world.pass_time(1)
    pause(world)


def test_owners_pause_obeys_the_same_bounds(world: World) -> None:
    world.govern(world.vault, "pause")
    with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
        world.govern(world.vault, "pause")
    assert world.vault.paused_until() == world.now + HALF


@pytest.mark.parametrize("name", ["payer", "hospital", "registrar", "thief", "proposer"])
def test_stranger_cannot_pause(world: World, name: str) -> None:
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        pause(world, name)


def test_owner_ends_a_pause_early(world: World) -> None:
    pause(world)
    world.pass_time(10)
    world.govern(world.vault, "unpause")
    assert world.events(world.vault) == [("Unpaused", {"owner": world.deployment.timelock})]
    world.open(world.terms())


def test_pause_after_an_early_end_waits_as_long(world: World) -> None:
    pause(world)
    world.pass_time(10)
    world.govern(world.vault, "unpause")
    world.pass_time(GRACE - 1)
    with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
        pause(world)
    world.pass_time(1)
    pause(world)


def test_guardian_cannot_end_a_pause(world: World) -> None:
    pause(world)
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
        world.vault.unpause(sender=actor("guardian").address)


def test_what_is_not_paused_cannot_be_unpaused(world: World) -> None:
    with reverts(Revert.VAULT_NOT_PAUSED):
        world.govern(world.vault, "unpause")
    pause(world)
    world.pass_time(HALF)
    with reverts(Revert.VAULT_NOT_PAUSED):
        world.govern(world.vault, "unpause")


@settings(max_examples=40)
@given(
    grace=st.sampled_from([3_600, 3_601, GRACE, 30 * DAY]),
    before=st.integers(0, 3 * GRACE),
    waits=st.lists(st.integers(0, 2 * GRACE), max_size=8),
    lifts=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_payer_colluding_with_the_guardian_cannot_wait_a_hospital_out(
    grace: int, before: int, waits: list[int], lifts: list[bool]
) -> None:
    """However pauses are timed, at least half of a job's grace is open to settling."""
    with World.temporary(grace=grace) as world:
        deadline = world.now + 4 * GRACE
        end = deadline + grace
        world.pass_time(before)
        paused: list[tuple[int, int]] = []
        for wait, lift in zip(waits, lifts, strict=False):
            world.pass_time(wait)
            start = world.now
            if paused and start < paused[-1][1] + grace:
                with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
                    pause(world)
                continue
            pause(world)
            until = world.vault.paused_until()
            if lift:
                world.pass_time((until - start) // 2)
                world.govern(world.vault, "unpause")
                until = world.now
            paused.append((start, until))
        covered = sum(max(0, min(until, end) - max(start, deadline)) for start, until in paused)
        assert covered <= grace // 2


def test_worst_timed_pauses_leave_the_hospital_half_its_grace(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    world.travel_to(terms.deadline)
    pause(world)
    world.travel_to(terms.deadline + HALF)
    with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
        pause(world)
    assert world.settle(world.claim(terms, 10)) == [Outcome.PAID]
    world.travel_to(terms.deadline + GRACE)
    with reverts(Revert.VAULT_PAUSED_TOO_RECENTLY):
        pause(world)
    assert world.settle(world.claim(terms, 20, complete=True)) == [Outcome.PAID]

"""A pause stops opening and settling, for a while, and never an exit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DAY, GRACE, World, actor, reverts

from settlement.contracts import Outcome, abi_value
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


def test_pause_stops_opening_both_ways_and_settling(world: World) -> None:
    terms, other = world.terms(), world.terms(1)
    world.open(terms)
    pause(world)
    with reverts(Revert.VAULT_PAUSED):
        world.open(other)
    with reverts(Revert.VAULT_PAUSED):
        world.vault.open_job_with_authorization(
            abi_value(other),
            0,
            world.now + DAY,
            world.authorization(other),
            sender=actor("relayer").address,
        )
    with reverts(Revert.VAULT_PAUSED):
        world.settle(world.claim(terms, 1))


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
    world.open(done)
    world.open(stale)
    world.settle(world.claim(done, 100, complete=True))
    world.travel_to(stale.deadline + GRACE + 1)
    pause(world)
    anyone = actor("anyone").address
    assert world.refund(stale) == stale.budget
    assert world.vault.distribute(1, sender=anyone) == 100 * RECORD
    assert world.vault.withdraw(sender=actor("hospital").address) == 70 * RECORD
    for name in ("node owner", "onboarder", "protocol", "payer"):
        world.vault.withdraw_for(actor(name).address, sender=anyone)
    assert world.vault.owed() == world.usdc.balanceOf(world.vault.address) == 0


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

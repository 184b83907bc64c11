"""Fresh earnings wait one to two windows before they can be split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DAY, World, actor, reverts

from settlement.contracts import Outcome
from settlement.models import JobTerms
from settlement.reverts import Revert

WINDOW = 3_600
RECORD = 100_000


@pytest.fixture
def terms(windowed: World) -> JobTerms:
    """An open job, opened in the first second of a period."""
    terms = windowed.terms()
    windowed.open(terms)
    return terms


def test_fresh_earnings_cannot_be_split(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 30))
    period = windowed.now // WINDOW
    earnings, job = windowed.earnings(), windowed.job(terms)
    assert (earnings.matured, earnings.fresh, earnings.earlier) == (0, 30 * RECORD, 0)
    assert (earnings.period, earnings.version, earnings.disputes) == (period, 0, 0)
    assert (job.fresh, job.earlier, job.paid, job.period) == (30 * RECORD, 0, 30 * RECORD, period)
    assert windowed.distribute() == 0
    assert windowed.events(windowed.vault) == []
    assert windowed.vault.owed() == terms.budget


@pytest.mark.parametrize("into", [0, 1, WINDOW // 2, WINDOW - 1])
def test_earnings_mature_when_a_whole_period_has_passed_after_theirs(
    windowed: World, terms: JobTerms, into: int
) -> None:
    end = windowed.now + 2 * WINDOW
    windowed.pass_time(into)
    windowed.settle(windowed.claim(terms, 30))
    windowed.travel_to(end - 1)
    assert windowed.earnings().matured == 0
    assert windowed.distribute() == 0
    windowed.pass_time(1)
    assert windowed.earnings().matured == 30 * RECORD
    assert windowed.distribute() == 30 * RECORD
    assert windowed.balance("hospital") == 21 * RECORD


def test_periods_mature_one_after_the_other(windowed: World, terms: JobTerms) -> None:
    expected = [(0, 10, 0), (0, 10, 10), (10, 10, 10), (20, 10, 10)]
    for step, (matured, fresh, earlier) in enumerate(expected, start=1):
        windowed.settle(windowed.claim(terms, 10 * step))
        earnings = windowed.earnings()
        assert (earnings.matured, earnings.fresh, earnings.earlier) == (
            matured * RECORD,
            fresh * RECORD,
            earlier * RECORD,
        )
        assert earnings.total == 10 * step * RECORD
        windowed.pass_time(WINDOW)
    job = windowed.job(terms)
    assert (job.fresh, job.earlier, job.paid) == (10 * RECORD, 10 * RECORD, 40 * RECORD)


def test_everything_has_matured_after_a_long_silence(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 10))
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 30))
    windowed.pass_time(10 * WINDOW)
    earnings = windowed.earnings()
    assert (earnings.matured, earnings.fresh, earnings.earlier) == (30 * RECORD, 0, 0)
    windowed.settle(windowed.claim(terms, 31))
    job = windowed.job(terms)
    assert (job.fresh, job.earlier, job.paid) == (RECORD, 0, 31 * RECORD)
    assert windowed.distribute() == 30 * RECORD


def test_matured_part_is_split_and_the_fresh_stays(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 10))
    windowed.pass_time(2 * WINDOW)
    windowed.settle(windowed.claim(terms, 25))
    assert windowed.distribute() == 10 * RECORD
    assert windowed.events(windowed.vault)[0][1]["version"] == 0
    earnings = windowed.earnings()
    assert (earnings.matured, earnings.fresh, earnings.earlier) == (0, 15 * RECORD, 0)
    assert windowed.vault.owed() == terms.budget


def test_completion_returns_the_rest_at_once_and_its_earnings_wait(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 30, complete=True))
    assert windowed.balance("payer") == terms.budget - 30 * RECORD
    assert windowed.distribute() == 0
    windowed.pass_time(2 * WINDOW)
    assert windowed.distribute() == 30 * RECORD


def test_without_a_window_earnings_are_matured_at_once(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    assert world.settle_one(world.claim(terms, 30)) == Outcome.PAID
    earnings, job = world.earnings(), world.job(terms)
    assert (earnings.matured, earnings.fresh, earnings.earlier) == (30 * RECORD, 0, 0)
    assert (job.fresh, job.earlier, job.period) == (0, 0, 0)
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        world.dispute(terms)


def test_job_tells_what_can_still_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 10))
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 30))
    start = windowed.now
    job = windowed.job(terms)
    for seconds, amount in ((0, 30), (WINDOW - 1, 30), (WINDOW, 20), (2 * WINDOW, 0)):
        assert job.disputable(start + seconds, WINDOW) == amount * RECORD
    windowed.pass_time(WINDOW)
    windowed.dispute(terms)
    assert windowed.events(windowed.vault)[0][1]["amount"] == 20 * RECORD


@pytest.mark.parametrize("window", [0, 3_600, 30 * DAY])
def test_vault_takes_a_window_within_its_bounds(world: World, window: int) -> None:
    assert world.create_vault(window=window).vault.challenge_window() == window


@pytest.mark.parametrize("window", [1, 3_599, 30 * DAY + 1, 2**256 - 1])
def test_vault_refuses_a_window_out_of_range(world: World, window: int) -> None:
    with reverts(Revert.VAULT_WINDOW_OUT_OF_RANGE):
        world.create_vault(window=window)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.integers(0, 3 * WINDOW), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_nothing_matures_before_its_window_nor_after_two(
    history: list[tuple[int, int, bool]],
) -> None:
    """Against a ledger that remembers when each amount was earned."""
    with World.temporary(window=WINDOW) as world:
        terms = world.terms(budget=50_000_000, deadline=world.now + 300 * DAY)
        world.open(terms)
        earned: list[tuple[int, int]] = []
        records = split = 0
        for more, seconds, distribute in history:
            records += more
            world.settle(world.claim(terms, records))
            earned.append((world.now, more * RECORD))
            world.pass_time(seconds)
            due = sum(a for at, a in earned if world.now // WINDOW - at // WINDOW >= 2)
            assert world.earnings().matured == due - split
            assert due >= sum(a for at, a in earned if world.now - at >= 2 * WINDOW)
            assert due <= sum(a for at, a in earned if world.now - at > WINDOW)
            if distribute:
                assert world.distribute() == due - split
                split = due
            assert world.earnings().total == records * RECORD - split
            balances = [
                world.balance(name) for name in ("hospital", "node owner", "onboarder", "protocol")
            ]
            assert sum(balances) == split


def test_anyone_may_split_and_gets_nothing(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 10))
    windowed.pass_time(2 * WINDOW)
    assert windowed.vault.distribute(1, sender=actor("thief").address) == 10 * RECORD
    assert windowed.balance("thief") == 0

"""How a dispute ends: by the arbiter's split in time, or by anyone after it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import ARBITRATION, DAY, World, actor, reverts

from settlement.models import JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

RECORD = 100_000
DISPUTED = 30 * RECORD
NONE = (ZERO_ADDRESS, 0, 0, 0, 0)


@pytest.fixture
def terms(windowed: World) -> JobTerms:
    """A job with one dispute about 3 USDC."""
    terms = windowed.terms()
    windowed.open(terms)
    windowed.settle(windowed.claim(terms, 30))
    windowed.dispute(terms)
    return terms


@pytest.mark.parametrize("returned", [0, 1, DISPUTED - 1, DISPUTED])
def test_arbiters_split_is_exact(windowed: World, terms: JobTerms, returned: int) -> None:
    windowed.resolve(1, returned)
    assert windowed.events(windowed.vault) == [
        (
            "DisputeEnded",
            {
                "dispute_id": 1,
                "funder": terms.payer,
                "returned": returned,
                "released": DISPUTED - returned,
            },
        )
    ]
    assert windowed.balance("payer") == returned
    earnings = windowed.earnings()
    assert (earnings.matured, earnings.total) == (DISPUTED - returned, DISPUTED - returned)
    assert earnings.disputes == 0
    assert tuple(windowed.vault.disputes(1)) == NONE
    assert windowed.vault.owed() == terms.budget
    assert windowed.distribute() == DISPUTED - returned


def test_returned_money_is_not_escrow_again(windowed: World, terms: JobTerms) -> None:
    windowed.resolve(1, DISPUTED)
    job = windowed.job(terms)
    assert (job.funded, job.paid) == (terms.budget, DISPUTED)
    windowed.settle(windowed.claim(terms, 30, complete=True))
    assert windowed.balance("payer") == terms.budget
    assert windowed.earnings().total == 0


def test_more_than_is_disputed_cannot_be_returned(windowed: World, terms: JobTerms) -> None:
    for returned in (DISPUTED + 1, 2**256 - 1):
        with reverts(Revert.VAULT_RETURNED_EXCEEDS_DISPUTED):
            windowed.resolve(1, returned)
    assert windowed.balance("payer") == 0


@pytest.mark.parametrize("name", ["payer", "hospital", "guardian", "node owner", "thief"])
def test_nobody_but_the_arbiter_answers(windowed: World, terms: JobTerms, name: str) -> None:
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_ARBITER):
        windowed.resolve(1, 0, by=name)
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_ARBITER):
        windowed.govern(windowed.vault, "resolve", 1, DISPUTED)
    assert windowed.earnings().disputes == 1


def test_arbiter_answers_to_the_last_second_and_then_anyone_releases(
    windowed: World, terms: JobTerms
) -> None:
    with reverts(Revert.VAULT_ARBITER_MAY_STILL_ANSWER):
        windowed.release(1)
    windowed.pass_time(ARBITRATION)
    with reverts(Revert.VAULT_ARBITER_MAY_STILL_ANSWER):
        windowed.release(1)
    windowed.pass_time(1)
    with reverts(Revert.VAULT_TOO_LATE_TO_ANSWER):
        windowed.resolve(1, DISPUTED)
    windowed.release(1)
    assert windowed.events(windowed.vault) == [
        (
            "DisputeEnded",
            {"dispute_id": 1, "funder": terms.payer, "returned": 0, "released": DISPUTED},
        )
    ]
    assert windowed.balance("payer") == 0
    assert windowed.distribute() == DISPUTED


def test_answer_in_the_last_second_counts(windowed: World, terms: JobTerms) -> None:
    windowed.pass_time(ARBITRATION)
    windowed.resolve(1, DISPUTED)
    assert windowed.balance("payer") == DISPUTED


def test_ended_dispute_does_not_end_twice(windowed: World, terms: JobTerms) -> None:
    windowed.resolve(1, 7)
    with reverts(Revert.VAULT_NO_SUCH_DISPUTE):
        windowed.resolve(1, 7)
    windowed.pass_time(ARBITRATION + 1)
    with reverts(Revert.VAULT_NO_SUCH_DISPUTE):
        windowed.release(1)
    assert windowed.balance("payer") == 7


@pytest.mark.parametrize("dispute_id", [0, 2, 2**256 - 1])
def test_dispute_that_never_was_does_not_end(
    windowed: World, terms: JobTerms, dispute_id: int
) -> None:
    with reverts(Revert.VAULT_NO_SUCH_DISPUTE):
        windowed.resolve(dispute_id, 0)
    with reverts(Revert.VAULT_NO_SUCH_DISPUTE):
        windowed.release(dispute_id)


def test_replaced_arbiter_answers_nothing_more(windowed: World, terms: JobTerms) -> None:
    old, new = actor("arbiter").address, actor("arbiter 2").address
    windowed.govern(windowed.vault, "set_arbiter", new)
    assert windowed.events(windowed.vault) == [
        ("ArbiterChanged", {"previous_arbiter": old, "new_arbiter": new})
    ]
    assert windowed.vault.arbiter() == new
    with reverts(Revert.VAULT_CALLER_IS_NOT_THE_ARBITER):
        windowed.resolve(1, 0)
    windowed.resolve(1, 5, by="arbiter 2")
    assert windowed.balance("payer") == 5


def test_zero_is_no_arbiter(world: World) -> None:
    with reverts(Revert.VAULT_ARBITER_IS_ZERO):
        world.govern(world.vault, "set_arbiter", ZERO_ADDRESS)
    with reverts(Revert.VAULT_ARBITER_IS_ZERO):
        world.create_vault(arbiter=ZERO_ADDRESS)
    assert world.vault.arbiter() == actor("arbiter").address


@pytest.mark.parametrize("arbitration", [3_600, 60 * DAY])
def test_vault_takes_an_arbitration_within_its_bounds(world: World, arbitration: int) -> None:
    vault = world.create_vault(arbitration=arbitration).vault
    assert vault.arbitration_period() == arbitration


@pytest.mark.parametrize("arbitration", [0, 3_599, 60 * DAY + 1, 2**256 - 1])
def test_vault_refuses_an_arbitration_out_of_range(world: World, arbitration: int) -> None:
    with reverts(Revert.VAULT_ARBITRATION_OUT_OF_RANGE):
        world.create_vault(arbitration=arbitration)


@settings(max_examples=25)
@given(data=st.data(), records=st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_splits_of_several_disputes_sum_to_what_was_earned(
    data: st.DataObject, records: list[int]
) -> None:
    with World.temporary(window=3_600) as world:
        terms = world.terms()
        world.open(terms)
        returned = total = 0
        for number, more in enumerate(records, start=1):
            total += more
            world.settle(world.claim(terms, total))
            assert world.dispute(terms) == number
        for number in data.draw(st.permutations(range(1, len(records) + 1))):
            amount = records[number - 1] * RECORD
            back = data.draw(st.integers(0, amount))
            world.resolve(number, back)
            returned += back
        assert world.balance("payer") == returned
        assert world.earnings().matured == total * RECORD - returned == world.distribute()
        assert world.earnings().disputes == 0
        assert world.vault.owed() == terms.budget

"""Payees who change within the window: the earlier ones keep, and answer for, what they earned."""

import boa
import pytest
from world import ARBITRATION, World, actor, reverts

from settlement.contracts import Outcome
from settlement.models import JobTerms
from settlement.reverts import Revert

WINDOW = 3_600
RECORD = 100_000
KINDS = ["transfer", "treasury", "shares"]
LAST_EVENT = {"transfer": "Transfer", "treasury": "TreasuryChanged", "shares": "SharesChanged"}


@pytest.fixture
def terms(windowed: World) -> JobTerms:
    """An open job."""
    terms = windowed.terms()
    windowed.open(terms)
    return terms


def change(world: World, kind: str, number: int = 2) -> None:
    """Change node 1's payees: its token, its treasury or its shares."""
    if kind == "transfer":
        owner = world.nodes.ownerOf(1)
        world.nodes.transferFrom(owner, actor(f"node owner {number}").address, 1, sender=owner)
    elif kind == "treasury":
        treasury = actor(f"hospital {number}").address
        world.nodes.propose_treasury(1, treasury, sender=world.nodes.payees(1)[0])
        world.nodes.accept_treasury(1, sender=treasury)
    else:
        world.govern(world.nodes, "set_shares", 1, 1_000 * number, 1_000, 500)


def balances(world: World, *names: str) -> list[int]:
    return [world.balance(name) // RECORD for name in names]


def fresh(world: World, version: int | None = None) -> int:
    return world.earnings(1, version).fresh // RECORD


@pytest.mark.parametrize("kind", KINDS)
def test_change_begins_a_version_and_leaves_the_fresh_to_the_one_before(
    windowed: World, terms: JobTerms, kind: str
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, kind)
    events = windowed.events(windowed.nodes)
    assert events[0] == ("PayeesChanged", {"node_id": 1, "version": 1})
    assert [name for name, _ in events[1:]] == [LAST_EVENT[kind]]
    assert (fresh(windowed), fresh(windowed, 0)) == (0, 100)
    assert (windowed.earnings().version, windowed.earnings(1, 0).version) == (1, 0)
    windowed.settle(windowed.claim(terms, 140))
    assert (fresh(windowed), fresh(windowed, 0)) == (40, 100)
    job = windowed.job(terms)
    assert (job.version, job.fresh, job.paid) == (1, 40 * RECORD, 140 * RECORD)
    assert windowed.vault.owed() == terms.budget


# who gets the first 100 records' money, at the old shares, and the next 40 records'
SHARES = {
    "transfer": {"hospital": 98, "node owner": 20, "node owner 2": 8, "onboarder": 7}
    | {"protocol": 7},
    "treasury": {"hospital": 70, "hospital 2": 28, "node owner": 28, "onboarder": 7}
    | {"protocol": 7},
    "shares": {"hospital": 70 + 26, "node owner": 20 + 8, "onboarder": 5 + 4, "protocol": 5 + 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("past_first", [False, True])
def test_each_version_is_split_among_its_own_payees_at_its_own_shares(
    windowed: World, terms: JobTerms, kind: str, past_first: bool
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, kind)
    windowed.settle(windowed.claim(terms, 140))
    assert windowed.distribute_past(0) == 0
    assert windowed.events(windowed.vault) == []
    windowed.pass_time(2 * WINDOW)
    if past_first:
        assert windowed.distribute_past(0) == 100 * RECORD
    assert windowed.distribute() == 40 * RECORD
    if not past_first:
        assert windowed.distribute_past(0) == 100 * RECORD
        ((name, args),) = windowed.events(windowed.vault)
        assert (name, args["version"]) == ("Distributed", 0)
        assert args["hospital"] == actor("hospital").address
        assert args["node_owner"] == actor("node owner").address
        assert args["hospital_amount"] == 70 * RECORD
    assert windowed.distribute_past(0) == windowed.distribute() == 0
    expected = SHARES[kind]
    assert balances(windowed, *expected) == list(expected.values())
    assert sum(expected.values()) == 140


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_matured_is_split_by_the_change_itself(
    windowed: World, terms: JobTerms, kind: str
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.pass_time(2 * WINDOW)
    change(windowed, kind)
    events = windowed.events(windowed.nodes)
    assert [name for name, _ in events] == ["Distributed", LAST_EVENT[kind]]
    assert events[0][1]["version"] == 0
    assert balances(windowed, "hospital", "node owner", "onboarder", "protocol") == [70, 20, 5, 5]
    assert windowed.earnings().version == 0
    assert windowed.distribute_past(0) == 0


def test_change_with_nothing_in_the_window_begins_no_version(windowed: World) -> None:
    for kind in KINDS:
        change(windowed, kind)
        assert [name for name, _ in windowed.events(windowed.nodes)] == [LAST_EVENT[kind]]
    assert windowed.earnings().version == 0


def test_matured_and_fresh_part_at_a_change(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 130))
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 150))
    change(windowed, "transfer")
    events = windowed.events(windowed.nodes)
    assert [name for name, _ in events] == ["Distributed", "PayeesChanged", "Transfer"]
    past = windowed.earnings(1, 0)
    assert (past.matured, past.fresh, past.earlier) == (0, 20 * RECORD, 30 * RECORD)
    windowed.pass_time(WINDOW)
    assert windowed.distribute_past(0) == 30 * RECORD
    windowed.pass_time(WINDOW)
    assert windowed.distribute_past(0) == 20 * RECORD
    assert balances(windowed, "node owner", "node owner 2") == [30, 0]


# disputes


@pytest.mark.parametrize("kind", KINDS)
def test_earlier_payees_earnings_are_disputed_with_their_version(
    windowed: World, terms: JobTerms, kind: str
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, kind)
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        windowed.dispute(terms, 1)
    windowed.dispute(terms, 0)
    assert windowed.vault.disputes(1)[2:4] == (0, 100 * RECORD)
    assert windowed.earnings(1, 0).total == 0
    assert (windowed.earnings(1, 0).disputes, windowed.earnings().disputes) == (1, 0)
    windowed.resolve(1, 60 * RECORD)
    assert windowed.balance("payer") == 60 * RECORD
    assert windowed.distribute() == 0
    assert windowed.distribute_past(0) == 40 * RECORD
    names = ("hospital", "node owner", "onboarder", "protocol")
    assert balances(windowed, *names) == [28, 8, 2, 2]


def test_job_settled_before_and_after_a_change_is_disputed_for_each_version(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "transfer")
    windowed.settle(windowed.claim(terms, 140))
    assert windowed.dispute(terms, 1) == 1
    assert windowed.dispute(terms, 0) == 2
    assert windowed.vault.disputes(1)[2:4] == (1, 40 * RECORD)
    assert windowed.vault.disputes(2)[2:4] == (0, 100 * RECORD)
    for version in (0, 1):
        with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
            windowed.dispute(terms, version)
    windowed.resolve(1, 40 * RECORD)
    windowed.resolve(2, 0)
    assert windowed.distribute() == 0
    assert windowed.distribute_past(0) == 100 * RECORD
    assert balances(windowed, "payer", "node owner", "node owner 2") == [40, 20, 0]


def test_disputing_one_version_leaves_the_other_and_other_jobs(
    windowed: World, terms: JobTerms
) -> None:
    other = windowed.terms(1)
    windowed.open(other)
    windowed.settle(windowed.claim(terms, 100), windowed.claim(other, 10))
    change(windowed, "transfer")
    windowed.settle(windowed.claim(terms, 140), windowed.claim(other, 15))
    windowed.dispute(terms, 0)
    assert (fresh(windowed), fresh(windowed, 0)) == (45, 10)
    windowed.pass_time(2 * WINDOW)
    assert windowed.distribute() == 45 * RECORD
    assert windowed.distribute_past(0) == 10 * RECORD
    assert balances(windowed, "node owner", "node owner 2") == [2, 9]


def test_carried_part_of_two_periods_is_disputed_as_far_as_it_has_not_matured(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 130))
    change(windowed, "transfer")
    windowed.settle(windowed.claim(terms, 140))
    windowed.pass_time(WINDOW)
    windowed.dispute(terms, 0)
    assert windowed.vault.disputes(1)[3] == 30 * RECORD
    assert windowed.distribute_past(0) == 100 * RECORD
    assert windowed.earnings(1, 0).total == 0
    windowed.pass_time(ARBITRATION + 1)
    windowed.release(1)
    assert windowed.distribute_past(0) == 30 * RECORD
    assert windowed.distribute() == 10 * RECORD
    assert balances(windowed, "node owner", "node owner 2") == [26, 2]


def test_carried_part_that_has_matured_cannot_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "transfer")
    windowed.settle(windowed.claim(terms, 140))
    windowed.pass_time(2 * WINDOW)
    for version in (0, 1):
        with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
            windowed.dispute(terms, version)
    assert windowed.distribute_past(0) == 100 * RECORD


def test_job_settled_after_its_old_part_matured_carries_nothing(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "transfer")
    windowed.pass_time(2 * WINDOW)
    windowed.settle(windowed.claim(terms, 140))
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        windowed.dispute(terms, 0)
    windowed.dispute(terms, 1)
    assert windowed.vault.disputes(1)[3] == 40 * RECORD
    assert windowed.distribute_past(0) == 100 * RECORD


def test_two_changes_in_one_window_are_three_versions(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "transfer", 2)
    windowed.settle(windowed.claim(terms, 140))
    change(windowed, "transfer", 3)
    assert windowed.events(windowed.nodes)[0] == ("PayeesChanged", {"node_id": 1, "version": 2})
    windowed.settle(windowed.claim(terms, 160))
    assert [fresh(windowed, v) for v in (0, 1, None)] == [100, 40, 20]
    assert [windowed.dispute(terms, v) for v in (1, 0, 2)] == [1, 2, 3]
    assert [windowed.vault.disputes(n)[3] // RECORD for n in (1, 2, 3)] == [40, 100, 20]
    for number, returned in ((1, 40), (2, 50), (3, 0)):
        windowed.resolve(number, returned * RECORD)
    assert windowed.distribute_past(0) == 50 * RECORD
    assert windowed.distribute_past(1) == 0
    assert windowed.distribute() == 20 * RECORD
    owners = ("node owner", "node owner 2", "node owner 3")
    assert balances(windowed, "payer", *owners) == [90, 10, 0, 4]
    assert windowed.vault.owed() == terms.budget


def test_second_change_without_new_earnings_begins_no_version(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "transfer", 2)
    change(windowed, "transfer", 3)
    assert [name for name, _ in windowed.events(windowed.nodes)] == ["Transfer"]
    windowed.settle(windowed.claim(terms, 140))
    windowed.pass_time(2 * WINDOW)
    windowed.distribute()
    windowed.distribute_past(0)
    assert balances(windowed, "node owner", "node owner 2", "node owner 3") == [20, 0, 8]


def test_open_dispute_alone_keeps_the_version_of_its_payees(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.dispute(terms)
    windowed.pass_time(5 * WINDOW)
    change(windowed, "transfer")
    assert windowed.events(windowed.nodes)[0] == ("PayeesChanged", {"node_id": 1, "version": 1})
    assert windowed.earnings(1, 0).disputes == 1
    windowed.resolve(1, 0)
    assert windowed.distribute() == 0
    assert windowed.distribute_past(0) == 100 * RECORD
    assert balances(windowed, "node owner", "node owner 2") == [20, 0]


def test_dispute_that_ended_leaves_its_money_to_the_payees_before_the_change(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.dispute(terms)
    windowed.resolve(1, 0)
    change(windowed, "transfer")
    events = windowed.events(windowed.nodes)
    assert [name for name, _ in events] == ["Distributed", "Transfer"]
    assert balances(windowed, "node owner", "node owner 2") == [20, 0]


def test_disputed_receipts_replay_after_a_change_pays_nothing(
    windowed: World, terms: JobTerms
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.dispute(terms)
    change(windowed, "transfer")
    assert windowed.settle_one(windowed.claim(terms, 100)) == Outcome.NOTHING_NEW
    assert windowed.earnings().total == 0
    assert windowed.settle_one(windowed.claim(terms, 101)) == Outcome.PAID
    assert (fresh(windowed), fresh(windowed, 0)) == (1, 0)


def test_closed_jobs_earlier_part_can_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "treasury")
    windowed.settle(windowed.claim(terms, 140, complete=True))
    windowed.dispute(terms, 0)
    windowed.resolve(1, 100 * RECORD)
    windowed.pass_time(2 * WINDOW)
    assert windowed.distribute() == 40 * RECORD
    assert balances(windowed, "hospital", "hospital 2") == [0, 28]
    assert windowed.balance("payer") == terms.budget - 40 * RECORD


def test_another_node_keeps_its_version(windowed: World, terms: JobTerms) -> None:
    second = windowed.register_node(hospital="hospital 2")
    windowed.settle(windowed.claim(terms, 100))
    change(windowed, "transfer")
    assert (windowed.earnings(1).version, windowed.earnings(second).version) == (1, 0)


@pytest.mark.parametrize(("node_id", "version"), [(1, 0), (1, 5), (9, 0), (0, 2**256 - 1)])
def test_version_that_never_was_has_nothing_to_split(
    windowed: World, terms: JobTerms, node_id: int, version: int
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    windowed.pass_time(2 * WINDOW)
    assert windowed.distribute_past(version, node_id) == 0
    assert windowed.events(windowed.vault) == []
    assert windowed.earnings().matured == 100 * RECORD


# checkpoint


@pytest.mark.parametrize("name", ["node owner", "hospital", "guardian", "registrar", "thief"])
def test_nobody_but_the_registry_makes_a_checkpoint(
    windowed: World, terms: JobTerms, name: str
) -> None:
    windowed.settle(windowed.claim(terms, 100))
    with reverts(Revert.VAULT_CALLER_IS_NOT_REGISTRY):
        windowed.vault.checkpoint(1, sender=actor(name).address)
    with reverts(Revert.VAULT_CALLER_IS_NOT_REGISTRY):
        windowed.govern(windowed.vault, "checkpoint", 1)
    assert windowed.earnings().version == 0


def set_version(world: World, version: int) -> None:
    slot = world.slot_read_by(world.vault, "earnings_of", 1)
    word = boa.env.get_storage(world.vault.address, slot)
    boa.env.set_storage(world.vault.address, slot, word | version << 64)
    assert world.earnings().version == version


def test_last_version_is_not_followed_by_another(windowed: World, terms: JobTerms) -> None:
    """After 16,777,215 changes within a window the next waits until nothing is fresh."""
    windowed.settle(windowed.claim(terms, 100))
    set_version(windowed, 2**24 - 1)
    with reverts(Revert.VAULT_PAYEES_CHANGED_TOO_OFTEN):
        change(windowed, "transfer")
    assert windowed.nodes.ownerOf(1) == actor("node owner").address
    windowed.pass_time(2 * WINDOW)
    change(windowed, "transfer")
    assert windowed.nodes.ownerOf(1) == actor("node owner 2").address
    assert windowed.balance("node owner") == 20 * RECORD


def test_version_before_the_last_is_followed_by_it(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 100))
    set_version(windowed, 2**24 - 2)
    change(windowed, "transfer")
    assert windowed.earnings().version == 2**24 - 1
    assert windowed.earnings(1, 2**24 - 2).fresh == 100 * RECORD
    windowed.settle(windowed.claim(terms, 140))
    assert windowed.job(terms).version == 2**24 - 1
    assert windowed.earnings().fresh == 40 * RECORD

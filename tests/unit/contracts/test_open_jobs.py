"""Jobs opened from a payer's balance, all or none, by its own call or by its signature."""

from collections.abc import Callable
from typing import Any

import pytest
from world import DAY, RICH, World, actor, reverts

from settlement.contracts import JobState, order
from settlement.models import JobTerms, OpenJobs
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

PAYER = actor("payer")


@pytest.fixture
def jobs(world: World) -> list[JobTerms]:
    """Three jobs' terms, and just enough balance for them."""
    jobs = [world.terms(n) for n in range(3)]
    world.deposit("payer", sum(terms.budget for terms in jobs))
    return jobs


def signature_over(world: World, jobs: list[JobTerms], signer: str = "payer") -> bytes:
    return world.sign_intent(OpenJobs(jobs=tuple(jobs)), actor(signer))


def bring(world: World, jobs: list[JobTerms], signature: bytes) -> None:
    world.open_many(*jobs, signature=signature, sender=actor("relayer").address)


def assert_none_opened(world: World, jobs: list[JobTerms]) -> None:
    assert {world.job(terms).state for terms in jobs} == {JobState.UNKNOWN}
    assert world.balance("payer") == 300_000_000 == world.vault.owed()


def test_payer_opens_its_jobs_from_its_balance_without_a_signature(
    world: World, jobs: list[JobTerms]
) -> None:
    world.open_many(*jobs)
    events = world.events(world.vault)
    opened = [("JobOpened", world.job_id(terms)) for terms in jobs]
    assert [(name, args["job_id"]) for name, args in events[:-1]] == opened
    assert events[-1] == ("BalanceSpent", {"account": PAYER.address, "amount": 300_000_000})
    for terms in jobs:
        assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert world.balance("payer") == 0
    assert world.vault.owed() == 300_000_000 == world.usdc.balanceOf(world.vault.address)


def test_stranger_brings_what_the_payer_signed(world: World, jobs: list[JobTerms]) -> None:
    bring(world, jobs, signature_over(world, jobs))
    assert [world.job(terms).state for terms in jobs] == [JobState.ASSIGNED] * 3
    assert (world.balance("payer"), world.balance("relayer")) == (0, 0)
    assert world.wallet("relayer") == 0
    assert world.vault.owed() == 300_000_000


def test_smart_wallet_opens_by_its_owners_signature(world: World) -> None:
    owner = actor("wallet owner")
    wallet = world.wallet_of(owner)
    world.vault.deposit(wallet.address, 200_000_000, sender=PAYER.address)
    jobs = [world.terms(n, payer=str(wallet.address)) for n in range(2)]
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, jobs, signature_over(world, jobs, "thief"))
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, jobs[:1], signature_over(world, jobs, "wallet owner"))
    bring(world, jobs, signature_over(world, jobs, "wallet owner"))
    assert [world.job(terms).state for terms in jobs] == [JobState.ASSIGNED] * 2
    assert world.vault.balances(wallet.address) == 0


def test_nodes_may_be_mixed_and_left_open(world: World, jobs: list[JobTerms]) -> None:
    second = world.register_node(hospital="hospital 2")
    nodes = [second, 0, 1]
    mixed = [terms.model_copy(update={"node_id": n}) for terms, n in zip(jobs, nodes, strict=True)]
    bring(world, mixed, signature_over(world, mixed))
    assert [world.job(terms).node_id for terms in mixed] == nodes
    assert [world.job(terms).state for terms in mixed] == [
        JobState.ASSIGNED,
        JobState.OPEN,
        JobState.ASSIGNED,
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda jobs: jobs[:2],
        lambda jobs: jobs[::-1],
        lambda jobs: [*jobs[:2], jobs[2].model_copy(update={"budget": 1})],
        lambda jobs: [jobs[0].model_copy(update={"price_per_record": 0}), *jobs[1:]],
        lambda jobs: [jobs[0].model_copy(update={"salt": b"\x09" * 32}), *jobs[1:]],
        lambda jobs: [jobs[0].model_copy(update={"node_id": 0}), *jobs[1:]],
        lambda jobs: [],
    ],
    ids=["fewer", "reordered", "budget", "price", "salt", "node", "none"],
)
def test_signature_over_another_list_is_refused(
    world: World, jobs: list[JobTerms], change: Callable[[list[JobTerms]], list[JobTerms]]
) -> None:
    orders = [order(terms) for terms in change(jobs)]
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.vault.open_jobs(
            PAYER.address, orders, signature_over(world, jobs), sender=actor("thief").address
        )
    assert_none_opened(world, jobs)


def test_signature_over_the_jobs_one_by_one_is_refused(world: World, jobs: list[JobTerms]) -> None:
    for single in (signature_over(world, jobs[:1]), world.authorization(jobs[0])):
        with reverts(Revert.VAULT_INVALID_SIGNATURE):
            bring(world, jobs, single)
    assert_none_opened(world, jobs)


@pytest.mark.parametrize("name", ["relayer", "thief", "sponsor", "guardian"])
def test_nobody_elses_signature_counts(world: World, jobs: list[JobTerms], name: str) -> None:
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, jobs, signature_over(world, jobs, name))
    assert_none_opened(world, jobs)


def test_signature_for_another_vault_is_refused(world: World, jobs: list[JobTerms]) -> None:
    other = world.create_vault()
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, jobs, signature_over(other, jobs))
    assert_none_opened(world, jobs)


def test_zero_address_has_signed_nothing(world: World) -> None:
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.vault.open_jobs(
            ZERO_ADDRESS, [order(world.terms())], bytes(65), sender=actor("thief").address
        )


def test_replay_of_a_list_is_refused(world: World, jobs: list[JobTerms]) -> None:
    signature = signature_over(world, jobs)
    bring(world, jobs, signature)
    world.deposit("payer", 300_000_000)
    with reverts(Revert.VAULT_JOB_EXISTS):
        bring(world, jobs, signature)
    assert world.balance("payer") == 300_000_000


def test_list_with_one_job_that_exists_opens_none(world: World, jobs: list[JobTerms]) -> None:
    world.open(jobs[2])
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.open_many(*jobs)
    assert [world.job(terms).state for terms in jobs[:2]] == [JobState.UNKNOWN] * 2
    with reverts(Revert.VAULT_JOB_EXISTS):
        world.open_many(jobs[0], jobs[0])
    assert world.balance("payer") == 300_000_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"budget": 0}, Revert.VAULT_BUDGET_OUT_OF_RANGE),
        ({"budget": 2**46}, Revert.VAULT_BUDGET_OUT_OF_RANGE),
        ({"deadline": 0}, Revert.VAULT_DEADLINE_OUT_OF_RANGE),
        ({"price_per_record": 2**64}, Revert.VAULT_PRICE_OUT_OF_RANGE),
        ({"node_id": 2}, Revert.VAULT_NODE_IS_NOT_ACTIVE),
    ],
)
def test_list_with_one_bad_order_opens_none(
    world: World, jobs: list[JobTerms], change: dict[str, Any], reason: Revert
) -> None:
    for position in range(3):
        changed = list(jobs)
        changed[position] = jobs[position].model_copy(update=change)
        with reverts(reason):
            world.open_many(*changed)
    assert_none_opened(world, jobs)


def test_balance_that_is_one_short_opens_none(world: World, jobs: list[JobTerms]) -> None:
    world.vault.withdraw_to(PAYER.address, 1, sender=PAYER.address)
    for call in (
        lambda: world.open_many(*jobs),
        lambda: bring(world, jobs, signature_over(world, jobs)),
    ):
        with reverts(Revert.VAULT_BALANCE_TOO_LOW):
            call()
    assert {world.job(terms).state for terms in jobs} == {JobState.UNKNOWN}
    assert world.balance("payer") == 299_999_999


def test_allowance_is_not_drawn_on(world: World) -> None:
    with reverts(Revert.VAULT_BALANCE_TOO_LOW):
        world.open_many(world.terms())
    assert world.wallet("payer") == RICH


def test_stranger_cannot_open_jobs_on_its_own_word_from_anothers_balance(
    world: World, jobs: list[JobTerms]
) -> None:
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        world.open_many(*jobs, sender=actor("thief").address)
    world.open_many(*jobs)


def test_fifty_jobs_open_at_once_and_fifty_one_are_no_valid_call(world: World) -> None:
    jobs = [world.terms(n, budget=1) for n in range(51)]
    world.deposit("payer", 51)
    with reverts(None):
        world.open_many(*jobs)
    bring(world, jobs[:50], signature_over(world, jobs[:50]))
    assert {world.job(terms).state for terms in jobs[:50]} == {JobState.ASSIGNED}
    assert world.balance("payer") == 1


def test_opened_job_settles_and_refunds_to_the_payer(world: World, jobs: list[JobTerms]) -> None:
    world.open_many(*jobs)
    world.settle(world.claim(jobs[0], 10, complete=True))
    assert world.earnings().total == 1_000_000
    assert world.balance("payer") == jobs[0].budget - 1_000_000


@pytest.mark.parametrize("split", [1, 2])
def test_lists_of_any_length_are_signed_alike(
    world: World, jobs: list[JobTerms], split: int
) -> None:
    for part in (jobs[:split], jobs[split:]):
        bring(world, part, signature_over(world, part))
    assert [world.job(terms).state for terms in jobs] == [JobState.ASSIGNED] * 3


def test_deadline_is_of_now_and_not_of_the_signature(world: World, jobs: list[JobTerms]) -> None:
    signature = signature_over(world, jobs)
    world.pass_time(3 * DAY)
    with reverts(Revert.VAULT_DEADLINE_OUT_OF_RANGE):
        bring(world, jobs, signature)
    assert_none_opened(world, jobs)

"""Anyone pushes many accounts their own balances; one that USDC refuses stops only itself."""

import pytest
from world import World, actor, reverts

from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

PAYEES = ("hospital", "node owner", "onboarder", "protocol")
AMOUNTS = (7_000_000, 2_000_000, 500_000, 500_000)


@pytest.fixture
def world(world: World) -> World:
    """The payees of node 1 have 10 USDC among them, and the payer has 90."""
    terms = world.terms()
    world.open(terms)
    world.settle(world.claim(terms, 100, complete=True))
    world.distribute()
    return world


def push(world: World, *names: str) -> int:
    accounts = [actor(name).address for name in names]
    return int(world.vault.withdraw_for_many(accounts, sender=actor("anyone").address))


def test_each_gets_its_own_balance(world: World) -> None:
    assert push(world, *PAYEES) == 10_000_000
    assert world.events(world.vault) == [
        (
            "Withdrawn",
            {"account": actor(name).address, "to": actor(name).address, "amount": amount},
        )
        for name, amount in zip(PAYEES, AMOUNTS, strict=True)
    ]
    assert tuple(world.wallet(name) for name in PAYEES) == AMOUNTS
    assert {world.balance(name) for name in PAYEES} == {0}
    assert world.vault.owed() == 90_000_000 == world.usdc.balanceOf(world.vault.address)
    assert world.wallet("anyone") == 0


@pytest.mark.parametrize("position", range(4))
def test_blacklisted_payee_keeps_its_balance_and_stops_no_other(
    world: World, position: int
) -> None:
    refused, amount = PAYEES[position], AMOUNTS[position]
    world.usdc.blacklist(actor(refused).address, sender=actor("deployer").address)
    assert push(world, *PAYEES) == 10_000_000 - amount
    events = world.events(world.vault)
    assert [name for name, _ in events].count("Withdrawn") == 3
    assert events[position] == (
        "WithdrawalRefused",
        {"account": actor(refused).address, "amount": amount},
    )
    assert (world.balance(refused), world.wallet(refused)) == (amount, 0)
    paid = [name for name in PAYEES if name != refused]
    assert sum(world.wallet(name) for name in paid) == 10_000_000 - amount
    assert world.vault.owed() == 90_000_000 + amount == world.usdc.balanceOf(world.vault.address)
    world.usdc.unBlacklist(actor(refused).address, sender=actor("deployer").address)
    assert push(world, refused) == amount


def test_paused_usdc_refuses_all_and_nothing_is_lost(world: World) -> None:
    world.usdc.pause(sender=actor("deployer").address)
    assert push(world, *PAYEES) == 0
    assert [name for name, _ in world.events(world.vault)] == ["WithdrawalRefused"] * 4
    assert tuple(world.balance(name) for name in PAYEES) == AMOUNTS
    assert world.vault.owed() == 100_000_000
    world.usdc.unpause(sender=actor("deployer").address)
    assert push(world, *PAYEES) == 10_000_000


def test_account_named_twice_is_paid_once(world: World) -> None:
    assert push(world, "hospital", "hospital", "node owner", "hospital") == 9_000_000
    assert (world.wallet("hospital"), world.wallet("node owner")) == (7_000_000, 2_000_000)
    assert world.vault.owed() == 91_000_000


def test_blacklisted_account_named_twice_keeps_its_balance_once(world: World) -> None:
    world.usdc.blacklist(actor("hospital").address, sender=actor("deployer").address)
    assert push(world, "hospital", "hospital") == 0
    assert world.balance("hospital") == 7_000_000
    assert world.vault.owed() == 100_000_000


def test_accounts_without_balance_are_passed_over(world: World) -> None:
    accounts = [actor("thief").address, ZERO_ADDRESS, actor("hospital").address]
    anyone = actor("anyone").address
    assert world.vault.withdraw_for_many(accounts, sender=anyone) == 7_000_000
    assert [name for name, _ in world.events(world.vault)] == ["Withdrawn"]
    assert push(world) == 0
    assert world.events(world.vault) == []


def test_fifty_accounts_are_pushed_and_fifty_one_are_no_valid_call(world: World) -> None:
    names = [f"payee {i}" for i in range(51)]
    for name in names:
        world.vault.deposit(actor(name).address, 3, sender=actor("payer").address)
    with reverts(None):
        push(world, *names)
    assert push(world, *names[:50]) == 150
    assert {world.wallet(name) for name in names[:50]} == {3}
    assert (world.wallet(names[50]), world.balance(names[50])) == (0, 3)


def test_single_push_of_a_refused_account_says_why(world: World) -> None:
    world.usdc.blacklist(actor("hospital").address, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        world.vault.withdraw_for(actor("hospital").address, sender=actor("anyone").address)
    assert world.balance("hospital") == 7_000_000

"""A part of one's balance to any address."""

import pytest
from world import RICH, World, actor, reverts

from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

BALANCE = 10_000_000


@pytest.fixture
def world(world: World) -> World:
    """The payer has 10 USDC in the vault, and so has a friend."""
    world.deposit("payer", BALANCE)
    world.vault.deposit(actor("friend").address, BALANCE, sender=actor("payer").address)
    return world


def send(world: World, to: str, amount: int, name: str = "payer") -> None:
    world.vault.withdraw_to(to, amount, sender=actor(name).address)


def test_part_is_sent_and_the_rest_stays(world: World) -> None:
    send(world, actor("treasury").address, 4_000_000)
    assert world.events(world.vault) == [
        (
            "Withdrawn",
            {
                "account": actor("payer").address,
                "to": actor("treasury").address,
                "amount": 4_000_000,
            },
        )
    ]
    assert (world.balance("payer"), world.wallet("treasury")) == (6_000_000, 4_000_000)
    assert world.vault.owed() == 2 * BALANCE - 4_000_000
    assert world.usdc.balanceOf(world.vault.address) == 2 * BALANCE - 4_000_000


def test_whole_balance_may_be_sent_and_no_more(world: World) -> None:
    for amount in (BALANCE + 1, 2 * BALANCE, 2**256 - 1):
        with reverts(Revert.VAULT_BALANCE_TOO_LOW):
            send(world, actor("treasury").address, amount)
    send(world, actor("treasury").address, BALANCE)
    with reverts(Revert.VAULT_BALANCE_TOO_LOW):
        send(world, actor("treasury").address, 1)
    assert (world.balance("payer"), world.balance("friend")) == (0, BALANCE)


def test_nothing_is_not_sent(world: World) -> None:
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        send(world, actor("treasury").address, 0)


@pytest.mark.parametrize("receiver", ["zero", "vault"])
def test_zero_and_the_vault_itself_are_no_receivers(world: World, receiver: str) -> None:
    to = ZERO_ADDRESS if receiver == "zero" else world.vault.address
    with reverts(Revert.VAULT_RECEIVER_IS_NOT_ALLOWED):
        send(world, to, 1)
    assert world.balance("payer") == BALANCE


def test_blacklisted_receiver_leaves_the_balance(world: World) -> None:
    world.usdc.blacklist(actor("treasury").address, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        send(world, actor("treasury").address, 1)
    send(world, actor("treasury 2").address, BALANCE)
    assert world.wallet("treasury 2") == BALANCE


def test_stranger_sends_nothing_of_anothers_balance(world: World) -> None:
    with reverts(Revert.VAULT_BALANCE_TOO_LOW):
        send(world, actor("thief").address, 1, "thief")
    with reverts(Revert.VAULT_BALANCE_TOO_LOW):
        world.govern(world.vault, "withdraw_to", actor("thief").address, 1)
    assert world.wallet("payer") == RICH - 2 * BALANCE

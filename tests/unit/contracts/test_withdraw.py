"""The one way by which USDC leaves the vault: to whom it is owed."""

import pytest
from world import RICH, World, actor, reverts

from settlement.models import JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

PAYEES = ("hospital", "node owner", "onboarder", "protocol")
RECORD = 100_000


@pytest.fixture
def terms(world: World) -> JobTerms:
    """A completed job that earned 10 USDC of 100, split among the payees."""
    terms = world.terms()
    world.open(terms)
    world.settle(world.claim(terms, 100, complete=True))
    world.distribute()
    return terms


def withdraw(world: World, name: str) -> int:
    return int(world.vault.withdraw(sender=actor(name).address))


def test_whole_balance_is_sent_to_its_account(world: World, terms: JobTerms) -> None:
    assert withdraw(world, "hospital") == 7_000_000
    assert world.events(world.vault) == [
        (
            "Withdrawn",
            {
                "account": actor("hospital").address,
                "to": actor("hospital").address,
                "amount": 7_000_000,
            },
        )
    ]
    assert (world.wallet("hospital"), world.balance("hospital")) == (7_000_000, 0)
    assert world.vault.owed() == terms.budget - 7_000_000
    assert world.usdc.balanceOf(world.vault.address) == terms.budget - 7_000_000


def test_all_withdrawals_empty_the_vault(world: World, terms: JobTerms) -> None:
    for name in (*PAYEES, "payer"):
        withdraw(world, name)
    assert world.vault.owed() == world.usdc.balanceOf(world.vault.address) == 0
    assert world.wallet("payer") == RICH - 100 * RECORD
    assert [world.wallet(n) for n in PAYEES] == [7_000_000, 2_000_000, 500_000, 500_000]


def test_second_withdrawal_is_refused(world: World, terms: JobTerms) -> None:
    withdraw(world, "hospital")
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        withdraw(world, "hospital")
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        world.vault.withdraw_for(actor("hospital").address, sender=actor("anyone").address)
    assert world.wallet("hospital") == 7_000_000


@pytest.mark.parametrize("name", ["thief", "guardian", "registrar", "deployer"])
def test_stranger_has_nothing_to_withdraw(world: World, terms: JobTerms, name: str) -> None:
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        withdraw(world, name)


def test_owner_has_nothing_to_withdraw(world: World, terms: JobTerms) -> None:
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        world.govern(world.vault, "withdraw")


def test_zero_address_has_nothing_to_withdraw(world: World, terms: JobTerms) -> None:
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        world.vault.withdraw_for(ZERO_ADDRESS, sender=actor("anyone").address)


def test_anyone_may_push_a_payees_own_money_to_it(world: World, terms: JobTerms) -> None:
    pushed = world.vault.withdraw_for(actor("hospital").address, sender=actor("thief").address)
    assert pushed == 7_000_000
    assert (world.wallet("hospital"), world.wallet("thief")) == (7_000_000, 0)


def test_blacklisted_payee_stops_only_itself(world: World, terms: JobTerms) -> None:
    world.usdc.blacklist(actor("hospital").address, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        withdraw(world, "hospital")
    for name in ("node owner", "onboarder", "protocol", "payer"):
        withdraw(world, name)
    assert world.balance("hospital") == 7_000_000 == world.vault.owed()
    world.usdc.unBlacklist(actor("hospital").address, sender=actor("deployer").address)
    assert withdraw(world, "hospital") == 7_000_000


def test_blacklisted_payer_stops_only_its_own_refund(world: World, terms: JobTerms) -> None:
    world.usdc.blacklist(terms.payer, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        withdraw(world, "payer")
    assert withdraw(world, "hospital") == 7_000_000
    assert world.balance("payer") == terms.budget - 100 * RECORD


def test_paused_usdc_refuses_and_the_balance_stays(world: World, terms: JobTerms) -> None:
    world.usdc.pause(sender=actor("deployer").address)
    owed = world.vault.owed()
    with reverts(Revert.USDC_PAUSED):
        withdraw(world, "hospital")
    assert (world.balance("hospital"), world.vault.owed()) == (7_000_000, owed)
    world.usdc.unpause(sender=actor("deployer").address)
    assert withdraw(world, "hospital") == 7_000_000


def test_pause_of_the_vault_does_not_stop_withdrawals(world: World, terms: JobTerms) -> None:
    world.vault.pause(sender=actor("guardian").address)
    assert withdraw(world, "hospital") == 7_000_000
    pushed = world.vault.withdraw_for(terms.payer, sender=actor("anyone").address)
    assert pushed == terms.budget - 100 * RECORD


def test_donation_cannot_be_withdrawn(world: World, terms: JobTerms) -> None:
    world.usdc.transfer(world.vault.address, 123, sender=actor("payer").address)
    for name in (*PAYEES, "payer"):
        withdraw(world, name)
    assert world.usdc.balanceOf(world.vault.address) == 123
    assert world.vault.owed() == 0

"""The one way by which USDC leaves the vault: to whom it is owed."""

from dataclasses import replace

import pytest
from world import RICH, World, actor, deploy, reverts

from settlement.contracts import abi_value
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
    world.vault.distribute(1, sender=actor("anyone").address)
    return terms


def withdraw(world: World, name: str) -> int:
    return int(world.vault.withdraw(sender=actor(name).address))


def test_whole_balance_is_sent_to_its_account(world: World, terms: JobTerms) -> None:
    assert withdraw(world, "hospital") == 7_000_000
    assert world.events(world.vault) == [
        ("Withdrawn", {"account": actor("hospital").address, "amount": 7_000_000})
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


class Hostile:
    """A vault over a token that calls back or lies."""

    def __init__(self, world: World) -> None:
        self.token = deploy("TestHostileToken", sender=actor("deployer").address)
        other = world.create_vault(usdc=self.token.address)
        deployment = other.deployment.model_copy(update={"usdc": str(self.token.address)})
        self.world = replace(other, usdc=self.token, deployment=deployment)
        self.world.register_node()
        self.token.mint(actor("payer").address, RICH)
        self.token.mint(self.world.vault.address, RICH)  # what a second withdrawal would steal


@pytest.fixture
def hostile(world: World) -> Hostile:
    return Hostile(world)


def test_token_that_calls_back_cannot_withdraw_twice(hostile: Hostile) -> None:
    world, hospital = hostile.world, actor("hospital").address
    terms = world.terms()
    world.open(terms)
    world.settle(world.claim(terms, 100, complete=True))
    world.vault.distribute(1, sender=hospital)
    again = world.vault.withdraw_for.prepare_calldata(hospital)
    hostile.token.attack(world.vault.address, again)
    assert world.vault.withdraw_for(hospital, sender=actor("thief").address) == 7_000_000
    assert (hostile.token.attempts(), hostile.token.reentered()) == (1, False)
    assert hostile.token.balanceOf(hospital) == 7_000_000
    assert world.vault.owed() == terms.budget - 7_000_000


@pytest.mark.parametrize("function", ["settle", "distribute", "refund", "withdraw_for"])
def test_token_that_calls_back_while_opening_gets_nowhere(hostile: Hostile, function: str) -> None:
    world, terms = hostile.world, hostile.world.terms()
    call = getattr(world.vault, function).prepare_calldata
    payload = {
        "settle": lambda: call([world.claim(terms, 10).abi_value()]),
        "distribute": lambda: call(1),
        "refund": lambda: call((*abi_value(terms)[:6], bytes(32), terms.salt)),
        "withdraw_for": lambda: call(terms.payer),
    }[function]()
    hostile.token.attack(world.vault.address, payload)
    world.open(terms)
    assert (hostile.token.attempts(), hostile.token.reentered()) == (1, False)
    assert world.job(terms)[2] == 0


def test_token_that_says_no_is_believed(hostile: Hostile) -> None:
    world, terms = hostile.world, hostile.world.terms()
    hostile.token.set_answer(False)
    with reverts(Revert.VAULT_TRANSFER_FAILED):
        world.open(terms)
    hostile.token.set_answer(True)
    world.open(terms)
    world.settle(world.claim(terms, complete=True))
    hostile.token.set_answer(False)
    with reverts(Revert.VAULT_TRANSFER_FAILED):
        withdraw(world, "payer")
    assert world.balance("payer") == terms.budget == world.vault.owed()

"""What came here by mistake can be sent out by the owner; what is owed never."""

import boa
import pytest
from world import World, actor, deploy, reverts

from settlement.models import JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

RECORD = 100_000


@pytest.fixture
def jobs(windowed: World) -> list[JobTerms]:
    """Money of every kind is owed: escrow, fresh and matured earnings, a dispute, balances."""
    terms, disputed = windowed.terms(), windowed.terms(1)
    windowed.open(terms)
    windowed.open(disputed)
    windowed.settle(windowed.claim(terms, 30))
    windowed.pass_time(2 * 3_600)
    windowed.settle(windowed.claim(terms, 40), windowed.claim(disputed, 50))
    windowed.dispute(disputed)
    windowed.deposit("payer", 5_000_000)
    windowed.distribute()
    return [terms, disputed]


def recover(world: World, token: str, to: str = "rescue", sender: str | None = None) -> int:
    by = sender or world.deployment.timelock
    return int(world.vault.recover(token, actor(to).address, sender=by))


def donate(world: World, amount: int) -> None:
    world.usdc.transfer(world.vault.address, amount, sender=actor("payer").address)


def test_usdc_is_recovered_only_beyond_what_is_owed(windowed: World, jobs: list[JobTerms]) -> None:
    owed = windowed.vault.owed()
    assert owed == sum(terms.budget for terms in jobs) + 5_000_000
    with reverts(Revert.VAULT_NOTHING_TO_RECOVER):
        recover(windowed, windowed.deployment.usdc)
    donate(windowed, 123)
    assert recover(windowed, windowed.deployment.usdc) == 123
    assert windowed.events(windowed.vault) == [
        (
            "Recovered",
            {
                "token": windowed.deployment.usdc,
                "to": actor("rescue").address,
                "amount": 123,
            },
        )
    ]
    assert windowed.wallet("rescue") == 123
    assert windowed.vault.owed() == owed == windowed.usdc.balanceOf(windowed.vault.address)
    with reverts(Revert.VAULT_NOTHING_TO_RECOVER):
        recover(windowed, windowed.deployment.usdc)


def test_everything_owed_is_still_paid_after_a_recovery(
    windowed: World, jobs: list[JobTerms]
) -> None:
    donate(windowed, 10)
    recover(windowed, windowed.deployment.usdc)
    windowed.resolve(1, 20 * RECORD)
    windowed.settle(
        windowed.claim(jobs[0], 40, complete=True),
        windowed.claim(jobs[1], 50, complete=True),
    )
    windowed.pass_time(2 * 3_600)
    windowed.distribute()
    names = ("payer", "hospital", "node owner", "onboarder", "protocol")
    accounts = [actor(name).address for name in names]
    windowed.vault.withdraw_for_many(accounts, sender=actor("anyone").address)
    assert windowed.vault.owed() == windowed.usdc.balanceOf(windowed.vault.address) == 0


def test_less_usdc_than_is_owed_leaves_nothing_to_recover(
    windowed: World, jobs: list[JobTerms]
) -> None:
    """Were USDC itself to take something away, the rest is the creditors'."""
    vault = windowed.vault.address
    windowed.usdc.transfer(actor("circle").address, 1_000_000, sender=vault)
    with reverts(Revert.VAULT_NOTHING_TO_RECOVER):
        recover(windowed, windowed.deployment.usdc)


def test_foreign_token_is_recovered_whole(world: World) -> None:
    token = deploy("TestHostileToken", sender=actor("deployer").address)
    with reverts(Revert.VAULT_NOTHING_TO_RECOVER):
        recover(world, token.address)
    token.mint(world.vault.address, 77)
    terms = world.terms()
    world.open(terms)
    assert recover(world, token.address) == 77
    ((name, args),) = world.events(world.vault)
    assert (name, args["token"], args["amount"]) == ("Recovered", token.address, 77)
    assert (token.balanceOf(actor("rescue").address), token.balanceOf(world.vault.address)) == (
        77,
        0,
    )
    assert world.vault.owed() == terms.budget == world.usdc.balanceOf(world.vault.address)


def test_foreign_token_that_says_no_is_believed(world: World) -> None:
    token = deploy("TestHostileToken", sender=actor("deployer").address)
    token.mint(world.vault.address, 77)
    token.set_answer((0).to_bytes(32, "big"))
    with reverts(Revert.VAULT_TRANSFER_FAILED):
        recover(world, token.address)


def test_foreign_token_that_calls_back_gets_nowhere(world: World) -> None:
    token = deploy("TestHostileToken", sender=actor("deployer").address)
    token.mint(world.vault.address, 77)
    world.deposit("payer", 1_000)
    for call in (
        world.vault.withdraw_for.prepare_calldata(actor("payer").address),
        world.vault.recover.prepare_calldata(token.address, actor("thief").address),
    ):
        token.attack(world.vault.address, call)
        with boa.env.anchor():
            assert recover(world, token.address) == 77
            assert (token.attempts(), token.reentered()) == (1, False)
    assert world.balance("payer") == 1_000


@pytest.mark.parametrize("receiver", ["zero", "vault"])
def test_zero_and_the_vault_itself_are_no_receivers(world: World, receiver: str) -> None:
    donate(world, 5)
    to = ZERO_ADDRESS if receiver == "zero" else world.vault.address
    with reverts(Revert.VAULT_RECEIVER_IS_NOT_ALLOWED):
        world.govern(world.vault, "recover", world.usdc.address, to)


@pytest.mark.parametrize("name", ["guardian", "payer", "arbiter", "deployer", "thief"])
def test_nobody_but_the_owner_recovers(world: World, name: str) -> None:
    donate(world, 5)
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
        recover(world, world.deployment.usdc, sender=actor(name).address)
    assert world.usdc.balanceOf(world.vault.address) == 5


def test_recovery_goes_through_while_paused(world: World) -> None:
    donate(world, 5)
    world.vault.pause(sender=actor("guardian").address)
    assert recover(world, world.deployment.usdc) == 5

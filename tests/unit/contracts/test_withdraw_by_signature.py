"""A balance sent where its owner's signature says, by anyone's hand; and who has signed at all."""

from typing import Any

import boa
import pytest
from eth_account.signers.local import LocalAccount
from world import DAY, World, actor, deploy, reverts

from settlement.models import Withdrawal
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

BALANCE = 10_000_000
AMOUNT = 4_000_000
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
PAYER = actor("payer")


@pytest.fixture
def world(world: World) -> World:
    """The payer has 10 USDC in the vault."""
    world.deposit("payer", BALANCE)
    return world


def withdrawal(world: World, **changes: Any) -> Withdrawal:
    fields = {
        "account": PAYER.address,
        "to": actor("treasury").address,
        "amount": AMOUNT,
        "nonce": 0,
        "deadline": world.now + DAY,
    }
    return Withdrawal(**{**fields, **changes})


def bring(
    world: World,
    order: Withdrawal,
    signature: bytes | None = None,
    signer: LocalAccount = PAYER,
) -> None:
    signature = world.sign_intent(order, signer) if signature is None else signature
    world.vault.withdraw_by_signature(
        order.account,
        order.to,
        order.amount,
        order.deadline,
        signature,
        sender=actor("relayer").address,
    )


def assert_refused(
    world: World, order: Withdrawal, signature: bytes | None = None, signer: LocalAccount = PAYER
) -> None:
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, order, signature, signer)
    assert world.balance("payer") == BALANCE == world.vault.owed()
    assert world.vault.withdrawal_nonces(PAYER.address) == 0


def test_signed_part_is_sent_where_it_was_signed_to(world: World) -> None:
    bring(world, withdrawal(world))
    to = actor("treasury").address
    assert world.events(world.vault) == [
        ("Withdrawn", {"account": PAYER.address, "to": to, "amount": AMOUNT})
    ]
    assert (world.balance("payer"), world.wallet("treasury")) == (BALANCE - AMOUNT, AMOUNT)
    assert world.wallet("relayer") == 0
    assert world.vault.withdrawal_nonces(PAYER.address) == 1
    assert world.vault.owed() == BALANCE - AMOUNT == world.usdc.balanceOf(world.vault.address)


def test_replay_is_refused_and_the_next_nonce_counts(world: World) -> None:
    first = withdrawal(world)
    signature = world.sign_intent(first, PAYER)
    bring(world, first, signature)
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, first, signature)
    bring(world, withdrawal(world, nonce=1))
    assert world.wallet("treasury") == 2 * AMOUNT
    assert world.vault.withdrawal_nonces(PAYER.address) == 2


@pytest.mark.parametrize("nonce", [1, 2, 2**64 - 1])
def test_nonce_ahead_of_its_turn_is_refused(world: World, nonce: int) -> None:
    assert_refused(world, withdrawal(world, nonce=nonce))


def test_nonces_are_each_accounts_own(world: World) -> None:
    friend = actor("friend")
    world.vault.deposit(friend.address, BALANCE, sender=PAYER.address)
    bring(world, withdrawal(world))
    bring(world, withdrawal(world, account=friend.address), signer=friend)
    assert world.vault.withdrawal_nonces(friend.address) == 1
    assert world.balance("friend") == BALANCE - AMOUNT


def test_signature_counts_to_the_second_of_its_deadline(world: World) -> None:
    first = withdrawal(world, deadline=world.now + 60)
    second = withdrawal(world, deadline=world.now + 60, nonce=1)
    world.travel_to(first.deadline)
    bring(world, first)
    world.pass_time(1)
    with reverts(Revert.VAULT_SIGNATURE_HAS_EXPIRED):
        bring(world, second)
    assert world.vault.withdrawal_nonces(PAYER.address) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", actor("thief").address),
        ("to", actor("thief").address),
        ("amount", AMOUNT + 1),
        ("amount", BALANCE),
        ("deadline", 2**64 - 1),
    ],
)
def test_signature_is_for_one_withdrawal(world: World, field: str, value: Any) -> None:
    signed = withdrawal(world)
    other = signed.model_copy(update={field: value})
    assert_refused(world, other, world.sign_intent(signed, PAYER))
    assert world.wallet("thief") == 0


def test_signature_for_another_vault_is_refused(world: World) -> None:
    other, order = world.create_vault(), withdrawal(world)
    assert_refused(world, order, other.sign_intent(order, PAYER))


@pytest.mark.parametrize("name", ["relayer", "thief", "guardian", "treasury"])
def test_nobody_else_signs_for_an_account(world: World, name: str) -> None:
    assert_refused(world, withdrawal(world), signer=actor(name))


def test_zero_address_has_signed_nothing(world: World) -> None:
    order = withdrawal(world).model_copy(update={"account": ZERO_ADDRESS})
    for signature in (bytes(65), bytes(64) + b"\x1b", b""):
        assert_refused(world, order, signature)


@pytest.mark.parametrize("amount", [BALANCE + 1, 2**64 - 1])
def test_more_than_the_balance_is_refused_and_spends_no_nonce(world: World, amount: int) -> None:
    with reverts(Revert.VAULT_BALANCE_TOO_LOW):
        bring(world, withdrawal(world, amount=amount))
    assert world.vault.withdrawal_nonces(PAYER.address) == 0


def test_amount_of_zero_is_refused(world: World) -> None:
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        bring(world, withdrawal(world).model_copy(update={"amount": 0}))


def test_vault_and_zero_are_no_receivers(world: World) -> None:
    for to in (world.deployment.vault, ZERO_ADDRESS):
        with reverts(Revert.VAULT_RECEIVER_IS_NOT_ALLOWED):
            bring(world, withdrawal(world).model_copy(update={"to": to}))
    assert world.vault.withdrawal_nonces(PAYER.address) == 0


# what a signature is, for every function that takes one


@pytest.mark.parametrize("length", [0, 1, 64, 66, 1_024])
def test_signature_of_another_length_is_nobodys(world: World, length: int) -> None:
    order = withdrawal(world)
    signature = (world.sign_intent(order, PAYER) * 16)[:length]
    assert_refused(world, order, signature)


def test_signature_longer_than_a_kilobyte_is_no_valid_call(world: World) -> None:
    with reverts(None):
        bring(world, withdrawal(world), bytes(1_025))


def test_malleated_signature_is_refused(world: World) -> None:
    order = withdrawal(world)
    low = world.sign_intent(order, PAYER)
    high = (ORDER - int.from_bytes(low[32:64], "big")).to_bytes(32, "big")
    assert_refused(world, order, low[:32] + high + bytes([55 - low[64]]))
    bring(world, order, low)


@pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
def test_signature_with_wrong_v_is_refused(world: World, v: int) -> None:
    order = withdrawal(world)
    assert_refused(world, order, world.sign_intent(order, PAYER)[:64] + bytes([v]))


@pytest.mark.parametrize("signature", [bytes(65), bytes(64) + b"\x1b", b"\xff" * 64 + b"\x1c"])
def test_unrecoverable_signature_is_refused(world: World, signature: bytes) -> None:
    assert_refused(world, withdrawal(world), signature)


def give_balance(world: World, account: str) -> None:
    world.vault.deposit(account, BALANCE, sender=PAYER.address)


def test_smart_wallet_withdraws_by_its_owners_signature(world: World) -> None:
    owner = actor("wallet owner")
    wallet = world.wallet_of(owner)
    give_balance(world, wallet.address)
    order = withdrawal(world, account=str(wallet.address))
    for signature in (world.sign_intent(order, actor("thief")), bytes(65), b"", bytes(1_024)):
        with reverts(Revert.VAULT_INVALID_SIGNATURE):
            bring(world, order, signature)
    bring(world, order, signer=owner)
    assert world.vault.balances(wallet.address) == BALANCE - AMOUNT
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, order, signer=owner)


@pytest.mark.parametrize("contract", ["enclaves", "nodes", "usdc"])
def test_contract_that_knows_no_signatures_has_signed_nothing(world: World, contract: str) -> None:
    account = str(getattr(world, contract).address)
    give_balance(world, account)
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, withdrawal(world, account=account))


def test_contract_that_answers_nothing_has_signed_nothing(world: World) -> None:
    """A proxy before an account without code takes any call and answers with no bytes."""
    proxy = deploy("TestUSDCProxy", actor("nobody").address, sender=actor("deployer").address)
    give_balance(world, proxy.address)
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, withdrawal(world, account=str(proxy.address)))


def test_account_with_code_and_a_key_signs_either_way(world: World) -> None:
    """EIP-7702: the payer's account runs a wallet's code, and its own key still is its own."""
    owner = actor("wallet owner")
    boa.env.set_code(PAYER.address, boa.env.get_code(world.wallet_of(owner).address))
    bring(world, withdrawal(world), signer=PAYER)
    bring(world, withdrawal(world, nonce=1), signer=owner)
    with reverts(Revert.VAULT_INVALID_SIGNATURE):
        bring(world, withdrawal(world, nonce=2), signer=actor("thief"))
    assert world.wallet("treasury") == 2 * AMOUNT

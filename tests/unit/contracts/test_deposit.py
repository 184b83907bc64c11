"""Money in advance: an account's own balance in the vault, by allowance or by one signature."""

from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from world import DAY, RICH, World, actor, reverts

from settlement.contracts import JobState, order
from settlement.eip712 import intent_digest
from settlement.models import Deposit, JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

AMOUNT = 5_000_000
MAX_OWED = 2**56 - 1
SALT = b"\x05" * 32


# by allowance


def test_allowance_becomes_the_accounts_balance(world: World) -> None:
    world.deposit("payer", AMOUNT)
    payer = actor("payer").address
    assert world.events(world.vault) == [
        ("Deposited", {"account": payer, "depositor": payer, "amount": AMOUNT})
    ]
    assert world.balance("payer") == AMOUNT == world.vault.owed()
    assert world.usdc.balanceOf(world.vault.address) == AMOUNT
    assert world.wallet("payer") == RICH - AMOUNT


def test_depositor_pays_for_another_account_and_cannot_take_it_back(world: World) -> None:
    world.vault.deposit(actor("friend").address, AMOUNT, sender=actor("payer").address)
    assert (world.balance("friend"), world.balance("payer")) == (AMOUNT, 0)
    with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
        world.vault.withdraw(sender=actor("payer").address)
    assert world.vault.withdraw(sender=actor("friend").address) == AMOUNT
    assert world.wallet("friend") == AMOUNT


def test_deposits_add_up(world: World) -> None:
    world.deposit("payer", 2)
    world.deposit("payer", 3)
    assert world.balance("payer") == 5 == world.vault.owed()


def test_accounts_that_could_never_withdraw_and_zero_amount_are_refused(world: World) -> None:
    for account in (ZERO_ADDRESS, world.vault.address):
        with reverts(Revert.VAULT_ACCOUNT_IS_NOT_ALLOWED):
            world.vault.deposit(account, AMOUNT, sender=actor("payer").address)
    with reverts(Revert.VAULT_AMOUNT_IS_ZERO):
        world.deposit("payer", 0)
    assert world.vault.owed() == 0


def test_vault_owes_at_most_what_its_words_hold(world: World) -> None:
    world.fund(actor("payer"), 2**60)
    world.deposit("payer", MAX_OWED - 1)
    with reverts(Revert.VAULT_AMOUNT_TOO_LARGE):
        world.deposit("payer", 2)
    world.deposit("payer", 1)
    assert world.vault.owed() == MAX_OWED
    terms = world.terms(budget=1)
    with reverts(Revert.VAULT_AMOUNT_TOO_LARGE):
        world.open(terms)
    world.open_many(terms)  # a balance becomes escrow: nothing more is owed
    assert world.vault.owed() == MAX_OWED


@pytest.mark.parametrize("amount", [MAX_OWED + 1, 2**64, 2**256 - 1])
def test_amount_too_large_by_itself_is_refused(world: World, amount: int) -> None:
    with reverts(Revert.VAULT_AMOUNT_TOO_LARGE):
        world.deposit("payer", amount)
    assert world.vault.owed() == 0


def test_usdcs_refusals_leave_no_balance(world: World) -> None:
    payer = actor("payer").address
    world.usdc.approve(world.vault.address, AMOUNT - 1, sender=payer)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.deposit("payer", AMOUNT)
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.deposit("thief", 1)
    world.usdc.approve(world.vault.address, 2 * RICH, sender=payer)
    with reverts(Revert.USDC_BALANCE_TOO_LOW):
        world.deposit("payer", RICH + 1)
    world.usdc.blacklist(payer, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        world.deposit("payer", AMOUNT)
    assert world.balance("payer") == world.vault.owed() == 0


# by signature


def nonce_of(world: World, **changes: Any) -> bytes:
    fields = {"account": actor("payer").address, "amount": AMOUNT, "salt": SALT}
    return intent_digest(Deposit(**{**fields, **changes}), world.deployment.vault_domain)


def authorize(
    world: World, nonce: bytes | None = None, signer: LocalAccount | None = None, **changes: Any
) -> bytes:
    """The payer's signature over a deposit of AMOUNT; its terms matter only by their budget."""
    terms = world.terms(budget=AMOUNT)
    nonce = nonce_of(world) if nonce is None else nonce
    return world.authorization(terms, signer=signer, nonce=nonce, **changes)


def deposit_by(world: World, signature: bytes, **changes: Any) -> None:
    fields = {
        "account": actor("payer").address,
        "amount": AMOUNT,
        "valid_after": 0,
        "valid_before": world.now + DAY,
        "salt": SALT,
        **changes,
    }
    world.vault.deposit_with_authorization(
        *fields.values(), signature, sender=actor("relayer").address
    )


def test_signature_becomes_its_signers_balance_without_allowance(world: World) -> None:
    payer = actor("payer").address
    world.usdc.approve(world.vault.address, 0, sender=payer)
    deposit_by(world, authorize(world))
    assert world.events(world.vault) == [
        ("Deposited", {"account": payer, "depositor": payer, "amount": AMOUNT})
    ]
    assert world.balance("payer") == AMOUNT == world.vault.owed()
    assert world.balance("relayer") == 0
    assert world.wallet("payer") == RICH - AMOUNT
    assert world.usdc.authorizationState(payer, nonce_of(world))


def test_signature_deposits_once_and_a_salt_makes_another(world: World) -> None:
    signature = authorize(world)
    deposit_by(world, signature)
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        deposit_by(world, signature)
    other = b"\x06" * 32
    deposit_by(world, authorize(world, nonce_of(world, salt=other)), salt=other)
    assert world.balance("payer") == 2 * AMOUNT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", actor("thief").address),
        ("amount", AMOUNT + 1),
        ("amount", AMOUNT - 1),
        ("salt", bytes(32)),
        ("valid_after", 1),
    ],
)
def test_signature_cannot_be_diverted_to_another_deposit(
    world: World, field: str, value: Any
) -> None:
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        deposit_by(world, authorize(world), **{field: value})
    assert world.wallet("payer") == RICH
    assert world.balance("payer") == world.balance("thief") == world.vault.owed() == 0


def test_signature_for_a_deposit_opens_no_job(world: World) -> None:
    terms = world.terms(budget=AMOUNT)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        world.vault.open_job_with_authorization(
            terms.payer,
            order(terms),
            0,
            world.now + DAY,
            authorize(world),
            sender=actor("thief").address,
        )
    assert world.job(terms).state == JobState.UNKNOWN


def test_signature_for_a_job_makes_no_deposit(world: World) -> None:
    terms: JobTerms = world.terms(budget=AMOUNT)
    for salt in (terms.salt, world.job_id(terms), SALT):
        with reverts(Revert.USDC_INVALID_SIGNATURE):
            deposit_by(world, world.authorization(terms), salt=salt)
    assert world.balance("payer") == 0


def test_signature_for_another_vault_makes_no_deposit(world: World) -> None:
    other = world.create_vault()
    signature = other.authorization(other.terms(budget=AMOUNT), nonce=nonce_of(other))
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        deposit_by(world, signature)
    deposit_by(other, signature)
    assert (world.balance("payer"), other.balance("payer")) == (0, AMOUNT)


def test_validity_is_usdcs(world: World) -> None:
    before = world.now + 60
    signature = authorize(world, valid_after=world.now, valid_before=before)
    with reverts(Revert.USDC_AUTHORIZATION_NOT_YET_VALID):
        deposit_by(world, signature, valid_after=world.now, valid_before=before)
    after = world.now
    world.travel_to(before)
    with reverts(Revert.USDC_AUTHORIZATION_EXPIRED):
        deposit_by(world, signature, valid_after=after, valid_before=before)


def test_smart_wallet_deposits_by_its_owners_signature(world: World) -> None:
    owner = actor("wallet owner")
    wallet = world.wallet_of(owner)
    nonce = nonce_of(world, account=str(wallet.address))
    strangers = authorize(world, nonce, actor("thief"), payer=wallet.address)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        deposit_by(world, strangers, account=wallet.address)
    signature = authorize(world, nonce, owner, payer=wallet.address)
    deposit_by(world, signature, account=wallet.address)
    assert world.vault.balances(wallet.address) == AMOUNT
    assert world.usdc.balanceOf(wallet.address) == RICH - AMOUNT


def test_amount_is_checked_before_the_signature(world: World) -> None:
    with reverts(Revert.VAULT_AMOUNT_IS_ZERO):
        deposit_by(world, bytes(65), amount=0)
    with reverts(Revert.VAULT_AMOUNT_TOO_LARGE):
        deposit_by(world, bytes(65), amount=MAX_OWED + 1)


@pytest.mark.parametrize("signature", [bytes(65), bytes(64) + b"\x1b"])
def test_zero_account_has_signed_nothing(world: World, signature: bytes) -> None:
    reason = Revert.USDC_UNRECOVERABLE_SIGNATURE if signature[64] else Revert.USDC_INVALID_V
    with reverts(reason):
        deposit_by(world, signature, account=ZERO_ADDRESS)

"""Escrow by one EIP-3009 signature, brought by anyone."""

from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from world import DAY, GRACE, RICH, World, actor, reverts

from settlement.contracts import JobState, order
from settlement.eip712 import (
    intent_digest,
    job_id,
    receive_authorization_digest,
    sign_digest,
    vault_domain,
)
from settlement.models import Deposit, JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def open_by(
    world: World,
    terms: JobTerms,
    signature: bytes,
    *,
    valid_after: int = 0,
    valid_before: int | None = None,
    relayer: LocalAccount | None = None,
) -> bytes:
    return bytes(
        world.vault.open_job_with_authorization(
            terms.payer,
            order(terms),
            valid_after,
            world.now + DAY if valid_before is None else valid_before,
            signature,
            sender=(relayer or actor("relayer")).address,
        )
    )


@pytest.fixture
def frugal(world: World) -> World:
    """The payer has given the vault no allowance: only the signature can move its USDC."""
    world.usdc.approve(world.vault.address, 0, sender=actor("payer").address)
    return world


def test_one_signature_escrows_the_budget_without_allowance(frugal: World) -> None:
    terms = frugal.terms()
    assert open_by(frugal, terms, frugal.authorization(terms)) == frugal.job_id(terms)
    assert [name for name, _ in frugal.events(frugal.vault)] == ["JobOpened"]
    assert frugal.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert frugal.vault.owed() == terms.budget
    assert frugal.usdc.balanceOf(frugal.vault.address) == terms.budget
    assert frugal.wallet("payer") == RICH - terms.budget
    assert frugal.usdc.authorizationState(terms.payer, frugal.job_id(terms))


def test_replay_is_refused(frugal: World) -> None:
    terms = frugal.terms()
    signature = frugal.authorization(terms)
    open_by(frugal, terms, signature)
    with reverts(Revert.VAULT_JOB_EXISTS):
        open_by(frugal, terms, signature)
    assert frugal.wallet("payer") == RICH - terms.budget


def test_replay_after_the_job_is_refunded_is_refused(frugal: World) -> None:
    terms = frugal.terms(deadline=frugal.now + 60)
    before = frugal.now + 10 * DAY
    signature = frugal.authorization(terms, valid_before=before)
    open_by(frugal, terms, signature, valid_before=before)
    frugal.travel_to(terms.deadline + GRACE + 1)
    frugal.refund(terms)
    with reverts(Revert.VAULT_DEADLINE_OUT_OF_RANGE):
        open_by(frugal, terms, signature, valid_before=before)


def test_replay_after_the_job_is_complete_is_refused(frugal: World) -> None:
    terms = frugal.terms()
    signature = frugal.authorization(terms)
    open_by(frugal, terms, signature)
    frugal.settle(frugal.claim(terms, complete=True))
    with reverts(Revert.VAULT_JOB_EXISTS):
        open_by(frugal, terms, signature)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("node_id", 1),
        ("price_per_record", 1),
        ("price_per_epoch", 1),
        ("budget", 1),
        ("budget", -1),
        ("deadline", 1),
    ],
)
def test_signature_authorises_no_other_terms(frugal: World, field: str, change: int) -> None:
    frugal.register_node(hospital="hospital 2")
    terms = frugal.terms()
    other = terms.model_copy(update={field: getattr(terms, field) + change})
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, other, frugal.authorization(terms))
    assert frugal.job(other).state == JobState.UNKNOWN
    assert frugal.wallet("payer") == RICH


def test_signature_of_another_payer_does_not_open(frugal: World) -> None:
    terms = frugal.terms()
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, frugal.authorization(terms, signer=actor("thief")))


def test_thief_cannot_make_the_payers_signature_fund_its_own_terms(frugal: World) -> None:
    terms = frugal.terms()
    stolen = terms.model_copy(update={"payer": actor("thief").address})
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, stolen, frugal.authorization(terms), relayer=actor("thief"))


def test_authorisation_cannot_be_taken_to_usdc_directly(frugal: World) -> None:
    terms = frugal.terms()
    thief = actor("thief").address
    arguments = (
        terms.payer,
        frugal.vault.address,
        terms.budget,
        0,
        frugal.now + DAY,
        frugal.job_id(terms),
        frugal.authorization(terms),
    )
    with reverts("FiatTokenV2: caller must be the payee"):
        frugal.usdc.receiveWithAuthorization(*arguments, sender=thief)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        frugal.usdc.transferWithAuthorization(*arguments, sender=thief)
    open_by(frugal, terms, frugal.authorization(terms))


def test_front_runner_can_only_do_what_the_payer_signed(frugal: World) -> None:
    terms = frugal.terms()
    open_by(frugal, terms, frugal.authorization(terms), relayer=actor("thief"))
    frugal.travel_to(terms.deadline + GRACE + 1)
    frugal.refund(terms)
    assert frugal.balance("payer") == terms.budget
    assert frugal.balance("thief") == 0


def test_authorisation_for_another_vault_does_not_open(frugal: World) -> None:
    other = World.create()
    terms = frugal.terms()
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, other.authorization(terms))


@pytest.mark.parametrize("change", ["to", "value", "nonce", "payer"])
def test_authorisation_that_differs_in_one_field_does_not_open(frugal: World, change: str) -> None:
    terms = frugal.terms()
    wrong: dict[str, Any] = {
        "to": actor("thief").address,
        "value": terms.budget + 1,
        "nonce": bytes(32),
        "payer": actor("thief").address,
    }
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, frugal.authorization(terms, **{change: wrong[change]}))


def test_authorisation_of_another_chain_does_not_open(frugal: World) -> None:
    terms, deployment = frugal.terms(), frugal.deployment
    elsewhere = deployment.model_copy(update={"chain_id": 137})
    digest = receive_authorization_digest(
        elsewhere.usdc_domain,
        payer=terms.payer,
        to=deployment.vault,
        value=terms.budget,
        valid_after=0,
        valid_before=frugal.now + DAY,
        nonce=job_id(terms, vault_domain(137, deployment.vault)),
    )
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, sign_digest(digest, actor("payer").key))


def test_not_yet_valid_authorisation_counts_one_second_later(frugal: World) -> None:
    terms, after = frugal.terms(), frugal.now
    before = after + DAY
    signature = frugal.authorization(terms, valid_after=after, valid_before=before)
    with reverts(Revert.USDC_AUTHORIZATION_NOT_YET_VALID):
        open_by(frugal, terms, signature, valid_after=after, valid_before=before)
    frugal.pass_time(1)
    open_by(frugal, terms, signature, valid_after=after, valid_before=before)


def test_expired_authorisation_is_refused_and_the_second_before_is_not(frugal: World) -> None:
    terms, before = frugal.terms(), frugal.now + 2
    signature = frugal.authorization(terms, valid_before=before)
    frugal.pass_time(2)
    with reverts(Revert.USDC_AUTHORIZATION_EXPIRED):
        open_by(frugal, terms, signature, valid_before=before)
    open_by(
        frugal, terms, frugal.authorization(terms, valid_before=before + 1), valid_before=before + 1
    )


def test_stretched_validity_breaks_the_signature(frugal: World) -> None:
    terms = frugal.terms()
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, frugal.authorization(terms), valid_before=frugal.now + 2 * DAY)


def test_cancelled_authorisation_is_refused(frugal: World) -> None:
    terms = frugal.terms()
    frugal.cancel_authorization(actor("payer"), frugal.job_id(terms))
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        open_by(frugal, terms, frugal.authorization(terms))


@pytest.mark.parametrize("length", [0, 64, 66, 1024])
def test_signature_of_wrong_length_is_refused(frugal: World, length: int) -> None:
    with reverts(Revert.USDC_INVALID_SIGNATURE_LENGTH):
        open_by(frugal, frugal.terms(), b"\x01" * length)


def test_malleated_signature_is_refused(frugal: World) -> None:
    terms = frugal.terms()
    low = frugal.authorization(terms)
    high = low[:32] + (ORDER - int.from_bytes(low[32:64], "big")).to_bytes(32, "big")
    with reverts(Revert.USDC_INVALID_S):
        open_by(frugal, terms, high + bytes([55 - low[64]]))


@pytest.mark.parametrize("v", [0, 1, 29, 255])
def test_signature_with_wrong_v_is_refused(frugal: World, v: int) -> None:
    terms = frugal.terms()
    with reverts(Revert.USDC_INVALID_V):
        open_by(frugal, terms, frugal.authorization(terms)[:64] + bytes([v]))


def test_unrecoverable_signature_is_refused(frugal: World) -> None:
    with reverts(Revert.USDC_UNRECOVERABLE_SIGNATURE):
        open_by(frugal, frugal.terms(), bytes(64) + b"\x1b")


def test_smart_wallet_opens_by_its_owners_signature(frugal: World) -> None:
    owner = actor("wallet owner")
    wallet = frugal.wallet_of(owner)
    terms = frugal.terms(payer=str(wallet.address))
    signature = frugal.authorization(terms, signer=owner)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, frugal.authorization(terms, signer=actor("thief")))
    open_by(frugal, terms, signature)
    assert frugal.usdc.balanceOf(wallet.address) == RICH - terms.budget
    frugal.settle(frugal.claim(terms, complete=True))
    frugal.vault.withdraw_for(wallet.address, sender=actor("anyone").address)
    assert frugal.usdc.balanceOf(wallet.address) == RICH


def test_blacklisted_payer_is_refused(frugal: World) -> None:
    terms = frugal.terms()
    frugal.usdc.blacklist(terms.payer, sender=actor("deployer").address)
    with reverts(Revert.USDC_BLACKLISTED):
        open_by(frugal, terms, frugal.authorization(terms))


def test_paused_usdc_refuses(frugal: World) -> None:
    terms = frugal.terms()
    frugal.usdc.pause(sender=actor("deployer").address)
    with reverts(Revert.USDC_PAUSED):
        open_by(frugal, terms, frugal.authorization(terms))


def test_balance_too_low_changes_nothing(frugal: World) -> None:
    terms = frugal.terms(budget=RICH + 1)
    with reverts(Revert.USDC_BALANCE_TOO_LOW):
        open_by(frugal, terms, frugal.authorization(terms))
    assert frugal.vault.owed() == 0
    assert not frugal.usdc.authorizationState(terms.payer, frugal.job_id(terms))


@pytest.mark.parametrize("signature", [bytes(65), bytes(64) + b"\x1b"])
def test_zero_payer_has_signed_nothing(frugal: World, signature: bytes) -> None:
    terms = frugal.terms().model_copy(update={"payer": ZERO_ADDRESS})
    with reverts(
        Revert.USDC_INVALID_V if not signature[64] else Revert.USDC_UNRECOVERABLE_SIGNATURE
    ):
        open_by(frugal, terms, signature)


def test_payers_signature_for_a_deposit_opens_no_job(frugal: World) -> None:
    terms = frugal.terms()
    deposit = Deposit(account=terms.payer, amount=terms.budget, salt=terms.salt)
    nonce = intent_digest(deposit, frugal.deployment.vault_domain)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, terms, frugal.authorization(terms, nonce=nonce))
    assert frugal.wallet("payer") == RICH


def test_smart_wallets_authorisation_is_for_its_job_id_alone(frugal: World) -> None:
    owner = actor("wallet owner")
    wallet = frugal.wallet_of(owner)
    terms, other = (frugal.terms(n, payer=str(wallet.address)) for n in range(2))
    signature = frugal.authorization(terms, signer=owner)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        open_by(frugal, other, signature)
    open_by(frugal, terms, signature)
    assert frugal.usdc.authorizationState(wallet.address, frugal.job_id(terms))
    with reverts(Revert.VAULT_JOB_EXISTS):
        open_by(frugal, terms, signature)


def test_terms_are_checked_before_the_signature(frugal: World) -> None:
    for terms, reason in (
        (frugal.terms().model_copy(update={"budget": 0}), Revert.VAULT_BUDGET_OUT_OF_RANGE),
        (frugal.terms(deadline=frugal.now), Revert.VAULT_DEADLINE_OUT_OF_RANGE),
        (frugal.terms(deadline=frugal.now + 366 * DAY), Revert.VAULT_DEADLINE_OUT_OF_RANGE),
        (frugal.terms(node_id=9), Revert.VAULT_NODE_IS_NOT_ACTIVE),
    ):
        with reverts(reason):
            open_by(frugal, terms, bytes(65))

"""The test USDC behaves as Circle's FiatToken v2.2, behind its proxy."""

from typing import Any

import pytest
from boa.contracts.abi.abi_contract import ABIContractFactory
from eth_abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from world import DAY, RICH, World, actor, deploy, logs_of, reverts

from settlement.contracts import artifact
from settlement.eip712 import DOMAIN_TYPE, sign_digest
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

PAYER, PAYEE = actor("payer"), actor("hospital")
NONCE = keccak(text="nonce")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

AUTHORIZATION = [
    ("from", "address"),
    ("to", "address"),
    ("value", "uint256"),
    ("validAfter", "uint256"),
    ("validBefore", "uint256"),
    ("nonce", "bytes32"),
]
TYPES = {
    "TransferWithAuthorization": AUTHORIZATION,
    "ReceiveWithAuthorization": AUTHORIZATION,
    "CancelAuthorization": [("authorizer", "address"), ("nonce", "bytes32")],
    "Permit": [
        ("owner", "address"),
        ("spender", "address"),
        ("value", "uint256"),
        ("nonce", "uint256"),
        ("deadline", "uint256"),
    ],
}
FUNCTIONS = {
    "TransferWithAuthorization": ("transferWithAuthorization", AUTHORIZATION),
    "ReceiveWithAuthorization": ("receiveWithAuthorization", AUTHORIZATION),
    "CancelAuthorization": ("cancelAuthorization", TYPES["CancelAuthorization"]),
    "Permit": ("permit", [f for f in TYPES["Permit"] if f[0] != "nonce"]),
}


def fiat_token_abi() -> list[dict[str, Any]]:
    """The v, r, s functions as Circle's ABI declares them."""
    vrs = [("v", "uint8"), ("r", "bytes32"), ("s", "bytes32")]
    return [
        {
            "type": "function",
            "name": name,
            "stateMutability": "nonpayable",
            "inputs": [{"name": n, "type": t} for n, t in [*fields, *vrs]],
            "outputs": [],
        }
        for name, fields in FUNCTIONS.values()
    ]


def sign(world: World, primary: str, message: dict[str, Any], signer: LocalAccount) -> bytes:
    """As a wallet does it, from the typed data and not from our digests."""
    document = {
        "types": {
            "EIP712Domain": [{"name": n, "type": t} for t, n in DOMAIN_TYPE],
            primary: [{"name": n, "type": t} for n, t in TYPES[primary]],
        },
        "primaryType": primary,
        "domain": {
            "name": "USD Coin",
            "version": "2",
            "chainId": world.deployment.chain_id,
            "verifyingContract": world.deployment.usdc,
        },
        "message": message,
    }
    return bytes(signer.sign_message(encode_typed_data(full_message=document)).signature)


def message_for(world: World, primary: str, **changes: Any) -> dict[str, Any]:
    now = world.now
    fields: dict[str, Any] = {
        "from": PAYER.address,
        "to": PAYEE.address,
        "value": 1_000,
        "validAfter": 0,
        "validBefore": now + DAY,
        "nonce": 0 if primary == "Permit" else NONCE,
        "authorizer": PAYER.address,
        "owner": PAYER.address,
        "spender": PAYEE.address,
        "deadline": now + DAY,
    }
    return {**{name: fields[name] for name, _ in TYPES[primary]}, **changes}


def send(
    world: World,
    primary: str,
    form: str,
    *,
    signer: LocalAccount = PAYER,
    signature: bytes | None = None,
    sender: str | None = None,
    **changes: Any,
) -> None:
    message = message_for(world, primary, **changes)
    signature = sign(world, primary, message, signer) if signature is None else signature
    name, fields = FUNCTIONS[primary]
    values = [message[field] for field, _ in fields]
    address = sender or PAYEE.address
    if form == "bytes":
        getattr(world.usdc, name)(*values, signature, sender=address)
    else:
        token = ABIContractFactory("FiatToken", fiat_token_abi()).at(world.usdc.address)
        r, s, v = signature[:32], signature[32:64], signature[64]
        getattr(token, name)(*values, v, r, s, sender=address)


ALL = list(TYPES)
FORMS = ["bytes", "vrs"]
MOVING = ["TransferWithAuthorization", "ReceiveWithAuthorization"]
by_form = pytest.mark.parametrize("form", FORMS)
by_moving = pytest.mark.parametrize("primary", MOVING)


def circle(world: World, function: str, *arguments: Any) -> None:
    getattr(world.usdc, function)(*arguments, sender=actor("deployer").address)


# identity and EIP-20


def test_name_version_and_domain_are_native_usdcs(world: World) -> None:
    token = world.usdc
    assert (token.name(), token.symbol(), token.version(), token.decimals(), token.currency()) == (
        "USD Coin", "USDC", "2", 6, "USD",
    )  # fmt: skip
    assert token.DOMAIN_SEPARATOR() == world.deployment.usdc_domain.separator


def test_state_lives_in_the_proxy(world: World) -> None:
    other = ABIContractFactory("TestUSDC", artifact("TestUSDC").abi)
    again = deploy(
        "TestUSDCProxy", deploy("TestUSDC", sender=PAYER.address).address, sender=PAYER.address
    )
    assert other.at(again.address).balanceOf(PAYER.address) == 0
    assert world.usdc.totalSupply() == RICH


def test_second_initialisation_is_refused(world: World) -> None:
    with reverts("Initializable: contract is already initialized"):
        world.usdc.initialize(actor("thief").address, sender=actor("thief").address)


def test_transfer_moves_the_amount(world: World) -> None:
    assert world.usdc.transfer(PAYEE.address, 7, sender=PAYER.address)
    (log,) = logs_of(world.usdc)
    assert log["topics"][0] == keccak(text="Transfer(address,address,uint256)")
    assert int.from_bytes(log["data"], "big") == 7
    assert (world.wallet("payer"), world.wallet("hospital")) == (RICH - 7, 7)


def test_transfer_to_oneself_changes_nothing(world: World) -> None:
    world.usdc.transfer(PAYER.address, RICH, sender=PAYER.address)
    assert world.wallet("payer") == RICH == world.usdc.totalSupply()


def test_transfer_of_too_much_or_to_nobody_is_refused(world: World) -> None:
    with reverts(Revert.USDC_BALANCE_TOO_LOW):
        world.usdc.transfer(PAYEE.address, RICH + 1, sender=PAYER.address)
    with reverts("ERC20: transfer to the zero address"):
        world.usdc.transfer(ZERO_ADDRESS, 1, sender=PAYER.address)


def test_transfer_to_the_token_itself_is_refused(world: World) -> None:
    with reverts(Revert.USDC_BLACKLISTED):
        world.usdc.transfer(world.usdc.address, 1, sender=PAYER.address)


def test_allowance_is_used_up_even_when_it_is_the_greatest(world: World) -> None:
    world.usdc.approve(PAYEE.address, 2**256 - 1, sender=PAYER.address)
    world.usdc.transferFrom(PAYER.address, PAYEE.address, 5, sender=PAYEE.address)
    assert world.usdc.allowance(PAYER.address, PAYEE.address) == 2**256 - 6
    with reverts(Revert.USDC_ALLOWANCE_TOO_LOW):
        world.usdc.transferFrom(PAYER.address, PAYEE.address, 1, sender=actor("thief").address)


@pytest.mark.parametrize("function", ["mint", "blacklist", "unBlacklist", "pause", "unpause"])
def test_only_circle_mints_blacklists_and_pauses(world: World, function: str) -> None:
    arguments = {"mint": (PAYER.address, 1), "pause": (), "unpause": ()}.get(
        function, (PAYER.address,)
    )
    with reverts("Ownable: caller is not the owner"):
        getattr(world.usdc, function)(*arguments, sender=actor("thief").address)


def test_unknown_function_is_refused(world: World) -> None:
    with reverts("TestUSDC: unknown function"):
        world.call_raw(world.usdc, b"\x12\x34\x56\x78", "thief")


# permit


@by_form
def test_permit_sets_the_allowance_once(world: World, form: str) -> None:
    message = message_for(world, "Permit")
    signature = sign(world, "Permit", message, PAYER)
    send(world, "Permit", form, signature=signature)
    assert world.usdc.allowance(PAYER.address, PAYEE.address) == 1_000
    assert world.usdc.nonces(PAYER.address) == 1
    with reverts("EIP2612: invalid signature"):
        send(world, "Permit", form, signature=signature)


@by_form
def test_permit_is_good_up_to_its_deadline(world: World, form: str) -> None:
    deadline = world.now
    send(world, "Permit", form, deadline=deadline)
    world.pass_time(1)
    with reverts("FiatTokenV2: permit is expired"):
        send(world, "Permit", form, deadline=deadline, nonce=1)


@by_form
def test_forged_permit_is_refused(world: World, form: str) -> None:
    with reverts("EIP2612: invalid signature"):
        send(world, "Permit", form, signer=actor("thief"))
    assert world.usdc.nonces(PAYER.address) == 0


# EIP-3009


@by_form
@by_moving
def test_authorisation_moves_the_amount_once(world: World, primary: str, form: str) -> None:
    send(world, primary, form)
    assert (world.wallet("payer"), world.wallet("hospital")) == (RICH - 1_000, 1_000)
    assert world.usdc.authorizationState(PAYER.address, NONCE)
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        send(world, primary, form)


@by_form
def test_anyone_brings_a_transfer_but_only_the_payee_a_receipt(world: World, form: str) -> None:
    thief = actor("thief").address
    with reverts("FiatTokenV2: caller must be the payee"):
        send(world, "ReceiveWithAuthorization", form, sender=thief)
    send(world, "TransferWithAuthorization", form, sender=thief)
    assert world.wallet("hospital") == 1_000


@by_form
def test_one_kind_of_authorisation_is_not_another(world: World, form: str) -> None:
    message = message_for(world, "ReceiveWithAuthorization")
    signature = sign(world, "ReceiveWithAuthorization", message, PAYER)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        send(world, "TransferWithAuthorization", form, signature=signature)


@by_form
@by_moving
def test_nonce_used_by_one_kind_is_used_for_both(world: World, primary: str, form: str) -> None:
    send(world, primary, form)
    (other,) = set(MOVING) - {primary}
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        send(world, other, form)


@by_form
@by_moving
def test_validity_excludes_both_its_ends(world: World, primary: str, form: str) -> None:
    after, before = world.now, world.now + 2
    with reverts(Revert.USDC_AUTHORIZATION_NOT_YET_VALID):
        send(world, primary, form, validAfter=after, validBefore=before)
    world.pass_time(1)
    send(world, primary, form, validAfter=after, validBefore=before)
    world.pass_time(1)
    with reverts(Revert.USDC_AUTHORIZATION_EXPIRED):
        send(world, primary, form, validAfter=after, validBefore=before, nonce=bytes(32))


@by_form
@by_moving
def test_forged_authorisation_is_refused(world: World, primary: str, form: str) -> None:
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        send(world, primary, form, signer=actor("thief"))
    assert not world.usdc.authorizationState(PAYER.address, NONCE)


@by_form
@pytest.mark.parametrize("primary", ALL)
def test_malformed_signatures_are_refused(world: World, primary: str, form: str) -> None:
    good = sign(world, primary, message_for(world, primary), PAYER)
    high = good[:32] + (ORDER - int.from_bytes(good[32:64], "big")).to_bytes(32, "big")
    cases = [
        (high + bytes([55 - good[64]]), Revert.USDC_INVALID_S),
        (good[:64] + b"\x00", Revert.USDC_INVALID_V),
        (bytes(64) + b"\x1b", Revert.USDC_UNRECOVERABLE_SIGNATURE),
    ]
    if form == "bytes":
        cases += [
            (good[:64], Revert.USDC_INVALID_SIGNATURE_LENGTH),
            (b"", Revert.USDC_INVALID_SIGNATURE_LENGTH),
        ]
    for signature, reason in cases:
        with reverts(reason):
            send(world, primary, form, signature=signature)
    send(world, primary, form, signature=good)


@by_form
def test_cancelled_authorisation_is_refused(world: World, form: str) -> None:
    send(world, "CancelAuthorization", form, sender=actor("anyone").address)
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        send(world, "ReceiveWithAuthorization", form)
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        send(world, "CancelAuthorization", form)


@by_form
def test_forged_and_late_cancellations_are_refused(world: World, form: str) -> None:
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        send(world, "CancelAuthorization", form, signer=actor("thief"))
    send(world, "ReceiveWithAuthorization", form)
    with reverts(Revert.USDC_AUTHORIZATION_USED):
        send(world, "CancelAuthorization", form)


def test_authorisation_of_more_than_the_balance_leaves_the_nonce_unused(world: World) -> None:
    with reverts(Revert.USDC_BALANCE_TOO_LOW):
        send(world, "TransferWithAuthorization", "bytes", value=RICH + 1)
    assert not world.usdc.authorizationState(PAYER.address, NONCE)


def test_signature_under_another_domain_is_refused(world: World) -> None:
    other = World.create()
    message = message_for(world, "TransferWithAuthorization")
    signature = sign(other, "TransferWithAuthorization", message, PAYER)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        send(world, "TransferWithAuthorization", "bytes", signature=signature)


# ERC-1271


@by_form
@pytest.mark.parametrize("primary", ALL)
def test_smart_wallet_signs_by_its_owners_key(world: World, primary: str, form: str) -> None:
    owner = Account.from_key(keccak(text="wallet owner"))
    wallet = deploy("TestWallet", owner.address, sender=owner.address)
    circle(world, "mint", wallet.address, 5_000)
    role = {"Permit": "owner", "CancelAuthorization": "authorizer"}.get(primary, "from")
    fields = {role: str(wallet.address)}
    reason = "EIP2612: invalid signature" if primary == "Permit" else Revert.USDC_INVALID_SIGNATURE
    with reverts(reason):
        send(world, primary, form, signer=actor("thief"), **fields)
    send(world, primary, form, signer=owner, **fields)
    if primary in MOVING:
        assert world.usdc.balanceOf(wallet.address) == 4_000


def test_contract_without_erc1271_signs_nothing(world: World) -> None:
    circle(world, "mint", world.vault.address, 5_000)
    with reverts(Revert.USDC_INVALID_SIGNATURE):
        send(world, "TransferWithAuthorization", "bytes", **{"from": str(world.vault.address)})


# blacklist and pause


@pytest.mark.parametrize("account", [PAYER, PAYEE], ids=["from", "to"])
def test_blacklist_stops_every_way_of_moving(world: World, account: LocalAccount) -> None:
    world.usdc.approve(PAYEE.address, 10, sender=PAYER.address)
    circle(world, "blacklist", account.address)
    with reverts(Revert.USDC_BLACKLISTED):
        world.usdc.transfer(PAYEE.address, 1, sender=PAYER.address)
    with reverts(Revert.USDC_BLACKLISTED):
        world.usdc.transferFrom(PAYER.address, PAYEE.address, 1, sender=PAYEE.address)
    for primary in MOVING:
        for form in FORMS:
            with reverts(Revert.USDC_BLACKLISTED):
                send(world, primary, form)
    circle(world, "unBlacklist", account.address)
    world.usdc.transfer(PAYEE.address, 1, sender=PAYER.address)


def test_blacklist_keeps_the_balance_and_stops_no_approval(world: World) -> None:
    circle(world, "blacklist", PAYER.address)
    assert world.usdc.isBlacklisted(PAYER.address)
    assert world.wallet("payer") == RICH
    world.usdc.approve(PAYEE.address, 3, sender=PAYER.address)
    send(world, "Permit", "bytes")
    circle(world, "unBlacklist", PAYER.address)
    assert not world.usdc.isBlacklisted(PAYER.address)
    assert world.wallet("payer") == RICH


def test_nothing_is_minted_to_the_blacklisted_or_to_nobody(world: World) -> None:
    circle(world, "blacklist", PAYEE.address)
    with reverts(Revert.USDC_BLACKLISTED):
        circle(world, "mint", PAYEE.address, 1)
    with reverts("FiatToken: mint to the zero address"):
        circle(world, "mint", ZERO_ADDRESS, 1)
    with reverts("FiatToken: mint amount not greater than 0"):
        circle(world, "mint", PAYER.address, 0)


@pytest.mark.parametrize("primary", ALL)
def test_pause_stops_every_signed_call(world: World, primary: str) -> None:
    circle(world, "pause")
    for form in FORMS:
        with reverts(Revert.USDC_PAUSED):
            send(world, primary, form)
    circle(world, "unpause")
    send(world, primary, "bytes")


def test_pause_stops_plain_calls(world: World) -> None:
    circle(world, "pause")
    for call in ("transfer", "approve"):
        with reverts(Revert.USDC_PAUSED):
            getattr(world.usdc, call)(PAYEE.address, 1, sender=PAYER.address)
    with reverts(Revert.USDC_PAUSED):
        world.usdc.transferFrom(PAYER.address, PAYEE.address, 1, sender=world.vault.address)
    with reverts(Revert.USDC_PAUSED):
        circle(world, "mint", PAYER.address, 1)


def test_sdk_digest_of_a_cancellation_is_the_wallets(world: World) -> None:
    wallet = sign(world, "CancelAuthorization", message_for(world, "CancelAuthorization"), PAYER)
    type_hash = keccak(text="CancelAuthorization(address authorizer,bytes32 nonce)")
    struct = keccak(encode(["bytes32", "address", "bytes32"], [type_hash, PAYER.address, NONCE]))
    digest = keccak(b"\x19\x01" + world.deployment.usdc_domain.separator + struct)
    assert sign_digest(digest, PAYER.key) == wallet

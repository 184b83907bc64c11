"""Which committee the registry asks, in which epoch; how a committee answers is its own tests'."""

from typing import Any

import boa
import pytest
from eth_account.signers.local import LocalAccount
from world import (
    COMMITTEE,
    MEASUREMENT,
    WITHOUT_PLATFORMS,
    World,
    actor,
    create_committee,
    deploy,
    reverts,
)

from settlement.bls import BlsSigner
from settlement.committee import BlsCommittee, creation, join_signatures
from settlement.contracts import abi_value
from settlement.eip712 import registration_digest
from settlement.models import EnclaveRegistration
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

KEY = actor("enclave 2").address
FIRST, SECOND, THIRD = COMMITTEE
NEWCOMERS = sorted((actor(f"new operator {i}") for i in range(2)), key=lambda a: int(a.address, 16))

# a committee that says what it was told to say
PUPPET = """
# pragma version 0.4.3
threshold: public(immutable(uint256))
ANSWER: immutable(bool)
@deploy
def __init__(needed: uint256, answer: bool):
    threshold = needed
    ANSWER = answer
@external
@view
def is_signed(digest: bytes32, signatures: Bytes[2080]) -> bool:
    return ANSWER
"""


def register(
    world: World,
    signatures: list[bytes] | None = None,
    registration: EnclaveRegistration | None = None,
) -> None:
    registration = registration or world.registration(enclave_key=KEY)
    if signatures is None:
        signatures = world.co_sign(registration)
    world.enclaves.register(
        abi_value(registration), b"".join(signatures), sender=actor("anyone").address
    )


def signed(world: World, *signers: LocalAccount) -> list[bytes]:
    return world.co_sign(world.registration(enclave_key=KEY), list(signers)) if signers else []


def set_committee(world: World, committee: Any) -> None:
    world.govern(world.enclaves, "set_committee", committee.address)


@pytest.mark.parametrize(
    "signers", [(FIRST, SECOND), (FIRST, THIRD), (SECOND, THIRD), (FIRST, SECOND, THIRD)]
)
def test_any_quorum_registers(world: World, signers: tuple[LocalAccount, ...]) -> None:
    register(world, signed(world, *signers))
    assert world.enclaves.is_valid(KEY, 1)


@pytest.mark.parametrize(
    ("signers", "refusal"),
    [
        ((), Revert.COMMITTEE_TOO_FEW_SIGNATURES),
        ((FIRST,), Revert.COMMITTEE_TOO_FEW_SIGNATURES),
        ((FIRST, FIRST), Revert.COMMITTEE_SIGNATURES_NOT_SORTED),
        ((SECOND, FIRST), Revert.COMMITTEE_SIGNATURES_NOT_SORTED),
        ((actor("guardian"), SECOND), Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER),
    ],
)
def test_what_the_committee_refuses_registers_nothing(
    world: World, signers: tuple[LocalAccount, ...], refusal: Revert
) -> None:
    with reverts(refusal):
        register(world, signed(world, *signers))
    assert not world.enclaves.is_valid(KEY, 1)


def test_more_signatures_than_any_committee_takes_are_no_valid_call(world: World) -> None:
    with reverts(None):
        register(world, signed(world, FIRST) * 33)


@pytest.mark.parametrize("length", [0, 64, 65])
def test_question_whether_a_digest_is_signed_says_why_not(world: World, length: int) -> None:
    """What the vault asks of an assignment: a view that reverts where it cannot say yes."""
    digest = world.enclaves.registration_digest(abi_value(world.registration(enclave_key=KEY)))
    good = b"".join(signed(world, FIRST, SECOND))
    assert world.enclaves.is_signed(digest, good) is True
    short = Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES
    with reverts(short if length == 64 else Revert.COMMITTEE_TOO_FEW_SIGNATURES):
        world.enclaves.is_signed(digest, good[:length])
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.enclaves.is_signed(bytes(32), good)


def test_committee_that_says_no_without_a_reason_is_refused_too(world: World) -> None:
    set_committee(world, boa.loads(PUPPET, 1, False))
    registration = world.registration(enclave_key=KEY)
    with reverts(Revert.ENCLAVES_NOT_SIGNED_BY_THE_COMMITTEE):
        register(world, [], registration)
    with reverts(Revert.ENCLAVES_NOT_SIGNED_BY_THE_COMMITTEE):
        world.enclaves.is_signed(bytes(32), b"")
    set_committee(world, boa.loads(PUPPET, 1, True))
    register(world, [], registration.model_copy(update={"epoch": 3}))
    assert world.enclaves.is_valid(KEY, 1)


def test_bls_committee_registers_by_one_aggregated_signature(world: World) -> None:
    signers = [BlsSigner(actor(f"operator {i}").key) for i in range(3)]
    name, arguments = creation([signer.prove() for signer in signers], 2)
    set_committee(world, deploy(name, *arguments, sender=actor("deployer").address))
    keys = sorted((s.public for s in signers), key=lambda k: k.key)
    committee = BlsCommittee(members=tuple(keys), threshold=2)
    registration = world.registration(enclave_key=KEY)
    assert registration.epoch == 2
    digest = registration_digest(registration, world.deployment.enclave_domain)
    made = {signer.public.id: signer.sign(digest, 31337) for signer in signers[:2]}
    with reverts(Revert.COMMITTEE_SIGNATURE_NOT_OF_224_BYTES):
        register(world, None, registration)
    longer = registration.model_copy(update={"expiry": registration.expiry + 1})
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        register(world, [join_signatures(committee, made)], longer)
    register(world, [join_signatures(committee, made)], registration)
    assert world.enclaves.is_valid(KEY, 1)


def test_new_committee_voids_what_the_old_one_signed(world: World) -> None:
    registration = world.registration(enclave_key=KEY)
    old = world.co_sign(registration)
    committee = create_committee([m.address for m in NEWCOMERS], 2)
    set_committee(world, committee)
    assert world.events(world.enclaves) == [
        ("CommitteeChanged", {"epoch": 2, "committee": committee.address})
    ]
    assert (world.enclaves.epoch(), world.enclaves.committee()) == (2, committee.address)
    assert world.enclaves.threshold() == 2
    with reverts(Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE):
        register(world, old, registration)
    renamed = registration.model_copy(update={"epoch": 2})
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        register(world, world.co_sign(renamed), renamed)
    register(world, world.co_sign(renamed, NEWCOMERS), renamed)
    assert world.enclaves.is_valid(KEY, 1)


def test_same_committee_signs_anew_after_a_new_epoch(world: World) -> None:
    registration = world.registration(enclave_key=KEY)
    old = world.co_sign(registration)
    world.govern(world.enclaves, "set_committee", world.enclaves.committee())
    renamed = registration.model_copy(update={"epoch": 2})
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        register(world, old, renamed)
    register(world, None, renamed)


@pytest.mark.parametrize("epoch", [0, 2, 2**64 - 1])
def test_registration_of_another_epoch_is_refused(world: World, epoch: int) -> None:
    with reverts(Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE):
        register(world, None, world.registration(enclave_key=KEY, epoch=epoch))


def test_threshold_is_the_present_committees(world: World) -> None:
    assert world.enclaves.threshold() == 2
    set_committee(world, create_committee([m.address for m in COMMITTEE], 3))
    assert world.enclaves.threshold() == 3


def test_keys_that_an_old_committee_registered_count_until_they_expire(world: World) -> None:
    set_committee(world, create_committee([NEWCOMERS[0].address], 1))
    assert world.enclaves.is_valid(actor("enclave").address, 1)


@pytest.mark.parametrize("what", ["account", "zero", "other contract", "needs nobody"])
def test_only_what_answers_like_a_committee_is_set(world: World, what: str) -> None:
    address = {
        "account": lambda: actor("thief").address,
        "zero": lambda: ZERO_ADDRESS,
        "other contract": lambda: world.vault.address,
        "needs nobody": lambda: boa.loads(PUPPET, 0, True).address,
    }[what]()
    # a contract without the function refuses without a word
    refusal = None if what == "other contract" else Revert.ENCLAVES_NOT_A_COMMITTEE
    before = (world.enclaves.epoch(), world.enclaves.committee())
    with reverts(refusal):
        world.govern(world.enclaves, "set_committee", address)
    assert (world.enclaves.epoch(), world.enclaves.committee()) == before
    with reverts(refusal):
        deploy(
            "EnclaveRegistry",
            world.timelock.address,
            actor("guardian").address,
            address,
            [MEASUREMENT],
            WITHOUT_PLATFORMS.abi_value(ZERO_ADDRESS),
            sender=actor("deployer").address,
        )


def test_registry_starts_with_its_committee_in_epoch_one(world: World) -> None:
    made = deploy(
        "EnclaveRegistry",
        world.timelock.address,
        actor("guardian").address,
        world.enclaves.committee(),
        [],
        WITHOUT_PLATFORMS.abi_value(ZERO_ADDRESS),
        sender=actor("deployer").address,
    )
    assert (made.epoch(), made.committee()) == (1, world.enclaves.committee())

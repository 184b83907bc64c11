"""M-of-N signatures: how many, by whom, in which epoch."""

import pytest
from eth_account.signers.local import LocalAccount
from world import COMMITTEE, MEASUREMENT, WITHOUT_PLATFORMS, World, actor, deploy, reverts

from settlement.contracts import abi_value
from settlement.models import EnclaveRegistration
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

KEY = actor("enclave 2").address
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FIRST, SECOND, THIRD = COMMITTEE


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


@pytest.mark.parametrize(
    "signers", [(FIRST, SECOND), (FIRST, THIRD), (SECOND, THIRD), (FIRST, SECOND, THIRD)]
)
def test_any_quorum_registers(world: World, signers: tuple[LocalAccount, ...]) -> None:
    register(world, signed(world, *signers))
    assert world.enclaves.is_valid(KEY, 1)


@pytest.mark.parametrize("signers", [(), (FIRST,)])
def test_too_few_signatures_are_refused(world: World, signers: tuple[LocalAccount, ...]) -> None:
    with reverts(Revert.COMMITTEE_TOO_FEW_SIGNATURES):
        register(world, signed(world, *signers))


def test_one_member_does_not_count_twice(world: World) -> None:
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_SORTED):
        register(world, signed(world, FIRST, FIRST))


def test_one_member_does_not_count_twice_by_two_forms_of_its_signature(world: World) -> None:
    (low,) = signed(world, FIRST)
    s = int.from_bytes(low[32:64], "big")
    high = low[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - low[64]])
    with reverts(Revert.ECDSA_INVALID_S):
        register(world, [low, high])


def test_unsorted_signatures_are_refused(world: World) -> None:
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_SORTED):
        register(world, signed(world, SECOND, FIRST))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_strangers_signature_among_good_ones_is_refused(world: World, position: int) -> None:
    signers = [FIRST, SECOND]
    signers.insert(position, actor("thief"))
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        register(world, signed(world, *signers))


@pytest.mark.parametrize("name", ["guardian", "proposer", "enclave", "registrar"])
def test_no_other_role_signs_in_place_of_a_member(world: World, name: str) -> None:
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        register(world, signed(world, actor(name), SECOND))


@pytest.mark.parametrize("length", [1, 64, 66, 129, 131, 2_079])
def test_signatures_that_are_not_65_bytes_each_are_refused(world: World, length: int) -> None:
    signatures = (b"".join(signed(world, FIRST, SECOND)) * 16)[:length]
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES):
        register(world, [signatures])


def test_compact_signature_is_not_taken(world: World) -> None:
    (low,) = signed(world, FIRST)
    s = int.from_bytes(low[32:64], "big")
    compact = low[:32] + (s | (low[64] - 27) << 255).to_bytes(32, "big")
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES):
        register(world, [compact, *signed(world, SECOND)])


def test_more_signatures_than_a_committee_can_have_are_no_valid_call(world: World) -> None:
    with reverts(None):
        register(world, signed(world, FIRST) * 33)


@pytest.mark.parametrize("length", [0, 64, 65])
def test_question_whether_a_digest_is_signed_says_why_not(world: World, length: int) -> None:
    """What the vault asks of an assignment: a view that reverts where it cannot say yes."""
    digest = world.enclaves.registration_digest(abi_value(world.registration(enclave_key=KEY)))
    good = b"".join(signed(world, FIRST, SECOND))
    assert world.enclaves.is_signed(digest, good)
    short = Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES
    with reverts(short if length == 64 else Revert.COMMITTEE_TOO_FEW_SIGNATURES):
        world.enclaves.is_signed(digest, good[:length])
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.enclaves.is_signed(bytes(32), good)


@pytest.mark.parametrize("signature", [bytes(65), bytes(64) + b"\x1b"])
def test_unrecoverable_signature_is_refused(world: World, signature: bytes) -> None:
    with reverts(Revert.ECDSA_INVALID_SIGNATURE):
        register(world, [signature, *signed(world, SECOND)])


def test_new_committee_voids_what_the_old_one_signed(world: World) -> None:
    registration = world.registration(enclave_key=KEY)
    old = world.co_sign(registration)
    members = sorted(
        (actor(f"new operator {i}") for i in range(2)), key=lambda a: int(a.address, 16)
    )
    world.govern(world.enclaves, "set_committee", [m.address for m in members], 2)
    ((name, args),) = world.events(world.enclaves)
    assert (name, args["epoch"], args["threshold"]) == ("CommitteeChanged", 2, 2)
    assert list(args["members"]) == [m.address for m in members]
    assert (world.enclaves.epoch(), world.enclaves.threshold()) == (2, 2)
    with reverts(Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE):
        register(world, old, registration)
    renamed = registration.model_copy(update={"epoch": 2})
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        register(world, world.co_sign(renamed), renamed)
    register(world, world.co_sign(renamed, members), renamed)
    assert world.enclaves.is_valid(KEY, 1)


def test_unchanged_members_sign_anew_after_a_new_epoch(world: World) -> None:
    registration = world.registration(enclave_key=KEY)
    old = world.co_sign(registration)
    world.govern(world.enclaves, "set_committee", [m.address for m in COMMITTEE], 2)
    renamed = registration.model_copy(update={"epoch": 2})
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        register(world, old, renamed)
    register(world, None, renamed)


@pytest.mark.parametrize("epoch", [0, 2, 2**64 - 1])
def test_registration_of_another_epoch_is_refused(world: World, epoch: int) -> None:
    with reverts(Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE):
        register(world, None, world.registration(enclave_key=KEY, epoch=epoch))


def test_keys_that_an_old_committee_registered_count_until_they_expire(world: World) -> None:
    world.govern(world.enclaves, "set_committee", [actor("new operator 0").address], 1)
    assert world.enclaves.is_valid(actor("enclave").address, 1)


def test_membership_is_of_the_present_epoch(world: World) -> None:
    assert all(world.enclaves.is_member(m.address) for m in COMMITTEE)
    assert not world.enclaves.is_member(ZERO_ADDRESS)
    world.govern(world.enclaves, "set_committee", [actor("new operator 0").address], 1)
    assert not any(world.enclaves.is_member(m.address) for m in COMMITTEE)
    assert world.enclaves.is_member(actor("new operator 0").address)


@pytest.mark.parametrize("threshold", [0, 4, 2**256 - 1])
def test_threshold_is_from_one_to_the_number_of_members(world: World, threshold: int) -> None:
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        world.govern(world.enclaves, "set_committee", [m.address for m in COMMITTEE], threshold)
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        deploy(
            "EnclaveRegistry",
            world.timelock.address,
            actor("guardian").address,
            [m.address for m in COMMITTEE],
            threshold,
            [MEASUREMENT],
            WITHOUT_PLATFORMS.abi_value(ZERO_ADDRESS),
            sender=actor("deployer").address,
        )


@pytest.mark.parametrize(
    "members",
    [
        [SECOND.address, FIRST.address],
        [FIRST.address, FIRST.address],
        [ZERO_ADDRESS, FIRST.address],
        [ZERO_ADDRESS],
    ],
    ids=["unsorted", "twice", "zero among members", "zero alone"],
)
def test_members_are_sorted_distinct_and_not_zero(world: World, members: list[str]) -> None:
    with reverts(Revert.COMMITTEE_MEMBERS_NOT_SORTED):
        world.govern(world.enclaves, "set_committee", members, 1)


def test_committee_of_the_greatest_size_registers(world: World) -> None:
    members = sorted((actor(f"operator {i}") for i in range(32)), key=lambda a: int(a.address, 16))
    world.govern(world.enclaves, "set_committee", [m.address for m in members], 32)
    registration = world.registration(enclave_key=KEY)
    register(world, world.co_sign(registration, members), registration)
    assert world.enclaves.is_valid(KEY, 1)

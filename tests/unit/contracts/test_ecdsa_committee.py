"""The committee that signs by ECDSA: how many, by whom, in which form."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import boa
import pytest
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from world import actor, deploy, reverts

from settlement.committee import EcdsaCommittee, creation, join_signatures, signers_of
from settlement.eip712 import sign_digest
from settlement.errors import InvalidInput
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DIGEST = keccak(text="digest")
MEMBERS = sorted((actor(f"operator {i}") for i in range(5)), key=lambda a: int(a.address, 16))
FIRST, SECOND, THIRD, FOURTH, FIFTH = MEMBERS
THRESHOLD = 3


def create(members: list[str], threshold: int) -> Any:
    return deploy("EcdsaCommittee", members, threshold, sender=actor("deployer").address)


@pytest.fixture(scope="module")
def committee() -> Iterator[Any]:
    with boa.env.anchor():
        yield create([member.address for member in MEMBERS], THRESHOLD)


def signed(*signers: LocalAccount, digest: bytes = DIGEST) -> bytes:
    return b"".join(sign_digest(digest, signer.key) for signer in signers)


def test_it_says_what_it_is(committee: Any) -> None:
    assert committee.scheme() == "ecdsa"
    assert (committee.size(), committee.threshold()) == (5, 3)
    assert [str(member) for member in committee.members()] == [m.address for m in MEMBERS]
    assert all(committee.is_member(member.address) for member in MEMBERS)
    assert not committee.is_member(actor("thief").address)
    assert not committee.is_member(ZERO_ADDRESS)


@pytest.mark.parametrize("count", range(6))
def test_just_the_quorums_among_all_subsets_sign(committee: Any, count: int) -> None:
    for signers in combinations(MEMBERS, count):
        if count >= THRESHOLD:
            assert committee.is_signed(DIGEST, signed(*signers)) is True
        else:
            with reverts(Revert.COMMITTEE_TOO_FEW_SIGNATURES):
                committee.is_signed(DIGEST, signed(*signers))


@pytest.mark.parametrize(
    "signers",
    [
        (FIRST, SECOND, SECOND),
        (FIRST, FIRST, SECOND),
        (FIFTH, FIFTH, FIFTH),
        (SECOND, FIRST, THIRD),
        (FIRST, THIRD, SECOND),
        (FIFTH, FIRST, SECOND),
    ],
)
def test_member_signs_once_and_in_its_order(
    committee: Any, signers: tuple[LocalAccount, ...]
) -> None:
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_SORTED):
        committee.is_signed(DIGEST, signed(*signers))


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("name", ["thief", "stranger", "enclave", "guardian"])
def test_stranger_among_members_is_refused(committee: Any, position: int, name: str) -> None:
    signers = [FIRST, SECOND, FIFTH]
    signers.insert(position, actor(name))
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        committee.is_signed(DIGEST, signed(*signers))


def test_one_member_does_not_count_twice_by_two_forms_of_its_signature(committee: Any) -> None:
    low = signed(FIRST)
    s = int.from_bytes(low[32:64], "big")
    high = low[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - low[64]])
    with reverts(Revert.ECDSA_INVALID_S):
        committee.is_signed(DIGEST, low + high + signed(SECOND))


@pytest.mark.parametrize("signature", [bytes(65), bytes(64) + b"\x1b", b"\xff" * 32 + bytes(33)])
def test_unrecoverable_signature_is_refused(committee: Any, signature: bytes) -> None:
    with reverts(Revert.ECDSA_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, signature + signed(SECOND, THIRD))


@pytest.mark.parametrize("length", [1, 64, 66, 194, 196, 2_079])
def test_signatures_that_are_not_65_bytes_each_are_refused(committee: Any, length: int) -> None:
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES):
        committee.is_signed(DIGEST, (signed(FIRST, SECOND, THIRD) * 22)[:length])


def test_more_signatures_than_a_committee_can_have_are_no_valid_call(committee: Any) -> None:
    with reverts(None):
        committee.is_signed(DIGEST, signed(FIRST) * 33)


def test_more_signatures_than_members_are_refused(committee: Any) -> None:
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_SORTED):
        committee.is_signed(DIGEST, signed(*MEMBERS, FIFTH))


def test_signatures_over_another_digest_are_refused(committee: Any) -> None:
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        committee.is_signed(keccak(text="another"), signed(FIRST, SECOND, THIRD))


@pytest.mark.parametrize("threshold", [0, 6, 2**256 - 1])
def test_threshold_is_from_one_to_the_number_of_members(threshold: int) -> None:
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        create([member.address for member in MEMBERS], threshold)


@pytest.mark.parametrize("threshold", [0, 1])
def test_committee_of_nobody_is_refused(threshold: int) -> None:
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        create([], threshold)


@pytest.mark.parametrize(
    "members",
    [
        [SECOND.address, FIRST.address],
        [FIRST.address, FIRST.address],
        [FIRST.address, THIRD.address, SECOND.address],
        [ZERO_ADDRESS, FIRST.address],
        [ZERO_ADDRESS],
    ],
    ids=["unsorted", "twice", "last unsorted", "zero among members", "zero alone"],
)
def test_members_are_sorted_distinct_and_not_zero(members: list[str]) -> None:
    with reverts(Revert.COMMITTEE_MEMBERS_NOT_SORTED):
        create(members, 1)


def test_committee_of_one_signs_alone() -> None:
    alone = create([FIRST.address], 1)
    assert alone.is_signed(DIGEST, signed(FIRST)) is True
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        alone.is_signed(DIGEST, signed(SECOND))


def test_greatest_committee_signs_to_the_last_member() -> None:
    many = sorted((actor(f"operator {i}") for i in range(64)), key=lambda a: int(a.address, 16))
    _, (addresses, threshold) = creation([member.address for member in many], 32)
    greatest = create(addresses, threshold)
    last = many[32:]
    assert greatest.is_signed(DIGEST, signed(*last)) is True
    with reverts(Revert.COMMITTEE_TOO_FEW_SIGNATURES):
        greatest.is_signed(DIGEST, signed(*last[:-1]))
    with reverts(Revert.COMMITTEE_SIGNATURES_NOT_SORTED):
        greatest.is_signed(DIGEST, signed(*last[:-1], many[0]))


def test_no_more_need_sign_than_signatures_fit_into_a_call() -> None:
    many = sorted((actor(f"operator {i}").address for i in range(33)), key=lambda a: int(a, 16))
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        create(many, 33)
    with pytest.raises(InvalidInput, match="at most 32"):
        creation(many, 33)


def test_one_member_more_than_the_greatest_committee_has_is_no_valid_call() -> None:
    many = sorted((actor(f"operator {i}").address for i in range(65)), key=lambda a: int(a, 16))
    with reverts(None):
        create(many, 1)


@settings(max_examples=40)
@given(st.data())
def test_contract_and_sdk_agree_on_who_signed(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12), "members")
    threshold = data.draw(st.integers(1, count), "threshold")
    people = sorted(
        (actor(f"operator {i}") for i in range(count)), key=lambda a: int(a.address, 16)
    )
    model = EcdsaCommittee(members=tuple(m.address for m in people), threshold=threshold)
    contract = create(list(model.members), threshold)
    signers = data.draw(
        st.lists(st.sampled_from(people), min_size=threshold, unique=True), "signers"
    )
    digest = data.draw(st.binary(min_size=32, max_size=32), "digest")
    joined = join_signatures(model, {s.address: sign_digest(digest, s.key) for s in signers})
    assert contract.is_signed(digest, joined) is True
    names = {signer.address for signer in signers}
    expected = [member for member in model.members if member in names][:threshold]
    assert signers_of(model, digest, joined) == tuple(expected)

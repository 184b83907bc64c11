"""A committee of either scheme, and its members' signatures as one."""

from collections.abc import Callable
from functools import cache

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from pydantic import TypeAdapter, ValidationError

from settlement.bls import BlsSigner
from settlement.committee import (
    BlsCommittee,
    Committee,
    EcdsaCommittee,
    TooFewSignatures,
    check_signature,
    creation,
    join_signatures,
    signers_of,
)
from settlement.eip712 import sign_digest
from settlement.errors import InvalidInput, InvalidSignature

CHAIN = 31_337
DIGEST = keccak(text="digest")


@cache
def account(name: str) -> LocalAccount:
    made: LocalAccount = Account.from_key(keccak(text=name))
    return made


@cache
def signer(name: str) -> BlsSigner:
    return BlsSigner(keccak(text=name))


ACCOUNTS = sorted((account(f"member {i}") for i in range(4)), key=lambda a: int(a.address, 16))
SIGNERS = sorted((signer(f"member {i}") for i in range(4)), key=lambda s: s.public.key)
ECDSA = EcdsaCommittee(members=tuple(a.address for a in ACCOUNTS), threshold=2)
BLS = BlsCommittee(members=tuple(s.public for s in SIGNERS), threshold=2)
BOTH = pytest.mark.parametrize("committee", [ECDSA, BLS], ids=["ecdsa", "bls"])


def sign(committee: Committee, *places: int, digest: bytes = DIGEST) -> dict[str, bytes]:
    """Signatures of members by their place."""
    if isinstance(committee, BlsCommittee):
        return {committee.ids[i]: SIGNERS[i].sign(digest, CHAIN) for i in places}
    return {committee.ids[i]: sign_digest(digest, ACCOUNTS[i].key) for i in places}


@BOTH
@pytest.mark.parametrize("places", [(0, 1), (3, 1), (2, 3), (3, 2, 1, 0)])
def test_members_signatures_become_the_committees(
    committee: Committee, places: tuple[int, ...]
) -> None:
    joined = join_signatures(committee, sign(committee, *places))
    signed = [committee.ids[place] for place in sorted(places)]
    # more than must sign cost gas with ECDSA, and save it with BLS
    expected = signed if isinstance(committee, BlsCommittee) else signed[:2]
    assert signers_of(committee, DIGEST, joined) == tuple(expected)
    assert len(joined) == (224 if isinstance(committee, BlsCommittee) else 130)


@BOTH
@pytest.mark.parametrize("places", [(), (1,)])
def test_too_few_signatures_are_none(committee: Committee, places: tuple[int, ...]) -> None:
    with pytest.raises(TooFewSignatures) as caught:
        join_signatures(committee, sign(committee, *places))
    assert (caught.value.found, caught.value.threshold) == (len(places), 2)
    assert not caught.value.final


def test_too_few_signers_are_told_from_what_was_joined() -> None:
    for committee in (ECDSA, BLS):
        alone = committee.model_copy(update={"threshold": 1})
        joined = join_signatures(alone, sign(alone, 2))
        with pytest.raises(TooFewSignatures) as caught:
            signers_of(committee, DIGEST, joined)
        assert (caught.value.found, caught.value.threshold) == (1, 2)


@BOTH
def test_strangers_signature_is_refused(committee: Committee) -> None:
    stranger = account("thief").address if committee is ECDSA else signer("thief").public.id
    (signature,) = sign(committee, 0).values()
    with pytest.raises(InvalidSignature, match=f"not members of the committee: {stranger}"):
        join_signatures(committee, {**sign(committee, 0, 1), stranger: signature})
    with pytest.raises(InvalidSignature, match=f"{stranger} is not a member"):
        check_signature(committee, DIGEST, stranger, signature)


@BOTH
def test_signature_is_checked_against_its_member(committee: Committee) -> None:
    first, second = committee.ids[:2]
    (signature,) = sign(committee, 0).values()
    check_signature(committee, DIGEST, first, signature)
    for digest, member in ((DIGEST, second), (keccak(text="another"), first)):
        with pytest.raises(InvalidSignature, match=f"the signature is not by {member}"):
            check_signature(committee, digest, member, signature)


@pytest.mark.parametrize("length", [0, 64, 66])
def test_ecdsa_signature_is_65_bytes(length: int) -> None:
    with pytest.raises(InvalidSignature, match="65 bytes"):
        join_signatures(ECDSA, sign(ECDSA, 0, 1) | {ECDSA.ids[1]: bytes(length)})


def test_bls_signature_is_64_bytes() -> None:
    with pytest.raises(InvalidSignature, match="64 bytes, not 65"):
        join_signatures(BLS, sign(BLS, 0, 1) | {BLS.ids[1]: bytes(65)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda both: both[1] + both[0], "not sorted"),
        (lambda both: both[0] + both[0], "not sorted"),
        (lambda both: both[0] + sign_digest(DIGEST, account("thief").key), "not a member"),
        (lambda both: b"".join(both)[:-1], "65 bytes each"),
    ],
    ids=["unsorted", "twice", "stranger", "cut"],
)
def test_joined_ecdsa_signatures_are_told_as_the_contract_tells_them(
    change: Callable[[list[bytes]], bytes], message: str
) -> None:
    with pytest.raises(InvalidSignature, match=message):
        signers_of(ECDSA, DIGEST, change(list(sign(ECDSA, 0, 1).values())))


@BOTH
def test_signatures_over_another_digest_are_nobodys(committee: Committee) -> None:
    joined = join_signatures(committee, sign(committee, 0, 1))
    with pytest.raises(InvalidSignature):
        signers_of(committee, keccak(text="another"), joined)


@BOTH
def test_committee_goes_through_json(committee: Committee) -> None:
    adapter: TypeAdapter[Committee] = TypeAdapter(Committee)
    assert adapter.validate_json(committee.model_dump_json()) == committee


@BOTH
@pytest.mark.parametrize(
    ("places", "threshold", "message"),
    [
        ((1, 0), 1, "sorted"),
        ((0, 0), 1, "sorted"),
        ((0, 1), 3, "the threshold is 3, of 2 members"),
        ((0, 1), 0, "greater than 0"),
        ((), 1, "at least 1 item"),
    ],
)
def test_what_the_contract_would_refuse_is_no_committee(
    committee: Committee, places: tuple[int, ...], threshold: int, message: str
) -> None:
    members = tuple(committee.members[place] for place in places)
    with pytest.raises(ValidationError, match=message):
        type(committee)(members=members, threshold=threshold)  # type: ignore[arg-type]


def test_creation_sorts_members_of_either_kind() -> None:
    addresses = [a.address for a in reversed(ACCOUNTS)]
    assert creation(addresses, 3) == ("EcdsaCommittee", (list(ECDSA.members), 3))
    name, (members, threshold) = creation([s.prove() for s in reversed(SIGNERS)], 4)
    assert (name, threshold) == ("BlsCommittee", 4)
    assert [len(part) for part in members[0]] == [2, 4, 2]
    xs = [int.from_bytes(s.public.key[:32], "big") for s in SIGNERS]
    assert [key[0] for key, _, _ in members] == xs


@pytest.mark.parametrize("threshold", [0, 5])
def test_creation_refuses_a_threshold_out_of_range(threshold: int) -> None:
    for members in ([a.address for a in ACCOUNTS], [s.prove() for s in SIGNERS]):
        with pytest.raises(InvalidInput, match="no committee"):
            creation(members, threshold)


def test_creation_refuses_members_twice_or_of_both_kinds() -> None:
    first = SIGNERS[0].prove()
    with pytest.raises(InvalidInput, match="no committee"):
        creation([first, first], 1)
    with pytest.raises(InvalidInput, match="all addresses or all BLS keys"):
        creation([first, ACCOUNTS[0].address], 1)  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="no committee"):
        creation([], 1)
    with pytest.raises(InvalidInput, match="no committee"):
        creation(["nobody"], 1)

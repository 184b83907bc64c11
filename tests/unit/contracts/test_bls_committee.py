"""The committee that signs by BLS: who is admitted to it, and what counts as its signature."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from typing import Any

import boa
import pytest
from boa.util.abi import Address
from boa.vm.py_evm import deregister_raw_precompile, register_raw_precompile
from eth.exceptions import VMError
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc.optimized_bn128 import (
    FQ,
    FQ2,
    G1,
    G2,
    add,
    b2,
    curve_order,
    field_modulus,
    is_inf,
    is_on_curve,
    multiply,
    neg,
    normalize,
)
from world import actor, deploy, reverts

from settlement.bls import (
    PROOF_DOMAIN,
    SIGNATURE_DOMAIN,
    BlsKey,
    BlsMember,
    BlsSigner,
    hash_to_g1,
    key_digest,
)
from settlement.committee import BlsCommittee, creation, join_signatures, signers_of
from settlement.reverts import Revert

CHAIN = 31_337
DIGEST = keccak(text="digest")
ADD, MULTIPLY, PAIRING, POWER = 6, 7, 8, 5


@cache
def signer(name: str) -> BlsSigner:
    return BlsSigner(bytes(actor(name).key))


def people(count: int) -> list[BlsSigner]:
    """Operators in a committee's order."""
    return sorted((signer(f"operator {i}") for i in range(count)), key=lambda s: s.public.key)


MEMBERS = people(4)
THRESHOLD = 2
MODEL = BlsCommittee(members=tuple(m.public for m in MEMBERS), threshold=THRESHOLD)


def create(members: Sequence[BlsMember], threshold: int) -> Any:
    """A committee of members in the given order."""
    values = [tuple(words(part) for part in (m.key, m.twin, m.proof)) for m in members]
    return deploy("BlsCommittee", values, threshold, sender=actor("deployer").address)


def words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32))


def g1(data: bytes) -> Any:
    x, y = words(data)
    return FQ(x), FQ(y), FQ.one()


def g2(data: bytes) -> Any:
    x_imaginary, x_real, y_imaginary, y_real = words(data)
    return FQ2([x_real, x_imaginary]), FQ2([y_real, y_imaginary]), FQ2.one()


def packed(point: Any) -> bytes:
    """A point of either group as the contract takes it."""
    parts = [
        part
        for coordinate in normalize(point)
        for part in (reversed(coordinate.coeffs) if isinstance(coordinate, FQ2) else [coordinate])
    ]
    return b"".join(int(part).to_bytes(32, "big") for part in parts)


def hashed(data: bytes) -> int:
    return int.from_bytes(keccak(data), "big") % curve_order


def summed(points: Sequence[Any]) -> Any:
    return reduce(add, points)


def plus(data: bytes, place: int, amount: int) -> bytes:
    """Bytes with one of their words changed."""
    changed = [word + amount * (at == place) for at, word in enumerate(words(data))]
    return b"".join(word.to_bytes(32, "big") for word in changed)


def root(value: int) -> int | None:
    found = pow(value, (field_modulus + 1) // 4, field_modulus)
    return found if found * found % field_modulus == value % field_modulus else None


def outside_the_group() -> bytes:
    """A point of the twist's curve that is not in the group of BN254's order."""
    half = pow(2, -1, field_modulus)
    for x in range(1, 100):
        square = FQ2([x, 0]) * FQ2([x, 0]) * FQ2([x, 0]) + b2
        real, imaginary = (int(part) for part in square.coeffs)
        norm = root(real * real + imaginary * imaginary)
        if norm is None:
            continue
        for sign in (norm, -norm):
            y_real = root((real + sign) * half % field_modulus)
            if y_real:
                y_imaginary = imaginary * half * pow(y_real, -1, field_modulus) % field_modulus
                point = (FQ2([x, 0]), FQ2([y_real, y_imaginary]), FQ2.one())
                assert is_on_curve(point, b2)
                assert not is_inf(multiply(point, curve_order))
                return packed(point)
    raise AssertionError("no such point")


def signed(*signers: BlsSigner, digest: bytes = DIGEST) -> bytes:
    """What the committee of `MEMBERS` takes, whether enough signed or not."""
    everybody = MODEL.model_copy(update={"threshold": 0})
    return join_signatures(everybody, {s.public.id: s.sign(digest, CHAIN) for s in signers})


@contextmanager
def precompile(number: int, behaviour: Callable[[Any], Any]) -> Iterator[None]:
    """An EVM in which a precompile behaves otherwise."""
    place = Address(f"0x{number:040x}")
    register_raw_precompile(place, behaviour)
    try:
        yield
    finally:
        deregister_raw_precompile(place)


def missing(computation: Any) -> Any:
    """As at an address where nothing is."""
    return computation


def failing(computation: Any) -> Any:
    raise VMError("refuses everything")


@pytest.fixture(scope="module")
def committee() -> Iterator[Any]:
    with boa.env.anchor():
        yield create([member.prove() for member in MEMBERS], THRESHOLD)


def test_it_says_what_it_is(committee: Any) -> None:
    assert committee.scheme() == "bls"
    assert (committee.size(), committee.threshold()) == (4, 2)
    expected = [(words(m.public.key), words(m.public.twin)) for m in MEMBERS]
    assert [(tuple(key), tuple(twin)) for key, twin in committee.members()] == expected


@pytest.mark.parametrize("absent", range(16))
def test_just_the_quorums_among_all_subsets_sign(committee: Any, absent: int) -> None:
    signers = [member for place, member in enumerate(MEMBERS) if not absent >> place & 1]
    if len(signers) >= THRESHOLD:
        assert committee.is_signed(DIGEST, signed(*signers)) is True
        return
    few = signed(*signers) if signers else signed(*MEMBERS)[:-1] + b"\x0f"
    with reverts(Revert.COMMITTEE_TOO_FEW_SIGNATURES):
        committee.is_signed(DIGEST, few)


@pytest.mark.parametrize("absent", range(1, 16))
def test_who_signed_cannot_be_given_out_for_others(committee: Any, absent: int) -> None:
    """Signatures of all four count for no other set of signers."""
    with reverts(
        Revert.COMMITTEE_TOO_FEW_SIGNATURES
        if absent.bit_count() > 2
        else Revert.COMMITTEE_INVALID_SIGNATURE
    ):
        committee.is_signed(DIGEST, signed(*MEMBERS)[:-1] + bytes([absent]))


def test_member_does_not_count_twice(committee: Any) -> None:
    """One member's doubled signature and twin are not those of two."""
    one = signed(MEMBERS[0])
    doubled = packed(multiply(g1(one[:64]), 2)) + packed(multiply(g2(one[64:192]), 2))
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, doubled + (0b1100).to_bytes(32, "big"))


@pytest.mark.parametrize("absent", [1 << 4, 1 << 4 | 1, 1 << 255, 2**256 - 1])
def test_absent_is_a_member(committee: Any, absent: int) -> None:
    with reverts(Revert.COMMITTEE_ABSENT_IS_NOT_A_MEMBER):
        committee.is_signed(DIGEST, signed(*MEMBERS)[:192] + absent.to_bytes(32, "big"))


@pytest.mark.parametrize("length", [0, 1, 65, 192, 223, 225, 448, 2_080])
def test_signature_of_another_length_is_refused(committee: Any, length: int) -> None:
    with reverts(Revert.COMMITTEE_SIGNATURE_NOT_OF_224_BYTES):
        committee.is_signed(DIGEST, (signed(*MEMBERS) * 19)[:length])


def test_signature_over_another_digest_is_refused(committee: Any) -> None:
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(keccak(text="another"), signed(*MEMBERS))


def test_negated_signature_is_refused(committee: Any) -> None:
    good = signed(*MEMBERS)
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, packed(neg(g1(good[:64]))) + good[64:])


def test_negated_signature_and_twin_are_refused(committee: Any) -> None:
    """They fit each other, and no longer the members' keys."""
    good = signed(*MEMBERS)
    negated = packed(neg(g1(good[:64]))) + packed(neg(g2(good[64:192])))
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, negated + good[192:])


@pytest.mark.parametrize("place", range(6))
def test_coordinate_has_one_form(committee: Any, place: int) -> None:
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, plus(signed(*MEMBERS), place, field_modulus))


@pytest.mark.parametrize("place", range(6))
def test_point_off_its_curve_is_refused(committee: Any, place: int) -> None:
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, plus(signed(*MEMBERS), place, 1))


@pytest.mark.parametrize(
    ("start", "end"), [(0, 64), (64, 192), (0, 192)], ids=["signature", "twin", "both"]
)
def test_infinity_signs_nothing(committee: Any, start: int, end: int) -> None:
    good = signed(*MEMBERS)
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, good[:start] + bytes(end - start) + good[end:])


def test_twin_outside_the_group_is_refused(committee: Any) -> None:
    good = signed(*MEMBERS)
    stray = packed(add(g2(good[64:192]), g2(outside_the_group())))
    for twin in (outside_the_group(), stray):
        with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
            committee.is_signed(DIGEST, good[:64] + twin + good[192:])


def test_strangers_signature_with_its_own_twin_is_refused(committee: Any) -> None:
    thief = signer("thief")
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(
            DIGEST, thief.sign(DIGEST, CHAIN) + thief.public.twin + signed(*MEMBERS)[192:]
        )


@pytest.mark.parametrize("guess", ["nothing", "one", "all but the signature", "given alone"])
def test_one_equation_cannot_make_up_for_the_other(committee: Any, guess: str) -> None:
    """Whoever knew the factor before choosing a signature could forge one for any keys."""
    secret, twin = 7, multiply(G2, 7)
    total = summed([g1(member.public.key) for member in MEMBERS])
    key, point = packed(total), g1(hash_to_g1(SIGNATURE_DOMAIN, DIGEST))
    known = {
        "nothing": 0,
        "one": 1,
        "all but the signature": hashed(SIGNATURE_DOMAIN + DIGEST + key + packed(twin)),
        "given alone": hashed(SIGNATURE_DOMAIN + DIGEST),
    }
    factor = known[guess]
    left = multiply(add(point, multiply(G1, factor)), secret)
    forged = packed(add(left, neg(multiply(total, factor))))
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(DIGEST, forged + packed(twin) + bytes(32))


def test_proof_is_no_signature_and_signature_no_proof() -> None:
    """Neither serves as the other, even where the message is the same."""
    alone = signer("operator 0")
    member = alone.prove()
    digest = key_digest(member)
    committee = create([member], 1)
    with reverts(Revert.COMMITTEE_INVALID_SIGNATURE):
        committee.is_signed(digest, member.proof + member.twin + bytes(32))
    with reverts(Revert.COMMITTEE_KEY_IS_NOT_PROVEN):
        create([member.model_copy(update={"proof": alone.sign(digest, CHAIN)})], 1)


def test_rogue_key_cannot_be_admitted() -> None:
    """A key that cancels the others' out would let its maker sign for all."""
    honest, thief = people(2), signer("thief")
    key = packed(add(g1(thief.public.key), neg(summed([g1(m.public.key) for m in honest]))))
    twin = packed(add(g2(thief.public.twin), neg(summed([g2(m.public.twin) for m in honest]))))
    rogue = BlsKey(key=key, twin=twin)
    digest = key_digest(rogue)
    # all that can be signed for it: by the thief's secret, by its own other key, by an honest one
    for proof in (
        packed(multiply(g1(hash_to_g1(PROOF_DOMAIN, digest)), 7)),
        thief.prove().proof,
        honest[0].prove().proof,
        thief._sign(PROOF_DOMAIN, digest),
    ):
        members = [m.prove() for m in honest] + [BlsMember(key=key, twin=twin, proof=proof)]
        with reverts(Revert.COMMITTEE_KEY_IS_NOT_PROVEN):
            create(sorted(members, key=lambda m: m.key), 3)


FIRST, SECOND = (member.prove() for member in MEMBERS[:2])


@pytest.mark.parametrize(
    "changes",
    [
        {"proof": SECOND.proof},
        {"proof": FIRST.key},
        {"proof": packed(neg(g1(FIRST.proof)))},
        {"proof": bytes(64)},
        {"proof": plus(FIRST.proof, 0, field_modulus)},
        {"proof": plus(FIRST.proof, 1, 1)},
        {"twin": SECOND.twin},
        {"twin": packed(neg(g2(FIRST.twin)))},
        {"twin": bytes(128)},
        {"twin": outside_the_group()},
        {"twin": packed(add(g2(FIRST.twin), g2(outside_the_group())))},
        {"twin": plus(FIRST.twin, 3, 1)},
        {"twin": plus(FIRST.twin, 0, field_modulus)},
        {"key": SECOND.key},
        {"key": packed(neg(g1(FIRST.key)))},
        {"key": bytes(64)},
        {"key": plus(FIRST.key, 1, 1)},
        {"key": plus(FIRST.key, 0, field_modulus)},
        {"key": bytes(64), "twin": bytes(128)},
        {"key": bytes(64), "twin": bytes(128), "proof": bytes(64)},
        {"key": SECOND.key, "proof": SECOND.proof},
        {"twin": SECOND.twin, "proof": SECOND.proof},
    ],
    ids=[
        "proof of another",
        "key as proof",
        "proof negated",
        "proof at infinity",
        "proof beyond the field",
        "proof off the curve",
        "twin of another",
        "twin negated",
        "twin at infinity",
        "twin outside the group",
        "twin with a part outside the group",
        "twin off the curve",
        "twin beyond the field",
        "key of another",
        "key negated",
        "key at infinity",
        "key off the curve",
        "key beyond the field",
        "key and twin at infinity",
        "all at infinity",
        "another's key and proof",
        "another's twin and proof",
    ],
)
def test_only_a_proven_key_is_admitted(changes: dict[str, bytes]) -> None:
    with reverts(Revert.COMMITTEE_KEY_IS_NOT_PROVEN):
        create([FIRST.model_copy(update=changes)], 1)


@pytest.mark.parametrize("part", ["key", "twin"])
def test_key_is_proven_in_both_groups(part: str) -> None:
    """A proof over the mixed pair by the secret of either half is not enough."""
    one, two = MEMBERS[:2]
    mixed = BlsKey(key=one.public.key, twin=two.public.twin)
    owner = one if part == "key" else two
    proof = owner._sign(PROOF_DOMAIN, key_digest(mixed))
    with reverts(Revert.COMMITTEE_KEY_IS_NOT_PROVEN):
        create([BlsMember(key=mixed.key, twin=mixed.twin, proof=proof)], 1)


@pytest.mark.parametrize("places", [(1, 0), (0, 0), (0, 2, 1), (1, 1, 2)])
def test_members_are_sorted_and_distinct(places: tuple[int, ...]) -> None:
    with reverts(Revert.COMMITTEE_MEMBERS_NOT_SORTED):
        create([MEMBERS[place].prove() for place in places], 1)


def test_key_and_its_negative_are_not_both_members() -> None:
    """Both have the same x; together they would add up to nothing."""
    secret = MEMBERS[0]._scalar
    negated = BlsKey(
        key=packed(multiply(G1, curve_order - secret)),
        twin=packed(multiply(G2, curve_order - secret)),
    )
    point = g1(hash_to_g1(PROOF_DOMAIN, key_digest(negated)))
    proof = packed(multiply(point, curve_order - secret))
    member = BlsMember(key=negated.key, twin=negated.twin, proof=proof)
    assert create([member], 1).size() == 1
    with reverts(Revert.COMMITTEE_MEMBERS_NOT_SORTED):
        create([FIRST, member], 1)


@pytest.mark.parametrize("threshold", [0, 3, 2**256 - 1])
def test_threshold_is_from_one_to_the_number_of_members(threshold: int) -> None:
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        create([FIRST, SECOND], threshold)


@pytest.mark.parametrize("threshold", [0, 1])
def test_committee_of_nobody_is_refused(threshold: int) -> None:
    with reverts(Revert.COMMITTEE_THRESHOLD_OUT_OF_RANGE):
        create([], threshold)


def test_one_member_more_than_the_greatest_committee_has_is_no_valid_call() -> None:
    with reverts(None):
        create([FIRST] * 81, 1)


@pytest.mark.parametrize("behaviour", [missing, failing])
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (POWER, Revert.COMMITTEE_NO_POINT_FOR_THIS_DIGEST),
        (PAIRING, Revert.COMMITTEE_INVALID_SIGNATURE),
    ],
)
def test_nothing_is_signed_where_a_precompile_is_missing(
    committee: Any, number: int, reason: Revert, behaviour: Callable[[Any], Any]
) -> None:
    good = signed(*MEMBERS)
    # what fails has no reason to pass on
    expected = None if number == POWER and behaviour is failing else reason
    with precompile(number, behaviour), reverts(expected):
        committee.is_signed(DIGEST, good)
    assert committee.is_signed(DIGEST, good) is True


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (ADD, Revert.COMMITTEE_PRECOMPILE_IS_MISSING),
        (MULTIPLY, Revert.COMMITTEE_PRECOMPILE_IS_MISSING),
        (POWER, Revert.COMMITTEE_NO_POINT_FOR_THIS_DIGEST),
        (PAIRING, Revert.COMMITTEE_KEY_IS_NOT_PROVEN),
    ],
)
def test_no_committee_is_created_where_a_precompile_is_missing(number: int, reason: Revert) -> None:
    with precompile(number, missing), reverts(reason):
        create([FIRST], 1)


@settings(max_examples=200)
@given(st.binary(min_size=32, max_size=32))
def test_contract_and_sdk_hash_to_the_same_point(committee: Any, digest: bytes) -> None:
    assert tuple(committee.message_point(digest)) == words(hash_to_g1(SIGNATURE_DOMAIN, digest))


@settings(max_examples=5)
@given(st.data())
def test_contract_and_sdk_agree_on_who_signed(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4), "members")
    threshold = data.draw(st.integers(1, count), "threshold")
    everybody = people(count)
    model = BlsCommittee(members=tuple(m.public for m in everybody), threshold=threshold)
    signers = data.draw(
        st.lists(st.sampled_from(everybody), min_size=threshold, unique_by=id), "signers"
    )
    digest = data.draw(st.binary(min_size=32, max_size=32), "digest")
    joined = join_signatures(model, {s.public.id: s.sign(digest, CHAIN) for s in signers})
    name, arguments = creation([m.prove() for m in reversed(everybody)], threshold)
    with boa.env.anchor():
        contract = deploy(name, *arguments, sender=actor("deployer").address)
        assert contract.is_signed(digest, joined) is True
    names = {s.public.id for s in signers}
    assert signers_of(model, digest, joined) == tuple(m for m in model.ids if m in names)

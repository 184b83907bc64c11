"""BLS keys, proofs, signatures and their sum, without a chain."""

from functools import cache

import pytest
from eth_account import Account
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc.bn128 import G1 as PLAIN_G1
from py_ecc.bn128 import G2 as PLAIN_G2
from py_ecc.bn128 import is_on_curve as plain_is_on_curve
from py_ecc.bn128 import multiply as plain_multiply
from py_ecc.bn128 import pairing as plain_pairing
from py_ecc.fields import bn128_FQ as PlainFQ
from py_ecc.fields import bn128_FQ2 as PlainFQ2
from py_ecc.optimized_bn128 import curve_order, field_modulus

from settlement.bls import (
    PROOF_DOMAIN,
    SIGNATURE_DOMAIN,
    BlsKey,
    BlsMember,
    BlsSigner,
    aggregate,
    check_member,
    check_signature,
    hash_to_g1,
    key_digest,
    signers_of,
)
from settlement.errors import InvalidInput, InvalidSignature
from settlement.signer import KNOWN_ACCOUNTS, KnownKeyRefused

CHAIN = 31_337
DIGEST = keccak(text="digest")
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
# of the mnemonic "test test … junk"
KNOWN_SECRET = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")

# on the twist's curve with x = 1, and not in the group of BN254's order
OUTSIDE = b"".join(
    value.to_bytes(32, "big")
    for value in (
        0,
        1,
        0x0D1271953ED9EA0836846E70A1934187998C7F790CB4D7511B7F8DA82DE048A4,
        0x2869111D5381F072F8E2728FDB825A51AADD70E52C9830E9AB4B871C0531F1BB,
    )
)
KEY_OF_MEMBER_0 = (
    "04498ad1407ed0cf4080d9c494c6c29278f40a19609c8c76286acffc5f6841f8"
    "25723c4b4c1ce942c2fd97a2711970ad69e9a2ad6bd42441caa445cb9c8ddab5"
)

digests = st.binary(min_size=32, max_size=32)


@cache
def signer(name: str) -> BlsSigner:
    return BlsSigner(keccak(text=name))


MEMBERS = sorted((signer(f"member {i}") for i in range(4)), key=lambda s: s.public.key)
KEYS = [member.public for member in MEMBERS]


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]


def signed(*signers: BlsSigner, digest: bytes = DIGEST) -> dict[str, bytes]:
    return {s.public.id: s.sign(digest, CHAIN) for s in signers}


def test_keys_and_signatures_are_what_the_curve_says() -> None:
    """By py_ecc's other, affine arithmetic, from the secret and the published equations."""
    one = MEMBERS[0]
    x, y = words(one.public.key)
    assert plain_multiply(PLAIN_G1, one._scalar) == (PlainFQ(x), PlainFQ(y))
    x_imaginary, x_real, y_imaginary, y_real = words(one.public.twin)
    twin = (PlainFQ2([x_real, x_imaginary]), PlainFQ2([y_real, y_imaginary]))
    assert plain_multiply(PLAIN_G2, one._scalar) == twin
    signature = tuple(PlainFQ(part) for part in words(one.sign(DIGEST, CHAIN)))
    point = tuple(PlainFQ(part) for part in words(hash_to_g1(SIGNATURE_DOMAIN, DIGEST)))
    assert plain_pairing(PLAIN_G2, signature) == plain_pairing(twin, point)


def test_secret_gives_the_same_key_for_ever() -> None:
    """A changed derivation would lock a committee out."""
    assert signer("member 0").public.key.hex() == KEY_OF_MEMBER_0


def test_secrets_give_distinct_keys_within_the_order() -> None:
    scalars = {signer(f"member {i}")._scalar for i in range(20)}
    assert len(scalars) == 20
    assert all(0 < scalar < curve_order for scalar in scalars)


@pytest.mark.parametrize(
    "secret",
    [b"", bytes(31), bytes(33), bytes(32), word(SECP256K1_ORDER), b"\xff" * 32],
    ids=["nothing", "short", "long", "zero", "the order", "above the order"],
)
def test_what_is_no_private_key_is_no_secret(secret: bytes) -> None:
    with pytest.raises(InvalidInput, match="a secret is 32 bytes") as caught:
        BlsSigner(secret)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_signer_shows_no_secret() -> None:
    one = MEMBERS[0]
    assert repr(one) == f"BlsSigner({one.public.id})"
    assert str(one._scalar) not in f"{one!r}{one}"


@pytest.mark.parametrize("chain_id", [1, 137, 80_002])
def test_known_secret_signs_nothing_where_money_is_real(chain_id: int) -> None:
    known = BlsSigner(KNOWN_SECRET)
    assert known.address in KNOWN_ACCOUNTS
    with pytest.raises(KnownKeyRefused) as caught:
        known.sign(DIGEST, chain_id)
    assert (caught.value.address, caught.value.chain_id) == (known.address, chain_id)
    check_signature(DIGEST, known.sign(DIGEST, CHAIN), known.public)
    check_signature(DIGEST, MEMBERS[0].sign(DIGEST, chain_id), KEYS[0])


def test_address_is_that_of_the_secret_as_a_private_key() -> None:
    assert signer("member 0").address == Account.from_key(keccak(text="member 0")).address


@given(digests)
def test_digest_hashes_to_a_point_that_depends_on_the_domain(digest: bytes) -> None:
    found = {hash_to_g1(domain, digest) for domain in (SIGNATURE_DOMAIN, PROOF_DOMAIN)}
    assert len(found) == 2
    for x, y in map(words, found):
        assert plain_is_on_curve((PlainFQ(x), PlainFQ(y)), PlainFQ(3))
        # the root that is a square itself
        assert pow(y, (field_modulus - 1) // 2, field_modulus) == 1


@pytest.mark.parametrize(("domain", "message"), [(31, 32), (32, 31), (33, 31), (0, 64)])
def test_domain_and_message_are_32_bytes_each(domain: int, message: int) -> None:
    with pytest.raises(InvalidInput, match="32 bytes each"):
        hash_to_g1(bytes(domain), bytes(message))


def test_member_proves_its_key() -> None:
    for member in MEMBERS:
        check_member(member.prove())
        assert member.prove().public == member.public


@pytest.mark.parametrize("part", ["key", "twin", "proof"])
def test_another_members_part_proves_nothing(part: str) -> None:
    one, two = (member.prove() for member in MEMBERS[:2])
    with pytest.raises(InvalidSignature, match="proof of possession"):
        check_member(one.model_copy(update={part: getattr(two, part)}))


def test_signature_over_its_own_key_is_no_proof() -> None:
    one = MEMBERS[0]
    signature = one.sign(key_digest(one.public), CHAIN)
    with pytest.raises(InvalidSignature, match="proof of possession"):
        check_member(BlsMember(key=one.public.key, twin=one.public.twin, proof=signature))


def test_signature_is_of_its_member_over_its_digest() -> None:
    one, two = MEMBERS[:2]
    signature = one.sign(DIGEST, CHAIN)
    check_signature(DIGEST, signature, one.public)
    for digest, key in ((keccak(text="another"), one.public), (DIGEST, two.public)):
        with pytest.raises(InvalidSignature, match="not by 0x"):
            check_signature(digest, signature, key)


def negated(signature: bytes) -> bytes:
    x, y = words(signature)
    return word(x) + word(field_modulus - y)


GOOD = MEMBERS[0].sign(DIGEST, CHAIN)
X, Y = words(GOOD)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (b"", "64 bytes, not 0"),
        (GOOD[:63], "64 bytes, not 63"),
        (GOOD + b"\0", "64 bytes, not 65"),
        (bytes(64), "not on BN254's curve in G1"),
        (word(X) + word(Y + 1), "not on BN254's curve in G1"),
        (word(X + field_modulus) + word(Y), "not below the order"),
        (word(X) + word(Y + field_modulus), "not below the order"),
        (negated(GOOD), "not by 0x"),
    ],
    ids=["nothing", "short", "long", "infinity", "off", "x again", "y again", "negated"],
)
def test_malformed_signature_is_refused(signature: bytes, message: str) -> None:
    with pytest.raises(InvalidSignature, match=message):
        check_signature(DIGEST, signature, KEYS[0])


@pytest.mark.parametrize(
    ("twin", "message"),
    [
        (bytes(128), "not on BN254's curve in G2"),
        (b"\xff" * 128, "not below the order"),
        (OUTSIDE, "not in the group"),
    ],
    ids=["infinity", "beyond the field", "outside the group"],
)
def test_malformed_twin_is_refused(twin: bytes, message: str) -> None:
    key = BlsKey(key=KEYS[0].key, twin=twin)
    with pytest.raises(InvalidSignature, match=message):
        check_signature(DIGEST, GOOD, key)


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_key_is_64_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="key"):
        BlsKey(key=bytes(length), twin=KEYS[0].twin)


def test_keys_and_members_go_through_json() -> None:
    member = MEMBERS[0].prove()
    assert BlsMember.model_validate_json(member.model_dump_json()) == member
    assert member.id == "0x" + member.key.hex()


@pytest.mark.parametrize("absent", range(15))
def test_sum_says_who_signed(absent: int) -> None:
    signers = [member for place, member in enumerate(MEMBERS) if not absent >> place & 1]
    joined = aggregate(KEYS, signed(*signers))
    assert len(joined) == 224
    assert int.from_bytes(joined[-32:], "big") == absent
    assert signers_of(KEYS, DIGEST, joined) == tuple(s.public.id for s in signers)


def test_sum_does_not_depend_on_the_order_of_signatures() -> None:
    given_ = signed(*MEMBERS)
    assert aggregate(KEYS, dict(reversed(given_.items()))) == aggregate(KEYS, given_)


def test_sum_needs_a_signer_and_no_stranger() -> None:
    with pytest.raises(InvalidSignature, match="nobody signed"):
        aggregate(KEYS, {})
    with pytest.raises(InvalidSignature, match=f"not members: {signer('thief').public.id}"):
        aggregate(KEYS, signed(MEMBERS[0], signer("thief")))


def test_signatures_that_cancel_out_are_no_sum() -> None:
    first, second = (member.public.id for member in MEMBERS[:2])
    with pytest.raises(InvalidSignature, match="infinity"):
        aggregate(KEYS, {first: GOOD, second: negated(GOOD)})


def test_one_invalid_signature_spoils_the_sum() -> None:
    spoilt = signed(*MEMBERS) | {KEYS[0].id: MEMBERS[1].sign(DIGEST, CHAIN)}
    with pytest.raises(InvalidSignature, match="not by these members"):
        signers_of(KEYS, DIGEST, aggregate(KEYS, spoilt))


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (word(1), "not by these members"),
        (word(16), "absent is not a member"),
        (word(15), "nobody signed"),
        (word(0) + b"\0", "224 bytes"),
        (b"", "224 bytes"),
    ],
)
def test_sum_with_another_end_is_refused(end: bytes, message: str) -> None:
    with pytest.raises(InvalidSignature, match=message):
        signers_of(KEYS, DIGEST, aggregate(KEYS, signed(*MEMBERS))[:192] + end)


@settings(max_examples=5)
@given(digests, st.data())
def test_any_members_sign_any_digest_and_nothing_else(digest: bytes, data: st.DataObject) -> None:
    signers = data.draw(st.lists(st.sampled_from(MEMBERS), min_size=1, unique_by=id))
    joined = aggregate(KEYS, signed(*signers, digest=digest))
    names = {s.public.id for s in signers}
    assert signers_of(KEYS, digest, joined) == tuple(k.id for k in KEYS if k.id in names)
    with pytest.raises(InvalidSignature, match="not by these members"):
        signers_of(KEYS, keccak(digest), joined)

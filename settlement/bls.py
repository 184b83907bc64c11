"""BLS signatures on BN254 for large committees: keys, proofs of possession, signing, aggregating.

The twin of `contracts/modules/bn254.vy` and `contracts/BlsCommittee.vy`; tests compare the two. All
coordinates are 32-byte big-endian words below the field's order, imaginary parts first (EIP-197):

- a key, a signature, a proof: a point of G1, 64 bytes x, y;
- a key's twin, the same secret in G2: 128 bytes x imaginary, x real, y imaginary, y real;
- a committee's signatures: 224 bytes, the signers' signatures in one, their twins in one, and a
  32-byte word with a bit, from the lowest, for each member that did not sign.

The point at infinity is none of them. The arithmetic is py_ecc's and takes a time that depends on
the secret: sign where nobody who is not trusted with the key can measure it.

Sources: EIP-196, EIP-197; Boneh, Lynn and Shacham, "Short signatures from the Weil pairing" (2001);
proofs of possession: Ristenpart and Yilek, "The power of proofs-of-possession" (2007).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from typing import Annotated

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_account import Account
from eth_utils import keccak
from py_ecc.optimized_bn128 import (
    FQ,
    FQ2,
    FQ12,
    G1,
    G2,
    add,
    b,
    b2,
    curve_order,
    field_modulus,
    final_exponentiate,
    is_inf,
    is_on_curve,
    multiply,
    neg,
    normalize,
    pairing,
)
from pydantic import BeforeValidator, Field, PlainSerializer

from settlement.errors import InvalidInput, InvalidSignature
from settlement.signer import refuse_known_key
from settlement.types import Frozen, parse_bytes, to_hex

SIGNATURE_DOMAIN = keccak(text="rapha.committee.bls.signature.v1")
"""Put before a digest that a member signs."""
PROOF_DOMAIN = keccak(text="rapha.committee.bls.proof.v1")
"""Put before a key that proves itself, so that no proof is ever a signature."""

POINT_BYTES, TWIN_BYTES, SIGNATURES_BYTES = 64, 128, 224

_SALT, _SECRET_BYTES = b"rapha.committee.bls.secret.v1", 48
_TRIES = 128

_G1 = tuple[FQ, FQ, FQ]
_G2 = tuple[FQ2, FQ2, FQ2]

_as_hex = PlainSerializer(to_hex, return_type=str, when_used="json")
PointBytes = Annotated[
    bytes,
    BeforeValidator(parse_bytes),
    Field(min_length=POINT_BYTES, max_length=POINT_BYTES),
    _as_hex,
]
TwinBytes = Annotated[
    bytes,
    BeforeValidator(parse_bytes),
    Field(min_length=TWIN_BYTES, max_length=TWIN_BYTES),
    _as_hex,
]


class BlsKey(Frozen):
    """A member's public key: 64 bytes in G1, and its twin, 128 bytes in G2."""

    key: PointBytes
    twin: TwinBytes

    @property
    def id(self) -> str:
        """How the member is called: the key in G1 as 0x-hex."""
        return to_hex(self.key)


class BlsMember(BlsKey):
    """A public key with its proof of possession: what a new committee is made of."""

    proof: PointBytes

    @property
    def public(self) -> BlsKey:
        """The key without the proof."""
        return BlsKey(key=self.key, twin=self.twin)


class BlsSigner:
    """A member's secret key.

    It is derived from a 32-byte secret by HKDF-SHA256 (RFC 5869) to 384 bits modulo the groups'
    order. The secret is a private key such as `LocalSigner` takes, so an operator may keep one file
    for both schemes: from neither key can the other be told.

    Raises:
        InvalidInput: for a secret that is not 32 bytes from 1 to below the order of secp256k1.
    """

    def __init__(self, secret: bytes) -> None:
        try:
            self.address = str(Account.from_key(secret).address)
        except ValueError:  # not chained: the cause would carry the secret
            raise InvalidInput("a secret is 32 bytes, as of a secp256k1 private key") from None
        wide = HKDF(SHA256(), length=_SECRET_BYTES, salt=_SALT, info=b"").derive(secret)
        # 0 would be infinity; that it is hit, or that the remainder shows, is one case in 2^128
        self._scalar = int.from_bytes(wide, "big") % (curve_order - 1) + 1

    @cached_property
    def public(self) -> BlsKey:
        """The key that belongs to it."""
        return BlsKey(
            key=_g1_bytes(multiply(G1, self._scalar)), twin=_g2_bytes(multiply(G2, self._scalar))
        )

    def __repr__(self) -> str:
        return f"BlsSigner({self.public.id})"

    def prove(self) -> BlsMember:
        """The public key with a proof that this is its secret, good for any committee."""
        proof = self._sign(PROOF_DOMAIN, key_digest(self.public))
        return BlsMember(key=self.public.key, twin=self.public.twin, proof=proof)

    def sign(self, digest: bytes, chain_id: int) -> bytes:
        """A 64-byte signature over a 32-byte EIP-712 digest for contracts on a chain.

        Raises:
            KnownKeyRefused: when everybody knows the secret, and money is real on that chain.
        """
        refuse_known_key(self.address, chain_id)
        return self._sign(SIGNATURE_DOMAIN, digest)

    def _sign(self, domain: bytes, message: bytes) -> bytes:
        return _g1_bytes(multiply(_g1(hash_to_g1(domain, message)), self._scalar))


def hash_to_g1(domain: bytes, message: bytes) -> bytes:
    """The point of G1, 64 bytes, for a 32-byte message in a 32-byte domain.

    Its x is the first of keccak256(domain ‖ message ‖ counter) modulo the field's order, with the
    counter, a 32-byte word, from 0 on, that has a y; its y is the one that is itself a square.

    Raises:
        InvalidInput: when domain or message is not 32 bytes, or no counter below 128 gives a point,
            which happens to one message in 2^128.
    """
    if len(domain) != 32 or len(message) != 32:
        raise InvalidInput("a domain and a message are 32 bytes each")
    for counter in range(_TRIES):
        x = int.from_bytes(keccak(domain + message + _word(counter)), "big") % field_modulus
        square = (pow(x, 3, field_modulus) + 3) % field_modulus
        y = pow(square, (field_modulus + 1) // 4, field_modulus)
        if y * y % field_modulus == square:
            return _word(x) + _word(y)
    raise InvalidInput("no counter gives a point for this message")


def key_digest(key: BlsKey) -> bytes:
    """What a proof of possession signs: keccak-256 of key and twin, 192 bytes."""
    return keccak(key.key + key.twin)


def check_member(member: BlsMember) -> None:
    """Let a member pass whose key is well-formed and proven.

    Raises:
        InvalidSignature: when key or twin is no point of its group, the two are not of one secret,
            or the proof is not by that secret.
    """
    if not _is_signed(PROOF_DOMAIN, key_digest(member), member.proof, member):
        raise InvalidSignature(f"the proof of possession is not by the secret of {member.id}")


def check_signature(digest: bytes, signature: bytes, key: BlsKey) -> None:
    """Let one member's 64-byte signature over a 32-byte digest pass.

    Raises:
        InvalidSignature: when it is malformed or not by that key's secret over that digest.
    """
    if not _is_signed(SIGNATURE_DOMAIN, digest, signature, key):
        raise InvalidSignature(f"the signature is not by {key.id} over this digest")


def aggregate(members: Sequence[BlsKey], signatures: Mapping[str, bytes]) -> bytes:
    """The 224 bytes that `BlsCommittee` takes.

    `members` are all of the committee in its order, `signatures` those that signed, by
    `BlsKey.id`. Whether each signature is valid is not asked: one invalid one spoils the whole.

    Raises:
        InvalidSignature: when nobody signed, somebody who is not a member did, or a signature is
            not a point.
    """
    ids = [member.id for member in members]
    strangers = signatures.keys() - set(ids)
    if strangers:
        raise InvalidSignature(f"not members: {', '.join(sorted(strangers))}")
    if not signatures:
        raise InvalidSignature("nobody signed")
    points = [_g1(signature) for signature in signatures.values()]
    twins = [_g2(member.twin) for member in members if member.id in signatures]
    absent = sum(1 << place for place, name in enumerate(ids) if name not in signatures)
    return _g1_bytes(reduce(add, points)) + _g2_bytes(reduce(add, twins)) + _word(absent)


def signers_of(members: Sequence[BlsKey], digest: bytes, signatures: bytes) -> tuple[str, ...]:
    """Who signed a digest, by the 224 bytes of `aggregate`: `BlsKey.id` in the committee's order.

    Raises:
        InvalidSignature: when the bytes are malformed, or are not by just those members.
    """
    if len(signatures) != SIGNATURES_BYTES:
        raise InvalidSignature(f"a BLS committee's signatures are {SIGNATURES_BYTES} bytes")
    absent = int.from_bytes(signatures[-32:], "big")
    if absent >> len(members):
        raise InvalidSignature("somebody absent is not a member")
    signers = [member for place, member in enumerate(members) if not absent >> place & 1]
    if not signers:
        raise InvalidSignature("nobody signed")
    whole = BlsKey(
        key=_g1_bytes(reduce(add, [_g1(member.key) for member in signers])),
        twin=signatures[POINT_BYTES : POINT_BYTES + TWIN_BYTES],
    )
    if not _is_signed(SIGNATURE_DOMAIN, digest, signatures[:POINT_BYTES], whole):
        raise InvalidSignature("the signatures are not by these members over this digest")
    return tuple(member.id for member in signers)


def _is_signed(domain: bytes, message: bytes, signature: bytes, key: BlsKey) -> bool:
    """e(signature, G2) = e(hash, twin) and e(key, G2) = e(G1, twin), in one product of pairings.

    The second equation comes in times a factor that depends on everything given, as on chain.
    """
    point, public, twin = _g1(signature), _g1(key.key), _g2(key.twin)
    if not is_inf(multiply(twin, curve_order)):
        raise InvalidSignature("the twin is not in the group of BN254's order in G2")
    given = keccak(domain + message + signature + key.key + key.twin)
    factor = int.from_bytes(given, "big") % curve_order
    left = add(point, multiply(public, factor))
    right = add(_g1(hash_to_g1(domain, message)), multiply(G1, factor))
    product = pairing(neg(G2), left, final_exponentiate=False) * pairing(
        twin, right, final_exponentiate=False
    )
    return bool(final_exponentiate(product) == FQ12.one())


def _g1(data: bytes) -> _G1:
    x, y = _coordinates(data, POINT_BYTES)
    point = (FQ(x), FQ(y), FQ.one())
    if not is_on_curve(point, b):
        raise InvalidSignature("the coordinates are not on BN254's curve in G1")
    return point


def _g2(data: bytes) -> _G2:
    x_imaginary, x_real, y_imaginary, y_real = _coordinates(data, TWIN_BYTES)
    point = (FQ2([x_real, x_imaginary]), FQ2([y_real, y_imaginary]), FQ2.one())
    if not is_on_curve(point, b2):
        raise InvalidSignature("the coordinates are not on BN254's curve in G2")
    return point


def _coordinates(data: bytes, length: int) -> list[int]:
    if len(data) != length:
        raise InvalidSignature(f"a point is {length} bytes, not {len(data)}")
    words = [int.from_bytes(data[at : at + 32], "big") for at in range(0, length, 32)]
    if any(word >= field_modulus for word in words):
        raise InvalidSignature("a coordinate is not below the order of BN254's field")
    return words


def _g1_bytes(point: _G1) -> bytes:
    if is_inf(point):
        raise InvalidSignature("keys or signatures add up to infinity")
    x, y = normalize(point)
    return _word(int(x)) + _word(int(y))


def _g2_bytes(point: _G2) -> bytes:
    if is_inf(point):
        raise InvalidSignature("twins add up to infinity")
    return b"".join(_word(int(part)) for c in normalize(point) for part in reversed(c.coeffs))


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")

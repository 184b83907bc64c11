"""The TPM 2.0 structures that attestation uses, read strictly.

Source: TCG, Trusted Platform Module Library, Part 2: Structures. All integers are big-endian.
Reading proves nothing: `oracle.attestation.tpm.quote` checks signatures.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from oracle.attestation.errors import NotATpmQuote, NotTpmGenerated
from oracle.attestation.tpm.reader import Reader

MAGIC = 0xFF544347
"""TPM_GENERATED_VALUE: all that a TPM attests begins with it, and nothing else that it signs."""

PCR_COUNT = 24
"""The PCRs of a PC Client TPM."""

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_ATTEST_QUOTE = 0x8018
_NULL = 0x0010
_RSA = 0x0001
_ECC = 0x0023
_AES = 0x0006
_CFB = 0x0043
_RSA_BITS = (2048, 3072, 4096)
_RSA_EXPONENT = 65_537
_PCR_BITMAP = PCR_COUNT // 8


class Bank(StrEnum):
    """A hash algorithm, which also names a bank of PCRs."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def algorithm_id(self) -> int:
        """TPM_ALG_ID."""
        return _ALGORITHM_IDS[self]

    @property
    def size(self) -> int:
        """The digest's length in bytes."""
        return _HASHES[self].digest_size

    @property
    def hash(self) -> hashes.HashAlgorithm:
        """The same as `cryptography` names it."""
        return _HASHES[self]

    def digest(self, data: bytes) -> bytes:
        """The hash of `data`."""
        return hashlib.new(self.value, data).digest()


_ALGORITHM_IDS = {Bank.SHA1: 0x0004, Bank.SHA256: 0x000B, Bank.SHA384: 0x000C, Bank.SHA512: 0x000D}
_HASHES: dict[Bank, hashes.HashAlgorithm] = {
    Bank.SHA1: hashes.SHA1(),  # noqa: S303 - the bank of old event logs; no signature uses it
    Bank.SHA256: hashes.SHA256(),
    Bank.SHA384: hashes.SHA384(),
    Bank.SHA512: hashes.SHA512(),
}
BANKS = {identifier: bank for bank, identifier in _ALGORITHM_IDS.items()}
"""The banks by TPM_ALG_ID."""

Selection = Mapping[Bank, frozenset[int]]
"""PCRs by bank."""


def selection_text(selection: Selection) -> str:
    """A selection as people write it, such as ``sha256:8,9``."""
    banks = [f"{bank}:{','.join(map(str, sorted(pcrs)))}" for bank, pcrs in selection.items()]
    return "+".join(banks) or "nothing"


class Scheme(IntEnum):
    """Signature schemes (TPM_ALG_ID)."""

    RSASSA = 0x0014
    RSAPSS = 0x0016
    ECDSA = 0x0018


@dataclass(frozen=True)
class SigningScheme:
    """How a key signs."""

    scheme: Scheme
    bank: Bank

    def __str__(self) -> str:
        return f"{self.scheme.name} with {self.bank}"


class Attributes(IntFlag):
    """TPMA_OBJECT: what a TPM promises about a key."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_ALL_ATTRIBUTES = sum(Attributes)


@dataclass(frozen=True)
class PublicArea:
    """A key's public area (TPMT_PUBLIC), of which `raw` is the encoding.

    `bank` is the hash of its name. `aes_bits` is set for keys that protect others.
    """

    raw: bytes
    bank: Bank
    attributes: Attributes
    aes_bits: int | None
    scheme: SigningScheme | None
    key: PublicKey

    @property
    def name(self) -> bytes:
        """What TPMs call the key: the hash's identifier, then the hash of the public area."""
        return self.bank.algorithm_id.to_bytes(2, "big") + self.bank.digest(self.raw)


@dataclass(frozen=True)
class AttestedQuote:
    """What a TPM attested (TPMS_ATTEST of a quote), not yet believed.

    `clock` is in milliseconds of the TPM's running time; it and the counters are only comparable
    while `reset_count` stands still, and `safe` says that no later clock value was ever reported.
    `selection` is in the quote's own order, in which `pcr_digest` was taken.
    """

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selection: dict[Bank, frozenset[int]]
    pcr_digest: bytes


@dataclass(frozen=True)
class TpmSignature:
    """A signature (TPMT_SIGNATURE): `parts` are the RSA signature, or r and s."""

    scheme: SigningScheme
    parts: tuple[bytes, ...]


def parse_public(data: bytes) -> PublicArea:
    """Read a TPM2B_PUBLIC with an RSA (2048, 3072, 4096) or ECC (P-256, P-384) key.

    Raises:
        TpmTrailingBytes: when bytes follow it.
        TpmMalformed: for every other deviation from the format, and for unsupported algorithms.
    """
    outer = Reader(data, "TPM2B_PUBLIC")
    raw = outer.sized("public area")
    outer.finish()

    area = Reader(raw, "TPMT_PUBLIC")
    kind = area.integer(2, "type")
    if kind not in (_RSA, _ECC):
        raise area.malformed(f"key type {kind:#06x} is not supported")
    bank = _hash(area, "name algorithm")
    attributes = area.integer(4, "attributes")
    if attributes & ~_ALL_ATTRIBUTES:
        raise area.malformed(f"attributes {attributes:#010x} have unknown bits")
    if len(area.sized("policy")) not in (0, bank.size):
        raise area.malformed("the policy is not a digest by the name algorithm")
    aes_bits = _symmetric(area)
    scheme = _key_scheme(area, kind)
    key: PublicKey = _rsa_key(area) if kind == _RSA else _ecc_key(area)
    area.finish()
    return PublicArea(raw, bank, Attributes(attributes), aes_bits, scheme, key)


def parse_attest(data: bytes) -> AttestedQuote:
    """Read a TPMS_ATTEST that is a quote.

    Raises:
        NotTpmGenerated: when the magic value is missing.
        NotATpmQuote: when something else was attested.
        TpmTrailingBytes: when bytes follow it.
        TpmMalformed: for every other deviation from the format.
    """
    attest = Reader(data, "TPMS_ATTEST")
    magic = attest.integer(4, "magic")
    if magic != MAGIC:
        raise NotTpmGenerated(magic)
    kind = attest.integer(2, "type")
    if kind != _ATTEST_QUOTE:
        raise NotATpmQuote(kind)
    qualified_signer = attest.sized("qualified signer")
    extra_data = attest.sized("extra data")
    clock = attest.integer(8, "clock")
    reset_count = attest.integer(4, "reset count")
    restart_count = attest.integer(4, "restart count")
    safe = attest.integer(1, "safe")
    if safe > 1:
        raise attest.malformed(f"safe is {safe}, which is neither yes nor no")
    firmware_version = attest.integer(8, "firmware version")
    selection = _selection(attest)
    pcr_digest = attest.sized("PCR digest")
    attest.finish()
    return AttestedQuote(
        qualified_signer=qualified_signer,
        extra_data=extra_data,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
        firmware_version=firmware_version,
        selection=selection,
        pcr_digest=pcr_digest,
    )


def parse_signature(data: bytes) -> TpmSignature:
    """Read a TPMT_SIGNATURE.

    Raises:
        TpmTrailingBytes: when bytes follow it.
        TpmMalformed: for every other deviation from the format, and for unsupported algorithms.
    """
    signature = Reader(data, "TPMT_SIGNATURE")
    scheme = _scheme(signature, signature.integer(2, "algorithm"))
    fields = ("r", "s") if scheme.scheme is Scheme.ECDSA else ("signature",)
    parts = tuple(signature.sized(field) for field in fields)
    signature.finish()
    return TpmSignature(scheme, parts)


def _hash(reader: Reader, field: str) -> Bank:
    identifier = reader.integer(2, field)
    bank = BANKS.get(identifier)
    if bank is None:
        raise reader.malformed(f"{field} {identifier:#06x} is not supported")
    return bank


def _scheme(reader: Reader, identifier: int) -> SigningScheme:
    if identifier not in tuple(Scheme):
        raise reader.malformed(f"scheme {identifier:#06x} is not supported")
    return SigningScheme(Scheme(identifier), _hash(reader, "scheme hash"))


def _key_scheme(area: Reader, kind: int) -> SigningScheme | None:
    identifier = area.integer(2, "scheme")
    if identifier == _NULL:
        return None
    scheme = _scheme(area, identifier)
    if (scheme.scheme is Scheme.ECDSA) != (kind == _ECC):
        raise area.malformed(f"scheme {scheme.scheme.name} is not one of the key's type")
    return scheme


def _symmetric(area: Reader) -> int | None:
    algorithm = area.integer(2, "symmetric algorithm")
    if algorithm == _NULL:
        return None
    bits, mode = area.integer(2, "symmetric key bits"), area.integer(2, "symmetric mode")
    if algorithm != _AES or bits not in (128, 256) or mode != _CFB:
        raise area.malformed(
            f"symmetric algorithm {algorithm:#06x} of {bits} bits in mode {mode:#06x} "
            "is not supported"
        )
    return bits


def _rsa_key(area: Reader) -> rsa.RSAPublicKey:
    bits = area.integer(2, "key bits")
    exponent = area.integer(4, "exponent") or _RSA_EXPONENT
    modulus = area.sized("modulus")
    if bits not in _RSA_BITS or exponent != _RSA_EXPONENT:
        raise area.malformed(f"RSA key of {bits} bits with exponent {exponent} is not supported")
    number = int.from_bytes(modulus, "big")
    if len(modulus) * 8 != bits or number.bit_length() != bits or number % 2 == 0:
        raise area.malformed(f"the modulus is not one of {bits} bits")
    return rsa.RSAPublicNumbers(exponent, number).public_key()


def _ecc_key(area: Reader) -> ec.EllipticCurvePublicKey:
    identifier = area.integer(2, "curve")
    kdf = area.integer(2, "KDF")
    x, y = area.sized("x"), area.sized("y")
    curve = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}.get(identifier)
    if curve is None or kdf != _NULL:
        raise area.malformed(f"curve {identifier:#06x} with KDF {kdf:#06x} is not supported")
    if max(len(x), len(y)) * 8 > curve.key_size:
        raise area.malformed("a coordinate is longer than the curve's")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    )
    try:
        return numbers.public_key()
    except ValueError as error:
        raise area.malformed("the point is not on the curve") from error


def _selection(attest: Reader) -> dict[Bank, frozenset[int]]:
    selection: dict[Bank, frozenset[int]] = {}
    for _ in range(attest.integer(4, "selection count")):
        bank = _hash(attest, "PCR bank")
        size = attest.integer(1, "PCR bitmap size")
        if size != _PCR_BITMAP:
            raise attest.malformed(f"a PCR bitmap has {size} bytes, not {_PCR_BITMAP}")
        if bank in selection:
            raise attest.malformed(f"bank {bank} is selected twice")
        bitmap = int.from_bytes(attest.take(size, "PCR bitmap"), "little")
        selection[bank] = frozenset(pcr for pcr in range(PCR_COUNT) if bitmap >> pcr & 1)
    return selection
